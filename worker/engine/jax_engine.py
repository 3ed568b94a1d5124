"""The Keras network on JAX: the fast engine on NVIDIA GPUs.

Reviews are packed into rows of one length, several in each, and attention runs in cuDNN's variable-length kernel, which
knows where each review starts and ends: no padding, no mask, and one shape a height, compiled before the first review.
"""

import os
import sys

from worker.errors import EngineError

if "keras" in sys.modules and os.environ.get("KERAS_BACKEND", "tensorflow") != "jax":
    raise EngineError("Keras runs on another backend in this process already; the jax engine needs one of its own")
os.environ["KERAS_BACKEND"] = "jax"

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np

from worker.artifact import Artifact
from worker.engine import EngineDescription, Precision, Scored
from worker.engine.memory import DeviceMemory, host_memory
from worker.network import Attend, Bert
from worker.packing import pack, plan_rows
from worker.tokens import Ids
from worker.weights import load_weights

SEGMENTS = 8
"""The most reviews in a packed row. Rows of 512 tokens hold 2 IMDB reviews on average, and few hold more than 4."""

GPU_HEIGHTS = (4, 32, 256)
CPU_HEIGHTS = (1, 4)
"""Packed rows of one call: the smallest that fits is taken, and each is compiled before the first review."""


class JaxEngine:
    """Packs a batch, dispatches every call at once, and collects the logits of all."""

    def __init__(self, artifact: Artifact, precision: Precision = "auto", cache: Path | None = None) -> None:
        if cache is not None:
            jax.config.update("jax_compilation_cache_dir", str(cache))
            # Of itself it keeps only what took a second or more.
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        self._gpu = jax.default_backend() == "gpu"
        chosen, reason = _choose_precision(precision, self._gpu)
        self._description = EngineDescription("jax", jax.devices()[0].device_kind, chosen, reason)
        config = artifact.config
        if chosen != "float32" and config.hidden_act == "gelu":
            # The tanh form is fused into the matrix product on a GPU, the erf form is a pass over memory of its own:
            # 12 % of the time. They differ by 0.0005 at most, less than float16 rounds.
            config = config.model_copy(update={"hidden_act": "gelu_pytorch_tanh"})
        network = Bert(config, chosen)
        load_weights(network, artifact.weights)
        self._columns = artifact.manifest.cut.head + artifact.manifest.cut.tail
        self._labels = len(artifact.manifest.labels)
        self._heights = GPU_HEIGHTS if self._gpu else CPU_HEIGHTS
        self._state = [variable.value for variable in network.variables]
        self._forward = jax.jit(_forward(network, self._gpu and chosen != "float32"))
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")

    @property
    def description(self) -> EngineDescription:
        """Name, device and precision."""
        return self._description

    def memory(self) -> DeviceMemory:
        """What is in use of what JAX has reserved, three quarters of a GPU unless told otherwise."""
        held = jax.devices()[0].memory_stats() if self._gpu else None
        return DeviceMemory(held["bytes_in_use"], held["bytes_limit"]) if held else host_memory()

    def warm_up(self) -> None:
        """Compile each height."""
        full = np.ones(self._columns, dtype=np.int32)
        for height in self._heights:
            self.submit([full] * height).result()

    def submit(self, rows: Sequence[Ids]) -> Future[Scored]:
        """Score rows; see `worker.engine.Engine.submit`."""
        return self._thread.submit(self._score, rows)

    def close(self) -> None:
        """Finish what was submitted and end the thread."""
        self._thread.shutdown()

    def _score(self, rows: Sequence[Ids]) -> Scored:
        start = time.perf_counter()
        plan = iter(plan_rows([len(row) for row in rows], self._columns, SEGMENTS))
        calls = []
        device_tokens = 0
        while part := list(islice(plan, self._heights[-1])):
            height = next(height for height in self._heights if height >= len(part))
            members = [index for row in part for index in row]
            local = {index: at for at, index in enumerate(members)}
            packed = pack(
                [rows[index] for index in members],
                [[local[index] for index in row] for row in part],
                self._columns,
                SEGMENTS,
                height,
            )
            # Dispatched, not waited for: the next call is packed while this one runs.
            logits = self._forward(self._state, packed.ids, packed.positions, packed.lengths, packed.starts)
            calls.append((members, packed.places, logits))
            device_tokens += packed.ids.size
        found = np.empty((len(rows), self._labels), dtype=np.float32)
        for members, places, logits in calls:
            found[members] = np.asarray(logits)[places[:, 0], places[:, 1]]
        return Scored(found, time.perf_counter() - start, device_tokens)


def _forward(network: Bert, cudnn: bool) -> Any:
    """A pure function of the weights and a packed batch. cuDNN's attention knows no float32."""

    def forward(state: list[Any], ids: Any, positions: Any, lengths: Any, starts: Any) -> Any:
        attend = _cudnn(lengths, starts) if cudnn else _masked(positions)
        with keras.StatelessScope(state_mapping=list(zip(network.variables, state, strict=True))):
            return network.packed(ids, positions, jnp.maximum(starts[:, :-1], 0), attend)

    return forward


def _cudnn(lengths: Any, starts: Any) -> Attend:
    """cuDNN's attention over several segments a row. JAX has it below its public functions only."""
    from jax._src.cudnn.fused_attention_stablehlo import MaskType, dot_product_attention

    def attend(q: Any, k: Any, v: Any, scale: float) -> Any:
        return dot_product_attention(
            q, k, v, None, None, lengths, lengths, starts, starts, scale=scale, mask_type=MaskType.PADDING
        )

    return attend


def _masked(positions: Any) -> Attend:
    """Plain attention with a mask, for a CPU: a segment begins wherever the positions restart."""
    segment = jnp.cumsum(positions == 0, axis=1)
    mask = (segment[:, :, None] == segment[:, None, :])[:, None]

    def attend(q: Any, k: Any, v: Any, scale: float) -> Any:
        return jax.nn.dot_product_attention(q, k, v, mask=mask, scale=scale)

    return attend


def _choose_precision(asked: Precision, gpu: bool) -> tuple[str, str]:
    if asked != "auto":
        return asked, "asked for"
    return ("float16", "GPU") if gpu else ("float32", "CPU")
