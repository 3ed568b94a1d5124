"""Ctrl-C and SIGTERM: the run ends between two steps, with a checkpoint."""

import signal
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class InterruptedRun(Exception):  # noqa: N818 - an outcome, not an error of ours
    """The run was asked to end and has written where it stands.

    Attributes:
        exit_code: 128 and the signal's number, as shells report it: 130 or 143.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class Interrupt:
    """Takes note of a signal while its block runs. Raised wherever Python happens to be, a KeyboardInterrupt can get
    lost in a callback of TensorFlow's, and the run goes on. The second signal of a kind does at once what it always
    does.

    Attributes:
        number: of the signal that came; None where none did.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Interrupt":
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, before in self._before.items():
            if before is not None:  # as it is when something else than Python installed it
                signal.signal(number, before)  # type: ignore[arg-type]

    def _note(self, number: int, _: FrameType | None) -> None:
        self.number = number
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
