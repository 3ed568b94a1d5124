"""The commands around models: `export`, `import`, `evaluate`, `predict`."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from trainer.cli_data import Json
from trainer.info import Split
from trainer.settings import CutName
from worker.console import out as console
from worker.engine import EngineName, Precision

Out = Annotated[
    Path, typer.Option("--out", metavar="MODELS/NAME", help="Folder of this model's versions; made where it is absent.")
]
ModelFolder = Annotated[
    Path, typer.Argument(metavar="MODEL", help="Artefact folder, or its parent: then the newest version.")
]
EngineChoice = Annotated[
    EngineName, typer.Option("--engine", help="What computes; the worker's own.", rich_help_panel="Computing")
]
PrecisionChoice = Annotated[
    Precision, typer.Option("--precision", help="Type of the matrix products.", rich_help_panel="Computing")
]


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A folder made by `train`.")],
    out: Out,
) -> None:
    """Write a run's best epoch as the next version of a model, and check that the files compute what it computes.

    The folder holds a TensorFlow SavedModel, the same weights in Hugging Face layout, and a manifest with the hash of
    every file. Prints its path.

    ```
    review-trainer export runs/first --out models/imdb
    ```
    """
    from trainer.progress import Reporter
    from worker.quiet import import_tensorflow

    import_tensorflow()
    from trainer.export import export_run

    print(export_run(run, out, Reporter()))


def import_(
    source: Annotated[
        str, typer.Argument(metavar="HF_FOLDER", help="A fine-tuned BertForSequenceClassification, or a hub name.")
    ],
    out: Out,
    labels: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Names of the outputs.", show_default="those of its config.json"),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(help="Tokens read of a review.", show_default="what the network reads, at most 512"),
    ] = None,
    cut: Annotated[
        CutName, typer.Option(help="What is read of a longer one: its beginning, or beginning and end.")
    ] = "head+tail",
    cleaning: Annotated[
        str, typer.Option(metavar="RULES", help="Rules by which text is cleaned, in order.")
    ] = "line-breaks",
) -> None:
    """Make a model of an already fine-tuned Hugging Face checkpoint, as `export` does of a run.

    ```
    review-trainer import ../shared/models/minilm-l6-imdb --out models/imdb
    review-trainer import downloads/their-bert --out models/theirs --labels negative,positive --cut head
    ```
    """
    from trainer.labels import parse_labels
    from trainer.settings import parse_cleaning
    from worker.quiet import import_tensorflow

    names = None if labels is None else parse_labels(labels).names
    rules = parse_cleaning(cleaning)
    import_tensorflow()
    from trainer.export import import_folder

    print(import_folder(source, out, cut=cut, max_tokens=max_tokens, cleaning=rules, labels=names))


def evaluate(
    model: ModelFolder,
    data: Annotated[Path, typer.Option(metavar="DIR|CSV", help="Prepared data, or a CSV with text and sentiment.")],
    out: Annotated[Path | None, typer.Option(metavar="REPORT.json", help="Write the figures there too.")] = None,
    split: Annotated[Split, typer.Option(help="Of prepared data.")] = "test",
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Of a CSV: the model's labels, each with other spellings, such as `negative=bad,positive=good`.",
            show_default="the model's, and the usual spellings of negative and positive",
        ),
    ] = None,
    engine: EngineChoice = "auto",
    precision: PrecisionChoice = "auto",
    as_json: Json = False,
) -> None:
    """Measure an exported model on labelled reviews, with the engine that serves it.

    Accuracy with its 95 % interval, precision, recall and F1 of every label, confusion matrix, loss and speed.

    ```
    review-trainer evaluate models/imdb --data data/imdb
    review-trainer evaluate models/imdb/2 --data test.csv --out report.json --precision float32
    ```
    """
    from trainer.folders import replace_file, writing
    from trainer.labels import labels_of, parse_labels
    from trainer.progress import Reporter
    from trainer.show import evaluation_tables
    from worker.artifact import open_artifact
    from worker.errors import UsageError
    from worker.quiet import import_tensorflow

    if not data.exists():
        raise UsageError(f"{data}: no such folder or file")
    names = open_artifact(model).manifest.labels
    reporter = Reporter()
    from trainer import evaluate as evaluation
    from trainer.scoring import open_model

    if data.is_dir():
        import_tensorflow()
        labelled = evaluation.read_folder(data, split, names)
    else:
        known = labels_of(names) if labels is None else parse_labels(labels)
        labelled = evaluation.read_csv(data, known, names, reporter)
    with open_model(model, engine, precision) as opened:
        found = evaluation.evaluate(opened, labelled, reporter)
    if out is not None:
        with writing(out):
            replace_file(out, found.model_dump_json(indent=2) + "\n")
    if as_json:
        print(found.model_dump_json(indent=2))
        return
    for part in evaluation_tables(found):
        console.print(part)


def predict(
    model: ModelFolder,
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT]...", help="Reviews; standard input, one a line, where absent.")
    ] = None,
    engine: EngineChoice = "auto",
    precision: PrecisionChoice = "auto",
) -> None:
    """Predict the labels of texts: one line of JSON each, in their order.

    ```
    review-trainer predict models/imdb "It starts slowly, and then it is wonderful."
    review-trainer predict models/imdb < reviews.txt > predictions.jsonl
    ```
    """
    from trainer.predict import AT_ONCE, predictions
    from trainer.scoring import open_model

    # Somebody who types wants an answer to each line.
    at_once = 1 if not texts and sys.stdin.isatty() else AT_ONCE
    with open_model(model, engine, precision) as opened:
        for prediction in predictions(opened, texts or _lines(), at_once):
            print(prediction.model_dump_json(), flush=True)


def _lines() -> Iterator[str]:
    """Lines of standard input without their ends; blank ones are passed over."""
    for line in sys.stdin.buffer:
        text = line.decode(errors="replace").strip()
        if text:
            yield text
