"""The artefact: a versioned model folder, verified against its manifest before any file of it is opened.

`MODELS/NAME/<integer version>/` holds `manifest.json` and the files it lists. Nothing here executes what it reads:
weights are safetensors, the tokenizer is JSON, and the SavedModel is for other readers.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from schemas import FileDigest, Manifest, ModelName
from worker.bert_config import BertConfig, parse_config
from worker.errors import ArtifactError
from worker.tokens import ReviewTokenizer, panics_as

MANIFEST = "manifest.json"
CONFIG = "config.json"
WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"
INT8 = ("int8/model.xml", "int8/model.bin")
"""The network with integers for weights, as a graph for OpenVINO: what it computes, and its numbers."""
MANIFEST_LIMIT = 1 << 20
"""Bytes. A manifest lists a few dozen files; anything larger is not one."""

LIMITS = {CONFIG: 1 << 20, TOKENIZER: 32 << 20}
"""Bytes. These two are read whole and become many times as large in memory. A word of a vocabulary takes some 15 bytes:
there is room for two million."""

ARTIFACT_LIMIT = 32 << 30
"""Bytes of all files together, some twelve times those of BERT-large with its SavedModel. What is larger is not even
hashed, which could take hours: a file with holes has any size and takes no space."""

Stamp = tuple[int, int, int]
"""Size, time of the last write and time of the last change of any kind, the times in nanoseconds."""


@dataclass(frozen=True)
class Artifact:
    """A verified folder."""

    folder: Path
    manifest: Manifest
    digest: str
    config: BertConfig
    stamps: Mapping[str, Stamp] = field(default_factory=dict)
    """Of every file, from before it was hashed."""

    @property
    def name(self) -> ModelName:
        """What predictions call this model."""
        return ModelName(name=self.manifest.name, version=self.manifest.version, digest=self.digest)

    @property
    def weights(self) -> Path:
        """The safetensors file."""
        return self.folder / WEIGHTS

    @property
    def int8(self) -> Path | None:
        """The graph of the int8 form, where there is one."""
        return self.folder / INT8[0] if self.manifest.int8 is not None else None

    def tokenizer(self) -> ReviewTokenizer:
        """Cleaning, vocabulary and cut of this model. It is asked for when the engine has read its files.

        Raises:
            ArtifactError: the file is no tokenizer for BERT, or knows words that the network does not; or a file of the
                artefact changed since it was verified.
        """
        tokenizer = self._load_tokenizer()
        self._require_unchanged()
        if tokenizer.vocabulary_size > self.config.vocab_size:
            # On a CPU the first review with such a word would end the process, on a GPU it would be scored wrongly.
            raise ArtifactError(
                f"{self.folder}: {TOKENIZER} has ids up to {tokenizer.vocabulary_size - 1}, the network only "
                f"{self.config.vocab_size} words"
            )
        return tokenizer

    def _load_tokenizer(self) -> ReviewTokenizer:
        path = self.folder / TOKENIZER
        with panics_as(lambda panic: ArtifactError(f"{path}: not a tokenizer.json: reading it ended with {panic}")):
            return ReviewTokenizer.load(path, self.manifest.cut, self.manifest.cleaning)

    def _require_unchanged(self) -> None:
        """Files are read by their paths, after they were verified: what was read is what was verified only as long as
        nobody writes to the folder meanwhile."""
        for name, stamp in self.stamps.items():
            try:
                same = _stamp(self.folder / name) == stamp
            except OSError:
                same = False
            if not same:
                raise ArtifactError(
                    f"{self.folder}: {name} changed while the model was loaded; write a new version into a folder of "
                    "its own"
                )


def digest_bytes(content: bytes) -> str:
    """`sha256:` and 64 hexadecimal digits."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def digest_file(path: Path) -> FileDigest:
    """Size and SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileDigest(bytes=path.stat().st_size, sha256=f"sha256:{digest}")


def versions(parent: Path) -> list[Path]:
    """The version folders below `parent`, oldest first. Temporary and other names do not count."""
    numbered = [path for path in parent.iterdir() if path.is_dir() and path.name.isascii() and path.name.isdigit()]
    return sorted(numbered, key=lambda path: int(path.name))


def find_version(path: Path) -> Path:
    """The artefact folder meant by `path`: itself, or its newest version.

    Raises:
        ArtifactError: there is none.
    """
    if not path.is_dir():
        raise ArtifactError(f"{path}: no such model folder; `review-trainer export` or `import` makes one")
    if (path / MANIFEST).exists():
        return path
    found = versions(path)
    if not found:
        raise ArtifactError(f"{path}: holds neither {MANIFEST} nor a version folder such as {path / '1'}")
    return found[-1]


def open_artifact(path: Path) -> Artifact:
    """Find the newest version, read its manifest and verify every file against it.

    Raises:
        ArtifactError: a file is missing, altered, unexpected, a symbolic link, or the manifest cannot be read.
    """
    try:
        return _open(path)
    except OSError as error:
        raise ArtifactError(f"{error.filename or path}: {error.strerror}") from None


def _open(path: Path) -> Artifact:
    folder = find_version(path)
    content = _read_manifest(folder / MANIFEST)
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"])) or "file"
        raise ArtifactError(f"{folder / MANIFEST}: {field}: {first['msg']}") from None
    if folder.name.isascii() and folder.name.isdigit() and int(folder.name) != manifest.version:
        # Predictions would name one version, and the folder another.
        raise ArtifactError(
            f"{folder}: its manifest says version {manifest.version}; rename the folder, or `review-trainer import` it"
        )
    stamps = _verify(folder, manifest)
    config = parse_config((folder / CONFIG).read_bytes(), str(folder / CONFIG))
    if config.labels != manifest.labels:
        raise ArtifactError(f"{folder}: {CONFIG} names the labels {config.labels}, the manifest {manifest.labels}")
    if manifest.cut.head + manifest.cut.tail > config.max_position_embeddings:
        raise ArtifactError(
            f"{folder}: the cut keeps {manifest.cut.head + manifest.cut.tail} tokens, the network reads "
            f"{config.max_position_embeddings} at most"
        )
    if config.parameters > manifest.files[WEIGHTS].bytes:
        # Before anybody allocates them: a few digits in the config could ask for terabytes.
        raise ArtifactError(
            f"{folder}: {CONFIG} describes a network of {config.parameters:,} numbers, {WEIGHTS} has only "
            f"{manifest.files[WEIGHTS].bytes:,} bytes"
        )
    return Artifact(folder, manifest, digest_bytes(content), config, stamps)


def _read_manifest(path: Path) -> bytes:
    if path.is_symlink() or not path.is_file():
        raise ArtifactError(f"{path}: no such file; this folder is not a model artefact")
    if path.stat().st_size > MANIFEST_LIMIT:
        raise ArtifactError(f"{path}: larger than {MANIFEST_LIMIT:,} bytes; not a manifest")
    return path.read_bytes()


def files_below(folder: Path) -> dict[str, Path]:
    """Every file below `folder` but the manifest, by its relative path.

    Raises:
        ArtifactError: something below it is a symbolic link or no plain file: it could lead out of the folder.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ArtifactError(f"{path}: a symbolic link or special file; an artefact holds plain files only")
        if path.is_file():
            found[path.relative_to(folder).as_posix()] = path
    found.pop(MANIFEST, None)
    return found


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _verify(folder: Path, manifest: Manifest) -> dict[str, Stamp]:
    """Hold every file to the manifest. Only listed names are opened, and only after their size agreed.

    Returns:
        The stamps of the files, from before they were hashed.
    """
    found = files_below(folder)
    for needed in (CONFIG, WEIGHTS, TOKENIZER, *(INT8 if manifest.int8 is not None else ())):
        if needed not in manifest.files:
            raise ArtifactError(f"{folder}: the manifest does not list {needed}")
    _refuse_oversized(folder, manifest)
    missing = sorted(manifest.files.keys() - found.keys())
    if missing:
        raise ArtifactError(f"{folder}: {missing[0]} is missing; copy the whole folder again")
    unexpected = sorted(found.keys() - manifest.files.keys())
    if unexpected:
        raise ArtifactError(f"{folder}: {unexpected[0]} is not in the manifest; the folder was altered")
    stamps = {name: _stamp(found[name]) for name in manifest.files}
    for name, wanted in manifest.files.items():
        if found[name].stat().st_size != wanted.bytes or digest_file(found[name]) != wanted:
            raise ArtifactError(f"{folder}: {name} does not match the manifest; it was altered or is incomplete")
    return stamps


def _refuse_oversized(folder: Path, manifest: Manifest) -> None:
    """By what the manifest says, to which every file is held before it is opened."""
    for name, limit in LIMITS.items():
        if manifest.files[name].bytes > limit:
            raise ArtifactError(f"{folder}: {name} is larger than {limit:,} bytes; no BERT has such a one")
    if sum(file.bytes for file in manifest.files.values()) > ARTIFACT_LIMIT:
        raise ArtifactError(f"{folder}: its files are larger than {ARTIFACT_LIMIT:,} bytes together; no BERT is")
