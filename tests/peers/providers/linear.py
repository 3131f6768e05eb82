"""Linear's GraphQL API as its reference and its public schema tell.

Schema: https://github.com/linear/linear/blob/master/packages/sdk/src/schema.graphql
Errors: https://github.com/linear/linear/blob/master/packages/sdk/src/error.ts
Limits: https://linear.app/developers/rate-limiting
"""

import json
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx

from tests.peers.providers.refusals import Fake, Objects, RefusedError
from tests.peers.providers.tokens import Tokens

QUERY = re.compile(
    r"query\(\$first: Int!, \$after: String(?P<declared>, \$since: DateTimeOrDuration!)?\) \{ "
    r"found: (?P<list>\w+)\(first: \$first, after: \$after(?P<arguments>[^)]*)\) "
    r"\{ nodes (?P<fields>\{.+\}) pageInfo \{ hasNextPage endCursor \} \} \}"
)
SINCE = ", orderBy: updatedAt, filter: {updatedAt: {gte: $since}}"
ARGUMENTS = {"users": ", includeArchived: true, includeDisabled: true"}
FIELDS = {
    "issues": (
        "id identifier number title description descriptionState priority priorityLabel "
        "prioritySortOrder estimate sortOrder subIssueSortOrder branchName url dueDate labelIds "
        "previousIdentifiers customerTicketCount trashed createdAt updatedAt startedAt "
        "startedTriageAt triagedAt completedAt canceledAt archivedAt autoArchivedAt autoClosedAt "
        "snoozedUntilAt addedToTeamAt addedToCycleAt addedToProjectAt reactionData slaStartedAt "
        "slaType"
    ),
    "users": (
        "id name displayName email avatarUrl avatarBackgroundColor description active admin owner "
        "guest app timezone title statusEmoji statusLabel statusUntilAt lastSeen initials isMe "
        "url createdAt updatedAt archivedAt"
    ),
    "comments": (
        "id body bodyData url quotedText createdAt updatedAt archivedAt editedAt resolvedAt "
        "issueId parentId projectId projectUpdateId initiativeId documentContentId "
        "resolvingCommentId reactionData hideInLinear"
    ),
    "projectMilestones": (
        "id name description targetDate sortOrder progress status createdAt updatedAt archivedAt"
    ),
    "webhooks": (
        "id label url enabled resourceTypes teamIds secret allPublicTeams createdAt updatedAt archivedAt"
    ),
}
"""Of the schema: those that are values, and those that are objects."""
OBJECTS = {
    "issues": "team state assignee creator delegate parent project projectMilestone cycle snoozedBy",
    "comments": "user issue parent project resolvingUser",
    "projectMilestones": "project",
    "webhooks": "team creator",
}


def refusal(kind: str, code: str) -> dict[str, Any]:
    return {"errors": [{"message": "no", "extensions": {"type": kind, "code": code}}], "data": None}


INVALID = refusal("graphql error", "GRAPHQL_VALIDATION_FAILED")


@dataclass
class Linear(Fake):
    """One workspace."""

    host: str = "api.linear.app"
    tokens: Tokens = field(
        default_factory=lambda: Tokens(rotates=True, says={"scope": "read"}, lasts_s=86399)
    )
    key: str = "lin_api_1"
    objects: Objects = field(default_factory=dict)
    selections: dict[str, str] = field(default_factory=dict)
    is_busy: bool = False
    trouble: str | None = None

    def fill(self, name: str, count: int) -> None:
        self.objects[name] = []
        for number in range(count):
            self.add(name, f"{name}-{number}")

    def add(self, name: str, upstream_id: str, updated: str = "2025-01-02T00:00:00.000Z") -> None:
        """An object with every field that the schema has; some hold nothing."""
        below = {"id": "other-1", "name": "n", "type": "t"}
        values = dict.fromkeys(FIELDS[name].split(), "value") | dict.fromkeys(("trashed", "archivedAt"))
        objects = dict.fromkeys(OBJECTS.get(name, "").split(), below) | {"parent": None}
        times = {"createdAt": "2025-01-01T00:00:00.000Z", "updatedAt": updated}
        self.objects[name].append(values | objects | times | {"id": upstream_id})

    def shown(self, name: str) -> dict[str, Any]:
        """By id, what is not in the trash, as it was asked for last."""
        alive = [each for each in self.objects[name] if not each.get("trashed")]
        return {each["id"]: selected(each, self.selections[name].split()) for each in alive}

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/oauth/token":
            return self.tokens.issue(request)
        if request.headers.get("authorization") != self.key:  # a key comes without a scheme
            self.tokens.check(request, 401, refusal("authentication error", "AUTHENTICATION_ERROR"))
        if (request.method, request.url.path) != ("POST", "/graphql"):
            raise RefusedError(404, {})
        if request.headers.get("content-type") != "application/json":
            raise RefusedError(400, refusal("graphql error", "BAD_REQUEST"))
        if self.is_busy:
            raise RefusedError(400, refusal("ratelimited", "RATELIMITED"))
        if self.trouble is not None:
            raise RefusedError(200, refusal(self.trouble, "TROUBLE"))
        asked = json.loads(request.content)
        if asked == {"query": "{ organization { id name } }"}:
            return httpx.Response(200, json={"data": {"organization": {"id": "org-1", "name": "CHOAM"}}})
        return httpx.Response(200, json={"data": {"found": self._found(asked)}})

    def _found(self, asked: dict[str, Any]) -> dict[str, Any]:
        read = QUERY.fullmatch(asked["query"])
        if read is None or read["list"] not in self.objects:
            raise RefusedError(400, INVALID)
        usual = ARGUMENTS.get(read["list"], ", includeArchived: true")
        if read["arguments"] != (usual + SINCE if read["declared"] else usual):
            raise RefusedError(400, INVALID)
        values: dict[str, Any] = asked.get("variables", {})
        if set(values) - {"first", "after"} != ({"since"} if read["declared"] else set()):
            raise RefusedError(400, INVALID)
        if not 1 <= values["first"] <= 250:
            raise RefusedError(400, refusal("invalid input", "INPUT_ERROR"))
        since = datetime.fromisoformat(values.get("since", "1970-01-01T00:00:00Z"))
        hits = [each for each in self.objects[read["list"]] if _moment(each["updatedAt"]) >= since]
        start = int(values.get("after", "at0").removeprefix("at"))
        some = hits[start : start + values["first"]]
        self.selections[read["list"]] = read["fields"][1:-1]
        more = {"hasNextPage": start + len(some) < len(hits), "endCursor": f"at{start + len(some)}"}
        return {"nodes": [selected(each, read["fields"][1:-1].split()) for each in some], "pageInfo": more}


def selected(thing: dict[str, Any], fields: list[str]) -> dict[str, Any]:
    """What a selection leaves of an object; consumes the selection."""
    chosen = dict[str, Any]()
    while fields and (name := fields.pop(0)) != "}":
        is_object = fields[:1] == ["{"]
        if name not in thing or is_object is not (name == "parent" or isinstance(thing[name], dict)):
            raise RefusedError(400, INVALID)
        chosen[name] = thing[name]
        if is_object:
            below = selected(thing[name] or {"id": ""}, fields[1:])
            del fields[: fields.index("}") + 1]
            chosen[name] = below if thing[name] else None
    return chosen


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
