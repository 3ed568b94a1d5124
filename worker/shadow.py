"""Shadow: a second model that scores a share of the batches, to see how it would decide. Its predictions go nowhere.

It works on a thread of its own behind the commit, and leaves out what it cannot keep up with, so that the stream never
waits for it.
"""

import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from schemas import Prediction, Rejection, Review
from worker.metrics import Metrics
from worker.rescue import Fault
from worker.scorer import Scorer

log = logging.getLogger(__name__)


class Shadow:
    """Compares a second model's labels with the published ones.

    Args:
        scorer: the second model, warm.
        share: of the batches, above 0 to 1.
        metrics: where agreement is counted.
    """

    def __init__(self, scorer: Scorer, share: float, metrics: Metrics) -> None:
        self._scorer = scorer
        self._share = share
        self._metrics = metrics
        self._due = 0.0
        self._under_way: Future[None] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="shadow")

    def follow(
        self, read: Sequence[Review | Rejection | Fault], outcomes: Sequence[Prediction | Rejection]
    ) -> Future[None] | None:
        """Take note of a batch that was committed, and score it when it is its turn.

        Args:
            read: what was read of each message.
            outcomes: what became of each.

        Returns:
            The comparison under way; None when the batch is left out.
        """
        pairs = [
            (review, outcome)
            for review, outcome in zip(read, outcomes, strict=True)
            if isinstance(review, Review) and isinstance(outcome, Prediction)
        ]
        self._due += self._share
        if not pairs or self._due < 1:
            return None
        self._due -= 1
        if self._under_way is not None and not self._under_way.done():
            self._metrics.shadowed.labels("skipped").inc(len(pairs))
            return None
        self._under_way = self._thread.submit(self._compare, pairs)
        return self._under_way

    def close(self) -> None:
        """Finish the comparison under way and free the device."""
        self._thread.shutdown()
        self._scorer.close()

    def _compare(self, pairs: Sequence[tuple[Review, Prediction]]) -> None:
        """Count, and never raise: a shadow cannot hurt what it follows."""
        try:
            prepared = self._scorer.prepare([review for review, _ in pairs])
            collected = self._scorer.collect(self._scorer.submit(prepared))
            own = self._scorer.conclude(prepared, [published.source for _, published in pairs], collected)
        except Exception as error:
            self._metrics.shadowed.labels("failed").inc(len(pairs))
            log.warning("the shadow model failed", extra={"cause": type(error).__name__, "reviews": len(pairs)})
            return
        for (_, published), mine in zip(pairs, own, strict=True):
            if isinstance(mine, Rejection):
                self._metrics.shadowed.labels("failed").inc()
                continue
            self._metrics.shadowed.labels("same" if mine.label == published.label else "different").inc()
            self._metrics.shadow_difference.observe(abs(mine.probabilities[published.label] - published.confidence))
