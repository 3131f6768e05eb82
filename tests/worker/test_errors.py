"""Errors: each says what it is, what to do, and survives a journey between processes."""

import pickle
from typing import Any

import pytest

from worker import errors
from worker.errors import ApiRejectedError, PermanentError, ProvisioningError, TransientError
from worker.queue.claims import ClaimLostError
from worker.steps.remove import CredentialKeptError
from worker.steps.update import SyncNotFoundError


def every(kind: type[ProvisioningError]) -> list[type[ProvisioningError]]:
    return [kind, *(each for child in kind.__subclasses__() for each in every(child))]


BASES = {ProvisioningError, TransientError, PermanentError}
RAISED = [kind for kind in dict.fromkeys(every(ProvisioningError)) if kind not in BASES]


def made(kind: type[ProvisioningError]) -> ProvisioningError:
    if issubclass(kind, TransientError):
        return kind("no answer", retry_after_s=3.5, may_have_happened=True)
    if issubclass(kind, ApiRejectedError):
        return kind(422, "no", {"name": ["too short"]})
    return kind("no")


def test_the_list_is_complete() -> None:
    """The errors of the tree and those that live beside their code are all looked at here."""
    assert {ClaimLostError, CredentialKeptError, SyncNotFoundError} <= set(RAISED)
    assert {name for name in vars(errors) if name.endswith("Error")} >= {k.__name__ for k in BASES}
    assert len(RAISED) >= 12


@pytest.mark.parametrize("kind", RAISED)
def test_each_error_has_code_and_advice(kind: type[ProvisioningError]) -> None:
    """Each has a code to search for that fits its column, and tells what to do."""
    assert kind.code
    assert kind.code != ProvisioningError.code
    assert len(kind.code) <= 64
    assert kind.advice.endswith(".")


def test_codes_tell_errors_apart() -> None:
    """Two kinds of trouble share a code only where one is a case of the other."""
    for one in RAISED:
        for other in RAISED:
            if one.code == other.code:
                assert issubclass(one, other) or issubclass(other, one)


@pytest.mark.parametrize("kind", RAISED)
def test_each_error_survives_pickle(kind: type[ProvisioningError]) -> None:
    """Kind, sentence and data are the same on the other side."""
    error = made(kind)

    back = pickle.loads(pickle.dumps(error))  # noqa: S301  # ours

    assert type(back) is kind
    assert (str(back), vars(back)) == (str(error), vars(error))


@pytest.mark.parametrize("kind", RAISED)
def test_each_error_is_transient_or_permanent(kind: type[ProvisioningError]) -> None:
    """Whoever catches one knows whether trying again may help."""
    assert issubclass(kind, TransientError) is not issubclass(kind, PermanentError)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (None, "no"),
        ({}, "no"),
        ({"a": ["b", "c"]}, "no (a: b, c)"),
        ({"a": {"b": ["c"], "d": {"e": 1}}}, "no (a: b: c, d: e: 1)"),
        ({"a": None}, "no (a: None)"),
    ],
)
def test_refusal_reads_as_a_sentence(fields: Any, said: str) -> None:
    """The reasons by field stand behind the summary, however they are nested."""
    assert str(ApiRejectedError(422, "no", fields)) == said
