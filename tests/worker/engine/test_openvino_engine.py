"""The openvino engine against the float32 network, and what it computes in."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

openvino = pytest.importorskip("openvino", reason="the optional engine `openvino` is not installed")

from worker.artifact import INT8, Artifact, digest_file, open_artifact  # noqa: E402
from worker.bert_config import Activation  # noqa: E402
from worker.engine import Engine, open_engine, openvino_engine  # noqa: E402
from worker.engine.openvino_engine import (  # noqa: E402
    CALL_TOKENS,
    STEP,
    STEP_AGAIN,
    OpenVinoEngine,
    all_shapes,
    in_doubt,
    plan_calls,
    width_of,
)
from worker.engine.openvino_graph import build_graph, float_parts  # noqa: E402
from worker.errors import ArtifactError, EngineError  # noqa: E402
from worker.tokens import Ids, pad  # noqa: E402

TOLERANCE = 1e-4
LONGEST = 64
MEASURED = {
    "calibration_reviews": 8,
    "validation_reviews": 8,
    "float_accuracy": 0.75,
    "float_precision": "float32",
    "int8_accuracy": 0.75,
}


@pytest.fixture(scope="module")
def artifact(tiny_artifact: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return open_artifact(tiny_artifact(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture
def with_int8(tiny_artifact: Callable[..., Path], tmp_path: Path, artifact: Artifact) -> Path:
    """The tiny model with another graph of itself in the place of the int8 form: which of both is read can be seen by
    its logits, which are twice as large. What quantization makes is tested with the trainer."""
    folder = tiny_artifact(tmp_path / "tiny")
    graph = build_graph(artifact)
    doubled = openvino.opset15.multiply(graph.output("logits").get_node().input_value(0), np.float32(2))
    doubled.output(0).set_names({"logits"})
    (folder / INT8[0]).parent.mkdir()
    openvino.save_model(openvino.Model([doubled], graph.get_parameters()), folder / INT8[0], compress_to_fp16=False)
    return list_int8(folder)


def list_int8(folder: Path) -> Path:
    """Put the int8 form as it is now into the manifest."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["files"] |= {name: digest_file(folder / name).model_dump() for name in INT8}
    path.write_text(json.dumps(manifest | {"int8": MEASURED}), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def engine(artifact: Artifact) -> Iterator[Engine]:
    opened = open_engine(artifact, "openvino", "float32")
    opened.warm_up()
    yield opened
    opened.close()


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Says which instructions this machine has."""

    def have(flags: str) -> None:
        path = tmp_path / "cpuinfo"
        path.write_text(f"processor\t: 0\nflags\t\t: fpu {flags} sse2\n", encoding="ascii")
        monkeypatch.setattr(openvino_engine, "CPUINFO", path)

    return have


def logits_of(opened: Engine, rows: list[Ids]) -> Any:
    try:
        return opened.submit(rows).result().logits
    finally:
        opened.close()


# --- what it computes ---


def test_it_gives_the_golden_logits(engine: Engine, tiny_folder: Path) -> None:
    examples = json.loads((tiny_folder / "golden.json").read_text())["examples"]
    rows = [np.array(example["input_ids"], dtype=np.int32) for example in examples]
    scored = engine.submit(rows).result()
    assert np.abs(scored.logits - [example["logits"] for example in examples]).max() < TOLERANCE


@pytest.mark.parametrize("activation", get_args(Activation))
def test_it_computes_what_the_keras_network_does(artifact: Artifact, activation: Activation) -> None:
    from worker.network import Bert
    from worker.weights import load_weights

    config = artifact.config.model_copy(update={"hidden_act": activation, "layer_norm_eps": 0.1})
    network = Bert(config)
    load_weights(network, artifact.weights)
    rows = [np.arange(5, 5 + length, dtype=np.int32) for length in (3, 16, 17, 60)]
    ids, mask = pad(rows)
    wanted = network({"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)})

    changed = Artifact(artifact.folder, artifact.manifest, artifact.digest, config)
    found = logits_of(open_engine(changed, "openvino", "float32"), rows)

    assert np.abs(found - np.asarray(wanted)).max() < TOLERANCE


def test_logits_come_in_the_order_of_the_rows_whatever_their_lengths(engine: Engine) -> None:
    rng = np.random.default_rng(0)
    rows = [rng.integers(5, 70, size=length).astype(np.int32) for length in rng.integers(2, 64, size=100)]
    together = engine.submit(rows).result()
    alone = np.concatenate([engine.submit([row]).result().logits for row in rows])
    assert np.abs(together.logits - alone).max() < TOLERANCE
    assert together.device_tokens == sum(width_of(len(row), LONGEST, STEP) for row in rows)


def test_an_empty_batch_is_no_work(engine: Engine) -> None:
    assert engine.submit([]).result().logits.shape == (0, 3)


def test_no_framework_is_imported_for_it_and_its_makers_are_told_nothing(artifact: Artifact, tmp_path: Path) -> None:
    """TensorFlow alone would be most of the time until a worker is ready. Before OpenVINO reports over the network that
    it is imported, it leaves a number in the home folder."""
    code = f"""
import sys
from pathlib import Path
import numpy
from worker.artifact import open_artifact
from worker.engine import open_engine
engine = open_engine(open_artifact(Path({str(artifact.folder)!r})), "openvino")
engine.submit([numpy.array([2, 7, 3], dtype=numpy.int32)]).result()
print([name for name in ("tensorflow", "keras", "torch", "nncf") if name in sys.modules])
"""
    home = os.environ | {"HOME": str(tmp_path)}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=home)
    assert ended.stdout == "[]\n"
    assert list(tmp_path.iterdir()) == []


def test_weights_that_do_not_fit_the_config_are_refused(artifact: Artifact) -> None:
    wider = artifact.config.model_copy(update={"intermediate_size": 128})
    with pytest.raises(ArtifactError, match=r"layer\.0\.intermediate\.dense\.weight has the shape .* wanted \(128, "):
        open_engine(Artifact(artifact.folder, artifact.manifest, artifact.digest, wider), "openvino")


def test_weights_that_lack_a_layer_are_refused(artifact: Artifact) -> None:
    deeper = artifact.config.model_copy(update={"num_hidden_layers": 3})
    with pytest.raises(ArtifactError, match=r"has no tensor bert\.encoder\.layer\.2\."):
        open_engine(Artifact(artifact.folder, artifact.manifest, artifact.digest, deeper), "openvino")


# --- how rows are put into calls ---


@given(st.lists(st.integers(1, 100), max_size=80), st.sampled_from([STEP, STEP_AGAIN]))
def test_every_row_is_in_one_call_of_a_shape_that_was_compiled(lengths: list[int], step: int) -> None:
    calls = list(plan_calls(lengths, 100, step))
    assert sorted(index for _, members in calls for index in members) == list(range(len(lengths)))
    shapes = set(all_shapes(100, step))
    for width, members in calls:
        assert (len(members), width) in shapes
        assert max(lengths[index] for index in members) <= width
    assert [width for width, _ in calls] == sorted((width for width, _ in calls), reverse=True)


def test_short_rows_share_a_call_and_long_ones_do_not() -> None:
    assert [(width, len(members)) for width, members in plan_calls([30] * 11 + [500] * 2, 512, STEP)] == [
        (512, 1),
        (512, 1),
        (32, CALL_TOKENS // 32),
        (32, 2),
        (32, 1),
    ]


class Watched:
    """A queue of calls that notes how many others were under way when each began, or could still be."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue
        self._under_way: list[tuple[int, ...]] = []
        self.beside: list[tuple[tuple[int, ...], list[tuple[int, ...]]]] = []

    def __len__(self) -> int:
        return len(self._queue)

    def start_async(self, inputs: dict[str, Any], members: Sequence[int]) -> None:
        shape = inputs["input_ids"].shape
        self.beside.append((shape, list(self._under_way)))
        self._under_way.append(shape)
        self._queue.start_async(inputs, members)

    def wait_all(self) -> None:
        self._queue.wait_all()
        self._under_way.clear()


@pytest.mark.parametrize("warm", [True, False])
def test_the_first_call_of_each_shape_runs_alone(artifact: Artifact, *, warm: bool) -> None:
    """Two streams that meet a new shape at once may keep wrong numbers."""
    made = cast("Any", OpenVinoEngine(artifact, "float32"))
    try:
        watched = made._first._queue = Watched(made._first._queue)
        if warm:
            made.warm_up()
        rows = [np.ones(length, dtype=np.int32) for length in [*range(1, 40), *range(1, 40)]]
        for _ in range(2):
            made.submit(rows).result()
    finally:
        made.close()
    met: set[tuple[int, ...]] = set()
    alone = True
    for shape, beside in watched.beside:
        assert not (alone and beside), "the one before was the first of its shape"
        alone = shape not in met
        assert not (alone and beside), "this one is"
        met.add(shape)
    assert any(beside for _, beside in watched.beside), "the others run beside each other"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_warm_engine_meets_no_new_shape(artifact: Artifact, precision: Any) -> None:
    """In the second graph neither: nothing is compiled while reviews wait."""
    made = cast("Any", OpenVinoEngine(artifact, precision))
    streams = [its for its in (made._first, made._again) if its]
    assert len(streams) == (1 if precision == "float32" else 2)
    try:
        made.warm_up()
        compiled = [set(its._met) for its in streams]
        for many in range(1, 20):
            for its in streams:
                its.score([np.ones(length, dtype=np.int32) for length in range(1, LONGEST + 1) for _ in range(many)])
    finally:
        made.close()
    assert [its._met for its in streams] == compiled


def test_no_call_is_wider_than_the_network_has_positions() -> None:
    assert width_of(39, 40, STEP) == 40
    assert max(width for _, width in all_shapes(40, STEP)) == 40


# --- precision ---


def test_auto_takes_it_where_there_is_no_gpu(artifact: Artifact) -> None:
    from worker.engine import NVIDIA

    if NVIDIA.exists():
        pytest.skip("this machine has an NVIDIA GPU")
    opened = open_engine(artifact)
    opened.close()
    assert opened.description.name == "openvino"


def test_a_precision_it_does_not_have_is_refused(artifact: Artifact) -> None:
    with pytest.raises(EngineError, match="float32"):
        open_engine(artifact, "openvino", "float16")


@pytest.mark.parametrize("flags", ["avx512f avx512_vnni", "avx2 avx_vnni", "amx_tile amx_int8"])
def test_auto_takes_int8_where_the_artefact_has_it_and_the_cpu_vnni(
    with_int8: Path, cpu: Callable[[str], None], flags: str
) -> None:
    cpu(flags)
    opened = open_engine(open_artifact(with_int8), "openvino")
    opened.close()
    assert opened.description.precision == "int8"
    assert opened.description.reason == "the artefact has an int8 form, and this CPU has VNNI"


def test_auto_stays_in_floating_point_without_vnni(with_int8: Path, cpu: Callable[[str], None]) -> None:
    cpu("avx2 avx512f avx512_bf16")
    opened = open_engine(open_artifact(with_int8), "openvino")
    opened.close()
    assert opened.description.precision in ("bfloat16", "float32")
    assert opened.description.reason.endswith("; the artefact's int8 form needs VNNI")


def test_auto_stays_in_floating_point_without_an_int8_form(artifact: Artifact, cpu: Callable[[str], None]) -> None:
    cpu("avx512_vnni")
    opened = open_engine(artifact, "openvino")
    opened.close()
    assert opened.description.precision in ("bfloat16", "float32")
    assert "int8" not in opened.description.reason


def test_where_instructions_are_not_told_there_is_no_vnni(
    with_int8: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_engine, "CPUINFO", tmp_path / "none")
    opened = open_engine(open_artifact(with_int8), "openvino")
    opened.close()
    assert opened.description.precision != "int8"


def test_int8_that_was_asked_for_is_taken_without_vnni_and_says_so(with_int8: Path, cpu: Callable[[str], None]) -> None:
    cpu("avx2")
    opened = open_engine(open_artifact(with_int8), "auto", "int8")
    opened.close()
    assert (opened.description.name, opened.description.precision) == ("openvino", "int8")
    assert "no VNNI" in opened.description.reason


def test_int8_computes_the_int8_form_and_float_the_weights(with_int8: Path, engine: Engine) -> None:
    rows = [np.array([2, 7, 8, 3], dtype=np.int32)]
    wanted = engine.submit(rows).result().logits
    artifact = open_artifact(with_int8)
    assert np.abs(logits_of(open_engine(artifact, "openvino", "int8", rescore=False), rows) - 2 * wanted).max() < 0.05
    assert np.abs(logits_of(open_engine(artifact, "openvino", "float32"), rows) - wanted).max() < TOLERANCE


def test_what_is_in_doubt_is_scored_again_in_float32(
    with_int8: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    rows = [rng.integers(5, 70, size=length).astype(np.int32) for length in rng.integers(2, 64, size=24)]
    exact = engine.submit(rows).result()
    artifact = open_artifact(with_int8)
    first = logits_of(open_engine(artifact, "openvino", "int8", rescore=False), rows)
    sure = float(np.median(shares(first).max(axis=1)))
    monkeypatch.setitem(openvino_engine.DOUBT, "int8", sure)
    opened = open_engine(artifact, "openvino", "int8")
    try:
        found, alone = opened.submit(rows).result(), [opened.submit([row]).result().logits for row in rows]
        none = opened.submit([]).result()
    finally:
        opened.close()

    again = in_doubt(first, sure)
    assert len(again) == 12
    assert np.abs(found.logits[again] - exact.logits[again]).max() < TOLERANCE
    once = np.setdiff1d(np.arange(24), again)
    assert np.abs(found.logits[once] - first[once]).max() < TOLERANCE
    assert np.abs(found.logits - np.concatenate(alone)).max() < TOLERANCE
    assert found.device_tokens == exact.device_tokens
    assert none.logits.shape == (0, 3)


def shares(logits: Any) -> Any:
    powers = np.exp(logits)
    return powers / powers.sum(axis=1, keepdims=True)


def test_doubt_is_a_small_share_of_the_best_label() -> None:
    given = np.array([[0.9, 0.1], [0.55, 0.45], [0.3, 0.7], [0.81, 0.19], [0.5, 0.5]])
    logits = np.log(given).astype(np.float32) + 50
    assert in_doubt(logits, 0.8).tolist() == [1, 2, 4]
    assert in_doubt(logits, 0.6).tolist() == [1, 4]
    assert in_doubt(logits[:1], 0.8).tolist() == []
    assert in_doubt(np.empty((0, 2), dtype=np.float32), 0.8).tolist() == []


def test_int8_of_an_artefact_without_it_is_refused(artifact: Artifact) -> None:
    with pytest.raises(EngineError, match="no int8 form; `review-trainer export --int8` writes one"):
        open_engine(artifact, "openvino", "int8")


@pytest.mark.parametrize("name", ["tensorflow", "jax"])
def test_other_engines_do_not_compute_in_int8(with_int8: Path, name: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.engine.find_spec", lambda _: object())
    with pytest.raises(EngineError, match=f"the {name} engine computes in floating point, not int8"):
        open_engine(open_artifact(with_int8), name, "int8")


@pytest.mark.parametrize("content", [b"", b"<net>", b'<?xml version="1.0"?><net name="a" version="11"></net>'])
def test_an_int8_form_that_is_no_graph_is_refused(with_int8: Path, content: bytes) -> None:
    (with_int8 / INT8[0]).write_bytes(content)
    with pytest.raises(ArtifactError, match=r"int8/model\.xml: OpenVINO cannot read it"):
        open_engine(open_artifact(list_int8(with_int8)), "openvino", "int8")


def test_an_int8_form_of_another_network_is_refused(with_int8: Path) -> None:
    ids = openvino.opset15.parameter([-1, -1], np.float32, name="input_ids")
    ids.output(0).set_names({"input_ids"})
    logits = openvino.opset15.relu(ids)
    logits.output(0).set_names({"logits"})
    openvino.save_model(openvino.Model([logits], [ids]), with_int8 / INT8[0])
    with pytest.raises(ArtifactError, match="is not the graph of this model"):
        open_engine(open_artifact(list_int8(with_int8)), "openvino", "int8")


def test_attention_and_the_head_are_not_quantized(artifact: Artifact) -> None:
    kept = float_parts(build_graph(artifact))
    assert len(kept) == 2 * artifact.config.num_hidden_layers + 2


# --- beside it ---


def test_what_is_compiled_is_kept_where_it_is_asked_for(artifact: Artifact, tmp_path: Path) -> None:
    rows = [np.array([2, 7, 8, 3], dtype=np.int32)]
    cache = tmp_path / "cache"
    first = logits_of(open_engine(artifact, "openvino", "float32", cache), rows)
    kept = sorted(cache.iterdir())
    assert kept
    again = logits_of(open_engine(artifact, "openvino", "float32", cache), rows)
    assert sorted(cache.iterdir()) == kept
    assert np.abs(first - again).max() < TOLERANCE


def test_a_cache_that_cannot_be_written_is_one_line(artifact: Artifact, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EngineError, match=r"WORKER_CACHE_DIR .*/file/cache: cannot be written: "):
        open_engine(artifact, "openvino", cache=tmp_path / "file" / "cache")


def test_its_memory_is_that_of_the_process(engine: Engine) -> None:
    held = engine.memory()
    assert 10_000_000 < held.used < held.limit
