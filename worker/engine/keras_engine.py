"""The Keras network on TensorFlow."""

import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow as tf

from worker.artifact import Artifact
from worker.engine import EngineDescription, Precision, Scored
from worker.engine.memory import DeviceMemory, host_memory
from worker.network import Bert
from worker.tokens import Ids, pad
from worker.weights import load_weights

CPU_TOKENS_PER_CALL = 2048
"""Padded tokens of one call on a CPU. Rows are sorted by length first, so that padding is a few percent. Measured with
MiniLM-L6 on 2 cores, 128 IMDB reviews, reviews/s in bfloat16 (float32): one row a call 13.4 (15.3), 1,024 tokens 18.4
(16.8), 2,048 22.3 (17.6), 4,096 18.5 (17.3), 8,192 18.8 (15.8)."""

GPU_TOKENS_PER_CALL = 65_536
"""Enough work for a large GPU to hide the launches of one call."""


class KerasEngine:
    """Sorts a batch by length, cuts it into calls of a token budget, and gives the logits back in arrival order."""

    def __init__(self, artifact: Artifact, precision: Precision = "auto") -> None:
        gpus = tf.config.list_physical_devices("GPU")
        for gpu in gpus:
            # TensorFlow takes all of the device's memory at once unless told otherwise.
            tf.config.experimental.set_memory_growth(gpu, True)
        chosen, reason = _choose_precision(precision, bool(gpus))
        device = tf.config.experimental.get_device_details(gpus[0])["device_name"] if gpus else "cpu"
        self._description = EngineDescription("tensorflow", device, chosen, reason)
        self._gpu = bool(gpus)
        self._budget = GPU_TOKENS_PER_CALL if gpus else CPU_TOKENS_PER_CALL
        self._longest = artifact.manifest.cut.head + artifact.manifest.cut.tail
        self._labels = len(artifact.manifest.labels)
        network = Bert(artifact.config, chosen if chosen == "float32" else f"mixed_{chosen}")
        load_weights(network, artifact.weights)
        self._network = network
        matrix = tf.TensorSpec((None, None), tf.int32)
        # One trace for every shape: XLA, which compiles once a shape, did not pay on the CPU.
        self._logits = tf.function(self._forward, input_signature=(matrix, matrix))
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")

    @property
    def description(self) -> EngineDescription:
        """Name, device and precision."""
        return self._description

    def memory(self) -> DeviceMemory:
        """TensorFlow does not tell how much a GPU has."""
        if not self._gpu:
            return host_memory()
        return DeviceMemory(tf.config.experimental.get_memory_info("GPU:0")["current"], math.nan)

    def warm_up(self) -> None:
        """Trace the network, and run it once at the shortest and the longest row."""
        longest = np.ones(self._longest, dtype=np.int32)
        self.submit([longest[:2], longest]).result()

    def submit(self, rows: Sequence[Ids]) -> Future[Scored]:
        """Score rows; see `worker.engine.Engine.submit`."""
        return self._thread.submit(self._score, rows)

    def close(self) -> None:
        """Finish what was submitted and end the thread."""
        self._thread.shutdown()

    def _forward(self, ids: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": tf.zeros_like(ids)}
        return self._network(inputs, training=False)

    def _score(self, rows: Sequence[Ids]) -> Scored:
        start = time.perf_counter()
        logits = np.empty((len(rows), self._labels), dtype=np.float32)
        device_tokens = 0
        for call in plan_calls([len(row) for row in rows], self._budget):
            ids, mask = pad([rows[index] for index in call])
            logits[call] = self._logits(tf.constant(ids), tf.constant(mask)).numpy()
            device_tokens += ids.size
        return Scored(logits, time.perf_counter() - start, device_tokens)


def plan_calls(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Cut rows into calls, shortest first.

    Args:
        lengths: tokens of each row.
        budget: padded tokens that a call may hold; a longer single row is a call of its own.

    Yields:
        Indices into `lengths`; each index comes once.
    """
    call: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if call and lengths[index] * (len(call) + 1) > budget:
            yield call
            call = []
        call.append(index)
    if call:
        yield call


def _choose_precision(asked: Precision, gpu: bool) -> tuple[str, str]:
    """The precision to compute in, and why."""
    if asked != "auto":
        return asked, "asked for"
    if gpu:
        return "float16", "GPU"
    if has_fast_bfloat16():
        return "bfloat16", "this CPU multiplies bfloat16 natively"
    return "float32", "this CPU has no fast bfloat16"


def has_fast_bfloat16() -> bool:
    """True where the CPU multiplies bfloat16 in hardware (AVX-512 BF16 or AMX), as Linux reports it."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
