"""The commands that make models and use them: `export`, `import`, `predict`."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from trainer.card import Origin
from trainer.settings import CutName
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
REPORT, CARD, INT8 = "Report", "Model card", "Integers"
WithInt8 = Annotated[
    bool,
    typer.Option(
        "--int8",
        help="Write an int8 form too, the fastest on CPUs with VNNI. Needs the extra `int8`; refused if it labels more "
        "than 0.3 % of the validation reviews worse.",
        rich_help_panel=INT8,
    ),
]
CalibrationReviews = Annotated[
    int, typer.Option(min=1, help="Training reviews that the integers' ranges are taken from.", rich_help_panel=INT8)
]
ValidationReviews = Annotated[
    int, typer.Option(min=1, help="Validation reviews that both forms are measured on.", rich_help_panel=INT8)
]
WithReport = Annotated[
    bool, typer.Option("--report/--no-report", help="Write `report/` into the artefact.", rich_help_panel=REPORT)
]
WithTexts = Annotated[
    bool,
    typer.Option("--with-texts", help="Show the texts of the worst mistakes in the report.", rich_help_panel=REPORT),
]
License = Annotated[
    str | None,
    typer.Option(
        "--license",
        metavar="NAME",
        help="License of the model as the Hugging Face hub names it, such as `apache-2.0`.",
        show_default="unknown",
        rich_help_panel=CARD,
    ),
]
Languages = Annotated[
    list[str] | None,
    typer.Option(
        "--language",
        metavar="CODE",
        help="Language of the reviews, such as `en`; may stand there several times.",
        show_default="none is named",
        rich_help_panel=CARD,
    ),
]


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A folder made by `train`.")],
    out: Out,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The data that the run was trained on: its validation split tells how sure the model may be.",
            show_default="where it lay then",
        ),
    ] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate/--no-calibrate", help="Fit a temperature on the validation split.")
    ] = True,
    report: WithReport = True,
    with_texts: WithTexts = False,
    int8: WithInt8 = False,
    calibration_reviews: CalibrationReviews = 300,
    validation_reviews: ValidationReviews = 2000,
    license_: License = None,
    languages: Languages = None,
) -> None:
    """Write a run's best epoch as the next version of a model, and check that the files compute what it computes.

    The folder holds a TensorFlow SavedModel, the same weights in Hugging Face layout, a report, and a manifest with
    the hash of every file. A temperature is fitted on the validation split, so that a stated confidence means
    something; it changes no label. Prints the folder's path.

    ```
    review-trainer export runs/first --out models/imdb
    review-trainer export runs/first --out models/imdb --data data/imdb --license apache-2.0 --language en
    review-trainer export runs/first --out models/imdb --int8
    ```
    """
    from trainer.progress import Reporter
    from worker.quiet import import_tensorflow

    import_tensorflow()
    from trainer.export import export_run
    from trainer.quantize import Sizes

    folder = export_run(
        run,
        out,
        Reporter(),
        data=data,
        calibrate=calibrate,
        report=report,
        texts=with_texts,
        int8=Sizes(calibration_reviews, validation_reviews) if int8 else None,
        origin=_origin(license_, languages),
    )
    print(folder)


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
    int8: WithInt8 = False,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Labelled reviews for it: a folder made by `prepare`.", rich_help_panel=INT8),
    ] = None,
    calibration_reviews: CalibrationReviews = 300,
    validation_reviews: ValidationReviews = 2000,
    license_: License = None,
    languages: Languages = None,
) -> None:
    """Make a model of an already fine-tuned Hugging Face checkpoint, as `export` does of a run.

    ```
    review-trainer import ../shared/models/minilm-l6-imdb --out models/imdb
    review-trainer import downloads/their-bert --out models/theirs --labels negative,positive --cut head
    review-trainer import downloads/their-bert --out models/theirs --int8 --data data/imdb
    ```
    """
    from trainer.labels import parse_labels
    from trainer.progress import Reporter
    from trainer.settings import parse_cleaning
    from worker.quiet import import_tensorflow

    names = None if labels is None else parse_labels(labels).names
    rules = parse_cleaning(cleaning)
    import_tensorflow()
    from trainer.export import import_folder
    from trainer.quantize import Sizes

    folder = import_folder(
        source,
        out,
        cut=cut,
        max_tokens=max_tokens,
        cleaning=rules,
        labels=names,
        data=data,
        int8=Sizes(calibration_reviews, validation_reviews) if int8 else None,
        origin=_origin(license_, languages),
        reporter=Reporter(),
    )
    print(folder)


def _origin(license_: str | None, languages: list[str] | None) -> Origin:
    return Origin(license_, tuple(languages or ()))


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
