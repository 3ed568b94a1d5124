"""Hugging Face checkpoints in and out."""

import json
import shutil
import socket
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from schemas import Cut
from toy import VOCABULARY, edit_json, split_weights
from trainer import checkpoint
from trainer.checkpoint import OFFLINE, labels_agree, open_checkpoint, with_labels, write_shape, write_weights
from worker.bert_config import parse_config
from worker.errors import ArtifactError
from worker.network import Bert
from worker.weights import links, load_weights

CUT = Cut(head=8, tail=8)


@pytest.fixture
def copy(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "copy"))


def test_a_folder_is_opened_and_called_by_its_own_name(base: Path) -> None:
    found = open_checkpoint(str(base))
    assert found.name == "tiny-base"
    assert found.config.num_hidden_layers == 2
    assert found.weights == base / "model.safetensors"


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
    found = open_checkpoint(str(copy))
    content = json.loads(found.tokenizer)
    assert content["truncation"] is None
    assert content["padding"] is None
    rows = found.review_tokenizer(CUT, []).encode(["the film was very good", "bad"])
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
    found = open_checkpoint(str(base))
    config = with_labels(found.config, ["bad", 'so "so"', "good"])
    write_shape(tmp_path, config, found.tokenizer, max_tokens=16)
    written = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert written["architectures"] == ["BertForSequenceClassification"]
    assert written["label2id"] == {"bad": 0, 'so "so"': 1, "good": 2}
    assert written["pad_token_id"] == 0
    assert parse_config((tmp_path / "config.json").read_bytes(), "config.json") == config
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["model_max_length"] == 16


@pytest.mark.parametrize(
    ("written", "agree"),
    [
        (["negative", "positive"], True),
        (["NEGATIVE", "POSITIVE"], True),
        (["LABEL_0", "LABEL_1"], True),
        (["positive", "negative"], False),
        (["contradiction", "entailment"], False),
        (["negative", "neutral", "positive"], False),
    ],
)
def test_a_classifier_is_taken_for_the_labels_that_it_was_made_for(base: Path, written: list[str], agree: bool) -> None:
    config = with_labels(open_checkpoint(str(base)).config, written)
    assert labels_agree(config, ("negative", "positive")) is agree


@pytest.mark.parametrize(
    ("remove", "add", "fault"),
    [
        ("config.json", None, r"has no config\.json"),
        ("model.safetensors", None, r"has no model\.safetensors"),
        (
            "model.safetensors",
            "pytorch_model.bin",
            r"has pytorch_model\.bin but no model\.safetensors; pickled files can hold code.*python -c .import torch",
        ),
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


@pytest.mark.parametrize("kind", ["roberta", "distilbert", "albert", "modernbert"])
def test_another_kind_of_network_is_refused(copy: Path, kind: str) -> None:
    edit_json(copy / "config.json", model_type=kind)
    with pytest.raises(ArtifactError, match=f"model_type '{kind}' is another kind of network; 'bert' is what is read"):
        open_checkpoint(str(copy))


@pytest.mark.parametrize("name", ["./nothere", "/no/such/folder", "a/b/c", "runs/first/", "no spaces allowed"])
def test_what_can_only_be_a_folder_is_never_looked_up_on_the_hub(name: str) -> None:
    with pytest.raises(ArtifactError, match="no such folder, and no name on the Hugging Face hub either"):
        open_checkpoint(name)


def test_a_file_is_no_folder(base: Path) -> None:
    with pytest.raises(ArtifactError, match="is a file; give the folder"):
        open_checkpoint(str(base / "config.json"))


class Hub:
    """Stands in for the network between here and the hub."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
        from huggingface_hub import constants

        self._set = monkeypatch.setattr
        self._constants = constants
        self._set(constants, "HF_HUB_CACHE", str(cache))
        self._set(constants, "HF_HUB_OFFLINE", False)

    def is_at(self, port: int) -> None:
        self._set(self._constants, "ENDPOINT", f"http://127.0.0.1:{port}")

    def is_off(self) -> None:
        self._set(self._constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hub:
    return Hub(monkeypatch, tmp_path)


def refused(name: str = "bert-base-cased") -> str:
    with pytest.raises(ArtifactError) as caught:
        open_checkpoint(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_hub_that_is_switched_off_says_what_to_do_offline(hub: Hub) -> None:
    hub.is_off()
    line = refused()
    assert line.startswith("bert-base-cased: no such folder here, and the Hugging Face hub could not")
    assert OFFLINE in line


def test_a_hub_that_nobody_answers_for_says_so_too(hub: Hub) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        hub.is_at(closed.getsockname()[1])
        assert OFFLINE in refused()


def test_a_hub_that_takes_the_call_and_says_nothing_is_given_up_within_seconds(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "HUB_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hub.is_at(silent.getsockname()[1])
        begun = time.monotonic()
        assert OFFLINE in refused()
    assert time.monotonic() - begun < 60, "left to itself it waits for ever"


def test_what_was_downloaded_before_is_found_without_a_network(hub: Hub, base: Path, tmp_path: Path) -> None:
    cached = tmp_path / "models--them--theirs"
    shutil.copytree(base, cached / "snapshots" / "abc")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    hub.is_off()
    assert open_checkpoint("them/theirs").config.num_hidden_layers == 2


# --- cased and uncased ---

WORDS = (*VOCABULARY[:5], "the", "film", "The", "Film", "cafe", "café")


@pytest.fixture
def vocabulary(copy: Path) -> Path:
    """A folder with `vocab.txt` and no `tokenizer.json`, as the first BERTs were published."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copy / name).unlink()
    (copy / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return copy


def words_of(folder: Path, text: str = "The film café") -> list[str]:
    row = open_checkpoint(str(folder)).review_tokenizer(CUT, []).encode([text])[0]
    return [WORDS[number] for number in row.ids[1:-1]]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"do_lower_case": True}, ["the", "film", "cafe"]),
        ({"do_lower_case": False}, ["The", "film", "café"]),
        ({"do_lower_case": True, "strip_accents": False}, ["the", "film", "café"]),
    ],
)
def test_a_vocabulary_is_read_as_its_options_say(vocabulary: Path, options: dict[str, bool], words: list[str]) -> None:
    (vocabulary / "tokenizer_config.json").write_text(json.dumps(options))
    assert words_of(vocabulary) == words


