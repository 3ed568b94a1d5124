"""The network as a graph of OpenVINO's own operations, made of the artefact's weights.

In: `input_ids`, int32, (batch, length), and `bias`, float32, (batch, 1, 1, length), 0 where a token may be seen and
`HIDDEN` where it is padding. Out: `logits`, float32, (batch, labels). Token types are always those of a single text.

OpenVINO can read the artefact's SavedModel as well, but then sees what TensorFlow made of the network: ten small
operations for a normalisation, five for a GELU. Here each is the one operation that it has a kernel for, or fuses into
the matrix product before it. No framework is imported, and no file but the weights is read.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino
from openvino import opset15 as op

from worker.artifact import Artifact
from worker.bert_config import BertConfig
from worker.errors import ArtifactError
from worker.tensors import FLOATS, Array, Tensors, read_tensors

INPUTS = ("bias", "input_ids")
OUTPUT = "logits"

HIDDEN = -10_000.0
"""Added to the score of a token of padding. It is nothing after a softmax, and inside every type's range."""

FLOAT_PARTS = ("scores", "mixed", "pooler", "classifier")
"""Operations that stay in floating point where the others are quantized, by the last part of their names. The two
products of attention are quicker so: turning their inputs into integers costs more than it saves. The two small ones at
the end have one row a review."""


def build_graph(artifact: Artifact) -> Any:
    """The artefact's network as an `openvino.Model`.

    Raises:
        ArtifactError: a tensor is missing, or is not of the shape that the artefact's `config.json` says.
    """
    return _Builder(artifact.config, _Weights(artifact)).model()


def float_parts(model: Any) -> list[str]:
    """Names of the operations of a graph that are not to be quantized."""
    names = [operation.get_friendly_name() for operation in model.get_ordered_ops()]
    return [name for name in names if name.rpartition("/")[2] in FLOAT_PARTS]


class _Weights:
    """The tensors of an artefact, held to the shapes that are wanted of them."""

    def __init__(self, artifact: Artifact) -> None:
        self._path = artifact.weights
        self._tensors: Tensors = read_tensors(artifact.weights)

    def take(self, name: str, *shape: int) -> Array:
        """One tensor, float32."""
        if name not in self._tensors:
            raise ArtifactError(f"{self._path}: has no tensor {name}")
        tensor = self._tensors[name]
        if tensor.shape != shape:
            raise ArtifactError(f"{self._path}: {name} has the shape {tensor.shape}, wanted {shape}")
        if tensor.dtype.name not in FLOATS:
            raise ArtifactError(f"{self._path}: {name} holds {tensor.dtype.name}, not floating-point numbers")
        return np.ascontiguousarray(tensor, dtype=np.float32)


