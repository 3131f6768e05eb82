"""Structured logs on standard output: JSON, or for people when it is a terminal. Secrets are masked."""

import logging
import re
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from foundation.secret_shapes import MASK, SECRET_VALUES

PLACES: Final = 4
SECRET_KEYS: Final = re.compile(
    r"secret|token|password|passwd|authorization|api_key|credential_properties", re.I
)
NOISY: Final = (
    "alembic",
    "celery.app.trace",
    "celery.worker.strategy",
    "httpcore",
    "httpx",
    "kombu",
    "uvicorn.access",
)


def configure_logs(level: str = "INFO", *, service: str) -> None:
    """Send our own and every library's log lines through one chain to standard output."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        _named(service),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_rendering(for_people=sys.stdout.isatty()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)


def place_of(error: BaseException) -> str:
    """Where an error was raised and on whose behalf, for when its own words must not be repeated."""
    frames = reversed(traceback.extract_tb(error.__traceback__)[-PLACES:])
    return " < ".join(f"{Path(each.filename).name}:{each.lineno}" for each in frames)


def mask_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Mask values whose key names a secret, and anything that looks like one inside text, however deep."""
    for key, value in event.items():
        event[key] = _masked(key, value)
    return event


def _masked(key: str, value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return MASK if value is not None and SECRET_KEYS.search(key) else value
    if SECRET_KEYS.search(key):
        return MASK
    if isinstance(value, Mapping):
        return {str(name): _masked(str(name), inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_masked(key, inner) for inner in value]
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    return SECRET_VALUES.sub(MASK, str(value))  # str: exceptions and URLs carry secrets too


def _rendering(*, for_people: bool) -> list[Processor]:
    if for_people:
        plain = structlog.dev.plain_traceback  # the rich one prints local variables, and so secrets
        renderer: Processor = structlog.dev.ConsoleRenderer(exception_formatter=plain)
    else:
        renderer = structlog.processors.JSONRenderer(default=str)
    # the traceback becomes text before the masking, so that it is masked too
    return [structlog.processors.format_exc_info, mask_secrets, renderer]


def _named(service: str) -> Processor:
    def add_service(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event.setdefault("service", service)
        return event

    return add_service
