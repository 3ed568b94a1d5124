"""CSV files of labelled reviews: what is read, what is refused, and how that is said."""

import gzip
from pathlib import Path

import pytest

from toy import write_csv
from trainer.data import LabelledFile, Refusal, read_labelled
from trainer.labels import DEFAULT_SPEC, parse_labels
from worker.errors import UsageError

LABELS = parse_labels(DEFAULT_SPEC)


def read(path: Path) -> tuple[LabelledFile, list[str]]:
    refused: list[Refusal] = []
    file = read_labelled(path, LABELS, refused.append)
    assert file.refused == len(refused)
    return file, [str(refusal) for refusal in refused]


def test_rows_keep_their_raw_text_their_number_and_their_label(tmp_path: Path) -> None:
    rows = [('<br />He said "no"...\nTwice, café \U0001f600', "pos"), ("plain", "neg"), ("  spaced ", "1")]
    file, refused = read(write_csv(tmp_path / "a.csv", rows))
    assert [(review.row, review.text, review.label) for review in file.reviews] == [
        (0, rows[0][0], 1),
        (1, "plain", 0),
        (2, "  spaced ", 1),
    ]
    assert refused == []
    assert file.name == "a.csv"


def test_columns_may_stand_in_any_order_beside_others_and_after_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id, sentiment ,text\n7,neg,hm\n", encoding="utf-8-sig")
    file, _ = read(path)
    assert [(review.text, review.label) for review in file.reviews] == [("hm", 0)]


def test_gzip_is_told_by_content_not_by_name(tmp_path: Path) -> None:
    plain = write_csv(tmp_path / "a.csv", [("one", "pos")])
    for name in ("b.csv.gz", "b.csv"):
        zipped = tmp_path / "z" / name
        zipped.parent.mkdir(exist_ok=True)
        zipped.write_bytes(gzip.compress(plain.read_bytes()))
        assert read(zipped)[0].reviews == read(plain)[0].reviews


def test_blank_lines_are_no_rows_as_in_pandas(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,sentiment\none,pos\n\n\ntwo,neg\n", encoding="utf-8")
    file, refused = read(path)
    assert [review.row for review in file.reviews] == [0, 1]
    assert refused == []


def test_each_refused_row_is_named_with_number_lines_and_reason_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(
        b"text,sentiment\n"
        b"good one,pos\n"
        b"no opinion,meh\n"
        b'"two\nlines",neutral\n'
        b"   ,neg\n"
        b"a,b,pos\n"
        b"lonely\n"
        b"caf\xe9,pos\n"
        b"nul\x00here,neg\n" + b"x" * 100_001 + b",pos\n"
        b"last,neg\n"
    )
    file, refused = read(path)
    assert [(review.row, review.text) for review in file.reviews] == [(0, "good one"), (9, "last")]
    accepted = "accepted: negative/neg/0, positive/pos/1"
    assert refused == [
        f"row 1 (line 3): unknown label 'meh'; {accepted}",
        f"row 2 (lines 4 to 5): unknown label 'neutral'; {accepted}",
        "row 3 (line 6): text is empty",
        "row 4 (line 7): has 3 columns, the header has 2",
        "row 5 (line 8): has 1 columns, the header has 2",
        "row 6 (line 9): text is not UTF-8",
        "row 7 (line 10): text holds a NUL character",
        "row 8 (line 11): text has 100,001 characters, at most 100,000 are accepted; an open quote?",
    ]


def test_a_refusal_shows_a_strange_label_escaped_and_cut(tmp_path: Path) -> None:
    _, refused = read(write_csv(tmp_path / "a.csv", [("ok", "pos"), ("no", "\x1b[31m" + "y" * 99)]))
    assert "\x1b" not in refused[0]
    assert "yyy..." in refused[0]
    assert len(refused[0]) < 150


def test_a_text_of_exactly_the_limit_and_far_beyond_the_csv_modules_own_is_read(tmp_path: Path) -> None:
    file, refused = read(write_csv(tmp_path / "a.csv", [("x" * 100_000, "pos"), ("y" * 300_000, "neg")]))
    assert [len(review.text) for review in file.reviews] == [100_000]
    assert len(refused) == 1


def test_an_open_quote_is_found_by_the_lines_it_swallowed(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('text,sentiment\nfine,pos\n"never closed,neg\n' + "more,neg\n" * 500, encoding="utf-8")
    _, refused = read(path)
    assert refused == ["row 1 (lines 3 to 503): has 1 columns, the header has 2"]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "is empty"),
        (b"text,sentiment\n", "a header and no rows"),
        (b"review,stars\na,1\n", "has no column 'text'; found 'review', 'stars'"),
        (b"text;sentiment\na;pos\n", "found 'text;sentiment'"),
        (b"text,label\na,pos\n", "has no column 'sentiment'"),
        (b"text,sentiment,text\na,pos,b\n", "more than one column 'text'"),
        (b"text,sentiment\na,5\nb,4\n", "has no row with a known label, of 2; accepted: negative/neg/0"),
        (
            b"text,sentiment\n ,pos\nb,4\n",
            r"has no row that can be used, of 2; the first: row 0 \(line 2\): text is empty",
        ),
        ("text,sentiment\na,pos\n".encode("utf-16"), "UTF-16"),
        ("text,sentiment\na,pos\n".encode("utf-16-le"), "not text in UTF-8"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "not text in UTF-8"),
        (b"PK\x03\x04\x14\x00\x06\x00", "not text in UTF-8"),
        (gzip.compress(b"text,sentiment\na,pos\n" * 99, mtime=0)[:-20], "broken gzip"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_clear_line(tmp_path: Path, content: bytes, fault: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=fault) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_name_that_says_gzip_must_keep_its_word(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv.gz", [("a", "pos")])
    with pytest.raises(UsageError, match="content is not gzip"):
        read(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothere\.csv: no such file"):
        read(tmp_path / "nothere.csv")
    with pytest.raises(UsageError, match="is a directory"):
        read(tmp_path)
