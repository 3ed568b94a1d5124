"""Labels and their spellings."""

import pytest

from trainer.labels import DEFAULT_SPEC, labels_of, parse_labels
from worker.errors import UsageError


@pytest.mark.parametrize(
    ("value", "index"),
    [("neg", 0), ("negative", 0), ("0", 0), ("pos", 1), ("positive", 1), ("1", 1), (" POS ", 1), ("Negative", 0)],
)
def test_the_usual_spellings_are_known(value: str, index: int) -> None:
    assert parse_labels(DEFAULT_SPEC).index(value) == index


@pytest.mark.parametrize("value", ["", "2", "good", "neg pos", "-1", "1.0"])
def test_other_values_name_no_label(value: str) -> None:
    assert parse_labels(DEFAULT_SPEC).index(value) is None


def test_any_number_of_labels_keeps_its_order() -> None:
    labels = parse_labels("bad=1=2, neutral=3, good=4=5")
    assert labels.names == ("bad", "neutral", "good")
    assert [labels.index(stars) for stars in "12345"] == [0, 0, 1, 2, 2]
    assert labels.index("0") is None


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ("negative", "at least two"),
        ("negative,", "empty"),
        ("a=,b", "empty"),
        ("a=x,b=X", "'x' stands there twice"),
        ("a,a", "twice"),
    ],
)
def test_a_spec_that_cannot_be_meant_is_refused(spec: str, fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        parse_labels(spec)


def test_a_models_own_names_bring_the_usual_spellings_along() -> None:
    labels = labels_of(["NEGATIVE", "pos"])
    assert labels.names == ("NEGATIVE", "pos")
    assert [labels.index(value) for value in ("neg", "0", "positive", "1")] == [0, 0, 1, 1]


def test_names_without_usual_spellings_stand_for_themselves() -> None:
    labels = labels_of(["LABEL_0", "LABEL_1"])
    assert labels.index("label_1") == 1
    assert labels.index("pos") is None


STARS = parse_labels("1, 2, 3, 4, 5")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("4", (3, None)),
        ("4.0", (3, None)),
        (" 4.00 ", (3, None)),
        ("3.5", (3, 3.5)),
        ("3.4", (2, 3.4)),
        ("1.5", (1, 1.5)),
        ("1", (0, None)),
        ("5", (4, None)),
    ],
)
def test_a_rating_counts_as_the_nearest_label_and_of_two_as_the_higher(
    value: str, found: tuple[int, float | None]
) -> None:
    assert STARS.read(value) == found


@pytest.mark.parametrize("value", ["0.9", "5.1", "10", "nan", "inf", "-1", "", "three"])
def test_what_lies_beyond_the_ratings_is_unknown(value: str) -> None:
    assert STARS.read(value) is None
    assert STARS.accepted == "1, 2, 3, 4, 5, and numbers from 1 to 5"


def test_the_order_of_ratings_is_the_outputs_own() -> None:
    assert [parse_labels("5,3,1").read(value) for value in ("4", "2.9", "1")] == [(0, 4.0), (1, 2.9), (2, None)]


def test_a_spelling_comes_before_the_number_that_it_looks_like() -> None:
    labels = parse_labels("1=0=bad,2=1.5,3")
    assert [labels.read(value) for value in ("0", "bad", "1.5", "1.25")] == [(0, None), (0, None), (1, None), (0, 1.25)]


def test_names_take_no_numbers_but_their_spellings() -> None:
    labels = parse_labels("bad=1=2,good=4=5")
    assert [labels.read(value) for value in ("2", "2.0", "3")] == [(0, None), None, None]
    assert "numbers" not in labels.accepted
