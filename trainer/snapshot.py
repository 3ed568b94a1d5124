"""The checkpoint of a run in hand: everything that going on needs, in one file, `RUN/checkpoint.safetensors`.

The tensors are every variable of the network (its weights, and the counters of its dropout), of the optimizer (moments,
step, accumulated gradients, moving average, loss scale) and of the metrics; the header holds a `State` as JSON and the
SHA-256 of all of it. One file, replaced in one rename and flushed to the disk before and after it: a reader finds the
checkpoint before or the new one, never a part, whatever is killed or loses its power.
"""

import hashlib
from importlib.metadata import version as installed
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from schemas.record import Digest, Record
from trainer.adapt_settings import AdaptSettings
from trainer.disk import sync
from trainer.run import History
from trainer.settings import TrainSettings
from worker.errors import ArtifactError

CHECKPOINT = "checkpoint.safetensors"
PART = f".{CHECKPOINT}.part"
LIBRARIES = ("tensorflow", "keras", "numpy")
STATE, DIGEST = "state", "sha256"

Tensors = dict[str, NDArray[Any]]


class State(Record):
    """Where a run stands, beside its tensors. Early stopping and the best epoch follow from `history`.

    Example: `{"format": 1, "settings": {...}, "data_digest": "sha256:9f86...08", "base_digest": "sha256:...",
    "epoch": 1, "step": 312, "seconds": 41.9, "history": {...}, "weights": "sha256:...",
    "device": "CPU, AMD EPYC, 2 cores", "libraries": {"tensorflow": "2.21.0", "keras": "3.15.1", "numpy": "2.4.6"}}`
    """

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    settings: TrainSettings | AdaptSettings
    data_digest: Digest
    base_digest: Digest
    epoch: Annotated[int, Field(ge=0)]
    """Epochs that are done, validation included."""
    step: Annotated[int, Field(ge=0)]
    """Steps that are done of the epoch in hand."""
    seconds: Annotated[float, Field(ge=0)]
    """What they took."""
    history: History
    weights: Digest | None
    """Of the best epoch's `model.safetensors`."""
    device: str
    """That computed so far, with its number of cores: another one adds up in another order."""
    libraries: dict[str, str] = Field(default_factory=lambda: libraries())


def libraries() -> dict[str, str]:
    """Versions of what computes."""
    return {name: installed(name) for name in LIBRARIES}


def variables(network: Any) -> list[Any]:
    """Everything that a step reads and changes, each once, in an order that the network's shape alone decides."""
    every = [*network.variables, *network.optimizer.variables, *network.metrics_variables]
    return list({id(variable): variable for variable in every}.values())


def write_snapshot(out: Path, network: Any, state: State) -> None:
    """Write or replace the checkpoint.

    Args:
        out: the run folder.
        network: compiled, and trained for a step at least: the metrics make their variables with the first.
        state: where it stands.

    Raises:
        OSError: the disk is full or the place cannot be written; the checkpoint before is still there.
    """
    tensors = {f"{at:04d}": np.array(variable.numpy()) for at, variable in enumerate(variables(network))}
    text = state.model_dump_json()
    part = out / PART
    try:
        save_file(tensors, part, metadata={STATE: text, DIGEST: _digest(text, tensors)})
        sync(part)
        part.replace(out / CHECKPOINT)
        sync(out)
    except SafetensorError as error:  # how the library reports a full disk
        raise OSError(str(error)) from None
    finally:
        part.unlink(missing_ok=True)


def read_snapshot(path: Path) -> tuple[State, Tensors]:
    """Read and verify a checkpoint.

    Raises:
        ArtifactError: it cannot be read, or is not what was written.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            said = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        text = said[STATE]
        if said[DIGEST] != _digest(text, tensors):
            raise ArtifactError(f"{path}: was altered or damaged: its SHA-256 is another; --force starts anew")
        return State.model_validate_json(text), tensors
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        fault = f"{error.error_count()} fields differ" if isinstance(error, ValidationError) else str(error)
        raise ArtifactError(f"{path}: no checkpoint that can be read ({fault}); --force starts anew") from None


def restore(network: Any, tensors: Tensors, where: Path) -> None:
    """Put a checkpoint's tensors back.

    Args:
        network: compiled, its metrics built.
        tensors: of `read_snapshot`.
        where: its file, for an error.

    Raises:
        ArtifactError: they belong to another network or optimizer, as with other versions of the libraries.
    """
    wanted = variables(network)
    shapes = [(tuple(variable.shape), np.dtype(str(variable.dtype))) for variable in wanted]
    if shapes != [(value.shape, value.dtype) for value in tensors.values()]:
        raise ArtifactError(f"{where}: its tensors are not those of this network and optimizer; --force starts anew")
    for variable, value in zip(wanted, tensors.values(), strict=True):
        variable.assign(value)


def _digest(text: str, tensors: Tensors) -> str:
    digest = hashlib.sha256(text.encode())
    for name, value in tensors.items():
        digest.update(f"{name} {value.dtype} {value.shape}".encode())
        digest.update(np.ascontiguousarray(value).data)
    return f"sha256:{digest.hexdigest()}"
