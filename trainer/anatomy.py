"""What an artefact is: its manifest, its layers, its signature, and one prediction.

Layers are counted in the header of `model.safetensors`, and the signature is read from `saved_model.pb`: neither is
loaded for it.
"""

import math
import re
from pathlib import Path
from typing import Any

from pydantic import AwareDatetime
from safetensors import SafetensorError, safe_open

from schemas import Cut, ModelName
from schemas.record import Digest, Record
from trainer.predict import TextPrediction, predictions
from trainer.scoring import Model
from worker.artifact import WEIGHTS
from worker.errors import ArtifactError

SAVED_MODEL = "saved_model.pb"
LAYER = re.compile(r"bert\.encoder\.layer\.(\d+)\.")
PARTS = {"bert.embeddings.": "embeddings", "bert.pooler.": "pooler", "classifier.": "classifier"}


class TensorInfo(Record):
    """An input or output of the SavedModel.

    Example: `{"name": "input_ids", "dtype": "int32", "shape": [null, null]}`
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    """None where any size is taken."""

    def __str__(self) -> str:
        sizes = ", ".join("any" if size is None else str(size) for size in self.shape)
        return f"{self.name}: {self.dtype} ({sizes})"


class Signature(Record):
    """What a program sends to the SavedModel and gets.

    Example: `{"name": "serving_default", "method": "tensorflow/serving/predict", "inputs": [...], "outputs": [...]}`
    """

    name: str
    method: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


class Anatomy(Record):
    """What `show` shows.

    Example: `{"model": {"name": "imdb", "version": 3, "digest": "sha256:5e88...d8"}, "base": "bert-base-cased",
    "created_at": "2026-11-23T09:00:00Z", "labels": ["negative", "positive"], "cut": {"head": 129, "tail": 383},
    "cleaning": ["line-breaks"], "temperature": 1.31, "metrics": {"validation_accuracy": 0.91}, "data_digest": null,
    "bytes": 181759920, "parameters": {"embeddings": 11919360, ...}, "signature": {...}, "engine": "openvino",
    "device": "cpu", "precision": "bfloat16", "text": "A slow start.", "prediction": {...}}`
    """

    model: ModelName
    base: str
    created_at: AwareDatetime
    labels: tuple[str, ...]
    cut: Cut
    cleaning: tuple[str, ...]
    temperature: float
    metrics: dict[str, float]
    data_digest: Digest | None
    bytes: int
    """Of all its files together."""
    parameters: dict[str, int]
    """By group of layers, in the order in which a review passes them."""
    signature: Signature | None
    engine: str
    device: str
    precision: str
    text: str
    prediction: TextPrediction
    """What the model says of `text`."""


def describe(model: Model, text: str) -> Anatomy:
    """Everything about an opened artefact, and its prediction for a text.

    Raises:
        ArtifactError: a file of it cannot be read.
    """
    artifact, manifest, engine = model.artifact, model.artifact.manifest, model.engine
    return Anatomy(
        model=artifact.name,
        base=manifest.base,
        created_at=manifest.created_at,
        labels=manifest.labels,
        cut=manifest.cut,
        cleaning=manifest.cleaning,
        temperature=manifest.temperature,
        metrics=manifest.metrics,
        data_digest=manifest.data_digest,
        bytes=sum(file.bytes for file in manifest.files.values()),
        parameters=parameter_groups(artifact.folder),
        signature=read_signature(artifact.folder),
        engine=engine.name,
        device=engine.device,
        precision=engine.precision,
        text=text,
        prediction=next(predictions(model, [text])),
    )


def parameter_groups(folder: Path) -> dict[str, int]:
    """Numbers of each group of layers, in the order in which a review passes them.

    Raises:
        ArtifactError: the weights cannot be read.
    """
    sizes: dict[str, int] = {}
    try:
        with safe_open(folder / WEIGHTS, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 - it is no dict
                group = _group(name)
                sizes[group] = sizes.get(group, 0) + math.prod(file.get_slice(name).get_shape())
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{folder / WEIGHTS}: {error}") from None
    return {group: sizes[group] for group in sorted(sizes, key=_place)}


def _group(tensor: str) -> str:
    layer = LAYER.match(tensor)
    if layer:
        return f"layer {int(layer[1]) + 1}"
    return next((group for prefix, group in PARTS.items() if tensor.startswith(prefix)), "other")


def _place(group: str) -> tuple[int, int]:
    order = ("embeddings", "layer", "pooler", "classifier", "other")
    name, _, number = group.partition(" ")
    return order.index(name), int(number or 0)


def read_signature(folder: Path) -> Signature | None:
    """The signature `serving_default`; None where the artefact has no SavedModel.

    Raises:
        ArtifactError: `saved_model.pb` cannot be read, or has no such signature.
    """
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    from trainer.serving import SIGNATURE

    path = folder / SAVED_MODEL
    if not path.is_file():
        return None
    saved = saved_model_pb2.SavedModel()
    try:
        saved.ParseFromString(path.read_bytes())
        found = saved.meta_graphs[0].signature_def[SIGNATURE]
    except Exception:  # protobuf's DecodeError, and an IndexError
        raise ArtifactError(f"{path}: not a SavedModel") from None

    def tensors(infos: Any) -> tuple[TensorInfo, ...]:
        return tuple(
            TensorInfo(
                name=name,
                dtype=tf.dtypes.as_dtype(info.dtype).name,
                shape=tuple(None if size.size < 0 else size.size for size in info.tensor_shape.dim),
            )
            for name, info in sorted(infos.items())
        )

    return Signature(
        name=SIGNATURE, method=found.method_name, inputs=tensors(found.inputs), outputs=tensors(found.outputs)
    )