def test_a_vocabulary_with_capitals_is_cased_where_nothing_is_said(vocabulary: Path) -> None:
    assert words_of(vocabulary) == ["The", "film", "café"]
    (vocabulary / "vocab.txt").write_text("\n".join(WORDS).replace("The", "a").replace("Film", "films"))
    assert words_of(vocabulary) == ["the", "film", "cafe"]


@pytest.mark.parametrize("cased", [True, False])
def test_the_options_hold_over_a_tokenizer_that_says_otherwise_as_in_transformers(copy: Path, cased: bool) -> None:
    from transformers import AutoTokenizer

    edit_json(
        copy / "tokenizer.json",
        normalizer={
            "type": "BertNormalizer",
            "clean_text": True,
            "lowercase": cased,
            "handle_chinese_chars": True,
            "strip_accents": None,
        },
    )
    (copy / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": not cased})
    )
    found = json.loads(open_checkpoint(str(copy)).tokenizer)["normalizer"]
    theirs = json.loads(AutoTokenizer.from_pretrained(copy).backend_tokenizer.to_str())["normalizer"]
    assert found == theirs
    assert found["lowercase"] is not cased


# --- other files and shapes ---


def test_weights_in_several_files_are_read_and_told_apart_by_their_digest(copy: Path) -> None:
    whole = open_checkpoint(str(copy))
    split_weights(copy, 3)
    shards = open_checkpoint(str(copy))
    assert shards.weights.name == "model.safetensors.index.json"
    assert loaded(shards) == loaded(whole)
    before = shards.digest
    part = copy / "model-00002-of-00003.safetensors"
    tensors = load_file(part)
    name = min(tensors)
    save_file(tensors | {name: tensors[name] + np.float32(1)}, part)
    assert shards.digest != before


def loaded(found: checkpoint.Checkpoint) -> bytes:
    network = Bert(found.config)
    load_weights(network, found.weights, head_required=False)
    return b"".join(link.variable.numpy().tobytes() for link in links(network) if "classifier" not in link.names[0])


@pytest.mark.parametrize(
    ("layers", "heads", "width"),
    [(12, 12, 24), (24, 16, 32), (6, 12, 24), (12, 12, 12), (2, 2, 4)],
    ids=["base", "large", "MiniLM-L6", "MiniLM-L12", "tiny"],
)
def test_networks_of_every_published_depth_come_back_as_they_were(
    base: Path, tmp_path: Path, layers: int, heads: int, width: int
) -> None:
    shape = {
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "hidden_size": width,
        "intermediate_size": 2 * width,
    }
    config = with_labels(open_checkpoint(str(base)).config.model_copy(update=shape), ["bad", "good"])
    network = Bert(config)
    write_shape(tmp_path, config, open_checkpoint(str(base)).tokenizer, 40)
    write_weights(tmp_path, network)
    again = Bert(open_checkpoint(str(tmp_path)).config)
    load_weights(again, tmp_path / "model.safetensors")
    ids = np.array([[2, 6, 7, 3]], dtype=np.int32)
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    np.testing.assert_array_equal(np.asarray(again(inputs)), np.asarray(network(inputs)))
    assert network.count_params() == config.parameters
