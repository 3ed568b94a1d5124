"""A disk that is full and a place that cannot be written: a line, and nothing half."""

import ctypes
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from toy import Program


@contextmanager
def small_files(limit: int) -> Iterator[None]:
    """The largest file that this process may write stands for the disk: the system refuses either at the same call."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


CAPABILITIES_VERSION = 0x20080522
ANY_FILE = 0b110
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: what lets root past the rights of files; see capabilities(7)."""


@contextmanager
def any_user() -> Iterator[None]:
    """The rights of files hold for this thread, also where it is root's."""
    libc = ctypes.CDLL(None, use_errno=True)
    # (version, thread: this one), then twice (effective, permitted, inheritable), for the lower and upper capabilities.
    head, sets = (ctypes.c_uint32 * 2)(CAPABILITIES_VERSION, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(head, sets) == 0
    before = sets[0]
    sets[0] = before & ~ANY_FILE
    assert libc.capset(head, sets) == 0
    try:
        yield
    finally:
        sets[0] = before
        assert libc.capset(head, sets) == 0


@dataclass(frozen=True)
class Call:
    """A command that writes.

    Attributes:
        limit: bytes; what it writes last or largest is longer, and all that it prints is shorter.
        arguments: with the names of things in braces.
        out: what it is asked to write, below the place.
    """

    limit: int
    arguments: tuple[str, ...]
    out: str = "out"


QUICK = ("--epochs", "1", "--batch-size", "16", "--precision", "float32", "--max-tokens", "12")

CALLS = {
    "prepare": Call(8_000, ("--train", "{train}", "--test", "{test}", "--out", "{place}/out")),
    "train": Call(60_000, ("{data}", "--base", "{base}", "--out", "{place}/out", *QUICK)),
    "export": Call(50_000, ("{trained}", "--out", "{place}/out", "--no-calibrate")),
    "import": Call(50_000, ("{exported}", "--out", "{place}/out")),
    "calibrate": Call(50_000, ("{exported}", "--data", "{test}", "--out", "{place}/out", "--no-report")),
    "evaluate (report)": Call(15_000, ("{exported}", "--data", "{test}", "--out", "{place}/out")),
    "evaluate (figures)": Call(1_000, ("{exported}", "--data", "{test}", "--out", "{place}/out.json"), "out.json"),
    "baseline": Call(1_000, ("{place}/data",), "data"),
}

every_call = pytest.mark.parametrize("name", CALLS)


@pytest.fixture
def things(
    toy_csvs: tuple[Path, Path], toy_data: Path, base: Path, trained: Path, exported: Path, tmp_path: Path
) -> dict[str, Path]:
    """What the braces stand for."""
    place = tmp_path / "place"
    place.mkdir()
    shutil.copytree(toy_data, place / "data")
    train, test = toy_csvs
    found = {"train": train, "test": test, "data": toy_data, "base": base, "trained": trained}
    return found | {"exported": exported, "place": place}


def filled(name: str, things: dict[str, Path]) -> tuple[list[str], Path]:
    """The command line, and what it is to write."""
    call = CALLS[name]
    return [name.partition(" ")[0], *(word.format(**things) for word in call.arguments)], things["place"] / call.out


def written(place: Path) -> list[str]:
    """Every file below a place, and nothing of a folder that is empty."""
    return sorted(path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file())


@every_call
def test_a_full_disk_is_one_line_and_leaves_nothing_half(program: Program, things: dict[str, Path], name: str) -> None:
    command, out = filled(name, things)
    before = written(things["place"])
    with small_files(CALLS[name].limit):
        ended = program(*command)
    assert ended.code == 1
    last = ended.err.strip().splitlines()[-1]
    assert last.startswith(f"error: {out}: cannot be written: ")
    assert "file too large" in last.lower()
    assert "Traceback" not in ended.err
    assert written(things["place"]) == before


@pytest.mark.parametrize("name", [name for name in CALLS if name != "baseline"])
def test_a_place_that_is_none_is_one_line_before_anything_is_computed(
    program: Program, things: dict[str, Path], tmp_path: Path, name: str
) -> None:
    (tmp_path / "file").touch()
    command, out = filled(name, things | {"place": tmp_path / "file"})
    ended = program(*command)
    assert ended.code == 1
    asked = out.parent if out.suffix else out
    assert ended.err == f"error: {asked}: cannot be written: not a directory\n"


@every_call
def test_a_folder_that_may_not_be_written_is_one_line(program: Program, things: dict[str, Path], name: str) -> None:
    command, out = filled(name, things)
    before = written(things["place"])
    closed = out if out.is_dir() else out.parent
    closed.chmod(0o555)
    with any_user():
        ended = program(*command)
    assert ended.code == 1
    last = ended.err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert str(closed) in last
    assert last.endswith("cannot be written: permission denied")
    assert "Traceback" not in ended.err
    assert written(things["place"]) == before
