"""Export: a trained run, or an already fine-tuned Hugging Face folder, becomes a versioned artefact.

Written to a temporary folder, opened and run as its readers will, and only then renamed to its version number.
"""

import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from schemas import Cut, Int8, Manifest
from trainer.anatomy import parameter_groups
from trainer.calibrate import calibration_metrics, fit_temperature
from trainer.card import NOWHERE, Origin, model_card, read_origin
from trainer.checkpoint import CLASSIFIER, Checkpoint, open_checkpoint, with_labels, write_shape, write_weights
from trainer.disk import check_writable
from trainer.errors import DataError
from trainer.evaluate import count, score
from trainer.folders import writing
from trainer.held import Held, folder_of_run, held_of_run
from trainer.info import read_info
from trainer.progress import Reporter
from trainer.quantize import Samples, Sizes, accuracy, require_accuracy, require_nncf, take_samples, write_int8
from trainer.report import (
    IN_SAMPLE,
    Findings,
    RunRecord,
    Subject,
    missing_library,
    read_run,
    training_commands,
    write_artifact_report,
)
from trainer.run import read_history
from trainer.scoring import open_model
from trainer.serving import verify_saved_model, write_saved_model
from trainer.settings import CutName, cut_of, read_settings
from worker.artifact import INT8, MANIFEST, WEIGHTS, Artifact, digest_file, files_below, open_artifact, versions
from worker.bert_config import BertConfig
from worker.errors import ArtifactError, UsageError
from worker.network import Bert
from worker.permissions import give_usual_rights
from worker.weights import load_weights

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
REPORT = "report"
CARD = "README.md"
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
        commands: that lead to it, for its report.
        temperature: logits are divided by it.
        origin: what the user says of it.
        run: how it was trained, where that is known.
        int8: of its int8 form, where it has one.
    """

    base: str
    tokenizer: str
    cut: Cut
    cleaning: tuple[str, ...]
    metrics: dict[str, float]
    data_digest: str | None
    story: str
    commands: tuple[str, ...] = ()
    temperature: float = 1.0
    origin: Origin = NOWHERE
    run: RunRecord | None = None
    int8: Int8 | None = None


@dataclass(frozen=True)
class Extras:
    """What comes with an artefact that is no part of the network.

    Attributes:
        held: reviews that its temperature is fitted on; None to keep the temperature.
        report: write `report/`.
        texts: texts of reviews may stand there.
        samples: reviews that an int8 form is made with; None for no such form.
        quantized: an artefact of the same network, whose int8 form is taken over.
    """

    held: Held | None = None
    report: bool = True
    texts: bool = False
    samples: Samples | None = None
    quantized: Path | None = None


def export_run(
    run: Path,
    out: Path,
    reporter: Reporter,
    *,
    data: Path | None = None,
    calibrate: bool = True,
    report: bool = True,
    texts: bool = False,
    int8: Sizes | None = None,
    origin: Origin = NOWHERE,
) -> Path:
    """Write the best epoch of a run as the next version below `out`.

    Args:
        run: made by `train`.
        out: `MODELS/NAME`.
        reporter: is told what happens.
        data: the folder of data that the run was trained on; where it lay then, if absent.
        calibrate: fit a temperature on its validation split.
        report: write `report/` where the libraries for pictures are installed.
        texts: show texts of reviews there.
        int8: write an int8 form too, made with so many of the run's reviews.
        origin: license and language for the model card.

    Raises:
        UsageError: `out` cannot hold versions, `data` is not the run's, or what `int8` needs is missing.
        DataError: the run is missing or has no finished epoch.
        ArtifactError: the run's weights cannot be used, what was written does not compute what the network does, or
            its int8 form labels too many reviews worse.
    """
    check_place(out)
    if int8 is not None:
        require_nncf()
    settings, history, info = read_settings(run), read_history(run), read_info(run)
    best = history.best
    if best is None or not (run / WEIGHTS).is_file():
        raise DataError(f"{run}: has no weights; this run stopped before the end of its first epoch")
    if not history.finished(settings):
        reporter.say(f"this run stopped after epoch {len(history.epochs)} of {settings.epochs}; its best is exported")
    checkpoint = open_checkpoint(str(run))
    held = held_of_run(run, data, info) if calibrate else None
    if calibrate and held is None:
        reporter.say(
            "no temperature is fitted: the run's data is not at hand; --data DIR names it, "
            "or `review-trainer calibrate` does it later"
        )
    samples = None
    if int8 is not None:
        folder = folder_of_run(run, data, info)
        if folder is None:
            raise UsageError("--int8: the run's data is not at hand; --data DIR names it")
        samples = take_samples(folder, info.labels, int8)
    record = RunRecord(settings=settings, info=info, history=history)
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
        commands=tuple(training_commands(record, out.resolve().name)),
        origin=origin,
        run=record,
    )
    extras = Extras(held, report, texts, samples)
    return write_artifact(out, _network(checkpoint, checkpoint.config), model, extras, reporter)


def recalibrate(
    source: Path,
    out: Path | None,
    held: Callable[[Artifact], Held],
    reporter: Reporter,
    *,
    report: bool = True,
    texts: bool = False,
    origin: Origin = NOWHERE,
) -> Path:
    """Write an artefact again as the next version, with a temperature fitted on other reviews.

    Args:
        source: an artefact, or its parent: then the newest version.
        out: `MODELS/NAME`; the artefact's parent where absent.
        held: finds the reviews for it.
        reporter: is told what happens.
        report: as in `export_run`.
        texts: as in `export_run`.
        origin: as in `export_run`; what the artefact's own card says, where nothing is given.

    Raises:
        UsageError: `out` cannot hold versions.
        ArtifactError: the artefact cannot be used.
    """
    artifact = open_artifact(source)
    manifest, place = artifact.manifest, out or artifact.folder.resolve().parent
    check_place(place)
    checkpoint = open_checkpoint(str(artifact.folder))
    found = held(artifact)
    model = Model(
        base=manifest.base,
        tokenizer=checkpoint.tokenizer,
        cut=manifest.cut,
        cleaning=manifest.cleaning,
        metrics={},
        data_digest=manifest.data_digest,
        story=f"The network of version {manifest.version} of `{manifest.name}`, made from `{manifest.base}`, with a "
        f"temperature fitted on {len(found.data.reviews):,} reviews of `{found.data.name}`.",
        commands=(f"review-trainer calibrate MODELS/{manifest.name}/{manifest.version} --data {found.data.name}",),
        temperature=manifest.temperature,
        origin=read_origin(artifact.folder / CARD) if origin == NOWHERE else origin,
        run=read_run(artifact.folder / REPORT),
        int8=manifest.int8,
    )
    network = _network(checkpoint, checkpoint.config)
    quantized = artifact.folder if manifest.int8 is not None else None
    return write_artifact(place, network, model, Extras(found, report, texts, quantized=quantized), reporter)


def import_folder(
    source: str,
    out: Path,
    *,
    cut: CutName,
    max_tokens: int | None,
    cleaning: Sequence[str],
    labels: Sequence[str] | None,
    data: Path | None = None,
    int8: Sizes | None = None,
    origin: Origin = NOWHERE,
    reporter: Reporter | None = None,
) -> Path:
    """Write an already fine-tuned `BertForSequenceClassification` as the next version below `out`.

    Args:
        source: a folder in Hugging Face layout, or a name on its hub.
        out: `MODELS/NAME`.
        cut: how a long review is cut.
        max_tokens: tokens read of a review; the network's limit, at most 512, where absent.
        cleaning: names of the rules of `worker.text`.
        labels: names of the outputs; those of its `config.json` where absent.
        data: a folder made by `prepare`, for the int8 form.
        int8: write an int8 form too, made with so many reviews of `data`.
        origin: license and language for the model card.
        reporter: is told what happens.

    Raises:
        UsageError: `out` cannot hold versions, labels or cut do not fit the network, or what `int8` needs is missing.
        ArtifactError: the source cannot be used, or its int8 form labels too many reviews worse.
    """
    check_place(out)
    if int8 is not None:
        require_nncf()
        if data is None:
            raise UsageError("--int8: needs labelled reviews; --data DIR, a folder made by `review-trainer prepare`")
    checkpoint = open_checkpoint(source)
    config = checkpoint.config
    _refuse_other_head(checkpoint)
    if labels is not None and len(labels) != len(config.labels):
        raise UsageError(f"--labels names {len(labels)}, {source} has {len(config.labels)}: {', '.join(config.labels)}")
    named = with_labels(config, labels or config.labels)
    samples = None if int8 is None or data is None else take_samples(data, named.labels, int8)
    network = _network(checkpoint, named)
    model = Model(
        base=checkpoint.name,
        tokenizer=checkpoint.tokenizer,
        cut=cut_of(cut, max_tokens, config.max_position_embeddings),
        cleaning=tuple(cleaning),
        metrics={},
        data_digest=None,
        story=f"Imported from `{checkpoint.name}`, already fine-tuned.",
        origin=origin,
    )
    return write_artifact(out, network, model, Extras(report=False, samples=samples), reporter)


def _refuse_other_head(checkpoint: Checkpoint) -> None:
    """A network that was trained for something else may have a head of the same shape, whose answers mean nothing."""
    if checkpoint.head not in (None, CLASSIFIER):
        raise ArtifactError(
            f"{checkpoint.folder}: is a {checkpoint.head}; {CLASSIFIER} is what can be imported, and "
            "`review-trainer train --base` makes one of any BERT"
        )
    if len(checkpoint.config.labels) < 2 or checkpoint.problem in ("regression", "multi_label_classification"):
        what = checkpoint.problem or f"{len(checkpoint.config.labels)} output"
        raise ArtifactError(
            f"{checkpoint.folder}: does not choose one of several labels ({what.replace('_', ' ')}); that is what the "
            "worker publishes"
        )


def check_place(out: Path) -> None:
    """Check that `out` can hold versions.

    Raises:
        UsageError: its name is no model name, or it is a file or an artefact itself.
        ReviewScorerError: it cannot be written.
    """
    if not NAME.fullmatch(out.resolve().name):
        raise UsageError(f"{out}: {out.name!r} is no model name; letters, digits, '.', '_' and '-' are accepted")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is a file; give MODELS/NAME, a folder that holds versions")
    if (out / MANIFEST).exists():
        raise UsageError(f"{out}: is a version itself; give the folder above it")
    check_writable(out)


def _network(checkpoint: Checkpoint, config: BertConfig) -> Bert:
    """The checkpoint's network in float32, whatever it was trained in."""
    network = Bert(config)
    load_weights(network, checkpoint.weights)
    return network


