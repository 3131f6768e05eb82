"""Credentials that connections share: a removal never takes one away that somebody has just imported."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from foundation.database import Database
from models import Connection, State, Step
from tests.support.rows import LONG_AGO, NOW, a_claim, added, stored
from worker.queue.verdict import Claim, Verdict
from worker.steps.shared import hold_back_released, release

IMPORTED = Verdict(
    did="captured",
    why="credential captured",
    move=State.CAPTURED,
    facts={"remote_credential_id": "cred_1", "sealed_credential": None},
)


def an_import(database: Database, **columns: Any) -> Claim:
    connection = added(database, **{"sealed_credential": "k.sealed"} | columns)
    return a_claim(connection, step=Step.CAPTURE, started_at=NOW)


def a_removal(database: Database, *, under_way: bool = True, **columns: Any) -> Connection:
    work = {"leased_until": NOW + timedelta(minutes=1)} if under_way else {}
    return added(database, state=State.REMOVING, remote_credential_id="cred_1", work=work, **columns)


def held_back(database: Database, claim: Claim, verdict: Verdict = IMPORTED) -> Verdict:
    with database.write() as session:
        ((_, checked),) = hold_back_released(session, [(claim, verdict)])
    return checked


def test_import_during_a_removal_is_repeated(database: Database) -> None:
    """While another connection's removal may be deleting this credential, its id is not believed."""
    a_removal(database)

    checked = held_back(database, an_import(database))

    assert checked.move is None
    assert checked.facts == {}, "the secret is kept, to be imported again"
    assert checked.is_retry
    assert checked.problem is not None
    assert checked.problem.code == "credential_released"


def test_import_before_a_removal_that_has_ended_is_repeated(database: Database) -> None:
    """A removal that ended since the import began may have deleted what was imported."""
    ended_at = NOW + timedelta(seconds=1)
    added(database, state=State.REMOVED, released_credential_id="cred_1", updated_at=ended_at)

    assert held_back(database, an_import(database)).move is None


@pytest.mark.parametrize("earlier_last", [True, False])
def test_earliest_import_of_a_batch_counts(database: Database, earlier_last: bool) -> None:
    """Two imports of one account in one batch: the removal ended after the first of them had begun."""
    added(database, state=State.REMOVED, released_credential_id="cred_1", updated_at=NOW)
    late = replace(an_import(database), started_at=NOW + timedelta(seconds=5))
    early = replace(an_import(database), started_at=NOW - timedelta(seconds=5))
    results = [(late, IMPORTED), (early, IMPORTED)] if earlier_last else [(early, IMPORTED), (late, IMPORTED)]

    with database.write() as session:
        checked = {c.connection_id: verdict for c, verdict in hold_back_released(session, results)}

    assert checked[early.connection_id].move is None


def test_removal_long_ago_holds_up_nothing(database: Database) -> None:
    """An import after the removal made the credential anew."""
    added(database, state=State.REMOVED, released_credential_id="cred_1", updated_at=LONG_AGO)

    assert held_back(database, an_import(database)) is IMPORTED


def test_removal_that_has_not_begun_holds_up_nothing(database: Database) -> None:
    """It will see the import when it begins, and keep the credential."""
    removal = a_removal(database, under_way=False)
    claim = an_import(database)

    assert held_back(database, claim) is IMPORTED

    added(database, state=State.CAPTURED, remote_credential_id="cred_1")
    assert not release(database, a_claim(removal), "cred_1")


def test_removal_of_another_account_holds_up_nothing(database: Database) -> None:
    """Only the same credential counts."""
    added(
        database,
        state=State.REMOVING,
        remote_credential_id="another",
        work={"leased_until": NOW + timedelta(minutes=1)},
    )

    assert held_back(database, an_import(database)) is IMPORTED


def test_named_credential_is_not_imported_again(database: Database) -> None:
    """There is no secret to import: the create finds out whether the credential is still there."""
    a_removal(database)

    assert held_back(database, an_import(database, sealed_credential=None)) is IMPORTED


@pytest.mark.parametrize(
    ("state", "shared"),
    [(State.READY, True), (State.CAPTURED, True), (State.FAILED, True), (State.REMOVING, False)],
)
def test_credential_is_shared_with_those_that_stay(database: Database, state: State, shared: bool) -> None:
    """What only connections use that go too need not stay."""
    claim = a_claim(a_removal(database))
    added(database, state=state, remote_credential_id="cred_1")

    assert release(database, claim, "cred_1") is not shared


def test_own_use_is_not_sharing(database: Database) -> None:
    """The connection that is removed does not keep its own credential."""
    assert release(database, a_claim(a_removal(database)), "cred_1")


@pytest.mark.parametrize("known", ["cred_1", None])
def test_credential_is_noted_before_it_is_deleted(database: Database, known: str | None) -> None:
    """An import that ends before the removal does finds the note, also where its id was never recorded."""
    lease = {"leased_until": NOW + timedelta(minutes=1)}
    removal = added(database, state=State.REMOVING, remote_credential_id=known, work=lease)

    assert release(database, a_claim(removal), "cred_1")

    assert stored(database, removal).released_credential_id == "cred_1"
    assert held_back(database, an_import(database)).move is None


def test_what_is_kept_is_not_noted(database: Database) -> None:
    """A credential that others use is not released, so nobody imports it again."""
    removal = a_removal(database)
    added(database, state=State.READY, remote_credential_id="cred_1")

    assert not release(database, a_claim(removal), "cred_1")

    assert stored(database, removal).released_credential_id is None
