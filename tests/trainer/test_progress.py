"""What is said while work goes on."""

import io

import pytest
from rich.console import Console

from trainer import progress
from trainer.progress import Reporter, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (8.4, "8 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
    ],
)
def test_durations_are_said_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_log_gets_plain_lines_at_a_sane_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with Reporter(Console(file=file)).bar("epoch 1/3", 200) as advance:
        for step in range(100):
            now += 0.5
            advance(2 * (step + 1), f"loss 0.{step}")
    lines = file.getvalue().splitlines()
    assert len(lines) == 5
    assert lines[0] == "epoch 1/3   20%  loss 0.19"
    assert "\x1b" not in file.getvalue()


def test_a_terminal_gets_a_bar_that_goes_away() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=100)
    with Reporter(console).bar("scoring", 10) as advance:
        advance(5, "12.0 reviews/s")
    drawn = file.getvalue()
    assert "12.0 reviews/s" in drawn
    assert "50 %" in drawn
    assert drawn.endswith("\x1b[2K"), "the line is erased"


def test_markup_in_a_line_is_text() -> None:
    file = io.StringIO()
    Reporter(Console(file=file)).say("row 3: unknown label '[red]'")
    assert file.getvalue() == "row 3: unknown label '[red]'\n"
