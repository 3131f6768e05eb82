"""The operators' commands for organisations and their API tokens."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Annotated, Final
from uuid import UUID

import typer
from sqlmodel import col, select

from engine.access import AccessError, create_organization, find_organization, named
from engine.schema import open_database
from engine.settings import Settings
from engine.tables import ApiToken, Organization, Scope
from engine.tokens import hash_token, issue, revoke, tokens_of
from foundation.database import Database, utc_now

organisations = typer.Typer(help="Organisations: each sees only what is its own.", no_args_is_help=True)
tokens = typer.Typer(help="API tokens of an organisation.", no_args_is_help=True)

Of = Annotated[str, typer.Option("--organisation", help="its name or id")]
ORDINARY: Final = (Scope.READ, Scope.WRITE)


@organisations.command("create")
def create(name: str) -> None:
    """Create an organisation and print its id."""
    settings = Settings.from_environment()
    with _database(settings) as database, database.write() as session:
        if named(session, name) is not None:
            raise AccessError(f"there is an organisation {name!r} already")
        typer.echo(create_organization(session, settings.vault(), name).id)


@organisations.command("list")
def list_organisations() -> None:
    """List organisations: id and name."""
    with _database(Settings.from_environment()) as database, database.read() as session:
        for each in session.exec(select(Organization).order_by(col(Organization.created_at))):
            typer.echo(f"{each.id}  {each.name}")


@tokens.command("create")
def create_token(
    name: str,
    organisation: Of = "default",
    scope: Annotated[list[Scope] | None, typer.Option(help="may be repeated; read and write if none")] = None,
    days: Annotated[int | None, typer.Option(help="days until it expires", min=1, max=36_500)] = None,
) -> None:
    """Create a token and print it: this once, nobody can look it up later."""
    expires_at = None if days is None else utc_now() + timedelta(days=days)
    with _database(Settings.from_environment()) as database, database.write() as session:
        org_id = find_organization(session, organisation).id
        _, text = issue(session, org_id, name, scope or ORDINARY, expires_at)
    typer.echo(text)


@tokens.command("list")
def list_tokens(organisation: Of = "default") -> None:
    """List an organisation's tokens: id, state, scopes, last use, name."""
    settings = Settings.from_environment()
    configured = {hash_token(token.get_secret_value()) for token in settings.tokens}
    with _database(settings) as database, database.read() as session:
        for each in tokens_of(session, find_organization(session, organisation).id):
            state, scopes = state_of(each, configured), ",".join(each.scopes)
            last_used = f"{each.last_used_at:%Y-%m-%dT%H:%MZ}" if each.last_used_at else "never used"
            typer.echo(f"{each.id}  {state:7}  {scopes}  {last_used}  {each.name}")


@tokens.command("revoke")
def revoke_token(token_id: UUID) -> None:
    """Revoke a token; within some seconds no process takes it any more."""
    with _database(Settings.from_environment()) as database, database.write() as session:
        if not revoke(session, token_id):
            raise AccessError(f"there is no token {token_id} that could be revoked")
    typer.echo(f"revoked {token_id}")


def state_of(token: ApiToken, configured: Collection[str]) -> str:
    """Say in a word whether a token is still of use; `configured` are the hashes of the settings' tokens."""
    if token.revoked_at is not None:
        return "revoked"
    if token.from_settings and token.token_hash not in configured:
        return "unset"
    return "expired" if token.expires_at is not None and token.expires_at <= utc_now() else "valid"


@contextmanager
def _database(settings: Settings) -> Iterator[Database]:
    database = open_database(settings)
    try:
        yield database
    finally:
        database.dispose()
