"""The program as a new user meets it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from toy import Program, write_csv

COMMANDS = (
    "prepare",
    "inspect",
    "adapt",
    "train",
    "export",
    "import",
    "evaluate",
    "baseline",
    "calibrate",
    "show",
    "predict",
)


def call(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own, as a shell starts it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TF_", "KERAS_"))}
    return subprocess.run(
        [sys.executable, "-m", "trainer", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=environment | {"COLUMNS": "120"},
    )


def test_without_arguments_it_shows_the_whole_way() -> None:
    ended = call()
    assert ended.returncode == 2
    shown = ended.stdout + ended.stderr
    for command in COMMANDS:
        assert command in shown
    assert "review-trainer export runs/first --out models/imdb" in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_shows_an_example_on_its_own_line(program: Program, command: str) -> None:
    ended = program(command, "--help")
    assert ended.code == 0
    assert any(line.strip().startswith(f"review-trainer {command} ") for line in ended.out.splitlines())


def test_help_and_usage_errors_come_at_once_without_tensorflow(tmp_path: Path) -> None:
    script = (
        "import sys, trainer.cli as cli\n"
        "sys.argv = ['review-trainer', *sys.argv[1:]]\n"
        "try:\n    cli.main()\n"
        "finally:\n    slow = {'tensorflow', 'keras', 'sklearn', 'transformers', 'matplotlib', 'scipy'}\n"
        "    assert not slow & sys.modules.keys()\n"
    )
    train = write_csv(tmp_path / "a.csv", [("x", "5")])
    for arguments, code in (
        (["--help"], 0),
        (["train", "--help"], 0),
        (["prepare", "--train", train, "--test", train, "--out", tmp_path / "d"], 2),
        (["evaluate", tmp_path, "--data", tmp_path / "no"], 2),
    ):
        start = time.monotonic()
        command = [sys.executable, "-c", script, *map(str, arguments)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode == code, ended.stderr
        assert "AssertionError" not in ended.stderr
        assert time.monotonic() - start < 60


def test_a_user_sees_our_lines_only(toy_csvs: tuple[Path, Path], tmp_path: Path) -> None:
    train, test = toy_csvs
    ended = call("prepare", "--train", train, "--test", test, "--out", tmp_path / "d")
    assert ended.returncode == 0
    assert ended.stdout == f"{tmp_path / 'd'}\n"
    assert [line.split()[0] for line in ended.stderr.splitlines()] == ["train", "test", "train", "validation", "test"]


def test_version_names_the_libraries(program: Program) -> None:
    ended = program("--version")
    assert ended.code == 0
    assert "keras" in ended.out
