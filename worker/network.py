"""The network: BERT for sequence classification (Devlin et al. 2019), in Keras 3 and `keras.ops` only.

In: token ids, mask and token types, int32, (batch, length). Out: float32 logits, (batch, labels). Nothing here knows a
backend, so the same network trains and serves on TensorFlow and on JAX. The weights come from `worker.weights`.
"""

from collections.abc import Callable
from typing import Any, TypedDict

import keras
from keras import ops

from worker.bert_config import Activation, BertConfig

Attend = Callable[[Any, Any, Any, float], Any]
"""Queries, keys, values, each (batch, length, heads, head width), and the factor of their products, to the mix of the
values, of the same shape."""


class BertInputs(TypedDict):
    """Inputs of the network, each int32 of shape (batch, length)."""

    input_ids: Any
    attention_mask: Any
    token_type_ids: Any


def activation(name: Activation) -> Any:
    """The function of the feed-forward part. Hugging Face's `gelu` is the exact one with erf; `gelu_new` is tanh's."""
    if name == "relu":
        return ops.relu
    exact = name == "gelu"
    return lambda x: ops.gelu(x, approximate=not exact)


class Attention(keras.layers.Layer):  # type: ignore[misc]
    """Multi-head self-attention with its output projection.

    The three projections of the input are one matrix product: one call of 3 x width columns keeps a CPU's cores and a
    GPU's multiprocessors fuller than three of width.
    """

    def __init__(self, config: BertConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heads = config.num_attention_heads
        self.width = config.hidden_size
        self.head_width = self.width // self.heads
        self.scale = self.head_width**-0.5
        initializer = keras.initializers.TruncatedNormal(stddev=config.initializer_range)
        self.qkv = keras.layers.Dense(
            3 * self.width, kernel_initializer=initializer, name="qkv", dtype=self.dtype_policy
        )
        self.output_dense = keras.layers.Dense(
            self.width, kernel_initializer=initializer, name="output", dtype=self.dtype_policy
        )
        self.dropout = keras.layers.Dropout(config.attention_probs_dropout_prob, dtype=self.dtype_policy)

    def build(self, shape: Any) -> None:
        """Make the weights for inputs (batch, length, width)."""
        self.qkv.build(shape)
        self.output_dense.build(shape)
        self.built = True

    def call(self, x: Any, bias: Any, first_only: bool = False, training: bool = False) -> Any:
        """Attend from every row of `x`, or with `first_only` from [CLS] alone.

        Args:
            x: (batch, length, width).
            bias: (batch, 1, 1 or length, length), 0 where a key may be seen, hugely negative where not.
            first_only: the last layer needs the [CLS] row only; the rest of its queries is never computed.
            training: apply dropout.

        Returns:
            (batch, length or 1, width)
        """
        if first_only:
            kernel, offset = self.qkv.kernel, self.qkv.bias
            kernel, offset = ops.cast(kernel, self.compute_dtype), ops.cast(offset, self.compute_dtype)
            q = ops.matmul(x[:, :1], kernel[:, : self.width]) + offset[: self.width]
            kv = ops.matmul(x, kernel[:, self.width :]) + offset[self.width :]
            k, v = ops.split(kv, 2, axis=-1)
        else:
            q, k, v = ops.split(self.qkv(x), 3, axis=-1)
        q, k, v = (ops.transpose(self._by_head(part), (0, 2, 1, 3)) for part in (q * self.scale, k, v))
        scores = ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))) + bias
        # A softmax in bfloat16 loses the small weights of long reviews.
        weights = ops.cast(ops.softmax(ops.cast(scores, "float32"), axis=-1), self.compute_dtype)
        mixed = ops.matmul(self.dropout(weights, training=training), v)
        return self.output_dense(self._by_row(ops.transpose(mixed, (0, 2, 1, 3))))

    def mix(self, x: Any, attend: Attend) -> Any:
        """Attention by an engine's own kernel, without the output projection; (batch, length, width) as `x`."""
        q, k, v = (self._by_head(part) for part in ops.split(self.qkv(x), 3, axis=-1))
        return self._by_row(attend(q, k, v, self.scale))

    def _by_head(self, x: Any) -> Any:
        """(batch, length, width) -> (batch, length, heads, head width)."""
        return ops.reshape(x, (-1, ops.shape(x)[1], self.heads, self.head_width))

    def _by_row(self, x: Any) -> Any:
        """(batch, length, heads, head width) -> (batch, length, width)."""
        return ops.reshape(x, (-1, ops.shape(x)[1], self.width))


