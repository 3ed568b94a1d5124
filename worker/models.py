"""Models: the one in use, and a newer version that is taken while the worker runs.

A thread looks at the model's parent folder. A newer version is verified, loaded and warmed beside the one in use, and
waits there until the loop takes it between two batches. One that cannot be used is refused, and the old one goes on.
"""

import gc
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from worker.artifact import Artifact, open_artifact, versions
from worker.errors import ArtifactError, ReviewScorerError
from worker.metrics import Metrics
from worker.scorer import Scorer

log = logging.getLogger(__name__)

TICK_SECONDS = 0.5
"""How soon a request is noticed and an old model freed."""

Fingerprint = tuple[tuple[str, int, int], ...]
"""Name, size and time of change of every file."""


class Models:
    """Keeps the model in use, and watches for a newer one. Use as a context manager, which frees both.

    Args:
        current: the model to begin with.
        folder: the parent of its versions; None when the settings name one version, which then stays.
        load: makes a verified artefact ready to score; may take long.
        seconds: how often to look; 0 for only when asked.
        metrics: told of the model in use, and of every version that is taken or refused.

    Attributes:
        current: the model in use.
    """

    def __init__(
        self, current: Scorer, folder: Path | None, load: Callable[[Artifact], Scorer], seconds: float, metrics: Metrics
    ) -> None:
        self.current = current
        self._folder = folder
        self._load = load
        self._seconds = seconds
        self._metrics = metrics
        _show(current, metrics)
        self._asked = False
        self._seen: Fingerprint | None = None
        self._refused: Fingerprint | None = None
        self._ready: Scorer | None = None
        self._old: list[Scorer] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="reload", daemon=True)

    @property
    def waiting(self) -> bool:
        """A newer model is warm."""
        return self._ready is not None

    def ask(self) -> None:
        """Look now. Nothing but an assignment, since signal handlers call it."""
        self._asked = True

    def take(self) -> None:
        """Make the newer model, if one waits, the current one. The one before is freed: it must have no work left."""
        if self._ready is None:
            return
        self._old.append(self.current)
        self.current, self._ready = self._ready, None
        _show(self.current, self._metrics)
        self._metrics.reloads.labels("taken").inc()
        log.info("newer model taken", extra={"version": self.current.artifact.manifest.version})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """A load under way is not waited for: its thread ends with the process."""
        self._stop.set()
        for scorer in (self.current, self._ready, *self._old):
            if scorer is not None:
                scorer.close()

    def _watch(self) -> None:
        next_look = time.monotonic() + self._seconds
        while not self._stop.wait(TICK_SECONDS):
            self._free()
            asked, self._asked = self._asked, False
            if self._ready is None and (asked or (self._seconds and time.monotonic() >= next_look)):
                try:
                    self._look(asked)
                except Exception:
                    # A folder that cannot be read just now, mostly: the model in use goes on.
                    log.warning("cannot look for a newer model", exc_info=True)
                next_look = time.monotonic() + self._seconds

    def _look(self, asked: bool) -> None:
        if self._folder is None:
            if asked:
                log.info("the settings name one version of the model; there is nothing to look for")
            return
        found = versions(self._folder)
        version = self.current.artifact.manifest.version
        if not found or int(found[-1].name) <= version:
            if asked:
                log.info("no newer model", extra={"version": version})
            return
        seen, self._seen = self._seen, fingerprint(found[-1])
        # A folder that still changes is being copied. One that was refused is tried again when it has changed.
        if asked or (self._seen == seen and self._seen != self._refused):
            self._prepare(found[-1], self._seen)

    def _prepare(self, folder: Path, as_seen: Fingerprint) -> None:
        log.info("newer model found", extra={"version": folder.name})
        begun = time.monotonic()
        try:
            newer = self._load(self._open(folder))
        except Exception as error:
            known = isinstance(error, ReviewScorerError)
            cause = str(error) if known else type(error).__name__
            self._refused = as_seen
            self._metrics.reloads.labels("refused").inc()
            log.warning("newer model refused", extra={"version": folder.name, "cause": cause}, exc_info=not known)
            return
        seconds = round(time.monotonic() - begun, 2)
        log.info("newer model warm", extra={"version": folder.name, "seconds": seconds})
        self._ready = newer

    def _open(self, folder: Path) -> Artifact:
        artifact = open_artifact(folder)
        if artifact.manifest.labels != self.current.artifact.manifest.labels:
            # Whoever reads the predictions would meet labels that nobody told them of.
            raise ArtifactError(f"{folder}: other labels than the model in use; restart the worker to take it")
        return artifact

    def _free(self) -> None:
        while self._old:
            self._old.pop().close()
            # Frameworks tie their graphs into circles.
            gc.collect()


def fingerprint(folder: Path) -> Fingerprint:
    """What changes as long as the folder is being written."""
    found = []
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        found.append((path.relative_to(folder).as_posix(), status.st_size, status.st_mtime_ns))
    return tuple(found)


def _show(scorer: Scorer, metrics: Metrics) -> None:
    metrics.show_model(scorer.artifact.name, scorer.engine.description, scorer.artifact.manifest.labels)
    metrics.show_memory(scorer.engine.memory)
