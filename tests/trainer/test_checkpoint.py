"""Hugging Face checkpoints in and out."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from schemas import Cut
from toy import VOCABULARY, edit_json
from trainer.checkpoint import OFFLINE, open_checkpoint, with_labels, write_shape
from worker.bert_config import parse_config
from worker.errors import ArtifactError

CUT = Cut(head=8, tail=8)


@pytest.fixture
def copy(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "copy"))


def test_a_folder_is_opened_and_called_by_its_own_name(base: Path) -> None:
    checkpoint = open_checkpoint(str(base))
    assert checkpoint.name == "tiny-base"
    assert checkpoint.config.num_hidden_layers == 2
    assert checkpoint.weights == base / "model.safetensors"


def test_padding_and_truncation_of_its_tokenizer_are_left_behind(copy: Path) -> None:
    edit_json(
        copy / "tokenizer.json",
        truncation={"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        padding={
            "strategy": {"Fixed": 4},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "[PAD]",
        },
    )
    checkpoint = open_checkpoint(str(copy))
    content = json.loads(checkpoint.tokenizer)
    assert content["truncation"] is None
    assert content["padding"] is None
    rows = checkpoint.review_tokenizer(CUT, []).encode(["the film was very good", "bad"])
    assert [len(row.ids) for row in rows] == [7, 3]


def test_a_vocabulary_alone_is_turned_into_a_tokenizer(copy: Path) -> None:
    wanted = open_checkpoint(str(copy)).review_tokenizer(CUT, []).encode(["The film was GOOD, café"])[0].ids
    (copy / "tokenizer.json").unlink()
    (copy / "tokenizer_config.json").unlink()
    (copy / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    found = open_checkpoint(str(copy)).review_tokenizer(CUT, []).encode(["The film was GOOD, café"])[0].ids
    np.testing.assert_array_equal(found, wanted)
    assert VOCABULARY.index("good") in found, "not a row of unknown words"


def test_what_is_written_has_the_labels_and_is_read_back(base: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(str(base))
    config = with_labels(checkpoint.config, ["bad", 'so "so"', "good"])
    write_shape(tmp_path, config, checkpoint.tokenizer, max_tokens=16)
    written = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert written["architectures"] == ["BertForSequenceClassification"]
    assert written["label2id"] == {"bad": 0, 'so "so"': 1, "good": 2}
    assert written["pad_token_id"] == 0
    assert parse_config((tmp_path / "config.json").read_bytes(), "config.json") == config
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["model_max_length"] == 16


@pytest.mark.parametrize(
    ("remove", "add", "fault"),
    [
        ("config.json", None, r"has no config\.json"),
        ("model.safetensors", None, r"has no model\.safetensors"),
        (
            "model.safetensors",
            "pytorch_model.bin",
            r"has pytorch_model\.bin but no model\.safetensors.*save_pretrained",
        ),
        ("model.safetensors", "model.safetensors.index.json", "read from one safetensors file"),
        ("tokenizer.json", None, r"neither tokenizer\.json nor vocab\.txt"),
    ],
)
def test_a_file_that_is_missing_is_named_with_what_to_do(copy: Path, remove: str, add: str | None, fault: str) -> None:
    (copy / remove).unlink()
    if add:
        (copy / add).write_bytes(b"")
    with pytest.raises(ArtifactError, match=fault):
        open_checkpoint(str(copy))


def test_a_broken_tokenizer_and_a_strange_one_are_named(copy: Path) -> None:
    (copy / "tokenizer.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"tokenizer\.json: not JSON"):
        open_checkpoint(str(copy))
    (copy / "tokenizer.json").write_text('{"model": {"type": "Odd"}}')
    with pytest.raises(ArtifactError, match=r"tokenizer\.json: not a tokenizer\.json"):
        open_checkpoint(str(copy)).review_tokenizer(CUT, [])


def test_another_networks_tokenizer_is_refused(copy: Path) -> None:
    edit_json(copy / "config.json", vocab_size=20)
    with pytest.raises(ArtifactError, match="knows 30 words, the network 20; they belong to different checkpoints"):
        open_checkpoint(str(copy)).review_tokenizer(CUT, [])


def test_another_architecture_is_refused(copy: Path) -> None:
    edit_json(copy / "config.json", model_type="roberta")
    with pytest.raises(ArtifactError, match=r"config\.json: model_type"):
        open_checkpoint(str(copy))


@pytest.mark.parametrize("name", ["./nothere", "/no/such/folder", "a/b/c", "runs/first/", "no spaces allowed"])
def test_what_can_only_be_a_folder_is_never_looked_up_on_the_hub(name: str) -> None:
    with pytest.raises(ArtifactError, match="no such folder, and no name on the Hugging Face hub either"):
        open_checkpoint(name)


def test_a_file_is_no_folder(base: Path) -> None:
    with pytest.raises(ArtifactError, match="is a file; give the folder"):
        open_checkpoint(str(base / "config.json"))


def test_a_hub_that_cannot_be_reached_says_what_to_do_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ArtifactError) as caught:
        open_checkpoint("bert-base-cased")
    assert str(caught.value).startswith("bert-base-cased: no such folder here, and the Hugging Face hub could not")
    assert OFFLINE in str(caught.value)
