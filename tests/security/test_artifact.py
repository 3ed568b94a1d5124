"""Hostile artefacts: a manifest whose hashes are right, and files that are not what they say. Each is one line, before
it costs memory or time."""

import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from worker.artifact import digest_file, open_artifact
from worker.bert_config import parse_config
from worker.engine import EngineDescription, Scored
from worker.engine.memory import host_memory
from worker.errors import ArtifactError
from worker.service import load_scorer
from worker.settings import load_settings
from worker.tokens import Ids

BuildArtifact = Callable[..., Path]


@pytest.fixture
def folder(tiny_artifact: BuildArtifact, tmp_path: Path) -> Path:
    """A valid artefact, to be altered."""
    return tiny_artifact(tmp_path / "tiny")


def forge(folder: Path, name: str, content: bytes | None = None, **listed: Any) -> None:
    """Write a file and list it in the manifest as it is, but for what `listed` says of it."""
    if content is not None:
        (folder / name).write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["files"][name] = listed or digest_file(folder / name).model_dump()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def forge_config(folder: Path, **fields: Any) -> None:
    config = json.loads((folder / "config.json").read_bytes()) | fields
    forge(folder, "config.json", json.dumps(config).encode())


def refused(attempt: Callable[[], Any]) -> str:
    """Why, in one line."""
    with pytest.raises(ArtifactError) as caught:
        attempt()
    said = str(caught.value)
    assert "\n" not in said
    return said


# === Sizes ===


@pytest.mark.parametrize("model", ["minilm-l6-imdb", "tiny-bert-3-labels"])
def test_the_size_of_a_network_is_known_from_its_config(shared: Path, model: str) -> None:
    """Of the references: every number of their checkpoints, but for the buffer of positions that old ones have."""
    folder = shared / "models" / model
    tensors = load_file(folder / "model.safetensors")
    weights = sum(tensor.size for name, tensor in tensors.items() if not name.endswith("position_ids"))
    assert parse_config((folder / "config.json").read_bytes(), "config.json").parameters == weights


