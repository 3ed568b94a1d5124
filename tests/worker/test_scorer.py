"""Scorer: what was read goes through tokens, engine and verdict, and each thing gets its one outcome."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from schemas import Prediction, Reason, Rejection, Review, Source
from worker.artifact import Artifact, open_artifact
from worker.engine import Engine
from worker.scorer import Prepared, Scorer

Outcomes = list[Prediction | Rejection]


@pytest.fixture(scope="module")
def artifact(tiny_artifact: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return open_artifact(tiny_artifact(tmp_path_factory.mktemp("scorer")))


@pytest.fixture(scope="module")
def scorer(artifact: Artifact, tiny_engine: Engine) -> Scorer:
    return Scorer(artifact, tiny_engine)


def source(offset: int) -> Source:
    return Source(topic="reviews", partition=0, offset=offset)


def review(text: str, name: str = "a") -> Review:
    return Review(review_id=name, text=text)


def rejection(offset: int) -> Rejection:
    return Rejection(reason=Reason.NOT_JSON, detail="x", source=source(offset))


def score(scorer: Scorer, read: Sequence[Review | Rejection]) -> Outcomes:
    prepared = scorer.prepare(read)
    sources = [source(100 + place) for place in range(len(read))]
    return scorer.conclude(prepared, sources, scorer.collect(scorer.submit(prepared)))


def test_a_text_gets_the_probabilities_of_the_reference(scorer: Scorer, tiny_folder: Path) -> None:
    golden = json.loads((tiny_folder / "golden.json").read_text(encoding="utf-8"))["examples"]
    examples = [example for example in golden if example["text"]]

    outcomes = score(scorer, [review(example["text"]) for example in examples])

    for outcome, example in zip(outcomes, examples, strict=True):
        powers = np.exp(example["logits"])
        assert isinstance(outcome, Prediction)
        assert list(outcome.probabilities.values()) == pytest.approx(powers / powers.sum(), abs=1e-4)
        assert outcome.label_id == int(np.argmax(powers))
        assert outcome.tokens == len(example["input_ids"])


def test_each_thing_that_was_read_has_one_outcome_in_its_order(scorer: Scorer) -> None:
    read = [review("great", "first"), rejection(101), review("awful !", "second"), rejection(103), rejection(104)]

    outcomes = score(scorer, read)

    assert [type(outcome) for outcome in outcomes] == [Prediction, Rejection, Prediction, Rejection, Rejection]
    assert [outcome.source.offset for outcome in outcomes] == [100, 101, 102, 103, 104]
    assert [outcome.review_id for outcome in outcomes if isinstance(outcome, Prediction)] == ["first", "second"]


def test_a_review_gets_the_same_outcome_with_and_without_company(scorer: Scorer) -> None:
    texts = ["great", "not a good film , but fun !", "the plot was awful " * 30, "boring"]

    together = score(scorer, [review(text) for text in texts])
    alone = [score(scorer, [review(text)])[0] for text in texts]

    for left, right in zip(together, alone, strict=True):
        assert isinstance(left, Prediction)
        assert isinstance(right, Prediction)
        assert left.label == right.label
        assert left.probabilities == pytest.approx(right.probabilities, abs=1e-4)
        assert (left.tokens, left.truncated) == (right.tokens, right.truncated)


def test_a_long_review_is_cut_and_says_so(scorer: Scorer) -> None:
    short, long = score(scorer, [review("great " * 62), review("great " * 63)])

    assert isinstance(short, Prediction)
    assert isinstance(long, Prediction)
    assert (short.tokens, short.truncated) == (64, False)
    assert (long.tokens, long.truncated) == (64, True)


def test_a_batch_of_rejections_alone_never_reaches_the_tokenizer(scorer: Scorer) -> None:
    read = [rejection(100), rejection(101)]

    assert list(scorer.prepare(read).rows) == []
    assert score(scorer, read) == read


def test_nothing_read_gives_nothing(scorer: Scorer) -> None:
    assert score(scorer, []) == []


def test_what_is_prepared_knows_its_tokens(scorer: Scorer) -> None:
    prepared = scorer.prepare([review("great"), rejection(1), review("the film was great")])

    assert prepared.tokens == 3 + 6
    assert Prepared([], []).tokens == 0


def test_predictions_name_the_artefact(scorer: Scorer, artifact: Artifact) -> None:
    (outcome,) = score(scorer, [review("great")])

    assert isinstance(outcome, Prediction)
    assert outcome.model == artifact.name
    assert list(outcome.probabilities) == list(artifact.manifest.labels)


def test_the_artefacts_temperature_and_cleaning_are_applied(
    tiny_artifact: Callable[..., Path], tmp_path: Path, tiny_engine: Engine, scorer: Scorer
) -> None:
    other = Scorer(
        open_artifact(tiny_artifact(tmp_path, temperature=2.0, cleaning=["line-breaks", "ellipses"])), tiny_engine
    )

    (plain,), (cooled,) = score(scorer, [review("the film")]), score(other, [review("the...film")])

    assert isinstance(plain, Prediction)
    assert isinstance(cooled, Prediction)
    shares = np.sqrt(list(plain.probabilities.values()))
    assert list(cooled.probabilities.values()) == pytest.approx(shares / shares.sum(), abs=1e-4)


def test_sources_that_do_not_belong_to_what_was_read_are_an_error(scorer: Scorer) -> None:
    prepared = scorer.prepare([review("great")])
    scored = scorer.collect(scorer.submit(prepared))

    with pytest.raises(ValueError, match="zip"):
        scorer.conclude(prepared, [], scored)
