"""The two console programs' shared manners: data on standard output, everything else on standard error, and one line
for a user's mistake instead of a stack trace."""

import sys

from rich.console import Console
from rich.markup import escape
from typer import Typer

from worker.errors import ReviewScorerError

out = Console(soft_wrap=True, highlight=False)
"""Standard output: data. Rich wraps nothing here, so that a pipe gets the lines as they are."""

err = Console(stderr=True, soft_wrap=True, highlight=False)
"""Standard error: progress, notes, errors."""

INTERRUPTED = 130
"""128 + SIGINT, as shells report it."""


def run_app(app: Typer) -> None:
    """Run a typer program and end the process with its exit code.

    `ReviewScorerError` becomes one line and its exit code, an interrupt 130. typer itself ends with 1 when the reader
    of a pipe (`| head`) went away.
    """
    try:
        app()
    except ReviewScorerError as error:
        err.print(f"[bold red]error:[/] {escape(plain(str(error)))}")
        sys.exit(error.exit_code)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # typer turns an interrupt into this, and says nothing
            err.print("interrupted")
        raise


def plain(text: str) -> str:
    """One line without signs that a terminal obeys: names out of a file may hold any."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)
