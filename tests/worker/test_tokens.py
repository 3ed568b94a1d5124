"""Tokens: control tokens frame a text and never come out of it; a long text keeps its head and its tail."""

import csv
import gzip
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from schemas import Cut
from worker.errors import ArtifactError
from worker.tokens import ReviewTokenizer, pad

WHOLE = Cut(head=16, tail=48)
MODELS = ["tiny-bert-3-labels", "minilm-l6-imdb"]

Load = Callable[..., ReviewTokenizer]


@pytest.fixture
def load(shared: Path) -> Load:
    def load(model: str, cut: Cut = WHOLE, cleaning: tuple[str, ...] = ()) -> ReviewTokenizer:
        return ReviewTokenizer.load(shared / "models" / model / "tokenizer.json", cut, cleaning)

    return load


def control_ids(shared: Path, model: str) -> dict[str, int]:
    tokenizer = Tokenizer.from_file(str(shared / "models" / model / "tokenizer.json"))
    return {name: tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]", "[MASK]", "[PAD]")}


# --- what a row is ---


def test_the_tiny_models_rows_are_those_of_the_reference(load: Load, tiny_folder: Path) -> None:
    examples = json.loads((tiny_folder / "golden.json").read_text(encoding="utf-8"))["examples"]

    rows = load("tiny-bert-3-labels").encode([example["text"] for example in examples])

    assert [row.ids.tolist() for row in rows] == [example["input_ids"] for example in examples]
    assert not any(row.truncated for row in rows)
    assert {row.ids.dtype for row in rows} == {np.dtype(np.int32)}


def test_64_reviews_are_cut_exactly_as_the_reference_cut_them(load: Load, shared: Path) -> None:
    golden = json.loads((shared / "models" / "minilm-l6-imdb" / "golden.json").read_text(encoding="utf-8"))["examples"]
    with gzip.open(shared / "data" / "imdb" / "test.csv.gz", "rt", encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]

    tokenizer = load("minilm-l6-imdb", Cut(head=129, tail=383), ("line-breaks",))
    rows = tokenizer.encode([texts[example["row"]] for example in golden])

    assert [row.truncated for row in rows] == [example["tokens"] > 512 for example in golden]
    assert any(row.truncated for row in rows)
    for row, example in zip(rows, golden, strict=True):
        assert len(row.ids) == min(example["tokens"], 512)
        assert row.ids[:8].tolist() == example["first_ids"]
        assert row.ids[-4:].tolist() == example["last_ids"]


@pytest.mark.parametrize(
    ("words", "head", "tail", "kept", "truncated"),
    [
        (5, 4, 3, [0, 1, 2, 3, 4], False),
        (6, 4, 3, [0, 1, 2, 4, 5], True),
        (9, 4, 3, [0, 1, 2, 7, 8], True),
        (9, 6, 1, [0, 1, 2, 3, 4], True),
        (9, 1, 6, [4, 5, 6, 7, 8], True),
        (9, 1, 1, [], True),
        (0, 1, 1, [], False),
    ],
)
def test_the_cut_keeps_the_head_and_the_tail(
    load: Load, words: int, head: int, tail: int, kept: list[int], truncated: bool
) -> None:
    """Both counts include the control token at their end, so that `tail` 1 is the plain head cut."""
    letters = list("abcdefghi")
    whole = load("tiny-bert-3-labels").encode([" ".join(letters)])[0].ids.tolist()

    row = load("tiny-bert-3-labels", Cut(head=head, tail=tail)).encode([" ".join(letters[:words])])[0]

    assert row.ids.tolist() == [whole[0], *(whole[1 + index] for index in kept), whole[-1]]
    assert row.truncated is truncated


def test_a_text_is_cleaned_by_the_rules_given(load: Load) -> None:
    plain, cleaned = load("tiny-bert-3-labels"), load("tiny-bert-3-labels", cleaning=("line-breaks",))

    assert cleaned.encode(["the<br />film"])[0].ids.tolist() == plain.encode(["the film"])[0].ids.tolist()
    assert plain.encode(["the<br />film"])[0].ids.tolist() != plain.encode(["the film"])[0].ids.tolist()


def test_rows_come_in_the_order_of_the_texts(load: Load) -> None:
    tokenizer = load("tiny-bert-3-labels")
    texts = ["the film", "", "a " * 90, "great !"]

    assert [row.ids.tolist() for row in tokenizer.encode(texts)] == [
        tokenizer.encode([text])[0].ids.tolist() for text in texts
    ]


