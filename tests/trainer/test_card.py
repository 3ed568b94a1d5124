"""The model card, as the Hugging Face hub reads it."""

from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from schemas import Cut
from trainer.card import Origin, model_card, read_origin

METRICS = {"validation_accuracy": 0.91, "validation_loss": 0.25, "validation_ece": 0.01}


def card(**fields: object) -> ModelCard:
    values = {
        "name": "imdb",
        "labels": ("negative", "positive"),
        "story": "Fine-tuned.",
        "metrics": METRICS,
        "cut": Cut(head=129, tail=383),
        "cleaning": ("line-breaks",),
    }
    return ModelCard(model_card(**(values | fields)), ignore_metadata_errors=False)  # type: ignore[arg-type]


def test_the_hub_reads_what_was_measured() -> None:
    found = card(data="train.csv.gz").data

    assert (found.pipeline_tag, found.library_name, found.model_name) == ("text-classification", "transformers", "imdb")
    assert "sentiment-analysis" in found.tags
    assert found.eval_results is not None
    (result,) = found.eval_results
    assert (result.metric_type, result.metric_value) == ("accuracy", 0.91)
    assert (result.dataset_name, result.dataset_split) == ("train.csv.gz", "validation")


def test_license_and_language_are_not_known_unless_they_are_given() -> None:
    bare, given = card().data, card(origin=Origin("apache-2.0", ("en", "de"))).data

    assert (bare.license, bare.language) == ("unknown", None)
    assert (given.license, given.language) == ("apache-2.0", ["en", "de"])


@pytest.mark.parametrize("origin", [Origin(), Origin("apache-2.0", ("en", "de")), Origin(None, ("en",)), Origin("mit")])
def test_license_and_language_are_read_back_from_a_card(origin: Origin, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(str(card(origin=origin)), encoding="utf-8")

    assert read_origin(tmp_path / "README.md") == origin


@pytest.mark.parametrize("content", ["", "# a card", "---\n[\n---\n", "---\n- a\n---\n"])
def test_a_card_of_somebody_elses_tells_nothing(content: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(content, encoding="utf-8")

    assert read_origin(tmp_path / "README.md") == Origin()
    assert read_origin(tmp_path / "none") == Origin()


def test_a_model_of_which_nothing_was_measured_has_no_results() -> None:
    found = card(metrics={})

    assert found.data.eval_results is None
    assert "nothing yet" in found.text


@pytest.mark.parametrize(("temperature", "said"), [(1.0, "No temperature was fitted"), (1.25, "temperature of 1.2500")])
def test_it_says_what_a_confidence_is_worth(temperature: float, said: str) -> None:
    assert said in card(temperature=temperature).text
