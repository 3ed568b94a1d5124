"""The artefact's SavedModel on OpenVINO: the fast engine on CPUs.

One review a call at its natural length, so that nothing is padded, and as many calls at once as OpenVINO has streams:
on a CPU there is no launch to amortise, and several small products keep the cores fuller than one large one.
"""

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
import openvino

from worker.artifact import Artifact
from worker.engine import EngineDescription, Precision, Scored
from worker.engine.memory import DeviceMemory, host_memory
from worker.errors import ArtifactError, EngineError
from worker.tokens import Ids

DEVICE = "CPU"
HINTS = {"bfloat16": "bf16", "float32": "f32"}
WARM_LENGTHS = 16
"""Lengths that are run before the first batch; kernels for the ones between are made in a few milliseconds each."""


class OpenVinoEngine:
    """Longest reviews first, so that the streams finish together."""

    def __init__(self, artifact: Artifact, precision: Precision = "auto") -> None:
        core = openvino.Core()
        fast = "BF16" in core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")
        chosen, reason = _choose_precision(precision, fast)
        name = str(core.get_property(DEVICE, "FULL_DEVICE_NAME")).strip()
        self._description = EngineDescription("openvino", name, chosen, reason)
        self._longest = artifact.manifest.cut.head + artifact.manifest.cut.tail
        self._labels = len(artifact.manifest.labels)
        try:
            model = core.read_model(str(artifact.folder))
        except Exception as error:  # the library raises bare ones
            raise ArtifactError(
                f"{artifact.folder}: OpenVINO cannot read its SavedModel ({type(error).__name__}); "
                "export it again, or choose --engine tensorflow"
            ) from None
        options = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": HINTS[chosen]}
        self._queue = openvino.AsyncInferQueue(core.compile_model(model, DEVICE, options))
        self._queue.set_callback(self._take)
        self._ones = np.ones((1, self._longest), dtype=np.int32)
        self._zeros = np.zeros((1, self._longest), dtype=np.int32)
        self._logits = np.empty((0, self._labels), dtype=np.float32)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")

    @property
    def description(self) -> EngineDescription:
        """Name, device and precision."""
        return self._description

    def memory(self) -> DeviceMemory:
        """The process's: this engine is for CPUs."""
        return host_memory()

    def warm_up(self) -> None:
        """Run rows from the shortest to the longest."""
        lengths = np.linspace(2, self._longest, WARM_LENGTHS).astype(int)
        self.submit([np.ones(length, dtype=np.int32) for length in lengths]).result()

    def submit(self, rows: Sequence[Ids]) -> Future[Scored]:
        """Score rows; see `worker.engine.Engine.submit`."""
        return self._thread.submit(self._score, rows)

    def close(self) -> None:
        """Finish what was submitted and end the thread."""
        self._thread.shutdown()

    def _score(self, rows: Sequence[Ids]) -> Scored:
        start = time.perf_counter()
        logits = self._logits = np.empty((len(rows), self._labels), dtype=np.float32)
        try:
            for index in sorted(range(len(rows)), key=lambda index: -len(rows[index])):
                length = len(rows[index])
                inputs = {
                    "input_ids": rows[index][None],
                    "attention_mask": self._ones[:, :length],
                    "token_type_ids": self._zeros[:, :length],
                }
                self._queue.start_async(inputs, index)
            self._queue.wait_all()
        except Exception:
            # What still runs would write into the next batch's logits.
            with suppress(Exception):
                self._queue.wait_all()
            raise
        return Scored(logits, time.perf_counter() - start, sum(len(row) for row in rows))

    def _take(self, request: Any, index: int) -> None:
        """A row is scored: copy its logits, since the request's memory is used again."""
        self._logits[index] = request.get_tensor("logits").data[0]


def _choose_precision(asked: Precision, fast: bool) -> tuple[str, str]:
    if asked == "auto":
        if fast:
            return "bfloat16", "this CPU multiplies bfloat16 natively"
        return "float32", "this CPU has no fast bfloat16"
    if asked not in HINTS:
        raise EngineError(f"the openvino engine computes in {' or '.join(HINTS)}, not {asked}")
    return asked, "asked for"
