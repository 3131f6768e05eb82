"""Errors by what the caller can do about them. They carry data; the sentence is built in `__str__`."""

from collections.abc import Mapping

FieldErrors = Mapping[str, object]


class ProvisioningError(Exception):
    """Something outside of us kept a step from being done."""

    code: str = "provisioning_error"
    advice: str = ""
    was_answered: bool = False
    """Whether the Management API answered as the contract says, so that it is not in trouble."""


class TransientError(ProvisioningError):
    """Trying later may help."""

    def __init__(
        self, reason: str, *, retry_after_s: float | None = None, may_have_happened: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_s = retry_after_s
        self.may_have_happened = may_have_happened

    def __str__(self) -> str:
        return self.reason


class ApiUnavailableError(TransientError):
    """A timeout, the network, or a 5xx."""

    code = "api_unavailable"
    advice = "Nothing to do: it is tried again. If it lasts, check that the Management API is up."


class RateLimitedError(TransientError):
    """429: nothing was done, come back after `retry_after_s`."""

    code = "api_rate_limited"
    advice = "Nothing to do: it is tried again when the Management API allows."


class PausedError(RateLimitedError):
    """Calls are paused for all workers: nothing was sent."""


class ApiTokenError(TransientError):
    """401 or 403: our own token, not the customer's credential, was refused."""

    code = "api_token_rejected"
    advice = "Set GANGWAY_API_TOKEN to a valid token and restart; everything waiting then goes on by itself."


class InternalError(TransientError):
    """A mistake of ours, or something we did not foresee. The log has the traceback."""

    code = "internal_error"
    advice = "Look for step.broken in the workers' logs and report it; it is tried again slowly."

    def __init__(
        self, reason: str, *, retry_after_s: float | None = None, may_have_happened: bool = True
    ) -> None:
        super().__init__(reason, retry_after_s=retry_after_s, may_have_happened=may_have_happened)


class UnreadableSecretError(TransientError):
    """A sealed credential does not open: its key has left the vault keys."""

    code = "vault_key_missing"
    advice = "Put the named key back into GANGWAY_VAULT_KEYS and restart, or send the credential again."


class CredentialReleasedError(TransientError):
    """The imported credential was being deleted for another connection of the same account."""

    code = "credential_released"
    advice = "Nothing to do: the credential is imported again."


class StillUncertainError(TransientError):
    """An earlier create may still be committed: too early to send another one."""

    code = "create_uncertain"
    advice = "Nothing to do: the sync is looked for again before another one is created."


class PermanentError(ProvisioningError):
    """Trying again with the same input cannot help."""

    code = "rejected"
    was_answered = True


class ApiRejectedError(PermanentError):
    """Any other 4xx; carries the status, the API's summary and its errors by field."""

    code = "api_rejected"
    advice = "Correct the named fields and send tenant.updated or credential.provided."

    def __init__(self, status: int, summary: str, fields: FieldErrors | None = None) -> None:
        super().__init__(status, summary, fields)
        self.status = status
        self.summary = summary
        self.fields: FieldErrors = fields or {}

    def __str__(self) -> str:
        reasons = "; ".join(f"{name}: {_flat(reason)}" for name, reason in self.fields.items())
        return f"{self.summary} ({reasons})" if reasons else self.summary


class NotFoundError(ApiRejectedError):
    """404: there is no such object, or no longer."""

    code = "not_found"


class UnusableAnswerError(TransientError):
    """An answer that is not what the contract promises: a proxy's page, or another kind of API."""

    code = "unusable_answer"
    advice = "Check that GANGWAY_API_URL names an API that follows the contract."


class PlanError(PermanentError):
    """The tenant's plan does not say what this connection needs."""

    code = "plan_incomplete"
    advice = "Complete the plan in the plans file, restart, and send tenant.updated or credential.provided."


def _flat(reason: object) -> str:
    if isinstance(reason, Mapping):
        return ", ".join(f"{name}: {_flat(inner)}" for name, inner in reason.items())
    if isinstance(reason, list | tuple):
        return ", ".join(_flat(inner) for inner in reason)
    return str(reason)
