"""The worker's settings: flags > environment > TOML file > defaults.

`WORKER_KAFKA__GROUP_ID` in the environment is `group_id` below `[kafka]` in the TOML file. Secrets come from files
(`..._FILE` settings) or, second best, the environment; they are masked wherever settings are shown.
"""

import os
import re
import socket
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    IPvAnyAddress,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings.exceptions import SettingsError as UnreadableVariable

from worker.engine import EngineName, Precision
from worker.errors import SettingsError

PREFIX = "WORKER_"

Topic = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]
"""Kafka's own rule for topic names."""


TRACES = "/v1/traces"
"""Where OTLP over HTTP takes spans."""

SERVER = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]]+):\d{1,5}")


def _servers(names: str) -> str:
    servers = [name for name in names.split(",") if name.strip()]
    if not servers:
        raise ValueError("names no server; give host:port, several with commas")
    for name in servers:
        if not SERVER.fullmatch(name.strip()):
            raise ValueError(f"{name.strip()!r} is no server; give host:port, several with commas")
    return names


class Section(BaseModel):
    """A group of settings; an unknown one is an error. The text below each one is what `review-worker config` shows."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)


class KafkaSettings(Section):
    """Where reviews come from and predictions go to. Security settings have kafka-python's names."""

    bootstrap_servers: Annotated[str, AfterValidator(_servers)] = "127.0.0.1:9092"
    """`host:port`, several with commas."""
    group_id: Annotated[str, Field(min_length=1)] = "review-worker"
    """The consumer group. Workers of one group share the partitions of the input topic."""
    input_topic: Topic = "reviews"
    """Reviews come from here."""
    output_topic: Topic = "review-predictions"
    """Predictions go here."""
    dead_letter_topic: Topic = "reviews-dead-letters"
    """What cannot be scored goes here; it must take larger records than the input topic."""
    transactional_id: str | None = None
    """One a worker, the same after a restart: it is how a restarted worker ends what the dead one left open. Default:
    group, host name and HTTP port, which two workers on one machine can't share (with port 0, the process id)."""
    group_instance_id: str | None = None
    """Static membership: a restarted worker has its partitions back at once. Default: like `transactional_id`, and none
    with HTTP port 0; empty for none, where names do not survive a restart (pods of a Deployment)."""
    client_id: str = "review-worker"
    """The name in the broker's logs, metrics and quotas."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """What the broker's listener speaks: SSL is TLS, SASL is a user name with a password."""
    ssl_cafile: Path | None = None
    """PEM file of who signed the broker's certificate. Default: those that this machine trusts."""
    ssl_certfile: Path | None = None
    """PEM file of this client's own certificate, where the broker asks for one."""
    ssl_keyfile: Path | None = None
    """PEM file of that certificate's key."""
    ssl_password: SecretStr | None = None
    """Of the key; better in a file."""
    ssl_password_file: Path | None = None
    """File with the key's password; it wins over `ssl_password`."""
    ssl_check_hostname: bool = True
    """The certificate must name the broker's host."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    """How the password is proved."""
    sasl_plain_username: str | None = None
    """The user, for every mechanism."""
    sasl_plain_password: SecretStr | None = None
    """The user's password; better in a file."""
    sasl_plain_password_file: Path | None = None
    """File with the user's password; it wins over `sasl_plain_password`."""
    insecure: bool = False
    """Allow a password over a connection that is not encrypted, or a certificate for another host."""
    bootstrap_timeout_seconds: Annotated[float, Field(gt=0, le=60)] = 8
    """How long a command looks for a broker."""
    session_timeout_seconds: Annotated[float, Field(ge=1, le=1800)] = 45
    """How long the group waits for a silent worker before its partitions go to others."""
    max_poll_interval_seconds: Annotated[float, Field(ge=10, le=86_400)] = 120
    """A worker that does not come back for records this long has left the group. It is also how long a rebalance waits
    for one that is stuck."""
    transaction_timeout_seconds: Annotated[float, Field(ge=5, le=900)] = 60
    """The broker aborts a transaction that stays open longer. The broker's `transaction.max.timeout.ms` bounds it."""
    request_timeout_seconds: Annotated[float, Field(ge=1, le=300)] = 15
    """How long the broker's answer to one request is waited for."""
    compression: Literal["none", "gzip", "lz4", "zstd", "snappy"] = "lz4"
    """Of what is published."""

    @model_validator(mode="after")
    def _hold_together(self) -> Self:
        topics = {self.input_topic, self.output_topic, self.dead_letter_topic}
        if len(topics) < 3:
            raise ValueError("input_topic, output_topic and dead_letter_topic must be three different topics")
        if self.security_protocol.startswith("SASL") and not (self.sasl_mechanism and self.sasl_plain_username):
            raise ValueError(f"{self.security_protocol} needs sasl_mechanism and sasl_plain_username")
        if self.sasl_mechanism and not (self.sasl_plain_password or self.sasl_plain_password_file):
            raise ValueError("sasl_mechanism needs sasl_plain_password_file or sasl_plain_password")
        if not self.security_protocol.startswith("SASL") and self.sasl_mechanism:
            raise ValueError(f"sasl_mechanism is set, but security_protocol is {self.security_protocol}")
        if self.security_protocol == "SASL_PLAINTEXT" and not self.insecure:
            raise ValueError("SASL_PLAINTEXT sends credentials unencrypted; use SASL_SSL, or set insecure = true")
        if not self.ssl_check_hostname and not self.insecure:
            raise ValueError("ssl_check_hostname = false accepts any host's certificate; set insecure = true to allow")
        if self.max_poll_interval_seconds < self.session_timeout_seconds:
            raise ValueError("max_poll_interval_seconds must not be below session_timeout_seconds")
        if self.request_timeout_seconds >= self.transaction_timeout_seconds:
            raise ValueError("request_timeout_seconds must be below transaction_timeout_seconds")
        return self


