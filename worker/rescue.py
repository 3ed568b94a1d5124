"""Rescue: rows that an engine fails on, halved until the one at fault is alone.

One review must neither stop the stream nor take its batch with it. A device that fails on everything is another matter:
that ends the process, with nothing committed.
"""

import logging
from collections.abc import Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass

import numpy as np

from schemas import Reason
from worker.engine import Engine, Logits, Scored
from worker.errors import EngineError, ReviewScorerError
from worker.tokens import Ids

log = logging.getLogger(__name__)

_NO_ROOM = ("resource_exhausted", "resourceexhausted", "out of memory", "outofmemory", "bad_alloc", "memoryerror")
"""How TensorFlow, JAX, CUDA, OpenVINO and Python say that memory ran out; they share no class."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why one review cannot be scored, though others can."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Work:
    """Rows that were given to the engine: in one part, or in several when its memory has no room for one."""

    rows: Sequence[Ids]
    parts: Sequence[tuple[Sequence[int], Future[Scored]]]

    def done(self, seconds: float) -> bool:
        """Wait for so long at most."""
        return not wait([future for _, future in self.parts], seconds).not_done


@dataclass(frozen=True, slots=True)
class Collected:
    """What became of a batch's rows."""

    logits: Logits
    """float32, (rows, labels), in the order of the rows; without a meaning where there is a fault."""
    seconds: float
    """Time in which the device worked on them."""
    device_tokens: int
    """Tokens the device computed, padding included."""
    faults: dict[int, Fault]
    """By row."""


class Rescue:
    """An engine over a safety net.

    Attributes:
        engine: what scores.
        ceiling: the most tokens that are given to it at once; None as long as its memory had room for everything.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.ceiling: int | None = None

    def submit(self, rows: Sequence[Ids]) -> Work:
        """Start the engine on rows, without waiting."""
        return Work(rows, [(part, self._start(rows, part)) for part in self._divide(rows)])

    def collect(self, work: Work) -> Collected:
        """Wait for the logits, and find the rows at fault where there are any.

        Raises:
            EngineError: the engine fails on a row of two control tokens as well.
        """
        found: list[tuple[Sequence[int], Scored]] = []
        faults: dict[int, Fault] = {}
        for part, future in work.parts:
            self._settle(work.rows, part, future, found, faults)
        logits = found[0][1].logits if len(found) == 1 else _joined(len(work.rows), found)
        seconds = sum(scored.seconds for _, scored in found)
        return Collected(logits, seconds, sum(scored.device_tokens for _, scored in found), faults)

    def _settle(
        self,
        rows: Sequence[Ids],
        part: Sequence[int],
        future: Future[Scored],
        found: list[tuple[Sequence[int], Scored]],
        faults: dict[int, Fault],
    ) -> None:
        """Take the logits of a part, or, where there are none, those of smaller ones."""
        try:
            scored = future.result()
        except ReviewScorerError:
            raise
        except Exception as error:
            fault = self._explain(rows, part, error)
            middle = len(part) // 2
            smaller: list[Sequence[int]] = [part[:middle], part[middle:]]
        else:
            # A row of its own kind of numbers can spoil its neighbours in a packed row: each is tried alone.
            finite = np.isfinite(scored.logits).all(axis=1)
            found.append((part, scored))
            fault = Fault(Reason.SCORER_FAILED, "the model's answer is not a number")
            smaller = [[part[place]] for place in np.flatnonzero(~finite).tolist()]
        if not smaller:
            return
        if len(part) == 1:
            self._require_health(rows[part[0]], fault)
            faults[part[0]] = fault
            return
        for some in smaller:
            self._settle(rows, some, self._start(rows, some), found, faults)

    def _explain(self, rows: Sequence[Ids], part: Sequence[int], error: Exception) -> Fault:
        kind = type(error).__name__
        tokens = sum(len(rows[index]) for index in part)
        log.warning("the engine failed", extra={"cause": kind, "reviews": len(part), "tokens": tokens})
        if not any(words in f"{kind}: {error}".lower() for words in _NO_ROOM):
            return Fault(Reason.SCORER_FAILED, f"the model fails on this review ({kind})")
        if len(part) > 1:
            self.ceiling = tokens // 2
            log.warning("out of device memory; giving it less at once from here on", extra={"tokens": self.ceiling})
        return Fault(Reason.OUT_OF_MEMORY, f"the device has no room for this review of {tokens} tokens ({kind})")

    def _require_health(self, row: Ids, fault: Fault) -> None:
        """A device that no longer scores an empty review is at fault itself, and the review is not."""
        try:
            healthy = bool(np.isfinite(self.engine.submit([row[[0, -1]]]).result().logits).all())
        except Exception:
            healthy = False
        if not healthy:
            raise EngineError(
                f"{self.engine.description.name} on {self.engine.description.device} no longer scores anything "
                f"({fault.detail}); nothing of this batch was committed, start again"
            )

    def _divide(self, rows: Sequence[Ids]) -> list[Sequence[int]]:
        """Rows in parts of at most `ceiling` tokens; a longer single row is a part of its own."""
        if self.ceiling is None:
            return [range(len(rows))]
        parts: list[list[int]] = [[]]
        tokens = 0
        for index, row in enumerate(rows):
            if parts[-1] and tokens + len(row) > self.ceiling:
                parts.append([])
                tokens = 0
            parts[-1].append(index)
            tokens += len(row)
        return list(parts)

    def _start(self, rows: Sequence[Ids], part: Sequence[int]) -> Future[Scored]:
        return self.engine.submit([rows[index] for index in part])


def _joined(rows: int, found: Sequence[tuple[Sequence[int], Scored]]) -> Logits:
    """The logits of all parts in the order of the rows; of a row that was scored twice the later ones."""
    labels = found[0][1].logits.shape[1] if found else 1
    logits = np.zeros((rows, labels), dtype=np.float32)
    for part, scored in found:
        logits[np.asarray(part, dtype=np.intp)] = scored.logits
    return logits
