"""The tensors of a checkpoint, from safetensors into numpy: what every network here is made of, without a framework."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from worker.artifact import WEIGHTS
from worker.errors import ArtifactError

Array = NDArray[Any]
Tensors = Mapping[str, Array]
WEIGHTS_INDEX = f"{WEIGHTS}.index.json"
"""What the library writes beside weights that it cuts into several files, by default above some gigabytes."""
HEADER_LIMIT = 1 << 20
"""Bytes. A tensor takes some 110 in the header, and BERT-large has some 400. The library itself reads up to 100 MB:
a million tensors of nothing, which become more than a gigabyte of Python objects."""
FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})
"""Types of numbers that are weights as they are; quantized ones are only half of it."""


def find_weights(folder: Path) -> Path:
    """A checkpoint's safetensors file, or the index of several where it has been cut into them."""
    whole, index = folder / WEIGHTS, folder / WEIGHTS_INDEX
    return index if index.is_file() and not whole.is_file() else whole


def weight_files(path: Path) -> list[Path]:
    """The safetensors files that a path of `find_weights` stands for.

    Raises:
        ArtifactError: an index cannot be read, or names files elsewhere.
    """
    if path.name != WEIGHTS_INDEX:
        return [path]
    try:
        names = sorted(set(json.loads(path.read_bytes())["weight_map"].values()))
        files = [path.with_name(name) for name in names]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path}: not an index of safetensors files ({type(error).__name__})") from None
    if not files or any(file.suffix != ".safetensors" for file in files):
        raise ArtifactError(f"{path}: names no files, or others than safetensors")
    return files


def read_tensors(path: Path) -> dict[str, Array]:
    """The tensors of a checkpoint, under today's names.

    Old checkpoints call the norms' weights `gamma` and `beta`; one saved from the bare `BertModel` lacks the prefix
    `bert.`; bfloat16 has no numpy type of its own and comes through `ml_dtypes`.

    Args:
        path: a safetensors file, or the index of several.

    Raises:
        ArtifactError: a file is missing or not safetensors, or holds what numpy does not have.
    """
    return {_today(name): tensor for file in weight_files(path) for name, tensor in _load(file).items()}


def _load(path: Path) -> dict[str, Array]:
    import ml_dtypes  # noqa: F401 - registers bfloat16 with numpy

    try:
        _refuse_huge_header(path)
        tensors: dict[str, Array] = load_file(path)
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file; weights are read from safetensors only") from None
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{path}: not a readable safetensors file: {error}") from None
    except (AttributeError, ValueError) as error:  # a type of 8 bits or fewer; an array of more than 64 axes
        raise ArtifactError(f"{path}: holds a tensor that is no weight of a BERT: {error}") from None
    return tensors


def _refuse_huge_header(path: Path) -> None:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > HEADER_LIMIT:
        raise ArtifactError(
            f"{path}: not a readable safetensors file: its header would have {length:,} bytes, that of a BERT has "
            f"{HEADER_LIMIT:,} at most"
        )


def _today(name: str) -> str:
    name = name.replace(".gamma", ".weight").replace(".beta", ".bias")
    return f"bert.{name}" if name.startswith(("embeddings.", "encoder.", "pooler.")) else name
