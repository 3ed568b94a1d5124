"""Choice: which dead letters are put back, and what becomes of the others."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from schemas import Reason
from worker.errors import UsageError


class Fate(StrEnum):
    """What becomes of one dead letter."""

    PUT_BACK = "put_back"
    LEFT_BY_FILTER = "left_by_filter"
    PUT_BACK_EARLIER = "put_back_earlier"
    """By an earlier replay of this group, out of order: those before the first one left are not even read."""
    OVER_MAX_HOPS = "over_max_hops"
    NOT_OURS = "not_ours"
    """No worker wrote it, or it came from another input topic."""


@dataclass(frozen=True)
class Choice:
    """What a user asks for."""

    reasons: frozenset[Reason] = frozenset()
    """Only dead letters with one of these; all when empty."""
    since_ms: int | None = None
    until_ms: int | None = None
    """Only dead letters written from `since_ms` on and before `until_ms`, in milliseconds since 1970."""
    max_hops: int = 3
    """A record that was put back so often is left."""
    limit: int | None = None
    """Stop after so many."""

    def takes(self, reason: Reason, timestamp_ms: int) -> bool:
        """Whether the filters let it through."""
        return (
            (not self.reasons or reason in self.reasons)
            and (self.since_ms is None or timestamp_ms >= self.since_ms)
            and (self.until_ms is None or timestamp_ms < self.until_ms)
        )


def read_reasons(names: Iterable[str]) -> frozenset[Reason]:
    """Reasons by their names.

    Raises:
        UsageError: one is none; the line has those that are.
    """
    found = set()
    for name in names:
        if name not in list(Reason):
            raise UsageError(f"--reason {name}: no such reason; there are {', '.join(Reason)}")
        found.add(Reason(name))
    return frozenset(found)


_DURATION = re.compile(r"([0-9]{1,6})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def read_time(option: str, text: str, now_ms: int) -> int:
    """A point in time, in milliseconds since 1970.

    Args:
        option: that the text was given to, for the error.
        text: ISO 8601, UTC unless it says otherwise, or a duration back from now.
        now_ms: milliseconds since 1970.

    Raises:
        UsageError: it is neither.
    """
    if duration := _DURATION.fullmatch(text):
        return now_ms - int(duration[1]) * _SECONDS[duration[2]] * 1000
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{option} {text}: no time; give ISO 8601, such as 2026-11-23T10:00 (UTC) or 2026-11-23T10:00+01:00, or a "
            "duration back from now, such as 30m, 2h or 7d"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)