class BatchSettings(Section):
    """How much is scored and committed together."""

    max_reviews: Annotated[int, Field(ge=1, le=10_000)] = 2_000
    """The most records of a micro-batch."""
    target_seconds: Annotated[float, Field(gt=0, le=30)] = 1
    """How long the device should work on a micro-batch: the number of records of the next poll follows from the recent
    reviews' length and the device's speed. It is only reached under a backlog: nothing waits for a batch to fill."""
    token_budget: Annotated[int, Field(ge=512, le=10_000_000)] = 1 << 20
    """The most tokens of a micro-batch."""
    max_message_bytes: Annotated[int, Field(ge=100, le=100_000_000)] = 1 << 20
    """A larger message is a dead letter, unread."""


def _address(host: str) -> str:
    IPvAnyAddress(host)  # type: ignore[operator]
    return host


class HttpSettings(Section):
    """Where the live page (`/`), `/metrics`, `/livez` and `/readyz` are. There is no authentication: keep it on
    loopback or behind one."""

    host: Annotated[str, AfterValidator(_address)] = "127.0.0.1"
    """The address to listen on; `0.0.0.0` for every one."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 9108
    """TCP port; 0 takes a free one."""


class PageSettings(Section):
    """What the live page shows beside the figures."""

    samples: Annotated[int, Field(ge=0, le=100)] = 0
    """So many of the last predictions with the beginning of each review, for a demo. Whoever reaches the HTTP port
    reads them, and nothing asks for a password: not for reviews that are not public. With 0 there is no text at all."""


class WatchdogSettings(Section):
    """When what does not move ends the process; the supervisor's restart goes on from the last commit."""

    stage_seconds: Annotated[float, Field(ge=1)] = 60
    """Longest time that one stage of the loop may take."""
    load_seconds: Annotated[float, Field(ge=1)] = 600
    """Longest time that loading and warming the model may take."""
    partition_seconds: Annotated[float, Field(ge=1)] = 120
    """Longest time that a partition may have records and bring none, while nothing else is left to read."""


class LimitSettings(Section):
    """When dead letters are no longer single records at fault, but a sign that something else is."""

    consecutive_dead_letters: Annotated[int, Field(ge=0)] = 1_000
    """The worker ends before it commits more dead letters than these without a prediction between; 0 for no limit."""
    dead_letters: Annotated[int, Field(ge=0)] = 0
    """The same for all dead letters since it started; 0 for no limit."""


class ReloadSettings(Section):
    """How a newer version of the model is noticed."""

    seconds: Annotated[float, Field(ge=0)] = 10
    """How often the model's parent folder is looked at; 0 for never, so that only SIGHUP does."""


class CacheSettings(Section):
    """What is not scored again."""

    reviews: Annotated[int, Field(ge=0, le=100_000_000)] = 0
    """So many of the last different texts are answered from memory when they come again, with what the model in use
    said of them; 0 for none. Of a text only a digest is kept. A newer model begins anew."""


class ShadowSettings(Section):
    """A second model that scores along, to see how it would decide; its predictions go nowhere."""

    model: Path | None = None
    """Its artefact folder, or the parent: then the newest version. It needs the same labels."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of the batches that it scores too, where it keeps up."""


def _collector(url: str) -> str | None:
    """The address that spans are posted to; an empty one, as compose files make them, is none."""
    if not url:
        return None
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise ValueError("is no address of a collector; give http://host:4318")
    if parts.username or parts.password:
        raise ValueError("holds a password, which would be shown; give it in OTEL_EXPORTER_OTLP_HEADERS")
    return url if url.endswith(TRACES) else url.rstrip("/") + TRACES


class TracingSettings(Section):
    """OpenTelemetry traces, one a micro-batch; needs the extra `tracing`. Headers, certificates, time-outs, queue and
    resource are the SDK's own variables, such as OTEL_EXPORTER_OTLP_HEADERS. Those alone turn nothing on."""

    endpoint: Annotated[str, AfterValidator(_collector)] | None = None
    """The collector, as OTLP over HTTP: `http://host:4318`, to which `/v1/traces` is added. Default: no tracing."""
    sample_ratio: Annotated[float, Field(ge=0, le=1)] = 1
    """Share of the micro-batches that are traced."""


def _somewhere(folder: Path) -> Path | None:
    """An empty variable, as compose files make them, is the path of no folder in particular."""
    return None if folder == Path() else folder


