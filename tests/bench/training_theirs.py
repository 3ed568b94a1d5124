"""The other side of `training.py`: fine-tuning as transformers' users write it, on the batches that ours wrote down.

Needs torch, transformers and numpy, and nothing of this project. In and out: as of `training_ours.py`.
"""

import json
import os
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from transformers import AutoModelForSequenceClassification, get_linear_schedule_with_warmup

NOT_DECAYED = ("bias", "LayerNorm.weight")


def main() -> None:
    told = json.loads(Path(sys.argv[1]).read_text())
    with np.load(told["batches"]) as held:
        ids, lengths, labels, rows, sizes = (held[name] for name in ("ids", "lengths", "labels", "rows", "sizes"))
    starts, ends = lengths.cumsum() - lengths, sizes.cumsum()
    plan = [rows[end - size : end] for end, size in zip(ends, sizes, strict=True)]
    torch.manual_seed(0)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = AutoModelForSequenceClassification.from_pretrained(told["base"], num_labels=2, dtype=torch.float32)
    model.train()
    weights = dict(model.named_parameters())
    groups = [
        {"params": [value for name, value in weights.items() if not name.endswith(NOT_DECAYED)], "weight_decay": 0.01},
        {"params": [value for name, value in weights.items() if name.endswith(NOT_DECAYED)], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-4)
    schedule = get_linear_schedule_with_warmup(optimizer, len(plan) // 10, len(plan) * 100)
    short = told["precision"] == "mixed_bfloat16"

    def batch(number: int) -> dict[str, Any]:
        chosen = plan[number]
        width = int(lengths[chosen].max())
        inputs = np.zeros((len(chosen), width), dtype=np.int64)
        mask = np.zeros((len(chosen), width), dtype=np.int64)
        for place, row in enumerate(chosen):
            inputs[place, : lengths[row]] = ids[starts[row] : starts[row] + lengths[row]]
            mask[place, : lengths[row]] = 1
        parts = {"input_ids": inputs, "attention_mask": mask, "labels": labels[chosen].astype(np.int64)}
        return {name: torch.from_numpy(part) for name, part in parts.items()}

    def step(number: int) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16) if short else nullcontext():
            loss = model(**batch(number)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        return loss.item()

    print(json.dumps({"torch": torch.__version__, "threads": torch.get_num_threads()}), flush=True)
    for line in sys.stdin:
        begin, end = map(int, line.split())
        start = time.perf_counter()
        for number in range(begin, end):
            loss = step(number)
        seconds = time.perf_counter() - start
        reviews = sum(len(plan[number]) for number in range(begin, end))
        print(json.dumps({"reviews": reviews, "seconds": seconds, "loss": loss}), flush=True)


if __name__ == "__main__":
    main()
