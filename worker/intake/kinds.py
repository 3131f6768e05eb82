"""Does a credential belong to the provider it was sent for? Its kind may say that it does not."""

from collections.abc import Set

from worker.intake.events import AnyEvent, ConnectionWish, TenantDeleted

Fields = dict[str, list[str]]


def foreign_kinds(event: AnyEvent, providers: Set[str]) -> Fields:
    """The reasons to refuse credentials whose kind begins with the name of another known provider."""
    wishes = () if isinstance(event, TenantDeleted) else event.data.connections
    found = ((index, wish, _foreign_owner(wish, providers)) for index, wish in enumerate(wishes))
    return {
        f"data.connections.{index}.credential.properties": [
            f"kind: this is a credential of {owner}, and the connection is to {wish.provider}"
        ]
        for index, wish, owner in found
        if owner is not None
    }


def _foreign_owner(wish: ConnectionWish, providers: Set[str]) -> str | None:
    if wish.credential is None:
        return None
    owner = wish.credential.kind.partition("_")[0]
    # google_ads may use a kind google_oauth2, so a common beginning is no contradiction
    return owner if owner in providers and not wish.provider.startswith(owner) else None
