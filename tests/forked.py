"""Commands of the trainer in processes of their own, each with real signals, limits and exit codes.

They are forked from one that has imported TensorFlow already, which takes some six seconds, and has started nothing of
it yet.
"""

import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["trainer.cli", "trainer.export", "trainer.train"])

PATIENCE_SECONDS = 250


def _run(arguments: tuple[str, ...], out: Path, err: Path) -> None:
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    from trainer.cli import main

    sys.argv = ["review-trainer", *arguments]
    main()


class Forked:
    """A command that runs, and is gone when its block ends.

    Args:
        folder: for what it prints.
        arguments: of `review-trainer`.
    """

    def __init__(self, folder: Path, *arguments: object) -> None:
        self._out, self._err = folder / "stdout", folder / "stderr"
        given = (tuple(map(str, arguments)), self._out, self._err)
        self._process = CONTEXT.Process(target=_run, args=given, daemon=True)

    @property
    def err(self) -> str:
        """What it printed on standard error."""
        return self._err.read_text(encoding="utf-8") if self._err.exists() else ""

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait, while it runs."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not holds():
            assert self._process.is_alive(), self.err
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def end(self, number: int | None = None) -> int:
        """Its exit code, minus the number of the signal that killed it; after a signal, where one is given."""
        if number is not None:
            assert self._process.pid is not None
            os.kill(self._process.pid, number)
        self._process.join(PATIENCE_SECONDS)
        code = self._process.exitcode
        assert code is not None, self.err
        return code

    def __enter__(self) -> "Forked":
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()
