"""Plans: the named templates that say which providers and what kind of sync a tenant gets."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from worker.errors import PlanError

DEFAULT_FILE: Final = Path(__file__).parent / "plans.toml"
WITHOUT_NUL: Final = r"^[^\x00]*$"
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
CollectionId = Annotated[str, Field(min_length=1, max_length=255, pattern=WITHOUT_NUL)]


class PlansError(Exception):
    """The plans file cannot be used. Names the file, the field and what was expected."""


class RateLimit(BaseModel):
    """A share of the provider's quota (contract 5.1): requests per interval of seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    allowed_requests: Count
    interval: Count
    max_concurrent_requests: Annotated[int, Field(ge=0, le=10_000)] = 0


class Wanted(BaseModel):
    """What may be wanted of a sync: in a plan, or in an event for one connection."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    collection_ids: Annotated[list[CollectionId], Field(max_length=1000)] | None = None
    stream_id: Annotated[str, Field(min_length=1, max_length=64, pattern=WITHOUT_NUL)] | None = None
    rate_limit: RateLimit | None = None
    max_age_days: Count | None = None
    """Whole days; null = no limit."""
    sync_frequency: Literal["continuous", "4h"] | None = None


class ProviderPlan(Wanted):
    """What a tenant of this plan gets for one provider."""

    stream: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")] | None = None
    """Slug of the stream to write to; it is created if it does not exist."""
    name: str = "{tenant} - {provider}"
    """Name of the sync; may use {tenant}, {provider} and {slot}."""

    @model_validator(mode="after")
    def _complete(self) -> "ProviderPlan":
        if not self.collection_ids:
            raise ValueError("collection_ids: expected at least one collection")
        if (self.stream is None) == (self.stream_id is None):
            raise ValueError("expected exactly one of stream and stream_id")
        try:
            self.name.format(tenant="", provider="", slot="")
        except (AttributeError, LookupError, TypeError, ValueError):
            raise ValueError("name: expected at most {tenant}, {provider} and {slot}") from None
        return self


class Plan(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    providers: Annotated[dict[str, ProviderPlan], Field(min_length=1)]


class Plans(BaseModel):
    """Every plan, by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    plans: Annotated[dict[str, Plan], Field(min_length=1)]

    def provider(self, plan: str, provider: str) -> ProviderPlan:
        """The template for one connection; raises when plan or provider is gone from the file."""
        found = self.plans.get(plan)
        if found is None:
            raise PlanError(f"there is no plan {plan!r}")
        template = found.providers.get(provider)
        if template is None:
            raise PlanError(f"plan {plan!r} has no provider {provider!r}")
        return template

    def providers(self) -> frozenset[str]:
        """Every provider that some plan has."""
        return frozenset(name for plan in self.plans.values() for name in plan.providers)

    @classmethod
    def load(cls, file: Path | None = None) -> "Plans":
        file = file or DEFAULT_FILE
        try:
            return cls.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
        except OSError as exc:
            raise PlansError(f"plans file {file}: {exc.strerror}") from exc
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
            raise PlansError(f"plans file {file}: not TOML: {exc}") from exc
        except ValidationError as exc:
            raise PlansError(_explain(file, exc)) from None


class WantedSync(BaseModel):
    """What the sync of one connection shall be: its plan, with the connection's own values on top."""

    model_config = ConfigDict(frozen=True)

    name: str
    collection_ids: list[str]
    stream: str | None
    stream_id: str | None
    rate_limit: RateLimit | None
    max_age_days: int | None
    sync_frequency: Literal["continuous", "4h"]
    status: Literal["active", "disabled"]
    metadata: dict[str, JsonValue]


def wanted_sync(
    template: ProviderPlan, overrides: Mapping[str, JsonValue], *, tenant: str, provider: str, slot: str
) -> WantedSync:
    """Put a connection's own values over its plan; each present value wins, also a null `max_age_days`."""
    name = template.name.format(tenant=tenant, provider=provider, slot=slot)
    values: dict[str, object] = {
        "name": name if slot == "default" or "{slot}" in template.name else f"{name} ({slot})",
        "collection_ids": template.collection_ids,
        "stream": template.stream,
        "stream_id": template.stream_id,
        "rate_limit": template.rate_limit,
        "max_age_days": template.max_age_days,
        "sync_frequency": template.sync_frequency or "continuous",
        "status": "active",
        "metadata": {},
    }
    own = {key: value for key, value in overrides.items() if key in values}
    if "stream_id" in own:
        values["stream"] = None
    return WantedSync.model_validate(values | own)


def _explain(file: Path, exc: ValidationError) -> str:
    lines = [f"plans file {file} cannot be used:"]
    for error in exc.errors(include_input=False, include_url=False):
        where = ".".join(str(part) for part in error["loc"])
        lines.append(f"  {where}: {error['msg'].removeprefix('Value error, ')}")
    return "\n".join(lines)
