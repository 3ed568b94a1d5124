"""Page: what is behind `/`, one HTML page without anything from elsewhere, and the JSON that it asks for while open.

A thread of its own reads the metrics every two seconds and encodes the answer: what it costs depends neither on the
stream nor on how many people look.
"""

import base64
import hashlib
import logging
import re
import threading
from collections.abc import Callable, Mapping
from importlib.resources import files
from types import TracebackType
from typing import Any, Self

from schemas import ModelName
from worker.metrics import Metrics
from worker.page.figures import COLUMNS, LONG_SECONDS, STEP_SECONDS, Condition, Figures, dumps
from worker.page.reading import read
from worker.page.samples import Samples
from worker.settings import Settings

__all__ = ["Condition", "Page", "Samples"]

log = logging.getLogger(__name__)

FORMAT = 1


class Page:
    """Keeps the figures of the last quarter of an hour. Use as a context manager around what they are about.

    Args:
        metrics: the worker's, which it reads and never writes.
        state: what the worker is doing.
        settings: the names of topics and group.
        samples: the last predictions with their texts; None for a page without any.

    Attributes:
        html: the page.
        headers: what a browser is told with it: nothing from elsewhere, and no script or style but the page's own.
        shadow: the second model, once it is warm.
    """

    def __init__(
        self, metrics: Metrics, state: Callable[[], Condition], settings: Settings, samples: Samples | None = None
    ) -> None:
        html = files("worker.page").joinpath("page.html").read_text(encoding="utf-8")
        self.html = html.encode()
        self.headers: Mapping[str, str] = {"Content-Security-Policy": policy(html), "Referrer-Policy": "no-referrer"}
        self.shadow: ModelName | None = None
        self._metrics = metrics
        self._state = state
        self._samples = samples
        kafka = settings.kafka
        self._kafka = {
            "group_id": kafka.group_id,
            "input_topic": kafka.input_topic,
            "output_topic": kafka.output_topic,
            "dead_letter_topic": kafka.dead_letter_topic,
        }
        self._figures = Figures()
        self._encoded: tuple[str, tuple[tuple[int, str], ...]] = ("", ())
        """The answer without its history, and the rows of that: replaced together, since others read them."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="page", daemon=True)

    def __enter__(self) -> Self:
        self.refresh()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def status(self, after: int = 0) -> bytes:
        """The figures as JSON. Every number is finite; null stands for what is not known, or not finite.

            format              1; fields may be added without a new one
            at, started_at      seconds since 1970: of these figures, and of the first ones
            state               {name, detail, since}: starting, loading, joining, ready, idle, stuck or stopping
            model               {name, version, digest, engine, device, precision}; null before one is warm
            shadow              {name, version} of the second model, or null
            kafka               {group_id, input_topic, output_topic, dead_letter_topic}
            figures             the newest row of the history, by column
            reviews             records committed since the start
            drain_seconds       lag by the recent rate; null where records wait and none are scored
            labels              [{name, total, recent}]: predictions since the start, and in the last quarter of an hour
            dead_letters        the same by reason, of those that there were
            confidence          [{below, recent}]: predictions by confidence up to `below` (null: 1)
            batch_tokens        mean of the last minute's batches
            stages              [{stage, seconds}]: mean for one batch of the last minute
            partitions          [{partition, lag}]: those that this worker has
            reloads             {taken, refused}
            shadow_reviews      {same, different, failed, skipped}
            transactions        {committed, aborted, unknown}
            rebalances, corrupt_records
            events              [{at, text}], the newest first
            samples             [{text, label, confidence}], the newest first; null unless a setting asks for them
            history             {columns, rows, step_seconds, seconds}: a row every step, for at most so many seconds

        Latency is estimated from the buckets of a histogram, and rates are of the last 10 seconds.

        Args:
            after: rows up to this number are left out: who has them need not be sent them again.
        """
        head, rows = self._encoded
        newer = ",".join(row for number, row in rows if number > after)
        history = dumps({"columns": COLUMNS, "step_seconds": STEP_SECONDS, "seconds": LONG_SECONDS})
        return f'{head[:-1]},"history":{history[:-1]},"rows":[{newer}]}}}}'.encode()

    def refresh(self) -> None:
        """Take a reading and encode it."""
        self._figures.take(read(self._metrics), self._state())
        document: dict[str, Any] = {
            "format": FORMAT,
            **self._figures.document,
            "kafka": self._kafka,
            "shadow": self.shadow and {"name": self.shadow.name, "version": self.shadow.version},
            "samples": self._samples
            and [{"text": it.text, "label": it.label, "confidence": it.confidence} for it in self._samples.last],
        }
        self._encoded = dumps(document), self._figures.rows

    def _watch(self) -> None:
        while not self._stop.wait(STEP_SECONDS):
            try:
                self.refresh()
            except Exception:
                # The stream does not depend on who looks at it. The page itself tells that its figures are old.
                log.warning("the page's figures could not be refreshed", exc_info=True)


def policy(html: str) -> str:
    """The Content-Security-Policy of a page: its own script and style by their digests, and requests to its server."""
    allowed = {
        f"{kind}-src": [
            f"'sha256-{base64.b64encode(hashlib.sha256(it.encode()).digest()).decode()}'"
            for it in re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        ]
        for kind, tag in (("script", "script"), ("style", "style"))
    }
    rules = {"default-src": ["'none'"], **allowed, "connect-src": ["'self'"], "img-src": ["data:"]}
    rules |= {"base-uri": ["'none'"], "form-action": ["'none'"], "frame-ancestors": ["'none'"]}
    return "; ".join(" ".join((rule, *sources)) for rule, sources in rules.items())
