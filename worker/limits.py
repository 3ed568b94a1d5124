"""Limits: how many dead letters are accidents, and when they are a sign that something else is wrong.

A publisher that changed its format, or a worker on the wrong topic, would turn a whole topic into dead letters. The
worker stops instead, before the batch that goes beyond the limit is committed: the records stay where they are, the lag
shows them, and a restarted worker finds them again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from schemas import Prediction, Rejection
from worker.errors import LimitError
from worker.settings import LimitSettings


@dataclass(frozen=True, slots=True)
class DeadLetterCount:
    """Dead letters that were committed since the start."""

    total: int = 0
    consecutive: int = 0
    """Since the last prediction."""

    def after(self, outcomes: Sequence[Prediction | Rejection], limits: LimitSettings) -> "DeadLetterCount":
        """The count once these outcomes are committed.

        Args:
            outcomes: of one batch, in the order of commit.
            limits: 0 stands for no limit.

        Raises:
            LimitError: they would go beyond a limit.
        """
        total, run = self.total, self.consecutive
        for outcome in outcomes:
            if isinstance(outcome, Prediction):
                run = 0
                continue
            total, run = total + 1, run + 1
            if 0 < limits.consecutive_dead_letters < run:
                raise _beyond("in a row", limits.consecutive_dead_letters, "CONSECUTIVE_DEAD_LETTERS", outcome)
            if 0 < limits.dead_letters < total:
                raise _beyond("since the start", limits.dead_letters, "DEAD_LETTERS", outcome)
        return DeadLetterCount(total, run)


def _beyond(which: str, limit: int, name: str, last: Rejection) -> LimitError:
    at = last.source
    return LimitError(
        f"more than {limit:,} dead letters {which}; the last one is {last.reason.value} ({last.detail}) at "
        f"{at.topic}/{at.partition}/{at.offset}. Is this the right topic, and did its format change? The batch was not "
        f"committed. To let them pass, raise WORKER_LIMITS__{name}, or set it to 0"
    )
