"""One peer, in a process and with an interpreter of its own: the project's environment has none of their packages.

`peers.py` starts it; nothing of the project is imported here. It says on standard output, a JSON object a line, that it
is ready, or why it was skipped. For every line on standard input it scores all reviews once, texts in and labels out,
and says how long it took.

    python peer.py onnxruntime --model FOLDER --reviews FILE --head 129 --tail 383 --threads 2
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

BATCH = 16
"""Reviews of one call where a peer takes several. With more, padding costs more than it brings on a CPU."""

DOCUMENTED_BATCH = 8
"""Of the example on batching in the pipelines' documentation."""

GPU_TOKENS = 65_536
"""Of one call with variable-length attention."""

Score = Callable[[Sequence[str]], list[int]]
"""Texts to label numbers, in their order."""

Ids = list[list[int]]


class SkippedError(Exception):
    """What is missing here."""


def needs(*packages: str) -> None:
    """Skip where one is not installed."""
    for package in packages:
        if find_spec(package) is None:
            raise SkippedError(f"{package} is not installed")


class Cut:
    """Texts to token ids as the model was trained: the first and the last tokens of what is too long."""

    def __init__(self, folder: Path, head: int, tail: int) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._head, self._tail = head, tail

    def __call__(self, texts: Sequence[str]) -> Ids:
        found = [encoded.ids for encoded in self._tokenizer.encode_batch_fast(list(texts))]
        most = self._head + self._tail
        return [ids if len(ids) <= most else ids[: self._head] + ids[-self._tail :] for ids in found]


def sorted_batches(forward: Callable[[Any, Any], Any], cut: Cut) -> Score:
    """Sorted by length, in batches of 16, each padded to its longest.

    Args:
        forward: ids and mask, int64, (rows, length), to logits, (rows, labels), as an array.
        cut: makes the ids.
    """
    import numpy as np

    def score(texts: Sequence[str]) -> list[int]:
        rows = cut(texts)
        labels = [0] * len(rows)
        order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            width = max(len(rows[row]) for row in batch)
            ids = np.zeros((len(batch), width), dtype=np.int64)
            mask = np.zeros_like(ids)
            for place, row in enumerate(batch):
                ids[place, : len(rows[row])] = rows[row]
                mask[place, : len(rows[row])] = 1
            for row, label in zip(batch, forward(ids, mask).argmax(axis=-1).tolist(), strict=True):
                labels[row] = label
        return labels

    return score


# === PyTorch ===


def pipeline(options: argparse.Namespace, batch: int = 1) -> Score:
    """As the documentation of transformers has it: float32, in the order of arrival."""
    needs("torch", "transformers")
    import torch
    from transformers import pipeline as make

    torch.set_num_threads(options.threads)
    classify = make("text-classification", model=str(options.model))
    numbers = classify.model.config.label2id

    def score(texts: Sequence[str]) -> list[int]:
        return [numbers[one["label"]] for one in classify(list(texts), batch_size=batch, truncation=True)]

    return score


def pipeline_in_batches(options: argparse.Namespace) -> Score:
    """The documentation's example on batching."""
    return pipeline(options, DOCUMENTED_BATCH)


def torch_model(options: argparse.Namespace) -> Any:
    """In bfloat16, with PyTorch's own attention."""
    needs("torch", "transformers")
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.set_num_threads(options.threads)
    return AutoModelForSequenceClassification.from_pretrained(options.model, dtype=torch.bfloat16).eval()


def torch_forward(model: Any) -> Callable[[Any, Any], Any]:
    """Arrays in, arrays out."""
    import torch

    def forward(ids: Any, mask: Any) -> Any:
        with torch.inference_mode():
            found = model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
            return found.logits.float().numpy()

    return forward


def torch_sorted(options: argparse.Namespace) -> Score:
    """Without a compiler."""
    return sorted_batches(torch_forward(torch_model(options)), cut_of(options))


def torch_compiled(options: argparse.Namespace) -> Score:
    """One graph for every shape: compiled once, before the clock."""
    model = torch_model(options)
    import torch

    return sorted_batches(torch_forward(torch.compile(model, dynamic=True)), cut_of(options))


def torch_varlen(options: argparse.Namespace) -> Score:
    """float16 and variable-length flash attention over reviews side by side, without padding, on an NVIDIA GPU."""
    needs("torch", "transformers")
    import torch

    if not torch.cuda.is_available():
        raise SkippedError("needs an NVIDIA GPU")
    from torch.nn.attention.varlen import varlen_attn
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(options.model, dtype=torch.float16).cuda().eval()

    def attend(q: Any, k: Any, v: Any, bounds: Any, longest: int) -> Any:
        return varlen_attn(q, k, v, bounds, bounds, longest, longest)

    return side_by_side(model, attend, cut_of(options))


