"""Engines: token rows in, logits out. One small file an engine; this one holds the seam and the choice.

An engine is opened on a verified artefact, warmed up once, and then given one batch at a time; it scores on a thread of
its own, so that the loop can prepare the next batch and commit the last one meanwhile.
"""

import logging
import sys
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from worker.artifact import Artifact
from worker.engine.memory import DeviceMemory
from worker.errors import EngineError
from worker.tokens import Ids

# With this library, OpenVINO reports to its makers over the network that it is imported, NNCF what it is used for, and
# both leave a number for the user in the home folder. Without it they do neither; it stands here since this runs before
# anything of this package imports them.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

log = logging.getLogger(__name__)

Logits = NDArray[np.float32]
EngineName = Literal["auto", "tensorflow", "jax", "openvino"]
Precision = Literal["auto", "float32", "bfloat16", "float16", "int8"]

NVIDIA = Path("/proc/driver/nvidia/version")
"""There when NVIDIA's kernel driver is loaded."""


@dataclass(frozen=True)
class EngineDescription:
    """What computes, for logs and the `model_info` metric."""

    name: str
    device: str
    precision: str
    reason: str
    """Why this engine, device and precision were chosen."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What the device made of one batch."""

    logits: Logits
    """float32, (rows, labels), in the order of the rows."""
    seconds: float
    """Time in which the device worked on the batch."""
    device_tokens: int
    """Tokens the device computed, padding included."""


class Engine(Protocol):
    """The seam between the loop and a device."""

    @property
    def description(self) -> EngineDescription:
        """Name, device and precision."""
        ...

    def memory(self) -> DeviceMemory:
        """Of the device; may be asked by any thread."""
        ...

    def warm_up(self) -> None:
        """Compile and run what a first batch would otherwise wait for."""
        ...

    def submit(self, rows: Sequence[Ids]) -> Future[Scored]:
        """Score rows in any number, none included; batches are scored in the order of submission.

        Args:
            rows: token ids, int32, (length,) each.
        """
        ...

    def close(self) -> None:
        """Finish what was submitted and free the device."""
        ...


def open_engine(
    artifact: Artifact,
    choice: EngineName = "auto",
    precision: Precision = "auto",
    cache: Path | None = None,
    *,
    rescore: bool = True,
) -> Engine:
    """Load the artefact into an engine.

    Args:
        artifact: a verified folder.
        choice: the engine; `auto` takes the fastest one that this machine can run.
        precision: the type of the matrix products; `auto` takes the fastest that keeps the labels.
        cache: folder for what is compiled, to be found again after a restart; none where absent.
        rescore: what a shorter type than float32 is in doubt of is scored again in float32; by the openvino engine,
            others leave it as it is.

    Raises:
        ArtifactError: the artefact's files are not what the engine reads.
        EngineError: the engine cannot run here, or does not know the precision.
    """
    engine, why = _choose(precision) if choice == "auto" else (choice, "asked for")
    log.info("engine chosen", extra={"engine": engine, "reason": why})
    if engine in ("jax", "openvino") and find_spec(engine) is None:
        raise EngineError(f"the {engine} engine is not installed; pip install 'review-scorer[{engine}]'")
    if cache is not None:
        _require_writable(cache)
    if engine == "openvino":
        from worker.engine.openvino_engine import OpenVinoEngine

        return OpenVinoEngine(artifact, precision, cache, rescore=rescore)
    if precision == "int8":
        raise EngineError(f"the {engine} engine computes in floating point, not int8; the openvino engine knows it")
    if engine == "jax":
        from worker.engine.jax_engine import JaxEngine

        return JaxEngine(artifact, precision, cache)
    from worker.quiet import import_tensorflow

    import_tensorflow()
    from worker.engine.keras_engine import KerasEngine

    return KerasEngine(artifact, precision)


def _require_writable(cache: Path) -> None:
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=cache):
            pass
    except OSError as error:
        raise EngineError(f"WORKER_CACHE_DIR {cache}: cannot be written: {error.strerror}") from None


def _choose(precision: Precision) -> tuple[EngineName, str]:
    """The fastest engine that this machine can run, and why. No framework is imported for the question."""
    if precision == "int8":
        return "openvino", "it alone computes in int8"
    if NVIDIA.exists() and find_spec("jax") is not None:
        return "jax", "there is an NVIDIA GPU, and jax is the fast engine on it"
    if NVIDIA.exists():
        return "tensorflow", "there is an NVIDIA GPU; jax, the fast engine on it, is not installed"
    if find_spec("openvino") is None:
        return "tensorflow", "openvino, the fast engine on CPUs, is not installed"
    return "openvino", "no GPU here; openvino is the fast engine on CPUs"
