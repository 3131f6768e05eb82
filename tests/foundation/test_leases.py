"""Which of the held rows are renewed. That a thread does it is tested with the worker's."""

import threading
from collections.abc import Mapping
from uuid import UUID, uuid4

from foundation.leases import LeaseKeeper, Leases

ROW = uuid4()


def test_what_has_just_said_something_needs_no_renewal() -> None:
    """Storing a page renews the lease anyway."""
    leases = Leases()

    leases.hold({ROW: 1})

    assert leases.held() == {ROW: 1}
    assert leases.held(silent_for_s=60) == {}


def test_what_is_silent_for_too_long_is_given_up() -> None:
    """Something that is stuck does not keep its row for ever, until it moves again."""
    leases = Leases(silent_at_most_s=0)

    leases.hold({ROW: 1})

    assert leases.held() == {}


def test_only_the_claim_that_was_done_is_let_go() -> None:
    leases = Leases()
    leases.hold({ROW: 2})

    leases.let_go({ROW: 1, uuid4(): 2})
    assert leases.held() == {ROW: 2}

    leases.let_go({ROW: 2})
    assert leases.held() == {}


def test_renewing_goes_on_after_any_error() -> None:
    """What cannot be renewed now may be in a moment: the thread survives whatever is raised."""
    leases, renewed, errors = Leases(), threading.Event(), [OSError("no descriptors"), KeyError(ROW)]

    def renew(held: Mapping[UUID, int]) -> None:
        if errors:
            raise errors.pop()
        renewed.set()

    leases.hold({ROW: 1})
    keeper = LeaseKeeper(leases, renew, every_s=0.01)
    try:
        assert renewed.wait(10)
    finally:
        keeper.close()