def side_by_side(model: Any, attend: Callable[..., Any], cut: Cut) -> Score:
    """Transformers' BERT over reviews that lie behind one another in one row.

    Args:
        model: `BertForSequenceClassification`.
        attend: queries, keys, values, each (tokens, heads, head width), where each review begins and the last one
            ends, int32, and the longest one's tokens, to the mix, of the same shape.
        cut: makes the ids.
    """
    import torch

    bert, config = model.bert, model.config
    device = model.device

    def forward(rows: Ids) -> Any:
        lengths = [len(row) for row in rows]
        bounds = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=torch.int32, device=device)
        ids = torch.tensor([token for row in rows for token in row], device=device)
        positions = torch.cat([torch.arange(length) for length in lengths]).to(device)
        embedded = bert.embeddings(input_ids=ids[None], position_ids=positions[None])
        x = embedded[0]
        for layer in bert.encoder.layer:
            own = layer.attention.self
            parts = (part(x).view(len(x), config.num_attention_heads, -1) for part in (own.query, own.key, own.value))
            mixed = attend(*parts, bounds, max(lengths)).reshape(len(x), -1)
            x = layer.attention.output(mixed, x)
            x = layer.output(layer.intermediate(x), x)
        pooled = bert.pooler(x[bounds[:-1].long()][:, None])
        return model.classifier(pooled).argmax(-1).tolist()

    def score(texts: Sequence[str]) -> list[int]:
        rows = cut(texts)
        labels: list[int] = []
        start = 0
        with torch.inference_mode():
            while start < len(rows):
                stop, tokens = start, 0
                while stop < len(rows) and (stop == start or tokens + len(rows[stop]) <= GPU_TOKENS):
                    tokens += len(rows[stop])
                    stop += 1
                labels += forward(rows[start:stop])
                start = stop
        return labels

    return score


# === ONNX ===


def exported(options: argparse.Namespace, folder: str) -> Path:
    """The model as ONNX in float32, of any number of rows of any length."""
    needs("torch", "transformers", "onnx", "onnxscript")
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(options.model, dtype=torch.float32).eval()

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: Any, mask: Any) -> Any:
            return self.model(input_ids=ids, attention_mask=mask).logits

    path = Path(folder) / "model.onnx"
    ids = torch.ones((2, 8), dtype=torch.int64)
    rows, length = torch.export.Dim("rows", min=1, max=4096), torch.export.Dim("length", min=2, max=512)
    torch.onnx.export(
        Logits(),
        (ids, torch.ones_like(ids)),
        path,
        input_names=["ids", "mask"],
        output_names=["logits"],
        dynamic_shapes=({0: rows, 1: length}, {0: rows, 1: length}),
        dynamo=True,
        verbose=False,
    )
    return path


def onnxruntime(options: argparse.Namespace) -> Score:
    """ONNX Runtime with all its optimizations, in float32."""
    needs("onnxruntime")
    import onnxruntime as runtime

    chosen = runtime.SessionOptions()
    chosen.intra_op_num_threads = options.threads
    with tempfile.TemporaryDirectory() as folder:
        session = runtime.InferenceSession(exported(options, folder), chosen, providers=["CPUExecutionProvider"])
    return sorted_batches(lambda ids, mask: session.run(None, {"ids": ids, "mask": mask})[0], cut_of(options))


def openvino(options: argparse.Namespace) -> Score:
    """OpenVINO on the same ONNX file, in bfloat16 where the CPU has it."""
    needs("openvino")
    import openvino as library

    core = library.Core()
    chosen = {"INFERENCE_NUM_THREADS": options.threads}
    if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        chosen["INFERENCE_PRECISION_HINT"] = "bf16"
    with tempfile.TemporaryDirectory() as folder:
        compiled = core.compile_model(core.read_model(exported(options, folder)), "CPU", chosen)
    return sorted_batches(lambda ids, mask: compiled([ids, mask])[0], cut_of(options))


PEERS: dict[str, Callable[[argparse.Namespace], Score]] = {
    "pipeline": pipeline,
    "pipeline-batches": pipeline_in_batches,
    "torch-sorted": torch_sorted,
    "torch-compiled": torch_compiled,
    "torch-varlen": torch_varlen,
    "onnxruntime": onnxruntime,
    "openvino": openvino,
}
PACKAGES = ("torch", "transformers", "onnxruntime", "openvino")


def cut_of(options: argparse.Namespace) -> Cut:
    """As the model's manifest says."""
    return Cut(options.model, options.head, options.tail)


def main() -> None:
    """Until standard input ends."""
    options = argparse.ArgumentParser()
    options.add_argument("peer", choices=PEERS)
    options.add_argument("--model", type=Path, required=True)
    options.add_argument("--reviews", type=Path, required=True)
    options.add_argument("--head", type=int, required=True)
    options.add_argument("--tail", type=int, required=True)
    options.add_argument("--threads", type=int, required=True)
    asked = options.parse_args()
    # Libraries print to standard output too.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    texts = json.loads(asked.reviews.read_text(encoding="utf-8"))
    try:
        score = PEERS[asked.peer](asked)
        # Everything once before the clock: shapes are compiled and memory is taken.
        score(texts)
    except SkippedError as missing:
        print(json.dumps({"skipped": str(missing)}), file=answers)
        return
    installed = {name: version(name) for name in PACKAGES if find_spec(name)}
    print(json.dumps({"ready": True, "versions": installed}), file=answers)
    for _ in sys.stdin:
        begun = time.perf_counter()
        labels = score(texts)
        print(json.dumps({"seconds": time.perf_counter() - begun, "labels": labels}), file=answers)


if __name__ == "__main__":
    main()
