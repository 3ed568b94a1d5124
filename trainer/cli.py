"""`review-trainer`: from labelled reviews to a model that the worker serves."""

import typer

from trainer import cli_data, cli_measure, cli_model, cli_train
from worker.console import run_app
from worker.versions import VersionOption

app = typer.Typer(
    no_args_is_help=True,
    invoke_without_command=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Fine-tune a BERT on labelled reviews and export it for the worker.

Data goes to standard output, everything else to standard error. Exit codes: 0 done, 1 failed, 2 wrong usage.

The whole way, from two CSVs with the columns `text` and `sentiment`:
```
review-trainer prepare --train train.csv --test test.csv --out data/imdb
review-trainer train data/imdb --base bert-base-cased --out runs/first
review-trainer export runs/first --out models/imdb
review-trainer evaluate models/imdb --data data/imdb --out reports/imdb
review-trainer predict models/imdb "It starts slowly, and then it is wonderful."
```
""",
)


@app.callback()
def _callback(version: VersionOption = False) -> None:
    """What stands before a command."""


for command in (
    cli_data.prepare,
    cli_data.inspect,
    cli_train.adapt,
    cli_train.train,
    cli_model.export,
    cli_model.import_,
    cli_measure.evaluate,
    cli_measure.baseline,
    cli_measure.calibrate,
    cli_measure.show,
    cli_model.predict,
):
    app.command(command.__name__.rstrip("_"))(command)


def main() -> None:
    """The console script."""
    run_app(app)
