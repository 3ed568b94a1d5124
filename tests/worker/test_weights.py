"""Weights between the network and safetensors, both ways."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from toy import split_weights
from worker.bert_config import BertConfig, parse_config
from worker.errors import ArtifactError
from worker.network import Bert
from worker.tensors import find_weights, weight_files
from worker.weights import links, load_weights, save_weights

Tensors = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def config(tiny_folder: Path) -> BertConfig:
    return parse_config((tiny_folder / "config.json").read_bytes(), "config.json")


@pytest.fixture(scope="module")
def tensors(tiny_folder: Path) -> Tensors:
    return load_file(tiny_folder / "model.safetensors")


@pytest.fixture
def network(config: BertConfig) -> Bert:
    return Bert(config)


def saved(folder: Path, tensors: Tensors) -> Path:
    path = folder / "model.safetensors"
    save_file(tensors, path)
    return path


def values(network: Bert) -> Tensors:
    return {link.names[0]: np.array(link.variable.numpy()) for link in links(network)}


def test_every_variable_has_a_link_and_every_link_its_own(network: Bert) -> None:
    linked = [id(link.variable) for link in links(network)]
    assert sorted(linked) == sorted(id(variable) for variable in network.trainable_variables)


def test_a_checkpoint_written_and_read_is_the_same_tensor_for_tensor(
    network: Bert, tiny_folder: Path, tensors: Tensors, tmp_path: Path
) -> None:
    assert load_weights(network, tiny_folder / "model.safetensors") == ()
    save_weights(network, tmp_path / "model.safetensors")
    written = load_file(tmp_path / "model.safetensors")
    assert written.keys() == {name for name in tensors if not name.endswith("position_ids")}
    for name, tensor in written.items():
        np.testing.assert_array_equal(tensor, tensors[name].astype(np.float32), err_msg=name)


def test_what_is_written_can_be_read_by_whom_the_umask_lets(network: Bert, tmp_path: Path) -> None:
    """A worker in a container is another user than who exported the model."""
    before = os.umask(0o027)
    try:
        save_weights(network, tmp_path / "model.safetensors")
    finally:
        os.umask(before)
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == 0o640


def legacy(name: str) -> str:
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")


def bare(name: str) -> str:
    return name.removeprefix("bert.")


@pytest.mark.parametrize("rename", [legacy, bare])
def test_old_and_bare_names_are_read(
    network: Bert, tiny_folder: Path, tensors: Tensors, tmp_path: Path, rename: Callable[[str], str]
) -> None:
    renamed = {rename(name): tensor for name, tensor in tensors.items()}
    assert renamed.keys() != tensors.keys()
    load_weights(network, tiny_folder / "model.safetensors")
    wanted = values(network)
    for variable in network.trainable_variables:
        variable.assign(np.zeros(variable.shape))
    load_weights(network, saved(tmp_path, renamed))
    for name, value in values(network).items():
        np.testing.assert_array_equal(value, wanted[name], err_msg=name)


def test_a_checkpoint_with_nothing_but_a_masked_word_head_leaves_pooler_and_head_fresh(
    network: Bert, tensors: Tensors, tmp_path: Path
) -> None:
    width = tensors["bert.embeddings.LayerNorm.weight"].shape[0]
    masked = {name: tensor for name, tensor in tensors.items() if "pooler" not in name and "classifier" not in name}
    masked |= {
        "cls.predictions.bias": np.zeros(78, dtype=np.float32),
        "cls.predictions.transform.dense.weight": np.zeros((width, width), dtype=np.float32),
        "cls.predictions.transform.LayerNorm.gamma": np.zeros(width, dtype=np.float32),
    }
    assert load_weights(network, saved(tmp_path, masked), head_required=False) == ("pooler", "classifier")
    words = values(network)["bert.embeddings.word_embeddings.weight"]
    np.testing.assert_array_equal(words, tensors["bert.embeddings.word_embeddings.weight"].astype(np.float32))


def indexed(folder: Path, **places: object) -> Path:
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": places}))
    return path


def test_weights_in_several_files_are_one_checkpoint(network: Bert, tensors: Tensors, tmp_path: Path) -> None:
    load_weights(network, saved(tmp_path, tensors))
    wanted = values(network)
    split_weights(tmp_path, 2)
    for variable in network.trainable_variables:
        variable.assign(np.zeros(variable.shape))
    load_weights(network, find_weights(tmp_path))
    for name, value in values(network).items():
        np.testing.assert_array_equal(value, wanted[name], err_msg=name)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"model-00002-of-00002\.safetensors: no such file"):
        load_weights(network, find_weights(tmp_path))


@pytest.mark.parametrize("name", ["../other.safetensors", "/etc/passwd", "weights.bin", 7, "", None])
def test_an_index_names_files_beside_it_and_nothing_else(tmp_path: Path, name: object) -> None:
    with pytest.raises(ArtifactError, match=r"index\.json: (not an index|names no files)"):
        weight_files(indexed(tmp_path, word=name))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": {}}', '{"weight_map": "x"}'])
def test_an_index_that_is_none_is_one_line(tmp_path: Path, content: str) -> None:
    path = indexed(tmp_path)
    path.write_text(content)
    with pytest.raises(ArtifactError, match=r"index\.json: "):
        weight_files(path)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_short_types_come_out_as_float32(network: Bert, tensors: Tensors, tmp_path: Path, dtype: Any) -> None:
    load_weights(network, saved(tmp_path, {name: tensor.astype(dtype) for name, tensor in tensors.items()}))
    assert network.pooler.kernel.dtype == "float32"
    wanted = tensors["bert.pooler.dense.weight"].astype(dtype).astype(np.float32).T
    np.testing.assert_array_equal(np.asarray(network.pooler.kernel), wanted)


def test_a_base_checkpoint_leaves_pooler_and_head_fresh(network: Bert, tensors: Tensors, tmp_path: Path) -> None:
    base = {name: tensor for name, tensor in tensors.items() if "pooler" not in name and "classifier" not in name}
    before = values(network)
    assert load_weights(network, saved(tmp_path, base), head_required=False) == ("pooler", "classifier")
    after = values(network)
    for name in ("bert.pooler.dense.weight", "classifier.weight"):
        np.testing.assert_array_equal(after[name], before[name])
    assert np.abs(after["bert.encoder.layer.0.output.dense.weight"]).sum() != 0


def test_a_head_of_other_labels_stays_fresh_in_a_base_checkpoint(config: BertConfig, tiny_folder: Path) -> None:
    five = Bert(config.model_copy(update={"id2label": dict(enumerate("abcde"))}))
    assert load_weights(five, tiny_folder / "model.safetensors", head_required=False) == ("classifier",)


def test_a_missing_head_is_refused_where_it_is_needed(network: Bert, tensors: Tensors, tmp_path: Path) -> None:
    base = {name: tensor for name, tensor in tensors.items() if "classifier" not in name}
    with pytest.raises(ArtifactError, match=r"has no tensor classifier\.weight"):
        load_weights(network, saved(tmp_path, base))


def test_a_missing_encoder_tensor_is_refused_even_in_a_base_checkpoint(
    network: Bert, tensors: Tensors, tmp_path: Path
) -> None:
    name = "bert.encoder.layer.1.attention.self.key.weight"
    holed = {other: tensor for other, tensor in tensors.items() if other != name}
    with pytest.raises(ArtifactError, match=f"has no tensor {name}"):
        load_weights(network, saved(tmp_path, holed), head_required=False)


def test_another_shape_is_refused_with_both_shapes(network: Bert, tensors: Tensors, tmp_path: Path) -> None:
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    with pytest.raises(ArtifactError, match=r"intermediate.*\(32, 63\).*\(32, 64\)"):
        load_weights(network, saved(tmp_path, tensors | {name: tensors[name][:-1].copy()}))


def test_a_file_that_is_missing_or_no_safetensors_is_named(network: Bert, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such file"):
        load_weights(network, tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").write_bytes(b"PK\x03\x04 not tensors")
    with pytest.raises(ArtifactError, match="not a readable safetensors file"):
        load_weights(network, tmp_path / "model.safetensors")
