"""The model card of an artefact: `README.md` with Hugging Face's metadata on top."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from schemas import Cut

CARD = """\
---
{metadata}
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
[CLS] and [SEP] included. {confidence} `manifest.json` holds all of this, and the SHA-256 of every file.

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


@dataclass(frozen=True)
class Origin:
    """What nobody but the one who exports can know.

    Attributes:
        license: as the hub names it, such as `apache-2.0`; None is `unknown`.
        languages: ISO 639-1 codes, such as `en`; none where they are not given.
    """

    license: str | None = None
    languages: tuple[str, ...] = ()


NOWHERE = Origin()
UNKNOWN = "unknown"


def read_origin(path: Path) -> Origin:
    """What an artefact's own card says; nothing where it cannot be read."""
    from huggingface_hub import ModelCard

    try:
        found = vars(ModelCard(path.read_text(encoding="utf-8"), ignore_metadata_errors=True).data)
    except Exception:  # the YAML library's own among them
        return NOWHERE
    languages = found.get("language") or ()
    known = None if found.get("license") in (None, UNKNOWN) else str(found["license"])
    return Origin(known, (languages,) if isinstance(languages, str) else tuple(map(str, languages)))


MEASURES = {"accuracy": "accuracy", "f1": "f1"}
"""Metrics of the manifest that the hub knows by name, without the split before them."""


def model_card(
    name: str,
    labels: Sequence[str],
    story: str,
    metrics: Mapping[str, float],
    cut: Cut,
    cleaning: Sequence[str],
    temperature: float = 1.0,
    origin: Origin = NOWHERE,
    data: str | None = None,
) -> str:
    """The text of the card.

    Args:
        metrics: the manifest's; a name begins with the split that was measured on.
        data: name of the data that was trained and measured on, where it is known.
    """
    lines = [f"| {metric.replace('_', ' ')} | {measured(value)} |" for metric, value in metrics.items()]
    confidence = (
        f"Logits are divided by a temperature of {temperature:.4f} before the softmax, so that a stated probability is "
        "the share of such reviews that are labelled right."
        if temperature != 1
        else "No temperature was fitted: probabilities may be surer than they are right."
    )
    return CARD.format(
        metadata=_metadata(name, metrics, origin, data),
        title=name,
        story=story,
        labels="\n".join(f"| {index} | {label} |" for index, label in enumerate(labels)),
        metrics="\n".join(lines) or "| nothing yet: `review-trainer evaluate` does it | |",
        cleaning=", ".join(f"`{rule}`" for rule in cleaning) or "no rule",
        longest=cut.head + cut.tail,
        kept=describe_cut(cut),
        confidence=confidence,
    )


def _metadata(name: str, metrics: Mapping[str, float], origin: Origin, data: str | None) -> str:
    """The hub's YAML; what was measured stands in it as a model index."""
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="text-classification",
            dataset_type="csv",
            dataset_name=data or "reviews",
            dataset_split=split,
            metric_type=MEASURES[measure],
            metric_value=value,
        )
        for metric, value in metrics.items()
        for split, _, measure in [metric.partition("_")]
        if measure in MEASURES
    ]
    fields = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-classification",
        tags=["bert", "sentiment-analysis"],
        license=origin.license or UNKNOWN,
        language=list(origin.languages) or None,
        model_name=name,
        eval_results=results or None,
    )
    return fields.to_yaml(line_break="\n").strip()


def measured(value: float) -> str:
    """A metric of the manifest, among which counts are, for a person."""
    return f"{value:,.0f}" if value > 1 and value.is_integer() else f"{value:.4f}"


def describe_cut(cut: Cut) -> str:
    """`the first 129 and the last 383`, or `the first 512`: the [SEP] of a plain head cut is no tail."""
    return f"the first {cut.head} and the last {cut.tail}" if cut.tail > 1 else f"the first {cut.head + 1}"
