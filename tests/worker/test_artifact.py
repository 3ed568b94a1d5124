"""The artefact: a folder that is not exactly what its manifest says is refused before anything of it is used."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas import ModelName
from worker.artifact import INT8, digest_bytes, digest_file, find_version, open_artifact, versions
from worker.errors import ArtifactError

BuildArtifact = Callable[..., Path]


@pytest.fixture
def folder(tiny_artifact: BuildArtifact, tmp_path: Path) -> Path:
    """A valid artefact, to be altered."""
    return tiny_artifact(tmp_path / "tiny")


def manifest_of(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return manifest


def write_manifest(folder: Path, **fields: object) -> None:
    """Change fields of the manifest."""
    content = json.dumps(manifest_of(folder) | fields)
    (folder / "manifest.json").write_text(content, encoding="utf-8")


def list_file(folder: Path, name: str, **changes: object) -> None:
    """Put the file as it is now into the manifest, as someone would who makes or forges an artefact."""
    digest = digest_file(folder / name).model_dump() | changes
    write_manifest(folder, files=manifest_of(folder)["files"] | {name: digest})


def change_config(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | fields), encoding="utf-8")
    list_file(folder, "config.json")


def refused(path: Path) -> str:
    """Why the artefact is refused, in one line."""
    with pytest.raises(ArtifactError) as caught:
        open_artifact(path)
    said = str(caught.value)
    assert "\n" not in said
    return said


# --- what is taken ---


def test_a_valid_artefact_is_opened(folder: Path) -> None:
    artifact = open_artifact(folder)

    content = (folder / "manifest.json").read_bytes()
    assert artifact.folder == folder
    assert artifact.manifest.labels == artifact.config.labels == ("negative", "neutral", "positive")
    assert artifact.name == ModelName(name="tiny", version=1, digest=f"sha256:{hashlib.sha256(content).hexdigest()}")
    assert artifact.weights == folder / "model.safetensors"


def test_its_tokenizer_cleans_and_cuts_as_the_manifest_says(tiny_artifact: BuildArtifact, tmp_path: Path) -> None:
    artifact = open_artifact(tiny_artifact(tmp_path, cut={"head": 2, "tail": 2}, cleaning=["ellipses"]))

    (row,) = artifact.tokenizer().encode(["the...film was great"])

    assert row.ids.tolist() == [2, 5, 11, 3]
    assert row.truncated


def test_every_listed_file_may_lie_in_folders_of_its_own(folder: Path) -> None:
    (folder / "variables").mkdir()
    (folder / "variables" / "variables.index").write_bytes(b"")
    list_file(folder, "variables/variables.index")

    open_artifact(folder)


def test_the_digest_of_a_file_is_its_size_and_sha256(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc" * 1_000_000)

    digest = digest_file(path)

    assert (digest.bytes, digest.sha256) == (3_000_000, digest_bytes(path.read_bytes()))
    assert digest_bytes(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


# --- altered files ---


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()

    assert refused(folder) == f"{folder}: {name} is missing; copy the whole folder again"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("place", [0, 0.5, 1])
def test_a_changed_byte_is_refused_wherever_it_is(folder: Path, name: str, place: float) -> None:
    content = bytearray((folder / name).read_bytes())
    content[round(place * (len(content) - 1))] ^= 1
    (folder / name).write_bytes(content)

    assert f"{name} does not match the manifest" in refused(folder)


@pytest.mark.parametrize("change", [lambda content: content[:-1], lambda content: content + b"\n", lambda content: b""])
def test_a_file_of_another_size_is_refused(folder: Path, change: Callable[[bytes], bytes]) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(change(path.read_bytes()))

    assert "model.safetensors does not match the manifest" in refused(folder)


def test_a_size_that_the_manifest_states_wrongly_is_refused(folder: Path) -> None:
    list_file(folder, "tokenizer.json", bytes=1)

    assert "tokenizer.json does not match the manifest" in refused(folder)


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "report/plot.png", "sub/manifest.json", "a/b/c.py"])
def test_a_file_that_is_not_listed_is_refused(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"x")

    assert refused(folder) == f"{folder}: {name} is not in the manifest; the folder was altered"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_manifest_that_leaves_out_a_needed_file_is_refused(folder: Path, name: str) -> None:
    """Else it would be opened without having been verified."""
    files = manifest_of(folder)["files"]
    del files[name]
    write_manifest(folder, files=files)

    assert refused(folder) == f"{folder}: the manifest does not list {name}"


# --- ways out of the folder ---


def test_a_symbolic_link_in_place_of_a_file_is_refused(folder: Path) -> None:
    outside = folder.parent / "outside.json"
    (folder / "tokenizer.json").rename(outside)
    (folder / "tokenizer.json").symlink_to(outside)

    assert "a symbolic link or special file" in refused(folder)


@pytest.mark.parametrize("target", ["..", "/", "nowhere", "config.json"])
def test_any_other_symbolic_link_is_refused_too(folder: Path, target: str) -> None:
    (folder / "variables").mkdir()
    (folder / "variables" / "link").symlink_to(target)

    assert "variables/link: a symbolic link or special file" in refused(folder)


def test_a_special_file_is_refused_without_being_opened(folder: Path) -> None:
    """Opening a named pipe would wait for ever."""
    os.mkfifo(folder / "pipe")

    assert "pipe: a symbolic link or special file" in refused(folder)


@pytest.mark.parametrize("name", ["../outside.json", "/etc/hostname", "report/../../outside.json", "..", ""])
def test_a_listed_path_that_leads_out_of_the_folder_is_refused(folder: Path, name: str) -> None:
    outside = folder.parent / "outside.json"
    outside.write_text("{}", encoding="utf-8")
    digest = digest_file(outside).model_dump()
    write_manifest(folder, files=manifest_of(folder)["files"] | {name: digest})

    assert f"{name} is missing" in refused(folder)


def test_a_listed_folder_is_no_file(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()

    assert "model.safetensors is missing" in refused(folder)


# --- the manifest ---


def test_a_folder_without_a_manifest_is_no_artefact(folder: Path) -> None:
    (folder / "manifest.json").unlink()

    assert "holds neither manifest.json nor a version folder" in refused(folder)
    assert "no such file; this folder is not a model artefact" in refused(folder.parent)


def test_a_manifest_that_is_a_link_is_refused(folder: Path) -> None:
    (folder / "manifest.json").rename(folder.parent / "elsewhere.json")
    (folder / "manifest.json").symlink_to(folder.parent / "elsewhere.json")

    assert "manifest.json: no such file" in refused(folder)


def test_a_huge_manifest_is_not_even_read(folder: Path) -> None:
    with (folder / "manifest.json").open("r+b") as file:
        file.truncate((1 << 20) + 1)

    assert refused(folder).endswith("manifest.json: larger than 1,048,576 bytes; not a manifest")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"{}"])
def test_a_file_that_is_no_manifest_is_refused(folder: Path, content: bytes) -> None:
    (folder / "manifest.json").write_bytes(content)

    assert refused(folder).startswith(f"{folder / 'manifest.json'}: ")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"format": 2}, "format: Input should be 1"),
        ({"stride": 128}, "stride: Extra inputs are not permitted"),
        ({"cut": {"head": 16, "tail": 48, "stride": 8}}, "cut.stride: Extra inputs are not permitted"),
        ({"version": "1"}, "version: Input should be a valid integer"),
        ({"labels": ["same", "same", "other"]}, "file: Value error, labels must be distinct"),
    ],
)
def test_a_manifest_of_a_newer_release_is_refused_with_the_field(
    folder: Path, fields: dict[str, object], said: str
) -> None:
    write_manifest(folder, **fields)

    assert refused(folder) == f"{folder / 'manifest.json'}: {said}"


# --- what does not belong together ---


@pytest.mark.parametrize(
    "labels",
    [["negative", "positive"], ["positive", "neutral", "negative"], ["Negative", "neutral", "positive"]],
    ids=["fewer", "another order", "other words"],
)
def test_labels_that_differ_from_the_configs_are_refused(folder: Path, labels: list[str]) -> None:
    write_manifest(folder, labels=labels)

    assert "config.json names the labels ('negative', 'neutral', 'positive'), the manifest" in refused(folder)


def test_a_cut_longer_than_the_network_reads_is_refused(folder: Path) -> None:
    write_manifest(folder, cut={"head": 16, "tail": 49})

    assert refused(folder).endswith("the cut keeps 65 tokens, the network reads 64 at most")


def test_a_config_that_this_network_does_not_compute_is_refused(folder: Path) -> None:
    change_config(folder, model_type="roberta")

    assert "config.json: model_type 'roberta' is another kind of network; 'bert' is what is read" in refused(folder)


def test_an_unknown_cleaning_rule_is_refused(folder: Path) -> None:
    write_manifest(folder, cleaning=["stemming"])

    with pytest.raises(ArtifactError, match="unknown cleaning rule 'stemming'"):
        open_artifact(folder).tokenizer()


def test_a_tokenizer_with_more_words_than_the_network_is_refused(folder: Path) -> None:
    """Else the first review with such a word would end the process, again and again."""
    change_config(folder, vocab_size=77)

    with pytest.raises(ArtifactError, match=r"tokenizer\.json has ids up to 77, the network only 77 words"):
        open_artifact(folder).tokenizer()


def test_a_tokenizer_that_is_none_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    list_file(folder, "tokenizer.json")

    with pytest.raises(ArtifactError, match=r"not a tokenizer\.json"):
        open_artifact(folder).tokenizer()


# --- which version ---


def make(parent: Path, *names: str) -> Path:
    for name in names:
        (parent / name).mkdir(parents=True)
    return parent


def test_the_newest_version_is_the_greatest_number(tmp_path: Path) -> None:
    parent = make(tmp_path / "imdb", "9", "10", "2")

    assert find_version(parent) == parent / "10"
    assert [path.name for path in versions(parent)] == ["2", "9", "10"]


def test_an_export_under_way_and_other_names_are_passed_over(tmp_path: Path) -> None:
    parent = make(tmp_path / "imdb", "3", ".4.x7f2", "4.tmp", "tmp-5", "6 copy", "-7", "٨", "²", "latest")
    (parent / "99").write_text("a file is no version", encoding="utf-8")

    assert find_version(parent) == parent / "3"


def test_a_version_may_be_named_itself(tiny_artifact: BuildArtifact, tmp_path: Path) -> None:
    older = tiny_artifact(tmp_path, version=1)
    newer = tiny_artifact(tmp_path, version=2)

    assert open_artifact(older).manifest.version == 1
    assert open_artifact(newer).manifest.version == 2
    assert open_artifact(tmp_path).manifest.version == 2


def test_a_folder_under_another_number_than_its_manifests_is_refused(
    tiny_artifact: BuildArtifact, tmp_path: Path
) -> None:
    tiny_artifact(tmp_path).rename(tmp_path / "2")
    with pytest.raises(ArtifactError, match="manifest says version 1"):
        open_artifact(tmp_path)
    assert open_artifact((tmp_path / "2").rename(tmp_path / "mine")).manifest.version == 1


def test_a_broken_newest_version_is_refused_and_not_passed_over(tiny_artifact: BuildArtifact, tmp_path: Path) -> None:
    """Going back to an older model in silence would be worse than not starting."""
    tiny_artifact(tmp_path, version=1)
    newest = tiny_artifact(tmp_path, version=2)
    (newest / "model.safetensors").unlink()

    assert str(newest) in refused(tmp_path)


def test_a_folder_that_is_not_there_is_named_with_what_makes_one(tmp_path: Path) -> None:
    assert refused(tmp_path / "none") == (
        f"{tmp_path / 'none'}: no such model folder; `review-trainer export` or `import` makes one"
    )


def test_a_file_is_no_model_folder(folder: Path) -> None:
    assert "no such model folder" in refused(folder / "config.json")


def test_an_empty_folder_says_what_was_looked_for(tmp_path: Path) -> None:
    assert refused(tmp_path) == f"{tmp_path}: holds neither manifest.json nor a version folder such as {tmp_path / '1'}"


def test_what_the_operating_system_refuses_is_one_line_too(tmp_path: Path) -> None:
    assert refused(tmp_path / ("x" * 300)).endswith("File name too long")


# --- the int8 form ---

MEASURED = {
    "calibration_reviews": 8,
    "validation_reviews": 8,
    "float_accuracy": 0.75,
    "float_precision": "bfloat16",
    "int8_accuracy": 0.75,
}


@pytest.fixture
def with_int8(folder: Path) -> Path:
    """The artefact with the files of an int8 form, which nothing here opens."""
    (folder / "int8").mkdir()
    for name in INT8:
        (folder / name).write_bytes(b"numbers")
        list_file(folder, name)
    write_manifest(folder, int8=MEASURED)
    return folder


def test_a_model_has_the_int8_form_that_its_manifest_measures(folder: Path, with_int8: Path) -> None:
    assert open_artifact(folder).int8 == folder / "int8" / "model.xml"
    write_manifest(folder, int8=None)
    assert open_artifact(folder).int8 is None


@pytest.mark.parametrize("name", INT8)
def test_an_int8_form_that_was_altered_is_refused(with_int8: Path, name: str) -> None:
    (with_int8 / name).write_bytes(b"NUMBERS")
    assert f"{name} does not match the manifest" in refused(with_int8)


def test_a_manifest_that_measures_an_int8_form_lists_its_files(folder: Path) -> None:
    write_manifest(folder, int8=MEASURED)
    assert "does not list int8/model.xml" in refused(folder)
