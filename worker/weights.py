"""Weights between the network and Hugging Face's `model.safetensors`, both ways.

Names and transpositions are those of `transformers`' `BertForSequenceClassification`: PyTorch's linear layers hold
(out, in), Keras' dense layers (in, out).
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from worker.artifact import WEIGHTS
from worker.errors import ArtifactError
from worker.network import Bert

Array = NDArray[Any]
Tensors = Mapping[str, Array]
WEIGHTS_INDEX = f"{WEIGHTS}.index.json"
"""What the library writes beside weights that it cuts into several files, by default above some gigabytes."""

OPTIONAL_PARTS = ("pooler", "classifier")
HEADER_LIMIT = 1 << 20
"""Bytes. A tensor takes some 110 in the header, and BERT-large has some 400. The library itself reads up to 100 MB:
a million tensors of nothing, which become more than a gigabyte of Python objects."""
FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})
"""Types of numbers that are weights as they are; quantized ones are only half of it."""


@dataclass(frozen=True)
class Link:
    """One variable of the network and the tensors of the checkpoint it is made of.

    `names` has one entry, or three for the fused query, key and value. `kind` says how the arrays lie.
    """

    variable: Any
    names: tuple[str, ...]
    kind: Literal["matrix", "plain"]

    def from_checkpoint(self, tensors: Tensors) -> Array:
        """The variable's value, float32."""
        parts = [np.asarray(tensors[name], dtype=np.float32) for name in self.names]
        if self.kind == "matrix":
            parts = [part.T for part in parts]
        return np.concatenate(parts, axis=-1)

    def to_checkpoint(self) -> dict[str, Array]:
        """The checkpoint's tensors, float32."""
        value = np.asarray(self.variable, dtype=np.float32)
        parts = np.split(value, len(self.names), axis=-1)
        turned = [part.T if self.kind == "matrix" else part for part in parts]
        return {name: np.ascontiguousarray(part) for name, part in zip(self.names, turned, strict=True)}


def links(network: Bert) -> Iterator[Link]:
    """Every variable of the network with its names in the checkpoint."""

    def dense(layer: Any, *names: str) -> Iterator[Link]:
        yield Link(layer.kernel, tuple(f"{name}.weight" for name in names), "matrix")
        yield Link(layer.bias, tuple(f"{name}.bias" for name in names), "plain")

    def norm(layer: Any, name: str) -> Iterator[Link]:
        yield Link(layer.gamma, (f"{name}.weight",), "plain")
        yield Link(layer.beta, (f"{name}.bias",), "plain")

    embeddings = "bert.embeddings"
    yield Link(network.words.embeddings, (f"{embeddings}.word_embeddings.weight",), "plain")
    yield Link(network.positions.embeddings, (f"{embeddings}.position_embeddings.weight",), "plain")
    yield Link(network.types.embeddings, (f"{embeddings}.token_type_embeddings.weight",), "plain")
    yield from norm(network.norm, f"{embeddings}.LayerNorm")
    for index, layer in enumerate(network.encoder):
        at = f"bert.encoder.layer.{index}"
        attention = layer.attention
        own = f"{at}.attention.self"
        yield from dense(attention.qkv, f"{own}.query", f"{own}.key", f"{own}.value")
        yield from dense(attention.output_dense, f"{at}.attention.output.dense")
        yield from norm(layer.attention_norm, f"{at}.attention.output.LayerNorm")
        yield from dense(layer.inner, f"{at}.intermediate.dense")
        yield from dense(layer.outer, f"{at}.output.dense")
        yield from norm(layer.outer_norm, f"{at}.output.LayerNorm")
    yield from dense(network.pooler, "bert.pooler.dense")
    yield from dense(network.classifier, "classifier")


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


def load_weights(network: Bert, path: Path, *, head_required: bool = True) -> tuple[str, ...]:
    """Fill the network from a checkpoint.

    Args:
        network: a network of the checkpoint's shape.
        path: `model.safetensors`, or the index of several.
        head_required: False for a base checkpoint: a missing pooler or classifier, or a classifier for another
            number of labels, keeps its fresh initial values.

    Returns:
        The parts that kept their initial values: none, or some of "pooler" and "classifier".

    Raises:
        ArtifactError: a tensor is missing or of another shape; says which.
    """
    tensors = read_tensors(path)
    fresh: dict[str, None] = {}
    for link in links(network):
        part = next((part for part in OPTIONAL_PARTS if part in link.names[0]), None)
        fault = fault_of(link, tensors)
        if fault is None:
            link.variable.assign(link.from_checkpoint(tensors))
        elif part is not None and not head_required:
            fresh[part] = None
        else:
            raise ArtifactError(f"{path}: {fault}")
    return tuple(fresh)


def fault_of(link: Link, tensors: Tensors) -> str | None:
    """Why the tensors do not make the variable. Asked before they are turned and joined, which numpy refuses in its own
    words when they do not go together."""
    wanted = tuple(link.variable.shape)
    wanted = (*wanted[:-1], wanted[-1] // len(link.names))
    for name in link.names:
        if name not in tensors:
            return f"has no tensor {name}"
        shape, dtype = tensors[name].shape, tensors[name].dtype.name
        found = shape[::-1] if link.kind == "matrix" else shape
        if found != wanted:
            return f"{name} makes a variable of shape {found}, wanted {wanted}"
        if dtype not in FLOATS:
            return f"{name} holds {dtype}, not floating-point numbers; quantized weights are not read"
    return None


def save_weights(network: Bert, path: Path) -> None:
    """Write the network as `model.safetensors`, float32, as `transformers` reads it."""
    save_links(links(network), path)


def save_links(chosen: Iterable[Link], path: Path) -> None:
    """Write some variables as a safetensors file."""
    tensors: dict[str, Array] = {}
    for link in chosen:
        tensors |= link.to_checkpoint()
    save_file(tensors, path, metadata={"format": "pt"})
    # safetensors makes it for its owner alone, and a worker that runs as another user could not read it.
    mask = os.umask(0)  # it can only be read by setting it
    os.umask(mask)
    path.chmod(0o666 & ~mask)
