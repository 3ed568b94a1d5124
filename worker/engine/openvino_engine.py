"""The network on OpenVINO: the fast engine on CPUs.

Few reviews a call, all of about one length, and as many calls at once as OpenVINO has streams: on a CPU there is no
launch to amortise, and several small products keep the cores fuller than one large one. Lengths are rounded up, so that
the shapes of all calls are a small closed set, and all are compiled before the first review.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from worker.artifact import Artifact
from worker.engine import EngineDescription, Logits, Precision, Scored
from worker.engine.memory import DeviceMemory, host_memory
from worker.engine.openvino_graph import INPUTS, OUTPUT, build_graph, inputs_of
from worker.errors import ArtifactError, EngineError
from worker.tokens import Ids

DEVICE = "CPU"
HINTS = {"bfloat16": "bf16", "float32": "f32"}
CPUINFO = Path("/proc/cpuinfo")
VNNI = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
"""Instructions that multiply and add small integers at once. Without one, int8 is no faster than float32, and less
exact: the sums of pairs overflow."""

STEP = 16
"""Lengths are rounded up to a multiple. Exact lengths are no quicker, since kernels work in blocks of 16, and a new one
costs some 8 ms to compile in each stream, of which IMDB reviews would need almost 500."""

STEP_AGAIN = 32
"""The same of the second, float32 graph: it has few rows to score, and so half as many shapes to compile."""

CALL_TOKENS = 256
"""Short rows go together up to so many tokens, padding included: then the time to fetch the weights, some 4 ms for a
call of one token, is shared. Longer calls gain nothing more."""

DOUBT = {"bfloat16": 0.8, "int8": 0.98}
"""A row whose best label has a smaller share than this in that type is scored again in float32: a small difference of
logits is a large one of probabilities only near a tie. Beside float32 alone, probabilities then differ by 0.018 and
0.036 at most, where they would by 0.072 and 0.45; of 2,000 IMDB reviews 1.3 % and 6.1 % are in doubt (MiniLM-L6)."""

Places = NDArray[np.intp]


class OpenVinoEngine:
    """Longest reviews first, so that the streams finish together; then those in doubt once more, in float32."""

    def __init__(
        self, artifact: Artifact, precision: Precision = "auto", cache: Path | None = None, *, rescore: bool = True
    ) -> None:
        core = openvino.Core()
        fast = "BF16" in core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")
        chosen, reason = _choose_precision(precision, fast, artifact)
        name = str(core.get_property(DEVICE, "FULL_DEVICE_NAME")).strip()
        self._description = EngineDescription("openvino", name, chosen, reason)
        twice = rescore and chosen != "float32"
        # Reads all weights: not for an int8 form alone.
        graph = build_graph(artifact) if twice or chosen != "int8" else None
        if chosen == "int8":
            small, rest = _read_int8(core, artifact), "bfloat16" if fast else "float32"
            self._first = _Streams(core, small, rest, artifact, cache, STEP)
        else:
            self._first = _Streams(core, graph, chosen, artifact, cache, STEP)
        self._again = _Streams(core, graph, "float32", artifact, cache, STEP_AGAIN) if twice else None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")

    @property
    def description(self) -> EngineDescription:
        """Name, device and precision."""
        return self._description

    def memory(self) -> DeviceMemory:
        """The process's: this engine is for CPUs."""
        return host_memory()

    def warm_up(self) -> None:
        """Run every shape, from the largest to the smallest, in each stream."""
        self._thread.submit(self._compile).result()

    def submit(self, rows: Sequence[Ids]) -> Future[Scored]:
        """Score rows; see `worker.engine.Engine.submit`."""
        return self._thread.submit(self._score, rows)

    def close(self) -> None:
        """Finish what was submitted and end the thread."""
        self._thread.shutdown()

    def _compile(self) -> None:
        self._first.compile_all()
        if self._again:
            self._again.compile_all()

    def _score(self, rows: Sequence[Ids]) -> Scored:
        start = time.perf_counter()
        logits, device_tokens = self._first.score(rows)
        if self._again:
            doubtful = in_doubt(logits, DOUBT[self._description.precision])
            # Their second tokens are no padding.
            logits[doubtful], _ = self._again.score([rows[index] for index in doubtful])
        return Scored(logits, time.perf_counter() - start, device_tokens)


