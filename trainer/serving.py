"""The SavedModel of an artefact: signature `serving_default`, as TensorFlow Serving and OpenVINO read it.

In: `input_ids`, `attention_mask`, `token_type_ids`, int32, (batch, length), any batch and any length. Out: `logits` and
`probabilities`, float32, (batch, labels). Ordinary variables and plain operations only.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.folders import system_words
from worker.errors import ArtifactError
from worker.network import Bert
from worker.tokens import Ids, pad

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
SIGNATURE = "serving_default"

TOLERANCE = 1e-4
"""Largest difference of a logit between the written files and the network they were written from."""


class Servable(tf.Module):  # type: ignore[misc]
    """The network behind its public signature."""

    def __init__(self, network: Bert, temperature: float) -> None:
        super().__init__(name="review_scorer")
        # A SavedModel keeps the variables that hang on the module. The network itself must not hang there: Keras'
        # own tracking would write every weight a second time.
        self.weights = [variable.value for variable in network.trainable_variables]

        def serve(input_ids: Any, attention_mask: Any, token_type_ids: Any) -> dict[str, Any]:
            inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
            logits = network(inputs, training=False)
            return {"logits": logits, "probabilities": tf.nn.softmax(logits / temperature)}

        matrix = [tf.TensorSpec((None, None), tf.int32, name=name) for name in INPUTS]
        self.serve = tf.function(serve, input_signature=matrix, autograph=False)


def write_saved_model(folder: Path, network: Bert, temperature: float) -> None:
    """Write `saved_model.pb` and `variables/` into an existing folder.

    Raises:
        OSError: the disk is full or the place cannot be written.
    """
    servable = Servable(network, temperature)
    try:
        tf.saved_model.save(servable, str(folder), signatures={SIGNATURE: servable.serve})
    except tf.errors.OpError as error:
        raise OSError(system_words(error.message)) from None


def run_saved_model(folder: Path, rows: Sequence[Ids]) -> NDArray[np.float32]:
    """Logits of a SavedModel, (rows, labels), for rows padded to the longest."""
    loaded = tf.saved_model.load(str(folder))
    outputs = loaded.signatures[SIGNATURE](**{name: tf.constant(value) for name, value in _inputs(rows).items()})
    logits: NDArray[np.float32] = outputs["logits"].numpy()
    return logits


def run_network(network: Bert, rows: Sequence[Ids]) -> NDArray[np.float32]:
    """Logits of the network itself for the same inputs."""
    logits: NDArray[np.float32] = np.asarray(network(_inputs(rows), training=False))
    return logits


def _inputs(rows: Sequence[Ids]) -> dict[str, Ids]:
    ids, mask = pad(rows)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def verify_saved_model(folder: Path, network: Bert, rows: Sequence[Ids]) -> None:
    """Hold what was written to the network it was written from.

    Raises:
        ArtifactError: a logit differs by more than 1e-4.
    """
    difference = float(np.abs(run_saved_model(folder, rows) - run_network(network, rows)).max())
    if not difference <= TOLERANCE:
        raise ArtifactError(f"{folder}: the SavedModel's logits differ from the network's by {difference:.2g}")
