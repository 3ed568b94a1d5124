"""Output folders: whole or not at all."""

from pathlib import Path

import pytest

from trainer.folders import new_folder, replace_file, system_words
from worker.errors import ReviewScorerError, UsageError


def test_a_block_that_ends_well_leaves_the_folder_and_nothing_beside_it(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with new_folder(out, marker="a", force=False) as folder:
        (folder / "a").write_text("x")
        assert not out.exists()
        assert folder.name.startswith(".")
    assert (out / "a").read_text() == "x"
    assert list(out.parent.iterdir()) == [out]
    assert out.stat().st_mode & 0o777 == (tmp_path / "deep").stat().st_mode & 0o777


def test_a_block_that_fails_leaves_nothing_and_keeps_the_earlier_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with new_folder(out, marker="a", force=False) as folder:
        (folder / "a").write_text("old")

    def fail() -> None:
        with new_folder(out, marker="a", force=True) as folder:
            (folder / "a").write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert (out / "a").read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with (
        pytest.raises(ReviewScorerError, match="cannot be written: no space left"),
        new_folder(out, marker="a", force=False),
    ):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_only_a_folder_of_the_same_kind_is_ever_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(UsageError, match="holds other files"), new_folder(tmp_path, marker="a", force=True):
        pass
    with (
        pytest.raises(UsageError, match="is not a folder"),
        new_folder(tmp_path / "thesis.txt", marker="a", force=True),
    ):
        pass


def test_a_replaced_file_is_never_half(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    replace_file(path, "one")
    replace_file(path, "two")
    assert path.read_text() == "two"
    assert list(tmp_path.iterdir()) == [path]


def test_tensorflows_errors_are_cut_to_what_the_system_said() -> None:
    said = "{{function_node __wrapped__SaveV2}} models/.x/variables_temp/part-0; No space left on device [Op:SaveV2]"
    assert system_words(said) == "No space left on device"
    assert system_words("File too large") == "File too large"
