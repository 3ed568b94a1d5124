"""The commands that learn: `train`, `adapt`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from trainer.cli_data import Force
from trainer.settings import CutName, Optimizer, Precision, Task
from worker.text import NOTEBOOK

LEARNING, READING, COMPUTING, KEEPING = "Learning", "Reading", "Computing", "Keeping"


def train(
    data: Annotated[Path, typer.Argument(metavar="DIR", help="A folder made by `prepare`.")],
    base: Annotated[
        str,
        typer.Option(
            metavar="CHECKPOINT", help="BERT to start from: a folder in Hugging Face layout, or a name on its hub."
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="RUN", help="Folder to make.")],
    task: Annotated[
        Task,
        typer.Option(
            help="`regression`: one output learns a rating; for labels that are numbers.", rich_help_panel=LEARNING
        ),
    ] = "classification",
    epochs: Annotated[int, typer.Option(help="Times each review is seen.", rich_help_panel=LEARNING)] = 3,
    patience: Annotated[
        int | None,
        typer.Option(
            help="Stop after so many epochs that are not better than the best.",
            show_default="none: all epochs",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Reviews of a step.", rich_help_panel=LEARNING)] = 16,
    accumulate: Annotated[
        int,
        typer.Option(
            help="Batches whose gradients make one update: a larger batch in the memory of a small one.",
            rich_help_panel=LEARNING,
        ),
    ] = 1,
    class_weights: Annotated[
        str | None,
        typer.Option(
            metavar="balanced|LABEL=W,...",
            help="What an error on a review of each label counts; `balanced` gives rare labels the same say.",
            show_default="all alike",
            rich_help_panel=LEARNING,
        ),
    ] = None,
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
    layer_decay: Annotated[
        float,
        typer.Option(
            help="Factor of the rate from each layer to the one below it, such as 0.8 with a rate of 3e-4; 1 for none.",
            rich_help_panel=LEARNING,
        ),
    ] = 1.0,
    average: Annotated[
        float,
        typer.Option(
            help="Keep a moving average of the weights, such as 0.998 of the old at each update; 0 for none.",
            rich_help_panel=LEARNING,
        ),
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of all that is random.", rich_help_panel=LEARNING)] = 0,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            help="Tokens read of a review.",
            show_default="what the network reads, at most 512",
            rich_help_panel=READING,
        ),
    ] = None,
    first_tokens: Annotated[
        str | None,
        typer.Option(
            metavar="N,...",
            help="Tokens read of a review in the first epochs, a number for each, such as `128` or `128,256`: these "
            "take a fraction of the time.",
            show_default="as many as in the others",
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
    devices: Annotated[
        int, typer.Option(help="GPUs that share each batch of --batch-size.", rich_help_panel=COMPUTING)
    ] = 1,
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic",
            help="Only operations that give the same bits each time: for GPUs; a CPU's always do.",
            rich_help_panel=COMPUTING,
        ),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on from the checkpoint in RUN, to the result of a run that was never interrupted; begin where "
            "there is none yet.",
            rich_help_panel=KEEPING,
        ),
    ] = False,
    checkpoint_minutes: Annotated[
        float,
        typer.Option(min=0, help="Between two checkpoints; each epoch ends with one.", rich_help_panel=KEEPING),
    ] = 5.0,
    tensorboard: Annotated[
        bool,
        typer.Option(
            "--tensorboard",
            help="Write scalars of each step and epoch to RUN/tensorboard; needs the package `tensorboard`.",
            rich_help_panel=KEEPING,
        ),
    ] = False,
    force: Force = False,
) -> None:
    """Fine-tune a BERT and keep the weights of its best epoch.

    Says first what it computes on, how much is padding, how long it will take and how much memory. The run folder loads
    in `transformers` as it is; `export` makes the artefact that the worker serves.

    Interrupted by Ctrl-C, SIGTERM or a loss of power, the same command with `--resume` goes on: with the same number of
    CPU cores in float32, to the same bytes.

    ```
    review-trainer train data/imdb --base bert-base-cased --out runs/first
    review-trainer train data/imdb --base bert-base-cased --out runs/first --resume
    review-trainer train data/imdb --base checkpoints/minilm --out runs/quick --epochs 1 --max-tokens 128
    review-trainer train data/imdb --base runs/first --out runs/longer --epochs 1 --learning-rate 1.5e-5
    review-trainer train data/fifth --base bert-base-cased --out runs/notebook --optimizer adam --batch-size 8
    ```
    """
    from trainer.board import require_tensorboard
    from trainer.progress import Reporter, duration
    from trainer.settings import parse_class_weights, parse_cleaning, parse_first_tokens, settings_from
    from worker.errors import UsageError
    from worker.quiet import import_tensorflow

    settings = settings_from(
        base=base,
        task=task,
        epochs=epochs,
        patience=patience,
        batch_size=batch_size,
        accumulate=accumulate,
        class_weights=parse_class_weights(class_weights),
        learning_rate=learning_rate,
        optimizer=optimizer,
        warmup=warmup,
        weight_decay=weight_decay,
        clip_norm=clip_norm,
        layer_decay=layer_decay,
        average=average,
        seed=seed,
        max_tokens=max_tokens,
        first_tokens=parse_first_tokens(first_tokens),
        cut=cut,
        cleaning=parse_cleaning(cleaning),
        precision=precision,
        xla=xla,
        devices=devices,
        deterministic=deterministic,
    )
    if resume and force:
        raise UsageError("--resume goes on with a run, --force replaces it; give one of them")
    if tensorboard:
        require_tensorboard()
    reporter = Reporter()
    import_tensorflow()
    from trainer.interrupt import InterruptedRun
    from trainer.train import Conduct
    from trainer.train import train as fit

    conduct = Conduct(resume=resume, every=60 * checkpoint_minutes, tensorboard=tensorboard)
    try:
        history = fit(settings, data, out, force=force, reporter=reporter, conduct=conduct)
    except InterruptedRun as interrupted:
        sys.exit(interrupted.exit_code)
    best = history.best
    off = history.seconds / history.estimated_seconds - 1
    reporter.fact("took", f"{duration(history.seconds)}, {abs(off):.0%} {'more' if off > 0 else 'less'} than estimated")
    if best is not None:
        reporter.fact("best", f"epoch {best.epoch}, validation accuracy {best.validation_accuracy:.4f}")
        if best.rating is not None:
            error = best.rating
            reporter.fact("ratings", f"off by {error.mae:.3f} in the mean, RMSE {error.rmse:.3f}, R2 {error.r2:.3f}")
    if history.stopped_early:
        reporter.fact("stopped", f"after epoch {len(history.epochs)} of {epochs}: none was better than the best since")
    reporter.fact("next", f"review-trainer export {out} --out models/NAME")
    print(out)


def adapt(
    base: Annotated[
        str,
        typer.Option(
            metavar="CHECKPOINT", help="BERT to start from: a folder in Hugging Face layout, or a name on its hub."
        ),
    ],
    data: Annotated[
        list[Path],
        typer.Option(
            metavar="FILE",
            help="Texts without labels: a CSV with a column `text`, or a `.txt` with a text a line; .gz too. May stand "
            "there several times.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to make: a checkpoint for `train --base`.")],
    minutes: Annotated[
        float | None,
        typer.Option(
            help="Take as many steps as should last so long on this machine.",
            show_default="as --epochs says",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Times each text is seen.", show_default="1", rich_help_panel=LEARNING)
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", "--batch", help="Rows of a step.", rich_help_panel=LEARNING)
    ] = 32,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            "--learning-rate",
            "--rate",
            help="Highest rate of the schedule.",
            show_default="3e-4 up to 384 columns, 1e-4 beyond",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    whole_words: Annotated[
        bool,
        typer.Option("--whole-words", help="Mask all pieces of a word or none: harder.", rich_help_panel=LEARNING),
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of all that is random.", rich_help_panel=LEARNING)] = 0,
    length: Annotated[
        int, typer.Option(help="Tokens of a row; a longer text is several rows.", rich_help_panel=READING)
    ] = 128,
    cleaning: Annotated[
        str,
        typer.Option(
            metavar="RULES", help="Rules by which text is cleaned, in order: as in `train`.", rich_help_panel=READING
        ),
    ] = ",".join(NOTEBOOK),
    precision: Annotated[
        Precision,
        typer.Option(
            help="Type of the matrix products; `auto` takes the fastest that this device multiplies in hardware.",
            rich_help_panel=COMPUTING,
        ),
    ] = "auto",
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on from the checkpoint in DIR; begin where there is none.", rich_help_panel=KEEPING
        ),
    ] = False,
    checkpoint_minutes: Annotated[
        float,
        typer.Option(min=0, help="Between two checkpoints; each epoch ends with one.", rich_help_panel=KEEPING),
    ] = 5.0,
    force: Force = False,
) -> None:
    """Have a BERT read texts without labels first, so that it needs fewer with: it guesses masked words of them.

    Of each row 15 % of the tokens are to be guessed: 80 % of these are masked, 10 % another word, 10 % as they are.
    Prints how held-out words are guessed before and after. What comes out is for `train --base`; it loads in
    `transformers` as `BertForMaskedLM`. Do not let it read the reviews that the model is tested on.

    ```
    review-trainer adapt --base checkpoints/minilm --data unlabelled.csv.gz --out checkpoints/mine --minutes 60
    review-trainer adapt --base checkpoints/minilm --data unlabelled.csv.gz --out checkpoints/mine --minutes 60 --resume
    review-trainer adapt --base bert-base-cased --data train.csv --data more.txt --out checkpoints/mine --epochs 2
    review-trainer train data/imdb --base checkpoints/mine --out runs/adapted
    ```
    """
    from trainer.adapt_settings import adapt_settings_from
    from trainer.progress import Reporter, duration
    from trainer.settings import parse_cleaning
    from worker.errors import UsageError
    from worker.quiet import import_tensorflow

    if minutes is not None and epochs is not None:
        raise UsageError("--minutes and --epochs both say how long; give one of them")
    if resume and force:
        raise UsageError("--resume goes on with an adaptation, --force replaces it; give one of them")
    settings = adapt_settings_from(
        base=base,
        epochs=epochs or 1,
        minutes=minutes,
        batch_size=batch_size,
        learning_rate=learning_rate,
        length=length,
        whole_words=whole_words,
        cleaning=parse_cleaning(cleaning),
        precision=precision,
        seed=seed,
    )
    reporter = Reporter()
    import_tensorflow()
    from trainer.adapt import adapt as read
    from trainer.adapt import guessing
    from trainer.interrupt import InterruptedRun
    from trainer.train import Conduct

    conduct = Conduct(resume=resume, every=60 * checkpoint_minutes)
    try:
        history = read(settings, data, out, force=force, reporter=reporter, conduct=conduct)
    except InterruptedRun as interrupted:
        sys.exit(interrupted.exit_code)
    reporter.fact("took", duration(history.seconds))
    if history.best is not None:
        reporter.fact("after", guessing(history.best.validation_loss, history.best.validation_accuracy))
    reporter.fact("next", f"review-trainer train DATA --base {out} --out RUN")
    print(out)
