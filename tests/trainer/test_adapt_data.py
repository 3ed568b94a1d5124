"""Texts without labels: what is read, how they become rows, and what is masked of these."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from toy import write_csv
from trainer.adapt_data import Masking, cut_rows, masked_batches, masking_of, read_rows
from trainer.checkpoint import open_checkpoint
from trainer.cuts import EVERYTHING
from trainer.data import Refusal, read_texts
from trainer.dataset import Buckets
from worker.errors import ArtifactError, UsageError

MASK, FIRST = 4, 5
"""[MASK], and the first word that is no control token, in the toy vocabulary."""


def texts_of(path: Path) -> tuple[list[str], list[str]]:
    refused: list[Refusal] = []
    read = read_texts(path, refused.append)
    assert read.refused == len(refused)
    return read.texts, [str(refusal) for refusal in refused]


def test_the_column_text_is_read_whatever_others_there_are(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [(5, "good\nfilm"), (1, " "), (2,), (3, "bad, very")], ("stars", "text"))

    texts, refused = texts_of(path)

    assert texts == ["good\nfilm", "bad, very"]
    assert refused == [
        "row 1 (line 4): text is empty",
        "row 2 (line 5): has 1 columns, the header has 2",
    ]


def test_a_text_a_line_is_read_plain_and_zipped(tmp_path: Path) -> None:
    content = b'text\n\na "quoted, text\r\n\xff\nlast'
    (tmp_path / "a.txt").write_bytes(content)
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(content))

    for name in ("a.txt", "b.txt.gz"):
        texts, refused = texts_of(tmp_path / name)
        assert texts == ["text", 'a "quoted, text', "last"]
        assert refused == ["row 2 (line 4): text is not UTF-8"]


def test_a_file_that_holds_no_texts_is_one_line(tmp_path: Path) -> None:
    ratings = write_csv(tmp_path / "ratings.csv", [(1, 5.0)], ("movieId", "rating"))
    empty = write_csv(tmp_path / "empty.csv", [("",)], ("text",))
    nothing = tmp_path / "nothing.csv"
    nothing.write_text("")
    for path, fault in (
        (ratings, "a CSV with one column 'text' is needed, others are passed over; found 'movieId', 'rating'"),
        (empty, "has no text that can be used, of 1"),
        (nothing, "found nothing"),
        (tmp_path / "absent.csv", "no such file or directory"),
    ):
        with pytest.raises(UsageError, match=f"^{path}: .*{fault}") as raised:
            texts_of(path)
        assert "\n" not in str(raised.value)
    broken = tmp_path / "broken.csv.gz"
    broken.write_bytes(gzip.compress(b"text\ngood\n" * 100)[:-9])
    with pytest.raises(UsageError, match="broken gzip file"):
        texts_of(broken)


@pytest.mark.parametrize("words", [1, 6, 7, 12, 13, 100])
def test_a_text_is_cut_into_as_few_rows_as_it_needs_all_of_nearly_one_length(words: int) -> None:
    ids = np.array([2, *range(10, 10 + words), 3], dtype=np.int32)

    rows = cut_rows(ids, 8)

    assert len(rows) == -(-words // 6)
    assert [token for row in rows for token in row[1:-1]] == ids[1:-1].tolist()
    assert all((row[0], row[-1]) == (2, 3) for row in rows)
    assert max(map(len, rows)) <= 8
    assert max(map(len, rows)) - min(map(len, rows)) <= 1


def test_a_text_without_a_word_is_no_row(base: Path) -> None:
    tokenizer = open_checkpoint(str(base)).review_tokenizer(EVERYTHING, ("line-breaks",))
    told: list[int] = []

    rows = read_rows(["good film", "<br />", "the plot was very dull , the plot"], tokenizer, 8, told.append)

    assert rows.lengths.tolist() == [4, 6, 6]
    assert rows.row(0).tolist() == rows.ids[:4].tolist()
    assert len(rows.row(2)) == 6
    assert rows.row(2)[0] == 2
    assert sum(told) == 3


def masking(base: Path, whole_words: bool = False) -> Masking:
    return masking_of(open_checkpoint(str(base)), whole_words)


def test_of_a_row_a_share_is_to_be_guessed_and_never_a_control_token(base: Path) -> None:
    rng = np.random.default_rng(0)
    for content, wanted in ((1, 1), (3, 1), (10, 2), (20, 3), (100, 15)):
        ids = np.array([2, *[7] * content, 3], dtype=np.int32)
        places = masking(base).choose(ids, rng)
        assert len(places) == len(set(places.tolist())) == wanted
        assert 1 <= places.min() <= places.max() <= content


def test_masked_replaced_and_kept_are_eight_one_and_one_of_ten(base: Path) -> None:
    own = masking(base)
    rows = [np.array([2, *[FIRST] * 100, 3], dtype=np.int32)] * 400

    (places, inputs), wanted = own.batch(rows, 110, np.random.default_rng(1))

    ids = inputs["input_ids"]
    found = ids.reshape(-1)[places]
    assert len(places) == 6000
    assert set(wanted.tolist()) == {FIRST}
    assert (found == MASK).mean() == pytest.approx(0.8, abs=0.02)
    replaced = found[(found != MASK) & (found != FIRST)]
    assert len(replaced) / 6000 == pytest.approx(0.1, abs=0.02)
    assert replaced.min() > MASK, "no control token"
    assert len(set(replaced.tolist())) > 15, "any other word"
    untouched = np.ones(ids.size, dtype=bool)
    untouched[places] = False
    assert (ids.reshape(-1)[untouched] == np.tile(np.pad(rows[0], (0, 8)), 400)[untouched]).all()
    assert (inputs["attention_mask"].sum(axis=1) == 102).all()


def test_whole_words_are_masked_with_all_their_pieces(base: Path) -> None:
    own = masking(base, whole_words=True)
    assert own.continues is not None
    assert not own.continues.any(), "the toy vocabulary has no pieces"
    own.continues[20:] = True  # as if each began with ##
    rng = np.random.default_rng(2)
    content = [9, 20, 21, 8, 7, 22, 6, 5, 9, 23, 24, 25, 8, 7, 6, 9, 8, 5, 6, 7]
    words = [[0, 1, 2], [3], [4, 5], [6], [7], [8, 9, 10, 11], *[[at] for at in range(12, 20)]]
    ids = np.array([2, *content, 3], dtype=np.int32)
    counts = set[int]()

    for _ in range(200):
        places = {int(place) - 1 for place in own.choose(ids, rng)}
        assert all(set(word) <= places or not set(word) & places for word in words)
        counts.add(len(places))

    assert counts == {1, 2, 3, 4}, "3 of 20; fewer where the next word is too long, more where the first one is"
    assert max(len(masking(base).choose(ids, rng)) for _ in range(50)) == 3


def test_pieces_are_known_by_their_two_signs(shared: Path) -> None:
    own = masking_of(open_checkpoint(str(shared / "models" / "minilm-l6-imdb")), whole_words=True)
    assert own.continues is not None

    assert own.mask == 103
    assert 3000 < own.continues.sum() < 10_000
    assert not {0, 100, 101, 102, 103} & set(own.ordinary.tolist())


def test_a_batch_is_masked_alike_whenever_it_is_made_and_otherwise_in_another_epoch(base: Path) -> None:
    tokenizer = open_checkpoint(str(base)).review_tokenizer(EVERYTHING, ())
    rows = read_rows(["the plot was very dull , the plot was good !"] * 8, tokenizer, 16, lambda _: None)
    plan = [np.arange(4), np.arange(4, 8)]

    def read(seeds: list[tuple[int, ...]], first: int = 0) -> list[list[int]]:
        made = masked_batches(rows, plan[first:], Buckets((16,)), masking(base), seeds)
        return [inputs["input_ids"].numpy().reshape(-1).tolist() for (_, inputs), _ in made]

    whole = read([(0, 1, 0), (0, 1, 1)])
    assert read([(0, 1, 1)], first=1) == whole[1:]
    assert read([(0, 2, 0), (0, 2, 1)]) != whole
    assert whole[0] != whole[1], "the same texts at another step"


def test_a_tokenizer_without_a_mask_is_refused(base: Path) -> None:
    checkpoint = open_checkpoint(str(base))
    other = type(checkpoint)(
        checkpoint.name, checkpoint.folder, checkpoint.config, checkpoint.tokenizer.replace("[MASK]", "[GAP]")
    )
    with pytest.raises(ArtifactError, match=r"its tokenizer has no \[MASK\]"):
        masking_of(other, whole_words=False)
