"""Export: a trained run, or an already fine-tuned Hugging Face folder, becomes a versioned artefact.

Written to a temporary folder, opened and run as its readers will, and only then renamed to its version number.
"""

import platform
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from schemas import Cut, Manifest
from trainer.card import model_card
from trainer.checkpoint import Checkpoint, open_checkpoint, with_labels, write_shape, write_weights
from trainer.errors import DataError
from trainer.folders import readable, writing
from trainer.info import read_info
from trainer.progress import Reporter
from trainer.run import read_history
from trainer.serving import verify_saved_model, write_saved_model
from trainer.settings import CutName, cut_of, read_settings
from worker.artifact import MANIFEST, WEIGHTS, digest_file, files_below, open_artifact, versions
from worker.bert_config import BertConfig
from worker.errors import ArtifactError, UsageError
from worker.network import Bert
from worker.weights import load_weights

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
LIBRARIES = ("tensorflow", "keras", "tokenizers", "numpy", "review-scorer")
PROBES = ("A slow start, and then it has you.", "[SEP] boring [MASK]", "not bad " * 400, "!")
"""Texts on which the files are held to the network: short, hostile, longer than any cut, one token."""


@dataclass(frozen=True)
class Model:
    """What an artefact is made of, beside the network.

    Attributes:
        base: the checkpoint that training started from, or that was imported.
        tokenizer: the text of `tokenizer.json`.
        story: one line for the model card: how this model came about.
    """

    base: str
    tokenizer: str
    cut: Cut
    cleaning: tuple[str, ...]
    metrics: dict[str, float]
    data_digest: str | None
    story: str


def export_run(run: Path, out: Path, reporter: Reporter) -> Path:
    """Write the best epoch of a run as the next version below `out`.

    Raises:
        UsageError: `out` cannot hold versions.
        DataError: the run is missing or has no finished epoch.
        ArtifactError: the run's weights cannot be used, or what was written does not compute what the network does.
    """
    check_place(out)
    settings, history, info = read_settings(run), read_history(run), read_info(run)
    best = history.best
    if best is None or not (run / WEIGHTS).is_file():
        raise DataError(f"{run}: has no weights; this run stopped before the end of its first epoch")
    if len(history.epochs) < settings.epochs:
        reporter.say(f"this run stopped after epoch {len(history.epochs)} of {settings.epochs}; its best is exported")
    checkpoint = open_checkpoint(str(run))
    network = _network(checkpoint, checkpoint.config)
    model = Model(
        base=settings.base,
        tokenizer=checkpoint.tokenizer,
        cut=settings.token_cut(checkpoint.config.max_position_embeddings),
        cleaning=settings.cleaning,
        metrics={"validation_accuracy": best.validation_accuracy, "validation_loss": best.validation_loss},
        data_digest=info.data_digest,
        story=(
            f"Fine-tuned from `{settings.base}` on {info.splits['train'].reviews:,} labelled reviews, "
            f"{best.epoch} of {settings.epochs} epochs, {settings.optimizer} at {settings.learning_rate:g}, "
            f"batches of {settings.batch_size}, {settings.precision}, seed {settings.seed}."
        ),
    )
    return write_artifact(out, network, model)


def import_folder(
    source: str,
    out: Path,
    *,
    cut: CutName,
    max_tokens: int | None,
    cleaning: Sequence[str],
    labels: Sequence[str] | None,
) -> Path:
    """Write an already fine-tuned `BertForSequenceClassification` as the next version below `out`.

    Args:
        source: a folder in Hugging Face layout, or a name on its hub.
        out: `MODELS/NAME`.
        cut: how a long review is cut.
        max_tokens: tokens read of a review; the network's limit, at most 512, where absent.
        cleaning: names of the rules of `worker.text`.
        labels: names of the outputs; those of its `config.json` where absent.

    Raises:
        UsageError: `out` cannot hold versions, or labels or cut do not fit the network.
        ArtifactError: the source cannot be used.
    """
    check_place(out)
    checkpoint = open_checkpoint(source)
    config = checkpoint.config
    if labels is not None and len(labels) != len(config.labels):
        raise UsageError(f"--labels names {len(labels)}, {source} has {len(config.labels)}: {', '.join(config.labels)}")
    network = _network(checkpoint, with_labels(config, labels or config.labels))
    model = Model(
        base=checkpoint.name,
        tokenizer=checkpoint.tokenizer,
        cut=cut_of(cut, max_tokens, config.max_position_embeddings),
        cleaning=tuple(cleaning),
        metrics={},
        data_digest=None,
        story=f"Imported from `{checkpoint.name}`, already fine-tuned.",
    )
    return write_artifact(out, network, model)


