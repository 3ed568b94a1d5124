"""What the trainer's tests share: a tiny random BERT made on the fly, a toy set it learns, and the program itself."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toy import VOCABULARY, Ended, Program, StopAfter, drop_tensors, toy_rows, write_csv


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Program:
    """`program("prepare", "--train", path, ...)` runs `review-trainer` in this process."""
    from trainer.cli import main

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["review-trainer", *map(str, arguments)])
        capfd.readouterr()
        try:
            main()
            code: Any = 0
        except SystemExit as end:
            code = end.code
        captured = capfd.readouterr()
        return Ended(code or 0, captured.out, captured.err)

    return run


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """`stop_after(3)` ends the runs that follow in this process behind three steps, as a signal does."""
    from trainer import train

    return lambda steps: monkeypatch.setattr(train, "Interrupt", lambda: StopAfter(steps))


@pytest.fixture(scope="session")
def toy_csvs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A training and a test CSV."""
    folder = tmp_path_factory.mktemp("toy")
    return write_csv(folder / "train.csv", toy_rows(240, 1)), write_csv(folder / "test.csv", toy_rows(60, 2))


@pytest.fixture(scope="session")
def toy_data(toy_csvs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy set, prepared: 192 reviews to train on, 48 to validate, 60 to test."""
    from trainer.labels import DEFAULT_SPEC, parse_labels
    from trainer.prepare import Sampling, read_splits, write_folder

    labels, sampling = parse_labels(DEFAULT_SPEC), Sampling(1.0, 0.8, 0)
    splits, sources = read_splits(*toy_csvs, labels, sampling, lambda *_: None)
    out = tmp_path_factory.mktemp("data") / "toy"
    write_folder(out, splits, sources, labels, sampling, force=False)
    return out


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of 2 layers without a head, as a folder in Hugging Face layout."""
    import keras
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    from trainer.checkpoint import write_shape, write_weights
    from worker.bert_config import BertConfig
    from worker.network import Bert

    words = {word: index for index, word in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", words["[CLS]"]), ("[SEP]", words["[SEP]"])]
    )
    tokenizer.add_special_tokens(list(VOCABULARY[:5]))
    folder = tmp_path_factory.mktemp("base") / "tiny-base"
    folder.mkdir()
    keras.utils.set_random_seed(7)
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=40,
        initializer_range=0.1,
    )
    write_shape(folder, config, tokenizer.to_str(), 40)
    write_weights(folder, Bert(config))
    drop_tensors(folder, "classifier")
    return folder


@pytest.fixture(scope="session")
def trained(toy_data: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the toy set."""
    from trainer.progress import Reporter
    from trainer.settings import settings_from
    from trainer.train import train

    out = tmp_path_factory.mktemp("runs") / "toy"
    settings = settings_from(base=str(base), epochs=6, batch_size=8, learning_rate=3e-3, precision="float32")
    train(settings, toy_data, out, force=False, reporter=Reporter())
    return out


@pytest.fixture(scope="session")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's artefact: `MODELS/toy/1`."""
    from trainer.export import export_run
    from trainer.progress import Reporter

    return export_run(trained, tmp_path_factory.mktemp("models") / "toy", Reporter())