def write_artifact(out: Path, network: Bert, model: Model, extras: Extras, reporter: Reporter | None = None) -> Path:
    """Write, calibrate, verify, and rename to the next free version.

    Raises:
        ArtifactError: what was written does not compute what the network does.
        ReviewScorerError: it cannot be written.
    """
    reporter = reporter or Reporter()
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        # Readers pass over names that are not numbers.
        temporary = Path(tempfile.mkdtemp(prefix=".", dir=out))
        try:
            give_usual_rights(temporary)
            model = _write_files(temporary, out.resolve().name, network, model, extras, reporter)
            return _publish(temporary, out, network, model)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _write_files(folder: Path, name: str, network: Bert, model: Model, extras: Extras, reporter: Reporter) -> Model:
    """All but the manifest.

    Returns:
        The model with its temperature and what was measured.
    """
    labels = network.config.labels
    write_saved_model(folder, network, model.temperature)
    write_shape(folder, network.config, model.tokenizer, model.cut.head + model.cut.tail)
    write_weights(folder, network)
    findings = None
    if extras.held is not None:
        model, findings = _calibrated(folder, name, network, model, extras.held, reporter)
    if extras.samples is not None:
        model = _quantized(folder, name, network, model, extras.samples, reporter)
    if extras.quantized is not None:
        (folder / INT8[0]).parent.mkdir()
        for file in INT8:
            shutil.copyfile(extras.quantized / file, folder / file)
    if extras.report:
        missing = missing_library()
        if missing is None:
            if findings is not None and extras.texts and extras.held is not None:
                findings = replace(findings, texts=[review.text for review in extras.held.data.reviews])
            subject = Subject(name, model.story, labels, model.cut, model.cleaning, parameter_groups(folder))
            write_artifact_report(folder / REPORT, subject, findings, model.run, model.commands)
        else:
            reporter.say(f"no report is written: {missing}")
    data = model.run.info.sources["train"].name if model.run is not None else None
    if extras.held is not None:
        data = extras.held.source
    metrics = model.metrics
    if model.int8 is not None:
        measured = {"float": model.int8.float_accuracy, "int8": model.int8.int8_accuracy}
        metrics = metrics | {f"{form}_accuracy on validation": value for form, value in measured.items()}
    card = model_card(
        name, labels, model.story, metrics, model.cut, model.cleaning, model.temperature, model.origin, data
    )
    (folder / CARD).write_text(card, encoding="utf-8")
    return model