@pytest.mark.parametrize("text", ["", " ", "\x00", "\u200b\ufeff"])
def test_a_text_without_a_word_is_its_two_control_tokens(load: Load, text: str) -> None:
    assert load("tiny-bert-3-labels").encode([text])[0].ids.tolist() == [2, 3]


# --- what a hostile text can't do ---


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "text",
    [
        "[SEP] [CLS] [MASK] [PAD]",
        "good[SEP]bad",
        "[CLS][CLS][CLS]",
        "a [MASK] b",
        " [PAD] ",
        "[sep] [Sep] [ SEP ]",
        "\x00[SEP]\u200b[CLS]",
        "[SEP\u0301]",
        "[SE\x00P]",
        "[\u200bMASK]",
    ],
)
def test_control_tokens_never_come_out_of_a_text(load: Load, shared: Path, model: str, text: str) -> None:
    inner = load(model).encode([text])[0].ids[1:-1].tolist()

    assert inner
    assert not set(inner) & set(control_ids(shared, model).values())


@pytest.mark.parametrize("model", MODELS)
def test_control_tokens_frame_a_text(load: Load, shared: Path, model: str) -> None:
    ids = control_ids(shared, model)

    for row in load(model).encode(["good", "good " * 1_000, "[SEP]"]):
        assert (row.ids[0], row.ids[-1]) == (ids["[CLS]"], ids["[SEP]"])


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("character", ["a", "\u0301", "\ufdfa", "\u4e2d", "[", "\U0001f3ac"])
def test_the_longest_text_in_one_word_is_quick(load: Load, model: str, character: str) -> None:
    """WordPiece is quadratic in the length of a word unless it has a cap; some characters grow by normalization."""
    tokenizer = load(model)
    start = time.process_time()

    row = tokenizer.encode([character * 100_000])[0]

    assert time.process_time() - start < 5
    assert len(row.ids) <= WHOLE.head + WHOLE.tail


# --- which tokenizers are taken ---


def test_a_tokenizers_own_padding_and_truncation_are_not_used(shared: Path) -> None:
    """They persist in `tokenizer.json`, and would cut behind the back of the manifest."""
    tokenizer = Tokenizer.from_file(str(shared / "models" / "tiny-bert-3-labels" / "tokenizer.json"))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=32)

    rows = ReviewTokenizer(tokenizer, WHOLE, ()).encode(["the film was great !", "great"])

    assert [len(row.ids) for row in rows] == [7, 3]


@pytest.mark.parametrize(("model", "size"), [("tiny-bert-3-labels", 78), ("minilm-l6-imdb", 30_522)])
def test_the_vocabulary_is_as_large_as_its_largest_id_asks_for(load: Load, model: str, size: int) -> None:
    """The tiny model has 77 words and no id 6: a network with 77 rows would not do."""
    assert load(model).vocabulary_size == size


def test_a_tokenizer_without_cls_and_sep_is_refused() -> None:
    with pytest.raises(ArtifactError, match="frames a text with 0 control tokens"):
        ReviewTokenizer(Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]")), WHOLE, ())  # noqa: S106 - no password


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"tokenizer\.json: no such file"):
        ReviewTokenizer.load(tmp_path / "tokenizer.json", WHOLE, ())


@pytest.mark.parametrize("content", ["", "{}", "[CLS]\n[SEP]\n", '{"model": {"type": "WordPiece"}}'])
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content, encoding="utf-8")

    with pytest.raises(ArtifactError, match=r"not a tokenizer\.json"):
        ReviewTokenizer.load(path, WHOLE, ())


def test_an_unknown_cleaning_rule_is_refused(load: Load) -> None:
    with pytest.raises(ArtifactError, match="unknown cleaning rule 'stemming'"):
        load("tiny-bert-3-labels", cleaning=("stemming",))


# --- rows side by side ---


def row(*ids: int) -> np.ndarray:
    return np.array(ids, dtype=np.int32)


def test_shorter_rows_are_padded_with_0_and_masked() -> None:
    ids, mask = pad([row(2, 5, 3), row(2, 3)])

    assert ids.tolist() == [[2, 5, 3], [2, 3, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert (ids.dtype, mask.dtype) == (np.int32, np.int32)


def test_a_width_may_be_asked_for() -> None:
    ids, mask = pad([row(2, 3)], length=4)

    assert ids.tolist() == [[2, 3, 0, 0]]
    assert mask.tolist() == [[1, 1, 0, 0]]


def test_a_row_longer_than_the_width_is_never_cut_in_silence() -> None:
    with pytest.raises(ValueError, match="broadcast"):
        pad([row(2, 5, 6, 3)], length=3)
