"""Logs: one JSON object a line on standard error, with where a record stood and never what it held."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "taskName"}

_HARMLESS = (
    # When a client is closed in the ordinary way.
    "weakly-referenced object no longer exists",
    "Metadata refresh: failed Cancelled",
    "[Cancelled]",
    ": Cancelled.",
    # While the offsets of a transaction that is being committed are waited for.
    "UnstableOffsetCommitError",
    # A slow turn of its I/O loop on a busy machine.
    "ran for 0.",
)
"""What kafka-python logs as warnings and errors in ordinary operation."""


class JsonLines(logging.Formatter):
    """`{"at": …, "level": …, "logger": …, "event": …}` and whatever was given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of ASCII: JSON escapes line breaks, terminal controls and bidi overrides inside a value, so that no
        value can forge a line."""
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            line["trace"] = _trace(record.exc_info)
        return json.dumps(line, default=str)


def _trace(exc_info: Any) -> list[str]:
    """File, line and function of each frame: no source lines and no exception text, which could hold input."""
    frames = []
    trace = exc_info[2]
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append(f"{code.co_filename}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return frames


def drop_harmless(record: logging.LogRecord) -> bool:
    """False for a line of kafka-python's that only looks like trouble."""
    if not record.name.startswith("kafka"):
        return True
    text = record.getMessage()
    return not any(harmless in text for harmless in _HARMLESS)


def start_logging(level: str) -> None:
    """Send every logger's lines to standard error as JSON.

    The `kafka` loggers stay at warning or above: below, they print the payloads they carry.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    handler.addFilter(drop_harmless)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    quiet_kafka()


def quiet_kafka() -> None:
    """Keep kafka-python's own lines to warnings."""
    logging.getLogger("kafka").setLevel(logging.WARNING)