def _calibrated(
    folder: Path, name: str, network: Bert, model: Model, held: Held, reporter: Reporter
) -> tuple[Model, Findings]:
    """Score with the worker's own engine, whose logits are what the temperature will divide, and fit it."""
    # An int8 form, if there is to be one, comes later: it has the temperature of the model in floating point.
    whole = _whole(folder, name, network, replace(model, int8=None))
    with whole, open_model(folder, "auto", "auto") as opened:
        scores = score(opened, held.data, reporter)
        found = fit_temperature(scores.logits, scores.truth)
        scores = replace(scores, temperature=model.temperature if found is None else found)
        figures = count(opened, held.data, scores, baseline=held.baseline)
    before, after = figures.uncalibrated, figures.calibration
    if found is None:
        reporter.say(
            f"the temperature stays {model.temperature:g}: {len(scores.truth):,} reviews with "
            f"{int((scores.predicted != scores.truth).sum()):,} mistakes do not tell a better one"
        )
    else:
        write_saved_model(folder, network, found)
        reporter.fact(
            "temperature",
            f"{found:.4f}, from {len(scores.truth):,} reviews of {held.data.name}: expected calibration error "
            f"{before.ece:.4f} -> {after.ece:.4f}, Brier score {before.brier:.4f} -> {after.brier:.4f}, loss "
            f"{before.nll:.4f} -> {after.nll:.4f}",
        )
    metrics = calibration_metrics(scores.logits, scores.truth, scores.temperature)
    if figures.rating is not None:
        metrics |= {f"validation_{name}": value for name, value in figures.rating.model_dump().items()}
    model = replace(model, temperature=scores.temperature, metrics=metrics)
    return model, Findings(figures, scores, held.source, note=IN_SAMPLE)


