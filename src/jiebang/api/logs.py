"""Logs: one JSON object a line; values that could be personal are removed."""

from __future__ import annotations

import logging
import sys
import traceback
from typing import TYPE_CHECKING, Any, Final, TextIO

import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, WrappedLogger

_SILENCED: Final = frozenset(
    {
        "account", "account_id", "accounts", "address", "authorization", "body", "code", "device", "device_id",
        "document", "document_no", "email", "name", "nonce", "password", "phone", "secret", "subject", "token",
    }
)  # fmt: skip
"""Keys whose values are never written. Log a public case id, a count or a kind instead."""
_WITHHELD: Final = "[withheld]"


def withhold(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Blank the values of keys that would name or expose a person."""
    return {key: _WITHHELD if key in _SILENCED else value for key, value in event.items()}


def place_of_error(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace `exc_info` by the error's type and frames: messages of database errors quote the values of a row."""
    info: Any = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    error = info if isinstance(info, BaseException) else info[1] if isinstance(info, tuple) else None
    if error is not None:
        frames = traceback.extract_tb(error.__traceback__)[-12:]
        event["error"] = type(error).__name__
        event["places"] = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno}:{frame.name}" for frame in frames]
    return event


def configure_logs(stream: TextIO, *, level: int = logging.INFO) -> None:
    """Send the log of `jiebang`, and warnings of libraries, to `stream` as JSON lines."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        place_of_error,
        withhold,
    ]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(ensure_ascii=False),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("jiebang").setLevel(level)
    # A line for each request, under its route, is written by api/gate/middleware.py; uvicorn's would hold whole paths.
    logging.getLogger("uvicorn.access").disabled = True
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
