"""`show`: what an artefact is."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from toy import Program
from trainer.anatomy import parameter_groups, read_signature
from worker.errors import ArtifactError


def test_it_shows_everything_a_caller_needs(program: Program, exported: Path) -> None:
    ended = program("show", exported.parent, "--text", "a good film")

    assert ended.code == 0, ended.err
    for expected in (
        "toy version 1",
        "0 negative, 1 positive",
        "the first 11 and the last 29 tokens",
        "temperature",
        "validation accuracy",
        "layer 2",
        "signature serving_default (tensorflow/serving/predict)",
        "input   attention_mask: int32 (any, any)",
        "output  probabilities: float32 (any, 2)",
        "a good film",
        '"label": "positive"',
    ):
        assert expected in ended.out


def test_a_program_reads_the_same_as_json(program: Program, exported: Path) -> None:
    found = json.loads(program("show", exported, "--json", "--text", "a bad film").out)

    assert found["model"]["name"] == "toy"
    assert found["prediction"]["label"] == "negative"
    assert [tensor["name"] for tensor in found["signature"]["inputs"]] == [
        "attention_mask",
        "input_ids",
        "token_type_ids",
    ]
    assert found["signature"]["outputs"][0] == {"name": "logits", "dtype": "float32", "shape": [None, 2]}


def test_every_parameter_is_counted_in_its_group(exported: Path) -> None:
    groups = parameter_groups(exported)

    assert list(groups) == ["embeddings", "layer 1", "layer 2", "pooler", "classifier"]
    assert groups["classifier"] == 32 * 2 + 2
    assert sum(groups.values()) == sum(tensor.size for tensor in load_file(exported / "model.safetensors").values())


def test_an_artefact_without_a_saved_model_says_so(
    program: Program, tiny_artifact: Callable[..., Path], tmp_path: Path
) -> None:
    ended = program("show", tiny_artifact(tmp_path / "tiny"))

    assert ended.code == 0, ended.err
    assert "no SavedModel" in ended.out


def test_files_that_cannot_be_read_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"\xff\xff\xff")
    (tmp_path / "model.safetensors").write_bytes(b"nothing")

    with pytest.raises(ArtifactError, match=r"saved_model\.pb: not a SavedModel"):
        read_signature(tmp_path)
    with pytest.raises(ArtifactError, match=r"model\.safetensors: "):
        parameter_groups(tmp_path)


def test_no_model_is_one_line(program: Program, tmp_path: Path) -> None:
    ended = program("show", tmp_path / "no")

    assert ended.code == 1
    assert "no such model folder" in ended.err
