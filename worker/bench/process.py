"""A worker's process: `review-worker run` as it is, or with the stub scorer, and what its metrics tell."""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from worker.bench.place import Place
from worker.errors import ReviewScorerError

READY_SECONDS = 600.0
STOP_SECONDS = 30.0
TICK_SECONDS = 0.05

Samples = dict[str, float]
"""Value by name, with the stage or the outcome behind it where there is one: `stage_seconds_sum poll`."""

PREFIX = "review_worker_"
KEPT = ("stage", "outcome")


@dataclass
class WorkerProcess:
    """A worker of a place."""

    process: "subprocess.Popen[bytes]"
    log: Path
    ready_seconds: float = 0.0
    """From the start of the process."""

    def samples(self) -> Samples:
        """What its metrics say now.

        Raises:
            ReviewScorerError: it has ended.
        """
        found: Samples = {}
        for sample in self._samples():
            if "le" not in sample.labels:
                parts = [sample.name.removeprefix(PREFIX), *(sample.labels.get(name, "") for name in KEPT)]
                found[" ".join(part for part in parts if part)] = sample.value
        return found

    def model(self) -> dict[str, str]:
        """Its `engine`, `device` and `precision`, and the model's name."""
        return next(sample.labels for sample in self._samples() if sample.name == f"{PREFIX}model_info")

    def _samples(self) -> Iterator[Sample]:
        self.require_running()
        with urllib.request.urlopen(f"{self._address()}/metrics", timeout=30) as answer:  # noqa: S310 - loopback
            text = answer.read().decode()
        for family in text_string_to_metric_families(text):
            yield from family.samples

    def require_running(self) -> None:
        """Raise where it has ended."""
        if self.process.poll() is not None:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
            raise ReviewScorerError(f"the worker ended: {lines[-1] if lines else 'it said nothing'}")

    def wait_until_ready(self, begun: float) -> None:
        """Until its model is warm and it takes part in the group."""
        while time.monotonic() < begun + READY_SECONDS:
            if self._is_ready():
                self.ready_seconds = time.monotonic() - begun
                return
            time.sleep(TICK_SECONDS)
        raise ReviewScorerError(f"the worker was not ready within {READY_SECONDS:g} s")

    def stop(self) -> None:
        """As a supervisor does."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def _is_ready(self) -> bool:
        self.require_running()
        try:
            with urllib.request.urlopen(f"{self._address()}/readyz", timeout=30):  # noqa: S310 - loopback
                return True
        except OSError:  # not there yet, or 503
            return False

    def _address(self) -> str:
        """Where its HTTP server is: it took a free port."""
        for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines():
            # The last one may be half a line yet.
            if line.startswith("{") and line.endswith("}") and (said := json.loads(line)).get("event") == "starting":
                return str(said["http"])
        raise FileNotFoundError(self.log)


@contextmanager
def worker_process(place: Place, *, stub_rate: float | None = None, **extra: str) -> Iterator[WorkerProcess]:
    """A worker that is ready, and gone afterwards.

    Args:
        place: its topics and settings.
        stub_rate: with a stub instead of tokens and engine, which scores so many reviews a second.
        extra: more variables of its environment.

    Raises:
        ReviewScorerError: it did not start; with its own last line.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "worker.log"
        module = (
            ["worker", "run"] if stub_rate is None else ["worker.bench.stub", "--reviews-per-second", str(stub_rate)]
        )
        config = ["--config", str(place.config)] if place.config else []
        begun = time.monotonic()
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", *module, *config],
                env=os.environ | place.environment | extra,
                stdout=subprocess.DEVNULL,
                stderr=stream,
            )
        worker = WorkerProcess(process, log)
        try:
            worker.wait_until_ready(begun)
            yield worker
        finally:
            worker.stop()
