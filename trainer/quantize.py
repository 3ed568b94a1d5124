"""Quantization: the int8 form of a model, made with training reviews, and kept only if it labels as well.

NNCF's post-training quantization: matrices become int8, and the ranges of what they are multiplied with are taken from
calibration reviews; what is sensitive stays in floating point (see `worker.engine.openvino_graph`). Nothing is trained.
"""

import logging
import random
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

from schemas import Int8
from trainer.evaluate import Labelled, read_folder, score, score_of
from trainer.progress import Reporter
from trainer.scoring import open_model
from worker.artifact import INT8, Artifact
from worker.engine import Precision
from worker.errors import ArtifactError, UsageError
from worker.tokens import Ids

LARGEST_LOSS = 0.003
"""Share of the validation reviews that int8 may label worse than floating point, on balance."""

PASSES = 2
"""How often NNCF reads the calibration reviews: to even out the columns of activations, and for their ranges."""

SEED = 0
"""Of the choice of reviews: the same data give the same form."""


@dataclass(frozen=True)
class Sizes:
    """How many reviews quantization may use.

    Attributes:
        calibration: of the training split.
        validation: of the validation split.
    """

    calibration: int = 300
    validation: int = 2000


@dataclass(frozen=True)
class Samples:
    """The reviews that a model is quantized with.

    Attributes:
        calibration: texts that it was trained on.
        validation: reviews that it was not trained on, to measure the loss.
    """

    calibration: Sequence[str]
    validation: Labelled


def require_nncf() -> None:
    """Check before the long work that quantization can run.

    Raises:
        UsageError: a library is missing.
    """
    for library in ("nncf", "openvino"):
        if find_spec(library) is None:
            raise UsageError(f"--int8: {library} is not installed; pip install 'review-scorer[int8]'")


def take_samples(folder: Path, labels: Sequence[str], sizes: Sizes) -> Samples:
    """Reviews of prepared data for a model with these labels; see `read_folder` for errors.

    Raises:
        UsageError: a split is empty.
    """
    train, validation = (read_folder(folder, split, labels) for split in ("train", "validation"))
    for part in (train, validation):
        if not part.reviews:
            raise UsageError(f"--int8: {folder} has no reviews in its {part.split} split")
    chosen = random.Random(SEED)  # noqa: S311 - a sample, no secret
    texts = [review.text for review in train.reviews]
    kept = chosen.sample(list(validation.reviews), min(sizes.validation, len(validation.reviews)))
    return Samples(
        chosen.sample(texts, min(sizes.calibration, len(texts))),
        Labelled(validation.name, validation.split, validation.digest, kept, validation.refused),
    )


def write_int8(artifact: Artifact, texts: Sequence[str], reporter: Reporter) -> None:
    """Write the int8 form's files into the artefact's folder.

    Args:
        artifact: the model in floating point.
        texts: calibration reviews.
        reporter: shows how far it is.
    """
    from worker.engine.openvino_graph import build_graph, float_parts, inputs_of

    rows = [row.ids for row in artifact.tokenizer().encode(texts)]
    with _quiet(), reporter.bar("quantizing", PASSES * len(rows)) as advance:
        import nncf
        import openvino

        nncf.set_log_level(logging.ERROR)
        done = 0

        def read(row: Ids) -> dict[str, Any]:
            nonlocal done
            done = min(done + 1, PASSES * len(rows))
            advance(done, f"{len(rows):,} calibration reviews")
            return inputs_of([row], len(row))

        graph = build_graph(artifact)
        quantized = nncf.quantize(
            graph,
            nncf.Dataset(rows, read),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(rows),
            ignored_scope=nncf.IgnoredScope(names=float_parts(graph)),
        )
        target = artifact.folder / INT8[0]
        target.parent.mkdir()
        openvino.save_model(quantized, str(target), compress_to_fp16=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """NNCF draws bars on standard output, where the path of the artefact belongs, and warns of its own libraries."""
    with redirect_stdout(StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def accuracy(folder: Path, precision: Precision, data: Labelled, reporter: Reporter) -> tuple[float, str]:
    """Share of the reviews that the worker's engine labels right, and the precision that it computed in: all of them,
    so that float32 does not answer for the int8 form."""
    with open_model(folder, "openvino", precision, rescore=False) as model:
        scores = score(model, data, reporter)
        return score_of(scores.truth, scores.predicted).accuracy, model.engine.precision


def require_accuracy(found: Int8) -> None:
    """Hold the int8 form to the model in floating point.

    Raises:
        ArtifactError: it labels too many reviews worse.
    """
    # Both are shares of the same count: less than a hundredth of a review is no difference.
    if found.float_accuracy - found.int8_accuracy > LARGEST_LOSS + 1e-9:
        raise ArtifactError(
            f"--int8: not written: accuracy on {found.validation_reviews:,} validation reviews would fall from "
            f"{found.float_accuracy:.4f} ({found.float_precision}) to {found.int8_accuracy:.4f} (int8), by more than "
            f"{LARGEST_LOSS:g}; export without --int8, or with more calibration reviews than "
            f"{found.calibration_reviews:,}"
        )
