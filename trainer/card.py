"""The model card of an artefact: `README.md` with Hugging Face's metadata on top."""

import json
from collections.abc import Sequence

from schemas import Cut

CARD = """\
---
library_name: transformers
pipeline_tag: text-classification
tags:
- bert
- sentiment-analysis
model_name: {name}
---
# {title}
{story}

| output | label |
| --- | --- |
{labels}

| measured | |
| --- | --- |
{metrics}

Text is cleaned by {cleaning}. Of a review longer than {longest} tokens {kept} are read,
[CLS] and [SEP] included. `manifest.json` holds both, the labels, and the SHA-256 of every file.

## Use
With the worker, which cleans, cuts and checks every file first:
```
review-trainer predict MODELS/{title} "It starts slowly, and then it is wonderful."
WORKER_MODEL=MODELS/{title} review-worker run
```
With transformers (clean the text first; it cuts at the head only):
```python
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder)
inputs = tokenizer("It starts slowly, and then it is wonderful.", truncation=True, return_tensors="pt")
print(model(**inputs).logits.softmax(-1))
```
With TensorFlow Serving: it takes token ids (`input_ids`, `attention_mask`, `token_type_ids`, int32, one row a review)
and gives `logits` and `probabilities`:
```
tensorflow_model_server --model_name={title} --model_base_path=MODELS/{title} --rest_api_port=8501
curl localhost:8501/v1/models/{title}:predict -d \\
  '{{"inputs": {{"input_ids": [[...]], "attention_mask": [[...]], "token_type_ids": [[...]]}}}}'
```
"""


def model_card(
    name: str,
    labels: Sequence[str],
    story: str,
    metrics: dict[str, float],
    cut: Cut,
    cleaning: Sequence[str],
) -> str:
    """The text of the card."""
    measured = [f"| {metric.replace('_', ' ')} | {value:.4f} |" for metric, value in metrics.items()]
    return CARD.format(
        name=json.dumps(name),
        title=name,
        story=story,
        labels="\n".join(f"| {index} | {label} |" for index, label in enumerate(labels)),
        metrics="\n".join(measured) or "| nothing yet: `review-trainer evaluate` does it | |",
        cleaning=", ".join(f"`{rule}`" for rule in cleaning) or "no rule",
        longest=cut.head + cut.tail,
        kept=describe_cut(cut),
    )


def describe_cut(cut: Cut) -> str:
    """`the first 129 and the last 383`, or `the first 512`: the [SEP] of a plain head cut is no tail."""
    return f"the first {cut.head} and the last {cut.tail}" if cut.tail > 1 else f"the first {cut.head + 1}"