def check_place(out: Path) -> None:
    """Check that `out` can hold versions.

    Raises:
        UsageError: its name is no model name, or it is a file or an artefact itself.
    """
    if not NAME.fullmatch(out.resolve().name):
        raise UsageError(f"{out}: {out.name!r} is no model name; letters, digits, '.', '_' and '-' are accepted")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is a file; give MODELS/NAME, a folder that holds versions")
    if (out / MANIFEST).exists():
        raise UsageError(f"{out}: is a version itself; give the folder above it")


def _network(checkpoint: Checkpoint, config: BertConfig) -> Bert:
    """The checkpoint's network in float32, whatever it was trained in."""
    network = Bert(config)
    load_weights(network, checkpoint.weights)
    return network


def write_artifact(out: Path, network: Bert, model: Model) -> Path:
    """Write, verify, and rename to the next free version.

    Raises:
        ArtifactError: what was written does not compute what the network does.
        ReviewScorerError: it cannot be written.
    """
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        # Readers pass over names that are not numbers.
        temporary = Path(tempfile.mkdtemp(prefix=".", dir=out))
        try:
            readable(temporary)
            _write_files(temporary, out.resolve().name, network, model)
            return _publish(temporary, out, network, model)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _write_files(folder: Path, name: str, network: Bert, model: Model) -> None:
    write_saved_model(folder, network, temperature=1.0)
    write_shape(folder, network.config, model.tokenizer, model.cut.head + model.cut.tail)
    write_weights(folder, network)
    card = model_card(name, network.config.labels, model.story, model.metrics, model.cut, model.cleaning)
    (folder / "README.md").write_text(card, encoding="utf-8")


def _publish(temporary: Path, out: Path, network: Bert, model: Model) -> Path:
    """Give the folder the next free number; another export may take it first, then the one after is tried."""
    verified = False
    number = max((int(path.name) for path in versions(out)), default=0)
    while True:
        number += 1
        manifest = _manifest(temporary, out.resolve().name, number, network.config.labels, model)
        (temporary / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
        if not verified:
            _verify(temporary, network)
            verified = True
        try:
            return temporary.rename(out / str(number))
        except OSError:
            if not (out / str(number)).exists():
                raise


def _manifest(folder: Path, name: str, number: int, labels: tuple[str, ...], model: Model) -> Manifest:
    libraries: dict[str, Any] = {library: installed(library) for library in LIBRARIES}
    return Manifest(
        name=name,
        version=number,
        created_at=datetime.now(UTC).replace(microsecond=0),
        labels=labels,
        cut=model.cut,
        cleaning=model.cleaning,
        base=model.base,
        metrics=model.metrics,
        data_digest=model.data_digest,
        libraries={"python": platform.python_version(), **libraries},
        files={path: digest_file(file) for path, file in files_below(folder).items()},
    )


def _verify(folder: Path, network: Bert) -> None:
    """Open it as the worker does, and run the SavedModel as TensorFlow Serving does."""
    artifact = open_artifact(folder)
    rows = [row.ids for row in artifact.tokenizer().encode(PROBES)]
    longest = max(len(row) for row in rows)
    if longest > network.config.max_position_embeddings:
        raise ArtifactError(f"{folder}: a row of {longest} tokens came out of the cut {artifact.manifest.cut}")
    verify_saved_model(folder, network, rows)
