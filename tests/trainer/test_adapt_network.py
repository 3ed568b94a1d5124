"""The network that guesses masked words, and its head in checkpoints."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from keras import ops
from safetensors.numpy import load_file, save_file

from trainer.adapt_network import MaskedBert, load_masked, save_masked
from worker.bert_config import BertConfig
from worker.errors import ArtifactError
from worker.network import Bert
from worker.weights import load_weights, save_weights

CONFIG = BertConfig(
    vocab_size=20,
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=12,
    max_position_embeddings=12,
    initializer_range=0.5,
)
HEAD = "cls.predictions"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A classifier's weights, pooler included."""
    path = tmp_path / "model.safetensors"
    save_weights(Bert(CONFIG), path)
    return path


def rewrite(path: Path, names: dict[str, str]) -> None:
    """Give parts of tensors' names other names; an empty one drops the tensor."""
    kept = {}
    for name, tensor in load_file(path).items():
        old = next((old for old in names if old in name), None)
        if old is None or names[old]:
            kept[name if old is None else name.replace(old, names[old])] = tensor
    save_file(kept, path)


def test_the_logits_of_masked_tokens_are_those_of_the_whole_rows(saved: Path) -> None:
    network = MaskedBert(CONFIG)
    load_masked(network, saved)
    network.word_bias.assign(np.linspace(-1, 1, 20))
    ids = np.array([[2, 5, 7, 9, 3], [2, 6, 8, 3, 0]], dtype=np.int32)
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]], dtype=np.int32)
    inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    places = np.array([7, 2], dtype=np.int32)

    found = ops.convert_to_numpy(network((places, inputs)))

    # The long way: every layer whole, then the head on every token, then the table of the words.
    x = network._embed(ids, np.zeros_like(ids), np.arange(5)[None])
    for layer in network.encoder:
        x = layer(x, network._attention_bias(mask))
    x = network.transform_norm(ops.gelu(network.transform(x), approximate=False))
    whole = ops.convert_to_numpy(x) @ network.words.embeddings.numpy().T + np.linspace(-1, 1, 20)
    np.testing.assert_allclose(found, [whole[1, 2], whole[0, 2]], rtol=1e-4, atol=1e-5)


def test_what_learns_is_the_encoder_and_the_head_and_the_words_on_both_ends(saved: Path) -> None:
    network = MaskedBert(CONFIG)
    names = {variable.path.partition("/")[2] for variable in network.trainable_variables}

    assert not any("pooler" in name or "classifier" in name for name in names)
    assert {"transform/kernel", "transform_norm/gamma", "bias", "words/embeddings"} <= names
    assert sum(tuple(variable.shape) == (20, 8) for variable in network.trainable_variables) == 1


def test_a_head_that_is_not_there_starts_fresh_and_one_that_is_there_is_taken(saved: Path, tmp_path: Path) -> None:
    first = MaskedBert(CONFIG)
    assert load_masked(first, saved) == ("head",)
    first.word_bias.assign(np.arange(20.0))
    adapted = tmp_path / "adapted.safetensors"
    save_masked(first, adapted)

    second = MaskedBert(CONFIG)
    assert load_masked(second, adapted) == ()

    for one, two in zip(first.trainable_variables, second.trainable_variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), two.numpy(), err_msg=one.path)
    np.testing.assert_array_equal(first.pooler.kernel.numpy(), second.pooler.kernel.numpy())
    assert {name for name in load_file(adapted) if name.startswith("cls")} == {
        f"{HEAD}.bias",
        f"{HEAD}.transform.dense.weight",
        f"{HEAD}.transform.dense.bias",
        f"{HEAD}.transform.LayerNorm.weight",
        f"{HEAD}.transform.LayerNorm.bias",
    }
    assert load_weights(Bert(CONFIG), adapted, head_required=False) == ("classifier",)


@pytest.mark.parametrize(
    "names",
    [
        {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"},
        {f"{HEAD}.bias": f"{HEAD}.decoder.bias"},
    ],
    ids=["gamma and beta", "bias at the decoder"],
)
def test_a_head_under_other_names_is_taken_too(saved: Path, tmp_path: Path, names: dict[str, str]) -> None:
    first = MaskedBert(CONFIG)
    load_masked(first, saved)
    first.word_bias.assign(np.arange(20.0))
    first.transform_norm.gamma.assign(np.arange(8.0))
    path = tmp_path / "adapted.safetensors"
    save_masked(first, path)
    rewrite(path, names)

    second = MaskedBert(CONFIG)

    assert load_masked(second, path) == ()
    np.testing.assert_array_equal(second.word_bias.numpy(), np.arange(20.0))
    np.testing.assert_array_equal(second.transform_norm.gamma.numpy(), np.arange(8.0))


def test_half_a_head_is_refused(saved: Path, tmp_path: Path) -> None:
    first = MaskedBert(CONFIG)
    load_masked(first, saved)
    path = tmp_path / "adapted.safetensors"
    save_masked(first, path)
    rewrite(path, {"transform.LayerNorm": ""})

    with pytest.raises(ArtifactError, match=f"{path}: has no tensor {HEAD}.transform.LayerNorm.weight"):
        load_masked(MaskedBert(CONFIG), path)


def test_a_pooler_of_chance_is_not_written(saved: Path, tmp_path: Path) -> None:
    rewrite(saved, {"bert.pooler": ""})
    network = MaskedBert(CONFIG)
    assert load_masked(network, saved) == ("pooler", "head")
    path = tmp_path / "adapted.safetensors"

    save_masked(network, path)

    assert not [name for name in load_file(path) if "pooler" in name or "classifier" in name]
    assert load_weights(Bert(CONFIG), path, head_required=False) == ("pooler", "classifier")


THEIRS = """
import json, sys, torch
from transformers import BertConfig, BertForMaskedLM
folder, config, ids = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
BertConfig(**config).save_pretrained(folder)
network = BertForMaskedLM.from_pretrained(folder).eval()
with torch.no_grad():
    print(json.dumps(network(input_ids=torch.tensor([ids])).logits[0].tolist()))
"""
"""In a process of its own: TensorFlow and PyTorch in one have crashed."""


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
def test_transformers_gives_every_word_the_same_logit(saved: Path, tmp_path: Path) -> None:
    network = MaskedBert(CONFIG)
    load_masked(network, saved)
    network.word_bias.assign(np.linspace(-1, 1, 20))
    save_masked(network, tmp_path / "model.safetensors")
    row = [2, 5, 7, 9, 3]
    ids = np.array([row], dtype=np.int32)
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}

    found = ops.convert_to_numpy(network((np.arange(5, dtype=np.int32), inputs)))

    config = json.dumps(CONFIG.model_dump(exclude={"id2label"}))
    command = [sys.executable, "-c", THEIRS, str(tmp_path), config, json.dumps(row)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    np.testing.assert_allclose(found, json.loads(ended.stdout), atol=1e-4)
