"""The SavedModel against the network and PyTorch's logits."""

import json
from pathlib import Path

import numpy as np
import pytest

from trainer.serving import SIGNATURE, run_network, run_saved_model, verify_saved_model, write_saved_model
from worker.bert_config import parse_config
from worker.errors import ArtifactError
from worker.network import Bert
from worker.weights import load_weights


@pytest.fixture(scope="module")
def tiny(tiny_folder: Path) -> Bert:
    network = Bert(parse_config((tiny_folder / "config.json").read_bytes(), "config.json"))
    load_weights(network, tiny_folder / "model.safetensors")
    return network


@pytest.fixture(scope="module")
def saved(tiny: Bert, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    write_saved_model(folder, tiny, temperature=2.0)
    return folder


def test_it_gives_the_networks_and_pytorchs_logits(saved: Path, tiny: Bert, tiny_folder: Path) -> None:
    examples = json.loads((tiny_folder / "golden.json").read_text(encoding="utf-8"))["examples"]
    rows = [np.array(example["input_ids"], dtype=np.int32) for example in examples]
    found = run_saved_model(saved, rows)
    np.testing.assert_allclose(found, run_network(tiny, rows), atol=1e-5)
    np.testing.assert_allclose(found, [example["logits"] for example in examples], atol=1e-4)


def test_the_signature_is_the_contracts(saved: Path) -> None:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(saved))
    signature = loaded.signatures[SIGNATURE]
    specs = signature.structured_input_signature[1]
    assert sorted(specs) == ["attention_mask", "input_ids", "token_type_ids"]
    for spec in specs.values():
        assert spec.dtype == tf.int32
        assert spec.shape.as_list() == [None, None]
    outputs = signature.structured_outputs
    assert sorted(outputs) == ["logits", "probabilities"]
    assert {str(output.dtype.name) for output in outputs.values()} == {"float32"}


def test_probabilities_follow_from_logits_and_temperature(saved: Path) -> None:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(saved))
    ids = tf.constant([[2, 5, 7, 3], [2, 9, 3, 0]])
    mask = tf.constant([[1, 1, 1, 1], [1, 1, 1, 0]])
    found = loaded.signatures[SIGNATURE](input_ids=ids, attention_mask=mask, token_type_ids=tf.zeros_like(ids))
    powers = np.exp(found["logits"].numpy() / 2.0)
    np.testing.assert_allclose(found["probabilities"], powers / powers.sum(-1, keepdims=True), atol=1e-6)


def test_token_types_reach_the_network(saved: Path) -> None:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(saved))
    ids = tf.constant([[2, 5, 7, 3]])
    ones = tf.ones_like(ids)
    serve = loaded.signatures[SIGNATURE]
    first = serve(input_ids=ids, attention_mask=ones, token_type_ids=tf.zeros_like(ids))["logits"]
    second = serve(input_ids=ids, attention_mask=ones, token_type_ids=ones)["logits"]
    assert np.abs(first.numpy() - second.numpy()).max() > 0.01


def test_weights_are_written_once_and_nothing_calls_back_into_python(saved: Path, tiny: Bert) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    assert (saved / "variables" / "variables.data-00000-of-00001").stat().st_size < 4.5 * tiny.count_params()
    graph = saved_model_pb2.SavedModel.FromString((saved / "saved_model.pb").read_bytes()).meta_graphs[0].graph_def
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    assert not {node.op for node in nodes} & {"PyFunc", "EagerPyFunc", "PyFuncStateless", "XlaLaunch"}


def test_a_file_that_computes_something_else_is_refused(saved: Path, tiny: Bert, tiny_folder: Path) -> None:
    other = Bert(tiny.config)
    load_weights(other, tiny_folder / "model.safetensors")
    other.classifier.bias.assign_add(np.array([0, 0, 2e-4], dtype=np.float32))
    rows = [np.array([2, 5, 3], dtype=np.int32)]
    verify_saved_model(saved, tiny, rows)
    with pytest.raises(ArtifactError, match=r"logits differ from the network's by 0\.0002"):
        verify_saved_model(saved, other, rows)
