"""The command `train`."""

from pathlib import Path
from typing import Annotated

import typer

from trainer.cli_data import Force
from trainer.settings import CutName, Optimizer, Precision
from worker.text import NOTEBOOK

LEARNING, READING, COMPUTING = "Learning", "Reading", "Computing"


def train(
    data: Annotated[Path, typer.Argument(metavar="DIR", help="A folder made by `prepare`.")],
    base: Annotated[
        str,
        typer.Option(
            metavar="CHECKPOINT", help="BERT to start from: a folder in Hugging Face layout, or a name on its hub."
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="RUN", help="Folder to make.")],
    epochs: Annotated[int, typer.Option(help="Times each review is seen.", rich_help_panel=LEARNING)] = 3,
    batch_size: Annotated[int, typer.Option(help="Reviews of a step.", rich_help_panel=LEARNING)] = 16,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="Highest rate of the schedule.",
            show_default="1e-4 up to 384 columns, 3e-5 beyond",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    optimizer: Annotated[
        Optimizer,
        typer.Option(
            help="`adamw` warms up, then decays to 0; `adam` keeps the rate, as the notebook did.",
            rich_help_panel=LEARNING,
        ),
    ] = "adamw",
    warmup: Annotated[
        float, typer.Option(help="Share of the steps in which the rate rises; adamw.", rich_help_panel=LEARNING)
    ] = 0.1,
    weight_decay: Annotated[float, typer.Option(help="Decay of the weights; adamw.", rich_help_panel=LEARNING)] = 0.01,
    clip_norm: Annotated[
        float, typer.Option(help="Longest gradient, all weights together; 0 for any.", rich_help_panel=LEARNING)
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of all that is random.", rich_help_panel=LEARNING)] = 0,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            help="Tokens read of a review.",
            show_default="what the network reads, at most 512",
            rich_help_panel=READING,
        ),
    ] = None,
    cut: Annotated[
        CutName,
        typer.Option(
            help="What is read of a longer one: its beginning, or a quarter from there and the rest from its end.",
            rich_help_panel=READING,
        ),
    ] = "head+tail",
    cleaning: Annotated[
        str, typer.Option(metavar="RULES", help="Rules by which text is cleaned, in order.", rich_help_panel=READING)
    ] = ",".join(NOTEBOOK),
    precision: Annotated[
        Precision,
        typer.Option(
            help="Type of the matrix products; `auto` takes the fastest that this device multiplies in hardware.",
            rich_help_panel=COMPUTING,
        ),
    ] = "auto",
    xla: Annotated[
        bool, typer.Option("--xla", help="Compile with XLA; on CPUs that was slower.", rich_help_panel=COMPUTING)
    ] = False,
    force: Force = False,
) -> None:
    """Fine-tune a BERT and keep the weights of its best epoch.

    Says first what it computes on, how much is padding, and how long it will take. The run folder loads in
    `transformers` as it is; `export` makes the artefact that the worker serves.

    ```
    review-trainer train data/imdb --base bert-base-cased --out runs/first
    review-trainer train data/imdb --base checkpoints/minilm --out runs/quick --epochs 1 --max-tokens 128
    review-trainer train data/fifth --base bert-base-cased --out runs/notebook --optimizer adam --batch-size 8
    ```
    """
    from trainer.progress import Reporter, duration
    from trainer.settings import parse_cleaning, settings_from
    from worker.quiet import import_tensorflow

    settings = settings_from(
        base=base,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        optimizer=optimizer,
        warmup=warmup,
        weight_decay=weight_decay,
        clip_norm=clip_norm,
        seed=seed,
        max_tokens=max_tokens,
        cut=cut,
        cleaning=parse_cleaning(cleaning),
        precision=precision,
        xla=xla,
    )
    reporter = Reporter()
    import_tensorflow()
    from trainer.train import train as fit

    history = fit(settings, data, out, force=force, reporter=reporter)
    best = history.best
    off = history.seconds / history.estimated_seconds - 1
    reporter.fact("took", f"{duration(history.seconds)}, {abs(off):.0%} {'more' if off > 0 else 'less'} than estimated")
    if best is not None:
        reporter.fact("best", f"epoch {best.epoch}, validation accuracy {best.validation_accuracy:.4f}")
    reporter.fact("next", f"review-trainer export {out} --out models/NAME")
    print(out)
