"""The commands around data: `prepare`, `inspect`."""

from pathlib import Path
from typing import Annotated

import typer

from trainer.labels import DEFAULT_SPEC
from worker.console import out as console

Json = Annotated[bool, typer.Option("--json", help="JSON for a program instead of text for a person.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what an earlier call of this command wrote there.")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of all that is random.")]


def prepare(
    train: Annotated[Path, typer.Option(metavar="CSV", help="Labelled reviews to train and validate on; .gz too.")],
    test: Annotated[Path, typer.Option(metavar="CSV", help="Labelled reviews to test on, all of them; .gz too.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to make.")],
    labels: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Labels in the order of the outputs, each with other spellings that the CSV may use. Case is ignored.",
            rich_help_panel="Labels",
        ),
    ] = DEFAULT_SPEC,
    sample_fraction: Annotated[
        float,
        typer.Option(min=0, max=1, metavar="F", help="Share of the training CSV to use.", rich_help_panel="Sampling"),
    ] = 1.0,
    train_fraction: Annotated[
        float,
        typer.Option(
            min=0, max=1, metavar="F", help="Share of that to train on; the rest validates.", rich_help_panel="Sampling"
        ),
    ] = 0.8,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Seed of both draws.", rich_help_panel="Sampling")
    ] = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Turn two CSVs into TFRecords with a train, a validation and a test split.

    The CSVs have the columns `text` and `sentiment`. A row that cannot be used is named on standard error with its
    number and the reason, and the rest is used. Rows are drawn as pandas' `sample` draws them.

    ```
    review-trainer prepare --train train.csv --test test.csv --out data/imdb
    review-trainer prepare --train train.csv.gz --test test.csv.gz --out data/fifth --sample-fraction 0.2
    review-trainer prepare --train a.csv --test b.csv --out data/three --labels "bad=1=2,neutral=3,good=4=5"
    review-trainer prepare --train a.csv --test b.csv --out data/stars --labels 1,2,3,4,5
    ```
    Labels that are numbers are ratings: `4.0` is a 4 then, and `3.5` is taken as well.
    """
    from trainer.data import Refusal
    from trainer.disk import check_writable
    from trainer.folders import refuse_existing
    from trainer.info import INFO
    from trainer.labels import parse_labels
    from trainer.prepare import Sampling, between, read_splits, repeated, write_folder
    from trainer.progress import Reporter
    from trainer.show import info_lines
    from worker.errors import UsageError
    from worker.quiet import import_tensorflow

    reporter = Reporter()
    if sample_fraction == 0 or not 0 < train_fraction < 1:
        raise UsageError("--sample-fraction must be above 0, --train-fraction between 0 and 1")
    known = parse_labels(labels)
    refuse_existing(out, marker=INFO, force=force)
    check_writable(out)
    sampling = Sampling(sample_fraction, train_fraction, seed)

    def refuse(path: Path, refusal: Refusal) -> None:
        reporter.say(f"refused: {path}: {refusal}")

    splits, sources = read_splits(train, test, known, sampling, refuse)
    import_tensorflow()
    info = write_folder(out, splits, sources, known, sampling, force)
    for line in info_lines(info):
        reporter.say(line)
    if ratings := between(splits):
        reporter.say(
            f"note: {ratings:,} ratings lie between two labels; a classifier learns the nearest, of two the higher, "
            "`train --task regression` the ratings themselves"
        )
    if again := repeated(splits):
        reporter.say(f"note: {again:,} test reviews are also trained or validated on; a score on them proves nothing")
    print(info.model_dump_json(indent=2) if as_json else out)


def inspect(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder made by `prepare`.")],
    examples: Annotated[int, typer.Option(min=0, help="Training reviews to show of each label.")] = 2,
    as_json: Json = False,
) -> None:
    """Read prepared data back, check it against its `info.json`, and show what is in it.

    ```
    review-trainer inspect data/imdb
    review-trainer inspect data/imdb --examples 5
    ```
    """
    from trainer.prepared import read_prepared
    from trainer.show import balance_table, examples_table
    from worker.quiet import import_tensorflow

    import_tensorflow()
    prepared = read_prepared(folder)
    if as_json:
        print(prepared.info.model_dump_json(indent=2))
        return
    console.print(balance_table(prepared.info))
    if examples:
        console.print(examples_table(prepared.info.labels, prepared.examples(examples)))
    console.print("every file agrees with info.json")
