"""Credentials that several connections share: imports of one upstream account get one id."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final

from sqlalchemy import and_, func, or_, select, update
from sqlmodel import Session, col

from foundation.database import Database
from models import AttemptOutcome, Connection, Lane, State, Step, Work
from worker.errors import CredentialReleasedError
from worker.queue.record import Result
from worker.queue.verdict import Claim, Problem, Verdict

IMPORT_AGAIN_IN: Final = timedelta(seconds=2)


def release(database: Database, claim: Claim, credential_id: str) -> bool:
    """Commit that this credential is about to be deleted; false if another connection that stays uses it.

    The note comes first, so that an import of the same account that ends meanwhile finds it.
    """
    others = select(func.count()).where(
        col(Connection.remote_credential_id) == credential_id,
        col(Connection.id) != claim.connection_id,
        col(Connection.state).not_in([State.REMOVING, State.REMOVED]),
    )
    mine = update(Connection).where(col(Connection.id) == claim.connection_id)
    with database.write() as session:
        if int(session.execute(others).scalar_one()) > 0:
            return False
        now = database.now(session)
        session.execute(mine.values(released_credential_id=credential_id, updated_at=now))
    return True


def hold_back_released(session: Session, results: Sequence[Result]) -> list[Result]:
    """Have credentials imported again that a removal may have deleted while they were being imported.

    A removal that began before this transaction does not see the import yet: it is under way, or it has
    ended since the import began.
    """
    captures = [
        (claim, str(verdict.facts["remote_credential_id"]))
        for claim, verdict in results
        if claim.step is Step.CAPTURE and "remote_credential_id" in verdict.facts
    ]
    if not captures:
        return list(results)
    imported = {credential_id for _, credential_id in captures}
    began_at = min(claim.started_at for claim, _ in captures)
    under_way = and_(
        or_(
            col(Connection.remote_credential_id).in_(list(imported)),
            col(Connection.released_credential_id).in_(list(imported)),
        ),
        col(Connection.state) == State.REMOVING,
        col(Work.leased_until).is_not(None),
    )
    ended = and_(
        col(Connection.released_credential_id).in_(list(imported)), col(Connection.updated_at) >= began_at
    )
    removals = (
        select(col(Connection.remote_credential_id), col(Connection.released_credential_id))
        .join(Work, and_(col(Work.connection_id) == col(Connection.id), col(Work.lane) == Lane.LIFECYCLE))
        .where(or_(under_way, ended))
    )
    released = {credential_id for row in session.execute(removals) for credential_id in row}
    return [(claim, _checked(claim, verdict, released)) for claim, verdict in results]


def _checked(claim: Claim, verdict: Verdict, released: set[str | None]) -> Verdict:
    if claim.step is not Step.CAPTURE or verdict.facts.get("remote_credential_id") not in released:
        return verdict
    if claim.sealed_credential is None:
        return verdict  # named by its id: there is nothing to import again
    error = CredentialReleasedError("another connection's removal was deleting this credential")
    return replace(
        verdict,
        did=f"to retry: {error.code}",
        why="to be tried again",
        move=None,
        wait=IMPORT_AGAIN_IN,
        facts={},
        problem=Problem(error.code, str(error), error.advice),
        outcome=AttemptOutcome.TRANSIENT,
    )