class _Builder:
    """Makes the graph from its inputs to its output; `worker.network` is the same in Keras, and says why."""

    def __init__(self, config: BertConfig, weights: _Weights) -> None:
        self._config = config
        self._weights = weights
        self._width = config.hidden_size
        self._heads = config.num_attention_heads
        self._head_width = config.hidden_size // config.num_attention_heads

    def model(self) -> Any:
        """All of it."""
        ids = op.parameter([-1, -1], np.int32, name="input_ids")
        bias = op.parameter([-1, 1, 1, -1], np.float32, name="bias")
        x = self._embedded(ids)
        last = self._config.num_hidden_layers - 1
        for index in range(last + 1):
            x = self._layer(x, bias, f"bert.encoder.layer.{index}", first_only=index == last)
        pooled = op.tanh(self._dense(op.squeeze(x, _integers(1)), "bert.pooler.dense", self._width, "pooler"))
        logits = self._dense(pooled, "classifier", len(self._config.labels), "classifier")
        inputs = [ids, bias]
        for parameter in inputs:
            parameter.output(0).set_names({parameter.get_friendly_name()})
        logits.output(0).set_names({OUTPUT})
        return openvino.Model([op.result(logits)], inputs, "bert")

    def _embedded(self, ids: Any) -> Any:
        config, at = self._config, "bert.embeddings"
        words = self._weights.take(f"{at}.word_embeddings.weight", config.vocab_size, self._width)
        places = self._weights.take(f"{at}.position_embeddings.weight", config.max_position_embeddings, self._width)
        types = self._weights.take(f"{at}.token_type_embeddings.weight", config.type_vocab_size, self._width)
        length = op.gather(op.shape_of(ids), _integers(1), _integer(0))
        near = op.slice(op.constant(places + types[0]), _integers(0), length, _integers(1), _integers(0))
        return self._norm(op.add(op.gather(op.constant(words), ids, _integer(0)), near), f"{at}.LayerNorm")

    def _layer(self, x: Any, bias: Any, at: str, *, first_only: bool) -> Any:
        """Attention and feed-forward. Behind the last attention only the [CLS] row matters: with `first_only` the
        queries, and all that follows them, are computed for it alone."""
        asking = op.slice(x, _integers(0), _integers(1), _integers(1), _integers(1)) if first_only else x
        # Attention's scale is part of the query's weights: one pass less over all queries.
        q, k, v = (
            self._by_head(self._dense(source, f"{at}.attention.self.{name}", self._width, name, times))
            for source, name, times in ((asking, "query", self._head_width**-0.5), (x, "key", 1), (x, "value", 1))
        )
        scores = op.matmul(q, k, transpose_a=False, transpose_b=True, name=f"{at}/scores")
        weights = op.softmax(op.add(scores, bias), -1)
        mixed = op.matmul(weights, v, transpose_a=False, transpose_b=False, name=f"{at}/mixed")
        rows = op.reshape(op.transpose(mixed, _integers(0, 2, 1, 3)), _integers(0, 0, self._width), special_zero=True)
        attended = self._dense(rows, f"{at}.attention.output.dense", self._width, "output")
        x = self._norm(op.add(attended, asking), f"{at}.attention.output.LayerNorm")
        inner = self._dense(x, f"{at}.intermediate.dense", self._config.intermediate_size, "inner")
        outer = self._dense(self._activated(inner), f"{at}.output.dense", self._width, "outer")
        return self._norm(op.add(outer, x), f"{at}.output.LayerNorm")

    def _dense(self, x: Any, name: str, columns: int, part: str, times: float = 1) -> Any:
        """Weights and offset are multiplied by `times`."""
        rows = self._config.intermediate_size if part == "outer" else self._width
        kernel = op.constant(times * self._weights.take(f"{name}.weight", columns, rows))
        offset = op.constant(times * self._weights.take(f"{name}.bias", columns))
        product = op.matmul(x, kernel, transpose_a=False, transpose_b=True, name=f"{name}/{part}")
        return op.add(product, offset)

    def _norm(self, x: Any, name: str) -> Any:
        normal = op.mvn(x, _integers(-1), True, self._config.layer_norm_eps, "inside_sqrt")
        scale = op.constant(self._weights.take(f"{name}.weight", self._width))
        return op.add(op.multiply(normal, scale), op.constant(self._weights.take(f"{name}.bias", self._width)))

    def _activated(self, x: Any) -> Any:
        if self._config.hidden_act == "relu":
            return op.relu(x)
        return op.gelu(x, "erf" if self._config.hidden_act == "gelu" else "tanh")

    def _by_head(self, x: Any) -> Any:
        """(batch, length, width) -> (batch, heads, length, head width)."""
        parted = op.reshape(x, _integers(0, 0, self._heads, self._head_width), special_zero=True)
        return op.transpose(parted, _integers(0, 2, 1, 3))


def _integers(*values: int) -> Any:
    return op.constant(np.array(values, dtype=np.int64))


def _integer(value: int) -> Any:
    return op.constant(np.int64(value))


def inputs_of(rows: Sequence[Array], width: int) -> dict[str, Array]:
    """The graph's inputs for rows of token ids, each padded to `width`."""
    ids = np.zeros((len(rows), width), dtype=np.int32)
    bias = np.full((len(rows), 1, 1, width), HIDDEN, dtype=np.float32)
    for at, row in enumerate(rows):
        ids[at, : len(row)] = row
        bias[at, ..., : len(row)] = 0
    return {"input_ids": ids, "bias": bias}