class _Streams:
    """A compiled graph, and as many calls of it at once as OpenVINO has streams, each as wide as a multiple of a step.

    The first call of each shape runs alone. Where two streams of OpenVINO 2026.4.1 met a new shape at the same moment,
    one of them could keep wrong numbers for it for as long as the process lived: in 9 of 100 processes, in float32, and
    in none of 100 where one call had gone ahead.
    """

    def __init__(
        self, core: Any, graph: Any, precision: str, artifact: Artifact, cache: Path | None, step: int
    ) -> None:
        options = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": HINTS[precision]}
        if cache is not None:
            options["CACHE_DIR"] = str(cache)
        self._longest = artifact.manifest.cut.head + artifact.manifest.cut.tail
        self._step = step
        self._labels = len(artifact.manifest.labels)
        self._queue = openvino.AsyncInferQueue(core.compile_model(graph, DEVICE, options))
        self._queue.set_callback(self._take)
        self._logits = np.empty((0, self._labels), dtype=np.float32)
        self._met: set[tuple[int, int]] = set()

    def compile_all(self) -> None:
        """Run every shape, the largest first."""
        one = np.ones(1, dtype=np.int32)
        shapes = sorted(all_shapes(self._longest, self._step), key=lambda shape: -shape[0] * shape[1])
        self._logits = np.empty((max(height for height, _ in shapes), self._labels), dtype=np.float32)
        for height, width in shapes:
            # One that goes ahead, then every request at once, so that each stream has one.
            for _ in range(1 + len(self._queue)):
                self._start([one] * height, width, range(height))
        self._queue.wait_all()

    def score(self, rows: Sequence[Ids]) -> tuple[Logits, int]:
        """Logits in the order of the rows, and the tokens that were computed, padding included."""
        device_tokens = 0
        logits = self._logits = np.empty((len(rows), self._labels), dtype=np.float32)
        try:
            for width, members in plan_calls([len(row) for row in rows], self._longest, self._step):
                self._start([rows[index] for index in members], width, members)
                device_tokens += len(members) * width
            self._queue.wait_all()
        except Exception:
            # What still runs would write into the next batch's logits.
            with suppress(Exception):
                self._queue.wait_all()
            raise
        return logits, device_tokens

    def _start(self, rows: Sequence[Ids], width: int, members: Sequence[int]) -> None:
        """Start a call; the first of its shape when nothing else runs, and until it is done."""
        shape = len(rows), width
        alone = shape not in self._met
        if alone:
            self._queue.wait_all()
        self._queue.start_async(inputs_of(rows, width), members)
        if alone:
            self._queue.wait_all()
            self._met.add(shape)

    def _take(self, request: Any, members: Sequence[int]) -> None:
        """A call is done: copy its logits, since the request's memory is used again."""
        self._logits[members] = request.get_tensor(OUTPUT).data


def in_doubt(logits: Logits, sure: float) -> Places:
    """Rows whose best label has a share below `sure`. Nothing but a row's own logits counts, so that a review's answer
    does not depend on what was scored beside it.

    Args:
        logits: (rows, labels).
        sure: a share that is sure enough, before the model's temperature.
    """
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.flatnonzero(1 / powers.sum(axis=-1) < sure)


def width_of(length: int, longest: int, step: int) -> int:
    """Columns of a call that holds a row of this length."""
    return min(-(-length // step) * step, longest)


def plan_calls(lengths: Sequence[int], longest: int, step: int) -> Iterator[tuple[int, list[int]]]:
    """Which rows go into one call, the widest calls first.

    Args:
        lengths: tokens of each row.
        longest: the most that a row can have.
        step: widths are multiples of it, but for the longest.

    Yields:
        Columns of a call, and the indices of its rows; each index once.
    """
    by_width = defaultdict(list)
    for index, length in enumerate(lengths):
        by_width[width_of(length, longest, step)].append(index)
    for width in sorted(by_width, reverse=True):
        waiting = by_width[width]
        for height in heights_of(width):
            while len(waiting) >= height:
                yield width, waiting[:height]
                waiting = waiting[height:]


def heights_of(width: int) -> list[int]:
    """Numbers of rows that a call of this width may have, the largest first: powers of two."""
    return [1 << power for power in reversed(range(max(1, CALL_TOKENS // width).bit_length()))]


def all_shapes(longest: int, step: int) -> list[tuple[int, int]]:
    """Every (rows, columns) that a call can have."""
    widths = {width_of(length, longest, step) for length in range(1, longest + 1)}
    return [(height, width) for width in widths for height in heights_of(width)]


def _choose_precision(asked: Precision, fast: bool, artifact: Artifact) -> tuple[str, str]:
    if asked == "auto":
        return _fastest(fast, artifact)
    if asked == "int8":
        if artifact.int8 is None:
            raise EngineError(
                f"{artifact.folder}: this artefact has no int8 form; `review-trainer export --int8` writes one"
            )
        return asked, "asked for" if _has_vnni() else "asked for, though this CPU has no VNNI: slower and less exact"
    if asked not in HINTS:
        raise EngineError(f"the openvino engine computes in int8, {' or '.join(HINTS)}, not {asked}")
    return asked, "asked for"


def _fastest(fast: bool, artifact: Artifact) -> tuple[str, str]:
    if artifact.int8 is not None and _has_vnni():
        return "int8", "the artefact has an int8 form, and this CPU has VNNI"
    lacking = "; the artefact's int8 form needs VNNI" if artifact.int8 is not None else ""
    if fast:
        return "bfloat16", f"this CPU multiplies bfloat16 natively{lacking}"
    return "float32", f"this CPU has no fast bfloat16{lacking}"


def _has_vnni() -> bool:
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # no Linux
        return False
    flags = next((line for line in lines if line.startswith("flags")), "")
    return not VNNI.isdisjoint(flags.split())


def _read_int8(core: Any, artifact: Artifact) -> Any:
    """The graph that `review-trainer export --int8` wrote.

    Raises:
        ArtifactError: its files, which match their hashes, are no such graph.
    """
    try:
        model = core.read_model(str(artifact.int8))
        inputs = tuple(sorted(port.get_any_name() for port in model.inputs))
        labels = model.output(OUTPUT).get_partial_shape()[1]
        fits = inputs == INPUTS and labels.is_static and labels.get_length() == len(artifact.manifest.labels)
    except Exception as error:  # the library raises bare ones
        raise ArtifactError(
            f"{artifact.int8}: OpenVINO cannot read it ({type(error).__name__}); export it again, or "
            "choose --precision bfloat16"
        ) from None
    if not fits:
        raise ArtifactError(f"{artifact.int8}: is not the graph of this model; export it again")
    return model
