"""The shape of a BERT, read from a Hugging Face `config.json`. No framework is imported here."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from worker.errors import ArtifactError

Positive = Annotated[int, Field(ge=1, le=(1 << 31) - 1)]
"""Any size that the frameworks can index: JSON's own integers may have thousands of digits."""

Activation = Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "relu"]


def unnamed(count: int) -> dict[int, str]:
    """What `transformers` calls labels without names."""
    return {number: f"LABEL_{number}" for number in range(count)}


class BertConfig(BaseModel):
    """The fields of a Hugging Face `config.json` that shape the network; others are ignored.

    What would change the arithmetic and is not built here (relative positions, decoders, other activations) is
    refused by its type.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    model_type: Literal["bert"] = "bert"
    vocab_size: Positive
    hidden_size: Positive
    num_hidden_layers: Positive
    num_attention_heads: Positive
    intermediate_size: Positive
    hidden_act: Activation = "gelu"
    hidden_dropout_prob: Annotated[float, Field(ge=0, lt=1)] = 0.1
    attention_probs_dropout_prob: Annotated[float, Field(ge=0, lt=1)] = 0.1
    classifier_dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    max_position_embeddings: Positive = 512
    type_vocab_size: Positive = 2
    initializer_range: Annotated[float, Field(gt=0)] = 0.02
    layer_norm_eps: Annotated[float, Field(gt=0)] = 1e-12
    position_embedding_type: Literal["absolute"] = "absolute"
    is_decoder: Literal[False] = False
    num_labels: Annotated[int, Field(ge=1, le=1000, exclude=True)] = 2
    """Of old files, which do not name their labels."""
    id2label: dict[int, str] = Field(default_factory=lambda read: unnamed(read["num_labels"]))

    @property
    def labels(self) -> tuple[str, ...]:
        """Label names in the order of the outputs."""
        return tuple(self.id2label[index] for index in range(len(self.id2label)))

    @property
    def parameters(self) -> int:
        """How many numbers the network's weights are: what it will cost is known before anything is allocated."""
        width, inner, labels = self.hidden_size, self.intermediate_size, len(self.id2label)
        norm, square = 2 * width, width * width + width
        tables = (self.vocab_size + self.max_position_embeddings + self.type_vocab_size) * width
        # Query, key, value and output; the two dense layers behind them; and a norm behind each half.
        layer = 4 * square + (width * inner + inner) + (inner * width + width) + 2 * norm
        return tables + norm + self.num_hidden_layers * layer + square + (width * labels + labels)


def parse_config(text: str | bytes, where: str) -> BertConfig:
    """Read a `config.json`.

    Raises:
        ArtifactError: not a BERT that this network computes; says which field and why.
    """
    try:
        config = BertConfig.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or "file"
        if field == "model_type":
            raise ArtifactError(
                f"{where}: model_type {str(first['input'])[:40]!r} is another kind of network; 'bert' is what is read, "
                "as of bert-base-cased or a MiniLM"
            ) from None
        raise ArtifactError(f"{where}: {field}: {first['msg']}") from None
    if config.hidden_size % config.num_attention_heads:
        raise ArtifactError(
            f"{where}: hidden_size {config.hidden_size} does not divide into {config.num_attention_heads} heads"
        )
    if sorted(config.id2label) != list(range(len(config.id2label))):
        raise ArtifactError(f"{where}: id2label must number its labels from 0 without a gap")
    return config