@contextmanager
def _whole(folder: Path, name: str, network: Bert, model: Model) -> Iterator[None]:
    """A manifest for what is written so far, as long as the block runs: the worker opens nothing without one."""
    manifest = _manifest(folder, name, 1, network.config.labels, model)
    (folder / MANIFEST).write_text(manifest.model_dump_json(), encoding="utf-8")
    yield
    (folder / MANIFEST).unlink()


def _quantized(folder: Path, name: str, network: Bert, model: Model, samples: Samples, reporter: Reporter) -> Model:
    """Write the int8 form, and score both forms with the worker's own engine.

    Raises:
        ArtifactError: the int8 form labels too many reviews worse.
    """
    data = samples.validation
    with _whole(folder, name, network, model):
        before, precision = accuracy(folder, "auto", data, reporter)
        write_int8(open_artifact(folder), samples.calibration, reporter)
    found = Int8(
        calibration_reviews=len(samples.calibration),
        validation_reviews=len(data.reviews),
        float_accuracy=before,
        float_precision=precision,
        int8_accuracy=before,
    )
    with _whole(folder, name, network, replace(model, int8=found)):
        after, _ = accuracy(folder, "int8", data, reporter)
    found = found.model_copy(update={"int8_accuracy": after})
    require_accuracy(found)
    reporter.fact(
        "int8",
        f"{found.calibration_reviews:,} calibration reviews; accuracy on {found.validation_reviews:,} validation "
        f"reviews {before:.4f} ({precision}) -> {after:.4f} (int8)",
    )
    return replace(model, int8=found)


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
        temperature=model.temperature,
        base=model.base,
        metrics=model.metrics,
        data_digest=model.data_digest,
        int8=model.int8,
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
