"""Scoring texts with an exported artefact through the worker's own engine."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainer.cuts import Views
from worker.artifact import Artifact, open_artifact
from worker.engine import Engine, EngineDescription, EngineName, Logits, Precision, Scored, open_engine
from worker.tokens import Ids, TokenRow
from worker.verdict import Probabilities, probabilities

AT_ONCE = 256
"""Texts of one submission: enough for the engine to sort by length, little enough to show progress."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What the model says of some texts.

    Attributes:
        rows: what the artefact's own cut reads of each.
        tokens: that were computed for each.
        logits: float32, (texts, labels).
        probabilities: float64, (texts, labels), with the artefact's temperature.
    """

    rows: Sequence[TokenRow]
    tokens: Sequence[int]
    logits: Logits
    probabilities: Probabilities


class Model:
    """A verified artefact and its engine."""

    def __init__(self, artifact: Artifact, engine: Engine) -> None:
        self.artifact = artifact
        self._engine = engine
        self._tokenizer = artifact.tokenizer()

    @property
    def engine(self) -> EngineDescription:
        """What computes."""
        return self._engine.description

    def score(
        self,
        texts: Sequence[str],
        advance: Callable[[int], None] = lambda _: None,
        at_once: int = AT_ONCE,
        views: Views | None = None,
    ) -> Iterator[Answers]:
        """Score texts in pieces, in their order; one piece is tokenized while the device works on the one before.

        Args:
            texts: any number.
            advance: told how many texts are done.
            at_once: texts of one piece.
            views: other readings of a review than the artefact's cut; its logits are the mean over them.
        """
        waiting: deque[tuple[list[TokenRow], list[list[Ids]], Future[Scored]]] = deque()
        whole = None if views is None else views.tokenizer(self.artifact)
        done = 0
        for start in range(0, len(texts), at_once):
            part = texts[start : start + at_once]
            rows = self._tokenizer.encode(part)
            readings = [[row.ids] for row in rows]
            if views is not None and whole is not None:
                readings = [views.read(row.ids) for row in whole.encode(part)]
            waiting.append((rows, readings, self._engine.submit([ids for reading in readings for ids in reading])))
            if len(waiting) > 1:
                yield self._answers(*waiting.popleft())
                done += at_once
                advance(done)
        while waiting:
            yield self._answers(*waiting.popleft())
        advance(len(texts))

    def _answers(self, rows: list[TokenRow], readings: list[list[Ids]], scored: Future[Scored]) -> Answers:
        counts = np.array([len(reading) for reading in readings])
        starts = np.concatenate([[0], counts[:-1].cumsum()])
        mean = np.add.reduceat(scored.result().logits, starts, axis=0) / counts[:, None]
        logits: Logits = mean.astype(np.float32)
        tokens = [sum(map(len, reading)) for reading in readings]
        return Answers(rows, tokens, logits, probabilities(logits, self.artifact.manifest.temperature))


@contextmanager
def open_model(path: Path, engine: EngineName, precision: Precision, *, rescore: bool = True) -> Iterator[Model]:
    """Verify an artefact, open it in an engine; close when the block ends. `rescore` as in `open_engine`.

    It is not warmed: what a few reviews need is compiled with them.

    Raises:
        ArtifactError: the artefact is missing or does not match its manifest.
        EngineError: the engine cannot run here.
    """
    artifact = open_artifact(path)
    opened = open_engine(artifact, engine, precision, rescore=rescore)
    try:
        yield Model(artifact, opened)
    finally:
        opened.close()