@pytest.mark.parametrize(
    "fields",
    [
        {"vocab_size": 2**31 - 1},
        {"hidden_size": 2**30},
        {"num_hidden_layers": 10**9},
        {"intermediate_size": 10**9},
        {"max_position_embeddings": 10**9},
        {"type_vocab_size": 10**9},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_a_config_that_asks_for_terabytes_is_refused_before_they_are_allocated(
    folder: Path, fields: dict[str, int]
) -> None:
    forge_config(folder, **fields)
    said = refused(lambda: open_artifact(folder))
    assert "config.json describes a network of " in said
    assert "model.safetensors has only " in said


def test_a_number_with_thousands_of_digits_is_refused(folder: Path) -> None:
    forge_config(folder, hidden_size=10**4_000)
    assert "hidden_size: Input should be less than or equal to 2147483647" in refused(lambda: open_artifact(folder))


@pytest.mark.parametrize("field", ["layer_norm_eps", "initializer_range"])
def test_a_number_without_end_is_refused(folder: Path, field: str) -> None:
    """Every review would have the same probabilities."""
    forge_config(folder, **{field: float("inf")})
    assert f"{field}: Input should be a finite number" in refused(lambda: open_artifact(folder))


@pytest.mark.parametrize(
    ("name", "size", "said"),
    [
        ("config.json", 2 << 20, "config.json is larger than 1,048,576 bytes"),
        ("tokenizer.json", 100 << 20, "tokenizer.json is larger than 33,554,432 bytes"),
        ("model.safetensors", 33 << 30, "its files are larger than 34,359,738,368 bytes together"),
    ],
)
def test_a_file_larger_than_any_of_its_kind_is_not_even_hashed(folder: Path, name: str, size: int, said: str) -> None:
    """Else it would be said that the hash is wrong, which it is as well."""
    with (folder / name).open("r+b") as file:
        file.truncate(size)
    forge(folder, name, bytes=size, sha256="sha256:" + "0" * 64)
    began = time.monotonic()
    assert said in refused(lambda: open_artifact(folder))
    assert time.monotonic() - began < 10


# === Swapped files ===


def overwrite(path: Path) -> None:
    """Other bytes, the same size, and the times as they were, as far as anybody can set them."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\0")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.rename(path)


SWAPS: dict[str, Callable[[Path], None]] = {"overwritten": overwrite, "replaced": replace, "removed": Path.unlink}


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("how", SWAPS)
def test_a_file_that_is_swapped_after_it_was_verified_is_noticed(folder: Path, name: str, how: str) -> None:
    artifact = open_artifact(folder)
    SWAPS[how](folder / name)
    assert f"{name} changed while the model was loaded" in refused(artifact.tokenizer)


def test_a_tokenizer_that_is_swapped_for_another_is_noticed_as_well(folder: Path) -> None:
    artifact = open_artifact(folder)
    path = folder / "tokenizer.json"
    path.write_bytes(path.read_bytes() + b" ")
    assert "tokenizer.json changed while the model was loaded" in refused(artifact.tokenizer)


class SlowEngine:
    """While it warms up, somebody writes to the folder."""

    description = EngineDescription("slow", "none", "float32", "a test")

    def __init__(self, weights: Path) -> None:
        self._weights = weights

    memory = staticmethod(host_memory)

    def warm_up(self) -> None:
        """The weights are read by now."""
        overwrite(self._weights)

    def submit(self, rows: Sequence[Ids]) -> Future[Scored]:
        """Never comes to it."""
        raise AssertionError("a model that was refused is asked to score")

    def close(self) -> None:
        """There is nothing to end."""


def test_a_model_that_changes_while_it_is_loaded_is_not_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.service.open_engine", lambda artifact, *_, rescore: SlowEngine(artifact.weights))
    artifact = open_artifact(folder)
    assert "model.safetensors changed while the model was loaded; write a new version into a folder of its own" in (
        refused(lambda: load_scorer(artifact, load_settings()))
    )


# === Tokenizers ===


HOSTILE_TOKENIZERS: dict[str, dict[str, Any]] = {
    "a table that cannot be parsed": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
    "a frame of tokens that it does not have": {
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}],
            "pair": [],
            "special_tokens": {},
        }
    },
}


@pytest.mark.parametrize("what", HOSTILE_TOKENIZERS)
def test_a_tokenizer_in_which_the_library_panics_is_refused(
    folder: Path, what: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Rust's panic is no Exception: it would end the process, and the thread that takes newer models."""
    tokenizer = json.loads((folder / "tokenizer.json").read_bytes()) | HOSTILE_TOKENIZERS[what]
    forge(folder, "tokenizer.json", json.dumps(tokenizer).encode())
    said = refused(open_artifact(folder).tokenizer)
    assert f"{folder / 'tokenizer.json'}: not a tokenizer.json: reading it ended with PanicException" in said
    capfd.readouterr()  # the library prints its own


# === Weights ===


def safetensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A file with this header, whatever it says of the data; `length` is what the file says of the header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def tensor(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


HOSTILE_WEIGHTS: dict[str, tuple[bytes, str]] = {
    "no header": (b"", "not a readable safetensors file"),
    "half a header": (safetensors({}, length=1_000), "invalid header length"),
    "a header beyond the file": (safetensors({}, length=1 << 20), "invalid header length"),
    "a header beyond memory": (
        safetensors({}, length=1 << 63),
        "its header would have 9,223,372,036,854,775,808 bytes",
    ),
    "a header of a million tensors": (
        safetensors(b'{"a":' + b" " * (1 << 20) + b"}"),
        "its header would have 1,048,582 bytes, that of a BERT has 1,048,576 at most",
    ),
    "a header that is no JSON": (safetensors(b"[" * 100_000), "invalid JSON in header"),
    "a header that is no text": (safetensors(b"\xff\xfe{}"), "invalid UTF-8 in header"),
    "more than there is": (safetensors({"a": tensor("F32", [1 << 20], 0, 1 << 22)}, b"0000"), "not fully covered"),
    "more than there can be": (safetensors({"a": tensor("F32", [1 << 40, 1 << 40], 0, 4)}, b"0000"), "overflow"),
    "bytes of another tensor": (
        safetensors({"a": tensor("F32", [1], 0, 4), "b": tensor("F32", [1], 0, 4)}, b"0000"),
        "invalid offset",
    ),
    "a hidden rest": (safetensors({"a": tensor("F32", [1], 0, 4)}, b"0000 and more"), "not fully covered"),
    "numbers that numpy does not have": (safetensors({"a": tensor("F8_E4M3", [4], 0, 4)}, b"0000"), "no weight"),
    "a hundred axes": (safetensors({"a": tensor("F32", [1] * 100, 0, 4)}, b"0000"), "no weight"),
}


@pytest.mark.parametrize("what", HOSTILE_WEIGHTS)
def test_a_weights_file_that_lies_is_refused(tmp_path: Path, what: str) -> None:
    from worker.tensors import read_tensors

    path = tmp_path / "model.safetensors"
    path.write_bytes(HOSTILE_WEIGHTS[what][0])
    said = refused(lambda: read_tensors(path))
    assert said.startswith(f"{path}: ")
    assert HOSTILE_WEIGHTS[what][1] in said


QUERY, KEY = (f"bert.encoder.layer.0.attention.self.{name}.weight" for name in ("query", "key"))
MISSHAPEN: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    "another height": (KEY, lambda it: it[:, :-1].copy(), f"{KEY} makes a variable of shape (31, 32), wanted (32, 32)"),
    "another width": (QUERY, lambda it: it[:-1].copy(), f"{QUERY} makes a variable of shape (32, 31), wanted (32, 32)"),
    "no axis": (KEY, lambda it: np.array(1, dtype=np.float32), f"{KEY} makes a variable of shape (), wanted (32, 32)"),
    "one axis more": (KEY, lambda it: it[None], f"{KEY} makes a variable of shape (32, 32, 1), wanted (32, 32)"),
    "quantized": (KEY, lambda it: (it * 127).astype(np.int8), f"{KEY} holds int8, not floating-point numbers"),
}


@pytest.mark.parametrize("what", MISSHAPEN)
def test_a_tensor_that_does_not_go_together_with_the_others_is_named(
    tiny_folder: Path, tmp_path: Path, what: str
) -> None:
    """numpy's own words, when query, key and value are joined, would name neither file nor tensor."""
    from worker.network import Bert
    from worker.weights import load_weights

    name, change, expected = MISSHAPEN[what]
    tensors = load_file(tiny_folder / "model.safetensors")
    save_file(tensors | {name: change(tensors[name])}, tmp_path / "model.safetensors")
    network = Bert(parse_config((tiny_folder / "config.json").read_bytes(), "config.json"))
    assert expected in refused(lambda: load_weights(network, tmp_path / "model.safetensors"))
