"""What Stripe's own SDK changes reaches a consumer; benchmarks/shop.py does it at length."""

import logging

import pytest

from tests.e2e.conftest import NewMachine
from tests.e2e.following import Following, Plan

pytestmark = pytest.mark.e2e
log = logging.getLogger(__name__)  # --log-cli-level=INFO shows the figures

USUAL_LATENCY_S = 4.0


def test_the_consumer_ends_with_the_upstreams_state(new_machine: NewMachine) -> None:
    """Object by object what the SDK lists, whoever was killed; and soon, where events tell."""
    machine = new_machine()
    following = Following(machine, Plan(), f"sqlite:///{machine.home}/engine.db")

    outcome = following.run()

    log.info("%s", outcome)
    assert outcome.faults == []
    assert outcome.latency_s < USUAL_LATENCY_S
    assert set(outcome.states) == {"watching"}
    assert outcome.health == "healthy"
