"""The shape of a BERT: what the network computes is read, everything else is refused with its field."""

import json
from pathlib import Path
from typing import Any

import pytest

from worker.bert_config import BertConfig, parse_config
from worker.errors import ArtifactError

BASE: dict[str, Any] = {
    "vocab_size": 30_522,
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1_536,
}


def parse(**fields: object) -> BertConfig:
    return parse_config(json.dumps(BASE | fields), "config.json")


@pytest.mark.parametrize(
    ("model", "layers", "labels"),
    [("minilm-l6-imdb", 6, ("negative", "positive")), ("tiny-bert-3-labels", 2, ("negative", "neutral", "positive"))],
)
def test_the_configs_of_the_references_are_read(shared: Path, model: str, layers: int, labels: tuple[str, ...]) -> None:
    path = shared / "models" / model / "config.json"

    config = parse_config(path.read_bytes(), str(path))

    assert (config.num_hidden_layers, config.labels) == (layers, labels)


def test_what_a_config_leaves_out_has_hugging_faces_default() -> None:
    config = parse()

    assert config.hidden_act == "gelu"
    assert config.hidden_dropout_prob == config.attention_probs_dropout_prob == 0.1
    assert config.classifier_dropout is None
    assert config.max_position_embeddings == 512
    assert config.type_vocab_size == 2
    assert config.initializer_range == 0.02
    assert config.layer_norm_eps == 1e-12
    assert config.labels == ("LABEL_0", "LABEL_1")


def test_fields_without_a_part_in_the_arithmetic_are_ignored() -> None:
    assert parse(torch_dtype="float16", use_cache=True, transformers_version="5.23.0") == parse()


def test_a_number_of_labels_names_them_where_nothing_else_does() -> None:
    assert parse(num_labels=3).labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert parse(num_labels=3, id2label={"0": "a", "1": "b"}).labels == ("a", "b")
    assert "num_labels" not in parse(num_labels=3).model_dump()
    with pytest.raises(ArtifactError, match="num_labels: Input should be less than or equal to 1000"):
        parse(num_labels=10**9)


@pytest.mark.parametrize(
    ("name", "shape", "parameters"),
    [
        ("bert-base-uncased", {"hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072}, 109_483_778),
        (
            "bert-base-cased",
            {"hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072, "vocab_size": 28_996},
            108_311_810,
        ),
        (
            "bert-large-uncased",
            {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
            335_143_938,
        ),
        ("MiniLM-L6", {}, 22_713_986),
        ("MiniLM-L12", {"num_hidden_layers": 12}, 33_360_770),
        (
            "bert-tiny",
            {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512},
            4_386_178,
        ),
    ],
)
def test_published_shapes_have_their_published_number_of_weights(
    name: str, shape: dict[str, int], parameters: int
) -> None:
    """With a head of two labels, as `BertForSequenceClassification` counts them."""
    assert parse(**shape).parameters == parameters, name


def test_labels_stand_in_the_order_of_their_numbers() -> None:
    assert parse(id2label={"2": "c", "0": "a", "1": "b"}).labels == ("a", "b", "c")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model_type": "roberta"}, "model_type 'roberta' is another kind of network; 'bert' is what is read"),
        ({"hidden_act": "silu"}, "hidden_act: Input should be 'gelu'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type: Input should be 'absolute'"),
        ({"is_decoder": True}, "is_decoder: Input should be False"),
        ({"hidden_size": 0}, "hidden_size: Input should be greater than or equal to 1"),
        ({"hidden_size": "wide"}, "hidden_size: Input should be a valid integer"),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob: Input should be less than 1"),
        ({"hidden_size": 385}, "hidden_size 385 does not divide into 12 heads"),
        ({"id2label": {"1": "a", "2": "b"}}, "id2label must number its labels from 0 without a gap"),
        ({"id2label": {"0": "a", "2": "b"}}, "id2label must number its labels from 0 without a gap"),
        ({"id2label": {"zero": "a"}}, "id2label.zero.[key]: Input should be a valid integer"),
        ({"id2label": ["a", "b"]}, "id2label: Input should be an object"),
    ],
    ids=lambda part: next(iter(part)) if isinstance(part, dict) else "",
)
def test_what_is_not_built_here_is_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        parse(**fields)

    assert str(caught.value).startswith(f"config.json: {said}")


@pytest.mark.parametrize("field", BASE)
def test_a_missing_shape_is_named(field: str) -> None:
    content = json.dumps({key: value for key, value in BASE.items() if key != field})

    with pytest.raises(ArtifactError, match=f"config.json: {field}: Field required"):
        parse_config(content, "config.json")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"null"])
def test_a_file_that_is_no_config_is_refused(content: bytes) -> None:
    with pytest.raises(ArtifactError, match=r"config\.json: file: "):
        parse_config(content, "config.json")
