"""The network that guesses masked words: a BERT and, in place of its classifier, Hugging Face's `BertForMaskedLM` head.

The head's last product is with the table of the words itself (tied weights). It is the largest of all, 30,000 columns
for every token, so that it is computed for the masked tokens alone, and with it the second half of the last layer.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
from keras import ops

from worker.errors import ArtifactError
from worker.network import Bert, activation
from worker.tensors import read_tensors
from worker.weights import Link, fault_of, links, load_weights, save_links

HEAD = "cls.predictions"


class MaskedBert(Bert):
    """Takes where the masked tokens stand and the inputs of `Bert`; gives float32 logits, (masked, vocabulary).

    Where they stand comes first: by the length of what comes first Keras weighs each batch's loss, so that the loss of
    many batches is the mean over all masked tokens.
    """

    def build(self, _: Any = None) -> None:
        """Make every weight. Pooler and classifier, which learn nothing here, stay as they are."""
        config, policy = self.config, self.dtype_policy
        initializer = keras.initializers.TruncatedNormal(stddev=config.initializer_range)
        self.activation = activation(config.hidden_act)
        self.transform = keras.layers.Dense(
            config.hidden_size, kernel_initializer=initializer, name="transform", dtype=policy
        )
        self.transform_norm = keras.layers.LayerNormalization(
            epsilon=config.layer_norm_eps, name="transform_norm", dtype=policy
        )
        self.transform.build((None, config.hidden_size))
        self.transform_norm.build((None, config.hidden_size))
        self.word_bias = self.add_weight(
            shape=(config.vocab_size,), initializer="zeros", name="bias", dtype="float32", autocast=False
        )
        super().build()
        self.pooler.trainable = self.classifier.trainable = False
        self.pooler_known = False

    def call(self, inputs: Any, training: bool = False) -> Any:
        """See the class."""
        places, rows = inputs
        ids = rows["input_ids"]
        positions = ops.arange(ops.shape(ids)[1], dtype="int32")[None]
        x = self.dropout(self._embed(ids, rows["token_type_ids"], positions), training=training)
        bias = self._attention_bias(rows["attention_mask"])
        *others, last = self.encoder
        for layer in others:
            x = layer(x, bias, training=training)
        both = (x, last.attention(x, bias, training=training))
        x, attended = (ops.take(ops.reshape(part, (-1, self.config.hidden_size)), places, axis=0) for part in both)
        x = last.finish(x, attended, training=training)
        x = self.transform_norm(self.activation(self.transform(x)))
        words = ops.transpose(ops.cast(self.words.embeddings, self.compute_dtype))
        return ops.cast(ops.matmul(x, words), "float32") + self.word_bias


def head_links(network: MaskedBert) -> Iterator[Link]:
    """Every variable of the head with its name in a checkpoint."""
    dense, norm = f"{HEAD}.transform.dense", f"{HEAD}.transform.LayerNorm"
    yield Link(network.transform.kernel, (f"{dense}.weight",), "matrix")
    yield Link(network.transform.bias, (f"{dense}.bias",), "plain")
    yield Link(network.transform_norm.gamma, (f"{norm}.weight",), "plain")
    yield Link(network.transform_norm.beta, (f"{norm}.bias",), "plain")
    yield Link(network.word_bias, (f"{HEAD}.bias",), "plain")


def load_masked(network: MaskedBert, path: Path) -> tuple[str, ...]:
    """Fill the network from a checkpoint.

    Args:
        network: of the checkpoint's shape.
        path: `model.safetensors`.

    Returns:
        The parts that were not there and keep their initial values: none, or some of "pooler" and "head".

    Raises:
        ArtifactError: a tensor is missing or of another shape, or the head is there in part; says which.
    """
    fresh = tuple(part for part in load_weights(network, path, head_required=False) if part != "classifier")
    network.pooler_known = "pooler" not in fresh
    tensors = read_tensors(path)
    if not any(name.startswith(f"{HEAD}.transform.") for name in tensors):
        return (*fresh, "head")
    if f"{HEAD}.bias" not in tensors and f"{HEAD}.decoder.bias" in tensors:  # as some programs write it
        tensors[f"{HEAD}.bias"] = tensors[f"{HEAD}.decoder.bias"]
    for link in head_links(network):
        fault = fault_of(link, tensors)
        if fault is not None:
            raise ArtifactError(f"{path}: {fault}")
        link.variable.assign(link.from_checkpoint(tensors))
    return fresh


def save_masked(network: MaskedBert, path: Path) -> None:
    """Write the network as `model.safetensors`: for `BertForMaskedLM`, and for fine-tuning to start from.

    Without the classifier, which belongs to the encoder as it was; with the pooler where the checkpoint had one.
    """
    left_out = ("classifier",) if network.pooler_known else ("classifier", "bert.pooler")
    own = [link for link in links(network) if not link.names[0].startswith(left_out)]
    save_links([*own, *head_links(network)], path)
