"""Where the demo lies, and how it speaks."""

from pathlib import Path

from rich.console import Console

ROOT = Path(__file__).resolve().parents[2]
HOME = Path(".demo")
"""Relative to the repository, where the demo runs: what it shows can be typed there."""

console = Console(highlight=False)


class DemoError(Exception):
    """One line for the user."""


def heading(text: str) -> None:
    """A step of the demo."""
    console.rule(f"[bold]{text}", align="left")


def duration(seconds: float) -> str:
    """Minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
