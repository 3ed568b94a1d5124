"""Settings of a run."""

from pathlib import Path
from typing import Any

import pytest

from schemas import Cut
from trainer.errors import DataError
from trainer.settings import (
    CutName,
    TrainSettings,
    cut_of,
    default_learning_rate,
    parse_cleaning,
    parse_first_tokens,
    read_settings,
    settings_from,
)
from worker.errors import SettingsError


@pytest.mark.parametrize(
    ("name", "max_tokens", "positions", "head", "tail"),
    [
        ("head+tail", None, 512, 129, 383),
        ("head+tail", 64, 512, 17, 47),
        ("head+tail", None, 40, 11, 29),
        ("head+tail", None, 2048, 129, 383),
        ("head", None, 512, 511, 1),
        ("head", 512, 512, 511, 1),
        ("head", 3, 512, 2, 1),
        ("head+tail", 1024, 2048, 257, 767),
    ],
)
def test_the_cut_fits_the_network(name: CutName, max_tokens: int | None, positions: int, head: int, tail: int) -> None:
    assert cut_of(name, max_tokens, positions) == Cut(head=head, tail=tail)


def test_more_tokens_than_the_network_reads_are_refused() -> None:
    with pytest.raises(SettingsError, match="--max-tokens 513: the network reads at most 512"):
        settings_from(base="b", max_tokens=513).token_cut(512)


def test_the_first_epochs_may_read_less_and_the_last_reads_all() -> None:
    cuts = settings_from(base="b", epochs=4, first_tokens=(64, 128)).epoch_cuts(512)
    assert cuts == tuple(cut_of("head+tail", tokens, 512) for tokens in (64, 128, None, None))
    assert settings_from(base="b", epochs=2, max_tokens=64).epoch_cuts(512) == (Cut(head=17, tail=47),) * 2
    assert settings_from(base="b", epochs=2, first_tokens=(9,), cut="head").epoch_cuts(40)[0] == Cut(head=8, tail=1)


@pytest.mark.parametrize(
    ("first", "fault"),
    [
        ((64, 129), "--first-tokens 129: later epochs read at most 128"),
        ((64, 64), "--first-tokens names 2 of 2 epochs; the last one has to read all"),
    ],
)
def test_first_epochs_that_read_more_or_leave_none_are_refused(first: tuple[int, ...], fault: str) -> None:
    with pytest.raises(SettingsError, match=fault):
        settings_from(base="b", epochs=2, max_tokens=128, first_tokens=first).epoch_cuts(512)


def test_numbers_of_tokens_are_read_in_their_order() -> None:
    assert parse_first_tokens("128, 256") == (128, 256)
    assert parse_first_tokens(None) is None
    for spec in ("", "128,", "short"):
        with pytest.raises(SettingsError, match="give a number for each of the first epochs: 128,256"):
            parse_first_tokens(spec)


@pytest.mark.parametrize(("width", "rate"), [(128, 1e-4), (384, 1e-4), (385, 3e-5), (768, 3e-5), (1024, 3e-5)])
def test_the_default_rate_goes_by_the_networks_width(width: int, rate: float) -> None:
    assert default_learning_rate(width) == rate


@pytest.mark.parametrize(
    ("field", "value", "option"),
    [
        ("epochs", 0, "--epochs"),
        ("batch_size", 0, "--batch-size"),
        ("learning_rate", 0.0, "--learning-rate"),
        ("learning_rate", float("nan"), "--learning-rate"),
        ("warmup", 1.0, "--warmup"),
        ("weight_decay", -0.1, "--weight-decay"),
        ("max_tokens", 2, "--max-tokens"),
        ("first_tokens", (128, 2), "--first-tokens"),
        ("optimizer", "sgd", "--optimizer"),
        ("seed", -1, "--seed"),
    ],
)
def test_a_value_out_of_range_is_named_by_its_option(field: str, value: Any, option: str) -> None:
    with pytest.raises(SettingsError, match=f"^{option}: "):
        settings_from(**{"base": "b", field: value})


def test_cleaning_rules_are_read_in_their_order_and_known() -> None:
    assert parse_cleaning("newlines, line-breaks") == ("newlines", "line-breaks")
    assert parse_cleaning("") == ()
    with pytest.raises(SettingsError, match="--cleaning: unknown cleaning rule 'emoji'; known: line-breaks"):
        parse_cleaning("newlines,emoji")


def test_saved_settings_are_read_back(tmp_path: Path) -> None:
    settings = TrainSettings(base="bert-base-cased", learning_rate=3e-5, cleaning=("newlines",), xla=True)
    (tmp_path / "settings.json").write_text(settings.model_dump_json())
    assert read_settings(tmp_path) == settings


def test_missing_and_broken_settings_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"settings\.json: no such file or directory; `review-trainer train`"):
        read_settings(tmp_path)
    (tmp_path / "settings.json").write_text('{"base": "b", "speed": 9}')
    with pytest.raises(DataError, match=r"settings\.json: speed: Extra inputs"):
        read_settings(tmp_path)