class Settings(BaseSettings):
    """Everything that the worker can be told."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        # Else a ValidationError at start-up prints the input, secrets included (pydantic-settings#530).
        hide_input_in_errors=True,
    )

    model: Path | None = None
    """An artefact folder, or its parent: then its newest version."""
    engine: EngineName = "auto"
    """`auto` takes the fastest that this machine can run: `openvino` on CPUs, `jax` on NVIDIA GPUs."""
    precision: Precision = "auto"
    """The type of the matrix products; `auto` takes the fastest that keeps the labels. `int8` is the openvino engine's,
    for models that have such a form."""
    rescore: bool = True
    """What a shorter type than float32 is in doubt of is scored again in float32, so that probabilities stay what
    float32 says; by the openvino engine. A model that is in doubt of most reviews is faster without."""
    cache_dir: Annotated[Path, AfterValidator(_somewhere)] | None = None
    """A folder for what engines compile, so that a restarted worker is ready sooner. Default: none."""
    kafka: KafkaSettings = KafkaSettings()
    batch: BatchSettings = BatchSettings()
    http: HttpSettings = HttpSettings()
    page: PageSettings = PageSettings()
    watchdog: WatchdogSettings = WatchdogSettings()
    limits: LimitSettings = LimitSettings()
    reload: ReloadSettings = ReloadSettings()
    cache: CacheSettings = CacheSettings()
    shadow: ShadowSettings = ShadowSettings()
    tracing: TracingSettings = TracingSettings()
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important lines that are logged."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, environment, TOML file, in this order. The file's path travels as an init value of its own."""
        assert isinstance(init_settings, InitSettingsSource)  # noqa: S101 - pydantic-settings' own contract
        flags = dict(init_settings.init_kwargs)
        file = flags.pop(CONFIG_FILE, None)
        return (
            InitSettingsSource(settings_cls, flags),
            env_settings,
            TomlConfigSettingsSource(settings_cls, file),
        )

    @property
    def transactional_id(self) -> str:
        """The producer's name for its transactions."""
        return self.kafka.transactional_id or self._own_name(self.http.port or os.getpid())

    @property
    def group_instance_id(self) -> str | None:
        """The static member's name, or None for a dynamic member."""
        if self.kafka.group_instance_id is None:
            # A name that does not come back would keep its partitions from everybody for a session time-out.
            return self._own_name(self.http.port) if self.http.port else None
        return self.kafka.group_instance_id or None

    def _own_name(self, number: int) -> str:
        return f"{self.kafka.group_id}-{socket.gethostname()}-{number}"


CONFIG_FILE = "_config_file"


def load_settings(config: Path | None = None, flags: Mapping[str, Any] | None = None) -> Settings:
    """Settings from all their sources.

    Args:
        config: a TOML file.
        flags: nested values that win over everything else, such as `{"kafka": {"group_id": "a"}}`.

    Raises:
        SettingsError: one line that names the setting, its source where it is known, and what is accepted.
    """
    if config is not None:
        _check_toml(config)
    _refuse_unknown_variables()
    try:
        return Settings(**{CONFIG_FILE: config, **(flags or {})})
    except ValidationError as error:
        raise SettingsError(explain(error)) from None
    except UnreadableVariable as error:
        raise SettingsError(f"environment: {error}; a section in one variable is a JSON object") from None


def explain(error: ValidationError) -> str:
    """The first fault of a settings error in one line, without the value: it may be a secret."""
    faults = error.errors(include_url=False, include_input=False)
    first = faults[0]
    names = [str(part) for part in first["loc"]]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = f"no such setting{_nearest('.'.join(names), known_settings())}"
    return f"setting {'.'.join(names) or 'combination'}: {message}"


def _check_toml(path: Path) -> None:
    try:
        with path.open("rb") as file:
            tomllib.load(file)
    except FileNotFoundError:
        raise SettingsError(f"--config {path}: no such file") from None
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"--config {path}: not a readable TOML file: {error}") from None


def known_settings(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[str]:
    """Dotted names of every setting, such as `kafka.group_id`."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from known_settings(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def variable(setting: str) -> str:
    """The environment variable of a dotted setting."""
    return PREFIX + setting.replace(".", "__").upper()


def _refuse_unknown_variables() -> None:
    """pydantic-settings ignores a misspelt variable in silence, even where extra fields are forbidden."""
    known = {variable(setting) for setting in known_settings()}
    sections = {variable(name) for name in Settings.model_fields}
    for name in os.environ:
        if name.upper().startswith(PREFIX) and name.upper() not in known | sections:
            raise SettingsError(f"environment variable {name}: no such setting{_nearest(name.upper(), known)}")


def _nearest(name: str, known: Iterator[str] | set[str]) -> str:
    close = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def secret(value: SecretStr | None, file: Path | None) -> str | None:
    """A secret from its file or, second best, from its setting.

    Raises:
        SettingsError: the file cannot be read.
    """
    if file is None:
        return value.get_secret_value() if value else None
    try:
        return file.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise SettingsError(f"secret file {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"secret file {file}: not UTF-8") from None
