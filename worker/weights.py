"""Weights between the network and Hugging Face's `model.safetensors`, both ways.

Names and transpositions are those of `transformers`' `BertForSequenceClassification`: PyTorch's linear layers hold
(out, in), Keras' dense layers (in, out).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors.numpy import save_file

from worker.errors import ArtifactError
from worker.network import Bert
from worker.permissions import give_usual_rights
from worker.tensors import FLOATS, Array, Tensors, read_tensors

OPTIONAL_PARTS = ("pooler", "classifier")


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


def load_weights(network: Bert, path: Path, *, head_required: bool = True, same_labels: bool = True) -> tuple[str, ...]:
    """Fill the network from a checkpoint.

    Args:
        network: a network of the checkpoint's shape.
        path: `model.safetensors`, or the index of several.
        head_required: False for a base checkpoint: a missing pooler or classifier, or a classifier for another
            number of labels, keeps its fresh initial values.
        same_labels: False where the checkpoint's classifier is known to be for other labels, or in another order: it
            is not read.

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
        if part == "classifier" and not same_labels:
            fresh[part] = None
        elif fault is None:
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
    # safetensors makes it for its owner alone.
    give_usual_rights(path)
