"""The commands that measure models: `evaluate`, `baseline`, `calibrate`, `show`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainer.card import Origin
from trainer.cli_data import Force, Json
from trainer.cli_model import EngineChoice, Languages, License, ModelFolder, PrecisionChoice, WithReport, WithTexts
from trainer.info import Split
from worker.console import out as console

if TYPE_CHECKING:
    from trainer.held import Held
    from trainer.progress import Reporter
    from worker.artifact import Artifact

Spellings = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="Of a CSV: the model's labels, each with other spellings, such as `negative=bad,positive=good`.",
        show_default="the model's, and the usual spellings of negative and positive",
    ),
]
Data = Annotated[Path, typer.Option(metavar="DIR|CSV", help="Prepared data, or a CSV with text and sentiment.")]


def evaluate(
    model: ModelFolder,
    data: Data,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="REPORT", help="Folder for a report with pictures; a name that ends in .json: the figures alone."
        ),
    ] = None,
    split: Annotated[Split, typer.Option(help="Of prepared data.")] = "test",
    labels: Spellings = None,
    cuts: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Read a long review in several ways and average the logits: `head`, `head+tail`, `windows`. The "
            "worker reads by the model's own cut, whatever this brings.",
            show_default="the model's own cut",
        ),
    ] = None,
    engine: EngineChoice = "auto",
    precision: PrecisionChoice = "auto",
    with_texts: WithTexts = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Measure an exported model on labelled reviews, with the engine that serves it.

    Accuracy with its 95 % interval, precision, recall and F1 of every label, confusion matrix, calibration and speed;
    with `--out` a report of them as Markdown and as one HTML page.

    ```
    review-trainer evaluate models/imdb --data data/imdb --out reports/imdb
    review-trainer evaluate models/imdb/2 --data test.csv --out figures.json --precision float32
    review-trainer evaluate models/imdb --data data/imdb --cuts head,head+tail
    ```
    """
    from trainer.cuts import parse_cuts
    from trainer.disk import check_writable
    from trainer.folders import refuse_existing, replace_file, writing
    from trainer.progress import Reporter
    from trainer.show import evaluation_tables
    from worker.artifact import open_artifact
    from worker.errors import UsageError

    if not data.exists():
        raise UsageError(f"{data}: no such folder or file")
    as_folder = out is not None and out.suffix != ".json"
    if out is not None and as_folder:
        from trainer.report import MARKER, require_libraries

        require_libraries()
        refuse_existing(out, marker=MARKER, force=force)
    if out is not None:
        check_writable(out if as_folder else out.parent)
    artifact = open_artifact(model)
    views = None if cuts is None else parse_cuts(cuts, artifact.manifest.cut)
    reporter = Reporter()
    held = _held(artifact, data, split, labels, reporter)
    from trainer import evaluate as evaluation
    from trainer.scoring import open_model

    with open_model(model, engine, precision) as opened:
        scores = evaluation.score(opened, held.data, reporter, views)
        found = evaluation.count(opened, held.data, scores, views, held.baseline)
    if out is not None and as_folder:
        from trainer.report import evaluation_report

        options = {"--split": split if data.is_dir() else None, "--labels": labels, "--cuts": cuts}
        options |= {"--engine": found.engine, "--precision": found.precision}
        evaluation_report(out, artifact, held, scores, found, options, with_texts=with_texts, force=force)
        reporter.fact("report", str(out / "report.html"))
    elif out is not None:
        with writing(out):
            replace_file(out, found.model_dump_json(indent=2) + "\n")
    if as_json:
        print(found.model_dump_json(indent=2))
        return
    for part in evaluation_tables(found):
        console.print(part)


def baseline(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder made by `prepare`.")], as_json: Json = False
) -> None:
    """Measure what counted words alone reach on the same reviews: what a model has to beat.

    1-3-grams and a logistic regression on the training split, scored on the others. Kept as `baseline.json` in the
    folder; later reports stand it beside the model.

    ```
    review-trainer baseline data/imdb
    ```
    """
    from trainer.disk import check_writable
    from trainer.prepared import read_prepared
    from trainer.progress import Reporter
    from trainer.show import baseline_tables
    from worker.quiet import import_tensorflow

    import_tensorflow()
    reporter = Reporter()
    prepared = read_prepared(folder)
    check_writable(folder)
    from trainer.baseline import run_baseline, write_baseline

    found = run_baseline(prepared, reporter)
    write_baseline(folder, found)
    if as_json:
        print(found.model_dump_json(indent=2))
        return
    for part in baseline_tables(found):
        console.print(part)


def calibrate(
    model: ModelFolder,
    data: Data,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="MODELS/NAME", show_default="beside the version that is read")
    ] = None,
    split: Annotated[Split, typer.Option(help="Of prepared data; never the one that was trained on.")] = "validation",
    labels: Spellings = None,
    report: WithReport = True,
    with_texts: WithTexts = False,
    license_: License = None,
    languages: Languages = None,
) -> None:
    """Fit a model's temperature on labelled reviews and write it as the next version.

    `export` does this on the run's validation split; this does it later, on other reviews, or for an imported model.
    Labels stay as they are: only the confidence changes. Prints the new folder's path.

    ```
    review-trainer calibrate models/imdb --data data/imdb
    review-trainer calibrate models/theirs/1 --data reviews.csv --labels "negative=bad,positive=good"
    ```
    """
    from trainer.progress import Reporter
    from worker.errors import UsageError
    from worker.quiet import import_tensorflow

    if not data.exists():
        raise UsageError(f"{data}: no such folder or file")
    reporter = Reporter()
    import_tensorflow()
    from trainer.export import recalibrate

    folder = recalibrate(
        model,
        out,
        lambda artifact: _held(artifact, data, split, labels, reporter),
        reporter,
        report=report,
        texts=with_texts,
        origin=Origin(license_, tuple(languages or ())),
    )
    print(folder)


def _held(artifact: "Artifact", data: Path, split: Split, labels: str | None, reporter: "Reporter") -> "Held":
    """The reviews that a user names, for a model."""
    from trainer.labels import labels_of, parse_labels
    from worker.quiet import import_tensorflow

    names = artifact.manifest.labels
    if data.is_dir():
        import_tensorflow()
        from trainer.held import held_of_folder

        return held_of_folder(data, split, names)
    from trainer.evaluate import read_csv
    from trainer.held import Held

    known = labels_of(names) if labels is None else parse_labels(labels)
    return Held(read_csv(data, known, names, reporter), data.name, None)


def show(
    model: ModelFolder,
    text: Annotated[str, typer.Option(help="Review of the example prediction.")] = "A slow start, and then it has you.",
    engine: EngineChoice = "auto",
    precision: PrecisionChoice = "auto",
    as_json: Json = False,
) -> None:
    """Show what a model is: its labels, cut and temperature, what was measured, its layers, and how to call it.

    The SavedModel's signature with names, types and shapes, and one prediction as JSON.

    ```
    review-trainer show models/imdb
    review-trainer show models/imdb/2 --text "It starts slowly, and then it is wonderful." --json
    ```
    """
    from worker.artifact import open_artifact
    from worker.quiet import import_tensorflow

    artifact = open_artifact(model)
    import_tensorflow()
    from trainer.anatomy import describe
    from trainer.scoring import open_model
    from trainer.show import anatomy_tables

    with open_model(artifact.folder, engine, precision) as opened:
        found = describe(opened, text)
    if as_json:
        print(found.model_dump_json(indent=2))
        return
    for part in anatomy_tables(found):
        console.print(part)