class EncoderLayer(keras.layers.Layer):  # type: ignore[misc]
    """Attention and feed-forward, each with dropout, residual and normalisation after it (post-norm)."""

    def __init__(self, config: BertConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        initializer = keras.initializers.TruncatedNormal(stddev=config.initializer_range)
        policy = self.dtype_policy
        self.width = config.hidden_size
        self.attention = Attention(config, name="attention", dtype=policy)
        self.attention_norm = keras.layers.LayerNormalization(
            epsilon=config.layer_norm_eps, name="attention_norm", dtype=policy
        )
        self.inner = keras.layers.Dense(
            config.intermediate_size, kernel_initializer=initializer, name="inner", dtype=policy
        )
        self.outer = keras.layers.Dense(self.width, kernel_initializer=initializer, name="outer", dtype=policy)
        self.outer_norm = keras.layers.LayerNormalization(
            epsilon=config.layer_norm_eps, name="outer_norm", dtype=policy
        )
        self.dropout = keras.layers.Dropout(config.hidden_dropout_prob, dtype=policy)
        self.activation = activation(config.hidden_act)

    def build(self, shape: Any) -> None:
        """Make the weights for inputs (batch, length, width)."""
        self.attention.build(shape)
        self.attention_norm.build(shape)
        self.inner.build(shape)
        self.outer.build((*shape[:-1], self.inner.units))
        self.outer_norm.build(shape)
        self.built = True

    def call(self, x: Any, bias: Any, first_only: bool = False, training: bool = False) -> Any:
        """Shapes as in `Attention.call`."""
        attended = self.attention(x, bias, first_only=first_only, training=training)
        return self.finish(x[:, :1] if first_only else x, attended, training=training)

    def finish(self, x: Any, attended: Any, training: bool = False) -> Any:
        """Everything behind the attention, for the rows of `x` alone; (batch, length, width)."""
        x = self.attention_norm(x + self.dropout(attended, training=training))
        fed = self.outer(self.activation(self.inner(x)))
        return self.outer_norm(x + self.dropout(fed, training=training))


class Bert(keras.Model):  # type: ignore[misc]
    """Embeddings, encoder layers, pooler, classifier.

    Args:
        config: the network's shape.
        precision: `float32`, or `mixed_bfloat16` / `mixed_float16`: weights stay float32, products are computed in
            the short type, normalisation, softmax and classifier in float32.
    """

    def __init__(self, config: BertConfig, precision: str = "float32", name: str = "bert") -> None:
        super().__init__(name=name, dtype=precision)
        self.config = config
        initializer = keras.initializers.TruncatedNormal(stddev=config.initializer_range)
        policy = self.dtype_policy

        def embedding(rows: int, label: str) -> Any:
            return keras.layers.Embedding(
                rows, config.hidden_size, embeddings_initializer=initializer, name=label, dtype=policy
            )

        self.words = embedding(config.vocab_size, "words")
        self.positions = embedding(config.max_position_embeddings, "positions")
        self.types = embedding(config.type_vocab_size, "types")
        self.norm = keras.layers.LayerNormalization(epsilon=config.layer_norm_eps, name="norm", dtype=policy)
        self.dropout = keras.layers.Dropout(config.hidden_dropout_prob, dtype=policy)
        self.encoder = [
            EncoderLayer(config, name=f"layer_{index}", dtype=policy) for index in range(config.num_hidden_layers)
        ]
        self.pooler = keras.layers.Dense(
            config.hidden_size, activation="tanh", kernel_initializer=initializer, name="pooler", dtype=policy
        )
        dropout = config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout
        self.head_dropout = keras.layers.Dropout(dropout, dtype=policy)
        self.classifier = keras.layers.Dense(
            len(config.labels), kernel_initializer=initializer, name="classifier", dtype="float32"
        )
        self.build()

    def build(self, _: Any = None) -> None:
        """Make every weight at once: the shape is known from the configuration, no example batch is needed."""
        width = self.config.hidden_size
        for table in (self.words, self.positions, self.types):
            table.build((None, None))
        self.norm.build((None, None, width))
        for layer in self.encoder:
            layer.build((None, None, width))
        self.pooler.build((None, width))
        self.classifier.build((None, width))
        self.built = True

    def call(self, inputs: BertInputs, training: bool = False) -> Any:
        """Logits, float32, (batch, labels)."""
        ids = inputs["input_ids"]
        positions = ops.arange(ops.shape(ids)[1], dtype="int32")[None]
        x = self.dropout(self._embed(ids, inputs["token_type_ids"], positions), training=training)
        bias = self._attention_bias(inputs["attention_mask"])
        last = len(self.encoder) - 1
        for index, layer in enumerate(self.encoder):
            x = layer(x, bias, first_only=index == last, training=training)
        pooled = self.pooler(x[:, 0])
        return self.classifier(self.head_dropout(pooled, training=training))

    def packed(self, ids: Any, positions: Any, starts: Any, attend: Attend) -> Any:
        """Logits of several reviews a row, for serving.

        Args:
            ids: (rows, columns).
            positions: (rows, columns), restarting at 0 with each review.
            starts: (rows, segments), the column of each review's [CLS]; any column where there is none.
            attend: attention that stays inside each review.

        Returns:
            float32, (rows, segments, labels)
        """
        x = self._embed(ids, ops.zeros_like(ids), positions)
        *others, last = self.encoder
        for layer in others:
            x = layer.finish(x, layer.attention.output_dense(layer.attention.mix(x, attend)))
        # Behind the last attention only the [CLS] columns matter.
        mixed, x = (ops.take_along_axis(part, starts[..., None], axis=1) for part in (last.attention.mix(x, attend), x))
        x = last.finish(x, last.attention.output_dense(mixed))
        return self.classifier(self.pooler(x))

    def _embed(self, ids: Any, types: Any, positions: Any) -> Any:
        return self.norm(self.words(ids) + self.types(types) + self.positions(positions))

    def _attention_bias(self, mask: Any) -> Any:
        """Mask (batch, length) -> bias (batch, 1, 1, length): 0 to see, -10,000 to hide.

        -10,000 is inside float16's range and already nothing after a softmax; minus infinity would make a row of
        padding NaN.
        """
        hidden = 1 - ops.cast(mask, self.compute_dtype)
        return (hidden * -10_000.0)[:, None, None, :]
