"""`review-worker`: the service, and what people need around it. Every command's work is in the file of its name."""

import json
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from rich.markup import escape

from schemas import Reason
from worker.console import err, out, plain, run_app
from worker.engine import EngineName, Precision
from worker.errors import UsageError
from worker.settings import Settings, known_settings, load_settings
from worker.versions import VersionOption

app = typer.Typer(
    no_args_is_help=True,
    invoke_without_command=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""Score a Kafka stream of reviews with a fine-tuned BERT, exactly once.

Settings come from flags, then the environment (`WORKER_KAFKA__GROUP_ID=…`), then a TOML file (`--config`), then
defaults. Data goes to standard output, everything else to standard error.

A first round, with a broker on 127.0.0.1:9092:

```
review-worker check --model models/imdb --create-topics
review-worker run --model models/imdb
review-worker publish reviews.csv
review-worker tail
```
""",
)


def _completed(words: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """For the shell: the words that begin as what was typed does. Where there are none it completes files by itself."""
    return lambda incomplete: [word for word in words() if word.startswith(incomplete)]


Config = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="TOML file with settings.")]
Model = Annotated[
    Path | None, typer.Option("--model", metavar="DIR", help="Artefact folder, or its parent: then the newest version.")
]
EngineChoice = Annotated[
    str | None,
    typer.Option(
        "--engine",
        help="`auto`, `tensorflow`, `openvino` (CPUs) or `jax` (NVIDIA GPUs).",
        autocompletion=_completed(lambda: get_args(EngineName)),
    ),
]
PrecisionChoice = Annotated[
    str | None,
    typer.Option(
        "--precision",
        help="`auto`, `float32`, `bfloat16`, `float16` or `int8`.",
        autocompletion=_completed(lambda: get_args(Precision)),
    ),
]
Bootstrap = Annotated[
    str | None, typer.Option("--bootstrap-servers", metavar="HOST:PORT", help="Brokers, several with commas.")
]
Port = Annotated[int | None, typer.Option("--port", help="HTTP port of /metrics, /livez, /readyz.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Any setting, such as `kafka.group_id=mine`. May be repeated.",
        autocompletion=_completed(lambda: (f"{name}=" for name in known_settings())),
    ),
]
Json = Annotated[bool, typer.Option("--json", help="JSON for a program instead of text for a person.")]


@app.callback()
def _callback(version: VersionOption = False) -> None:
    """What stands before a command."""


@app.command()
def run(
    config: Config = None,
    model: Model = None,
    bootstrap_servers: Bootstrap = None,
    engine: EngineChoice = None,
    precision: PrecisionChoice = None,
    port: Annotated[int | None, typer.Option("--port", help="HTTP port of the live page and /metrics.")] = None,
    settings: Set = None,
) -> None:
    """Serve: consume reviews, publish predictions, exactly once, until SIGTERM or Ctrl-C.

    Logs are JSON lines on standard error. http://127.0.0.1:9108/ is a live page; `/metrics`, `/livez` and `/readyz` are
    beside it.

    ```
    review-worker run --model models/imdb --bootstrap-servers broker:9092
    ```
    """
    from worker.service import run as serve

    serve(
        _settings(
            config, settings, model=model, bootstrap=bootstrap_servers, engine=engine, precision=precision, port=port
        )
    )


@app.command()
def check(
    config: Config = None,
    model: Model = None,
    bootstrap_servers: Bootstrap = None,
    engine: EngineChoice = None,
    precision: PrecisionChoice = None,
    settings: Set = None,
    create_topics: Annotated[bool, typer.Option("--create-topics", help="Make the topics that are missing.")] = False,
    partitions: Annotated[int, typer.Option(min=1, help="Partitions of a topic that is made.")] = 3,
    as_json: Json = False,
) -> None:
    """Try everything that `run` needs, model and a real forward pass included; exit 0 when all is well.

    What fails is named with the fix: a command to run, or a setting to change.

    ```
    review-worker check --model models/imdb --create-topics --partitions 6
    ```
    """
    from worker.check import check as findings

    chosen = _settings(config, settings, model=model, bootstrap=bootstrap_servers, engine=engine, precision=precision)
    failed = False
    for finding in findings(chosen, partitions if create_topics else None):
        failed = failed or not finding.ok
        if as_json:
            print(json.dumps(vars(finding)))
        else:
            mark = "[green]ok[/]  " if finding.ok else "[bold red]fail[/]"
            out.print(f"{mark} [bold]{finding.name:<8}[/] {escape(plain(finding.detail))}")
            for line in (finding.fix or "").splitlines():
                out.print(f"     [yellow]fix:[/]     {escape(plain(line))}")
    raise typer.Exit(1 if failed else 0)


@app.command()
def score(
    source: Annotated[str, typer.Argument(metavar="IN", help="JSON lines or CSV (.gz too); `-` for standard input.")],
    target: Annotated[str, typer.Argument(metavar="OUT", help="Predictions as JSON lines; `-` for standard output.")],
    config: Config = None,
    model: Model = None,
    engine: EngineChoice = None,
    precision: PrecisionChoice = None,
    settings: Set = None,
) -> None:
    """Score a file of reviews without Kafka; the labels are those that the service gives.

    A CSV needs a column `text` (`review_id` is optional); JSON lines look like `{"review_id": "1", "text": "…"}`.
    Refused records are named on standard error with their number, and the rest is scored.

    ```
    review-worker score reviews.csv predictions.jsonl --model models/imdb
    ```
    """
    from worker.engine import open_engine
    from worker.pace import Pace
    from worker.reviews import read_messages
    from worker.score import score_messages
    from worker.scorer import Scorer
    from worker.service import open_model

    chosen = _settings(config, settings, model=model, engine=engine, precision=precision)
    _require_readable(source)
    artifact = open_model(chosen)
    cut, batch = artifact.manifest.cut, chosen.batch
    with _output(target) as stream:
        engine_ = open_engine(artifact, chosen.engine, chosen.precision, chosen.cache_dir, rescore=chosen.rescore)
        try:
            pace = Pace(batch, cut.head + cut.tail)
            scorer = Scorer(artifact, engine_)
            outcomes = score_messages(read_messages(source), scorer, pace, batch.max_message_bytes)
            _write(outcomes, stream, source)
        finally:
            engine_.close()


def _write(outcomes: Iterator[Any], stream: Any, source: str) -> None:
    from schemas import Rejection

    done = refused = 0
    with _progress("scoring") as advance:
        for outcome in outcomes:
            if isinstance(outcome, Rejection):
                refused += 1
                _name_refused(source, outcome)
            else:
                done += 1
                stream.write(outcome.model_dump_json() + "\n")
            advance()
    err.print(f"{done:,} predictions, {refused:,} refused")


def _name_refused(source: str, rejection: Any) -> None:
    """Records of a file are counted from 1, as people and editors do."""
    number = rejection.source.offset + 1
    err.print(f"{source}: record {number}: {rejection.reason.value}: {rejection.detail}", markup=False)


@app.command()
def publish(
    file: Annotated[str, typer.Argument(metavar="FILE", help="JSON lines or CSV (.gz too); `-` for standard input.")],
    config: Config = None,
    bootstrap_servers: Bootstrap = None,
    settings: Set = None,
    rate: Annotated[float | None, typer.Option(min=0.001, help="Reviews per second; else as fast as it goes.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many records of the file.")] = None,
    unchecked: Annotated[
        bool, typer.Option("--unchecked", help="Send what the worker would refuse too, to see dead letters.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Put reviews from a file on the input topic, keyed by review id.

    ```
    review-worker publish reviews.csv --rate 50
    ```
    """
    from itertools import islice

    from worker.publish import publish as send
    from worker.reviews import read_messages

    chosen = _settings(config, settings, bootstrap=bootstrap_servers)
    _require_readable(file)
    _quiet()
    with _progress("publishing") as advance:
        done = send(
            islice(read_messages(file), limit),
            chosen.kafka,
            max_message_bytes=chosen.batch.max_message_bytes,
            rate=rate,
            unchecked=unchecked,
            refuse=lambda rejection: _name_refused(file, rejection),
            sent=advance,
        )
    if as_json:
        print(json.dumps(vars(done)))
    else:
        speed = done.sent / done.seconds if done.seconds else 0
        err.print(
            f"{done.sent:,} published to {chosen.kafka.input_topic}, {done.refused:,} refused, "
            f"{done.seconds:.1f} s, {speed:,.0f}/s"
        )


@app.command()
def tail(
    config: Config = None,
    bootstrap_servers: Bootstrap = None,
    settings: Set = None,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="Start at the oldest prediction instead of the next one.")
    ] = False,
    count: Annotated[int | None, typer.Option("--count", "-n", min=1, help="Leave after so many.")] = None,
    every: Annotated[int, typer.Option(min=1, help="Print each so many-th line only (not in a table, not JSON).")] = 1,
    idle: Annotated[float | None, typer.Option(min=0.1, help="Leave when nothing came for so many seconds.")] = None,
    as_json: Json = False,
) -> None:
    """Follow predictions as they are committed: a live table in a terminal, lines elsewhere.

    ```
    review-worker tail --from-beginning --json | jq .label
    ```
    """
    from worker.tail import follow
    from worker.tail_view import show

    chosen = _settings(config, settings, bootstrap=bootstrap_servers)
    _quiet()
    arrivals = follow(chosen.kafka, chosen.kafka.output_topic, from_beginning=from_beginning, idle_seconds=idle)
    show(arrivals, count=count, every=every, as_json=as_json)


@app.command()
def replay(
    config: Config = None,
    bootstrap_servers: Bootstrap = None,
    settings: Set = None,
    reason: Annotated[
        list[str] | None,
        typer.Option(
            "--reason",
            metavar="NAME",
            help="Only with this `rejection.reason`. May be repeated.",
            autocompletion=_completed(lambda: (reason.value for reason in Reason)),
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Only dead letters since then: ISO 8601 (UTC), or back from now as `2h`."),
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Only dead letters before then.")] = None,
    # Three digits are what the worker carries on into a dead letter: beyond them the count would begin anew.
    max_hops: Annotated[
        int, typer.Option(min=1, max=999, help="Leave a record that was put back so often already.")
    ] = 3,
    limit: Annotated[int | None, typer.Option(min=1, help="Put back at most so many.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be put back, and change nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Put dead letters back on the input topic, each at most once, however often and with whatever filters.

    Key and value are those of the original record; `replay.hops` counts how often it was put back. What stays behind is
    there for the next replay. The table counts dead letters by reason, from the first that was not put back yet.

    ```
    review-worker replay --dry-run
    review-worker replay --reason out_of_memory --since 2h
    ```
    """
    from worker.replay import replay as put_back
    from worker.replay.choice import Choice, read_reasons, read_time

    now_ms = round(time.time() * 1000)
    choice = Choice(
        reasons=read_reasons(reason or ()),
        since_ms=None if since is None else read_time("--since", since, now_ms),
        until_ms=None if until is None else read_time("--until", until, now_ms),
        max_hops=max_hops,
        limit=limit,
    )
    if choice.since_ms is not None and choice.until_ms is not None and choice.since_ms >= choice.until_ms:
        raise UsageError(f"--since {since} is not before --until {until}")
    chosen = _settings(config, settings, bootstrap=bootstrap_servers)
    _quiet()
    with _progress("putting back") as advance:
        done = put_back(chosen, choice, dry_run=dry_run, advanced=advance)
    if as_json:
        print(json.dumps({"dry_run": dry_run, **done.document()}))
    else:
        _show_replayed(done, chosen.kafka.input_topic, max_hops, dry_run=dry_run)


def _show_replayed(done: Any, topic: str, max_hops: int, *, dry_run: bool) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from worker.replay.choice import Fate

    shown = {
        Fate.PUT_BACK: "would put back" if dry_run else "put back",
        Fate.LEFT_BY_FILTER: "left by filter",
        Fate.PUT_BACK_EARLIER: "put back earlier",
        Fate.OVER_MAX_HOPS: "over max hops",
    }
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("reason", no_wrap=True)
    for heading in shown.values():
        table.add_column(heading, justify="right")
    for its in done.reasons:
        table.add_row(its.value, *(f"{done.counts[its, fate]:,}" for fate in shown))
    if done.reasons:
        out.print(table)
    total = {fate: f"{done.total(fate):,}" for fate in Fate}
    err.print(
        f"{total[Fate.PUT_BACK]} {'would be ' if dry_run else ''}put back on {topic}, "
        f"{total[Fate.PUT_BACK_EARLIER]} put back earlier; left: {total[Fate.LEFT_BY_FILTER]} by filter, "
        f"{total[Fate.OVER_MAX_HOPS]} with {max_hops} hops or more, {total[Fate.NOT_OURS]} not from {topic}; "
        f"{done.seconds:.1f} s{', stopped at the limit' if done.limited else ''}"
    )


@app.command("config")
def show_config(
    config: Config = None,
    model: Model = None,
    bootstrap_servers: Bootstrap = None,
    engine: EngineChoice = None,
    precision: PrecisionChoice = None,
    port: Port = None,
    settings: Set = None,
    changed: Annotated[bool, typer.Option("--changed", help="Only what is not the default.")] = False,
    as_toml: Annotated[
        bool, typer.Option("--toml", help="A TOML file of all settings, to begin with: defaults are comments.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show the settings in force, where each came from, and what it means. Secrets are never shown.

    ```
    review-worker config --changed
    review-worker config --toml > worker.toml
    ```
    """
    from worker.config import document, in_force, table, template

    if as_toml and as_json:
        raise UsageError("--toml and --json: choose one of them")
    flags, named = _flags(
        settings, model=model, bootstrap=bootstrap_servers, engine=engine, precision=precision, port=port
    )
    found = [it for it in in_force(config, flags, named) if it.changed or not changed]
    if as_json:
        print(json.dumps(document(found), indent=2))
    elif as_toml:
        print(template(found))
    else:
        out.print(table(found), soft_wrap=False)


@app.command()
def bench(
    config: Config = None,
    model: Model = None,
    bootstrap_servers: Bootstrap = None,
    engine: EngineChoice = None,
    precision: PrecisionChoice = None,
    settings: Set = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="PART",
            help="`engine`, `route` or `stub` (the route without a model). May be repeated. Default: all.",
            autocompletion=_completed(lambda: ("engine", "route", "stub")),
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Your reviews, JSON lines or CSV (.gz too); else made ones, as long as IMDB's."
        ),
    ] = None,
    reviews: Annotated[int, typer.Option(min=1, help="How many, in each round.")] = 200,
    rounds: Annotated[int, typer.Option(min=1, help="Behind one that is not counted; medians are shown.")] = 3,
    partitions: Annotated[int, typer.Option(min=1, help="Of the topics that are made.")] = 4,
    rate: Annotated[
        float | None,
        typer.Option(min=0.001, help="Reviews per second of the latency's stream; else half of what was measured."),
    ] = None,
    stub_reviews: Annotated[int, typer.Option(min=1, help="In each round without a model.")] = 30_000,
    backlog: Annotated[
        list[int] | None,
        typer.Option(min=1, help="With --plot, sizes to compare; may be repeated. Default: 1000, 10000 and 100000."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Draw throughput by length and cost by backlog there (extra `report`); takes longer."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure how fast this machine scores: the engine alone, and with a broker the whole route.

    Topics and group are made for it, with a random name, and removed. The route's worker is a process of its own with
    your settings, as `run` would start it. Keep the machine quiet meanwhile, and read the spread of the rounds.

    ```
    review-worker bench --model models/imdb --data reviews.csv
    review-worker bench --model models/imdb --bootstrap-servers $(deploy/kafka/broker start --data /tmp/kafka)
    review-worker bench --bootstrap-servers broker:9092 --json > bench.json && review-worker capacity --from bench.json
    ```
    """
    from worker.bench.suite import BACKLOGS, HOW_TO_GET_A_BROKER, PARTS, Asked
    from worker.bench.suite import bench as measure

    if unknown := [name for name in only or () if name not in PARTS]:
        raise UsageError(f"--only {unknown[0]}: choose from {', '.join(PARTS)}")
    if data:
        _require_readable(data)
    flags, named = _flags(settings, model=model, bootstrap=bootstrap_servers, engine=engine, precision=precision)
    broker = "kafka.bootstrap_servers" in named
    parts = [part for part in PARTS if part in (only or PARTS)]
    waiting = [part for part in parts if part != "engine" and not broker]
    if only and waiting:
        raise UsageError(f"--only {waiting[0]} needs a broker: {HOW_TO_GET_A_BROKER}")
    _quiet()
    found = measure(
        Asked(
            config,
            flags,
            broker,
            parts,
            data=data,
            reviews=reviews,
            rounds=rounds,
            partitions=partitions,
            stub_reviews=stub_reviews,
            rate=rate,
            backlogs=backlog or BACKLOGS,
            plot=plot,
        )
    )
    if as_json:
        print(json.dumps(found.document()))
    else:
        _show_bench(found)
    if waiting:
        err.print(f"not measured without a broker: {', '.join(waiting)}. {HOW_TO_GET_A_BROKER}", markup=False)


def _show_bench(found: Any) -> None:
    from worker.bench.view import head, table

    out.print(head(found))
    out.print(table(found))


@app.command()
def capacity(
    figures: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="JSON object with `reviews_per_second`, `input_bytes`, `output_bytes`, and if you like `device` and "
            "`reviews_per_transaction`; anything else in it is ignored. `-` for standard input.",
        ),
    ] = None,
    reviews_per_second: Annotated[
        float | None, typer.Option(help="Of one worker under a backlog. Wins over FILE.")
    ] = None,
    input_bytes: Annotated[float | None, typer.Option(help="Mean of a review in the broker's log.")] = None,
    output_bytes: Annotated[float | None, typer.Option(help="Mean of a prediction in the broker's log.")] = None,
    device: Annotated[str | None, typer.Option(help="What the worker ran on, for the reader of the table.")] = None,
    reviews_per_transaction: Annotated[
        float | None, typer.Option(help="Else as many as the default settings allow under a backlog.")
    ] = None,
    target: Annotated[
        list[float] | None,
        typer.Option(help="Reviews/s at the peak; may be repeated. Default: 1000, 10000 and 100000."),
    ] = None,
    utilization: Annotated[float, typer.Option(help="Share of its speed that a worker is planned with.")] = 0.7,
    spare: Annotated[int, typer.Option(help="Workers beyond that, for those that are lost.")] = 1,
    outage_minutes: Annotated[float, typer.Option(help="Stop of all workers while reviews go on coming.")] = 30,
    drain_minutes: Annotated[float, typer.Option(help="Time in which its backlog is to be drained.")] = 60,
    partitions_per_worker: Annotated[
        int | None, typer.Option(help="Else so many that the others keep up when one is lost.")
    ] = None,
    replication: Annotated[int, typer.Option(help="Copies of every record.")] = 3,
    readers: Annotated[int, typer.Option(help="Consumer groups that read the predictions.")] = 1,
    input_retention_days: Annotated[float, typer.Option(help="How long reviews are kept.")] = 7,
    output_retention_days: Annotated[float, typer.Option(help="How long predictions are kept.")] = 7,
    as_json: Json = False,
) -> None:
    """From measured figures of one worker: how many workers, partitions, bytes/s and bytes a stream needs.

    Nothing is measured here and no broker is asked. How to measure the figures and what the lines mean stands in
    `deploy/README.md` under Capacity.

    ```
    review-worker capacity --reviews-per-second 50 --input-bytes 900 --output-bytes 300 --target 400
    review-worker capacity --from figures.json --utilization 0.8 --json | jq .needs
    ```
    """
    from worker.capacity import document, make_plan, read_figures

    measured = read_figures(
        figures,
        {
            "reviews_per_second": reviews_per_second,
            "input_bytes": input_bytes,
            "output_bytes": output_bytes,
            "device": device,
            "reviews_per_transaction": reviews_per_transaction,
        },
    )
    asked = {
        "utilization": utilization,
        "spare": spare,
        "outage_minutes": outage_minutes,
        "drain_minutes": drain_minutes,
        "partitions_per_worker": partitions_per_worker,
        "replication": replication,
        "readers": readers,
        "input_retention_days": input_retention_days,
        "output_retention_days": output_retention_days,
    }
    plan = make_plan(**asked | ({"target": tuple(target)} if target else {}))
    if as_json:
        print(json.dumps(document(measured, plan)))
    else:
        _show_capacity(measured, plan)


def _show_capacity(figures: Any, plan: Any) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from worker.capacity import DAY_SECONDS, rows

    # A narrow terminal breaks lines; rich would cut off digits.
    out.width = max(out.width, 40 + 20 * len(plan.target))
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("reviews/s at the peak", no_wrap=True)
    for target in plan.target:
        table.add_column(f"{target:,.10g}", justify="right", no_wrap=True)
    for what, cells in rows(figures, plan):
        table.add_row(what, *cells)
    a_day = figures.reviews_per_second * DAY_SECONDS
    out.print(
        f"One worker on {escape(plain(figures.device))}: {figures.reviews_per_second:,.10g} reviews/s, "
        f"{a_day:,.0f} a day; planned with {plan.utilization:.0%} of it. "
        f"Every record in {plan.replication} copies, {figures.batch:,.10g} reviews a transaction."
    )
    out.print(table)
    err.print("storage and brokers: as if the peak lasted all day")


@app.command()
def contract(
    folder: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write all documents there, and print their names.")
    ] = None,
) -> None:
    """Print the public contract: an AsyncAPI document of topics, keys, headers and payloads.

    With `--out` it is written beside the JSON Schemas of review, prediction, rejection and model manifest. The names of
    topics are those of the default settings.

    ```
    review-worker contract
    review-worker contract --out deploy/contract
    ```
    """
    from worker.contract import documents, write

    if folder is None:
        sys.stdout.write(documents()["asyncapi.json"])
        return
    for path in write(folder):
        print(path)


def _settings(config: Path | None, assignments: list[str] | None, **options: Any) -> Settings:
    """Settings with the flags of a command on top; options as `_flags` has them."""
    flags, _ = _flags(assignments, **options)
    return load_settings(config, flags)


def _flags(
    assignments: list[str] | None,
    *,
    model: Path | None = None,
    bootstrap: str | None = None,
    engine: str | None = None,
    precision: str | None = None,
    port: int | None = None,
) -> tuple[dict[str, Any], dict[str, str]]:
    """The nested values of a command's flags, and for each setting's dotted name the flag that it came from."""
    flags: dict[str, Any] = {}
    named: dict[str, str] = {}
    options = {
        "model": ("--model", model),
        "engine": ("--engine", engine),
        "precision": ("--precision", precision),
        "kafka.bootstrap_servers": ("--bootstrap-servers", bootstrap),
        "http.port": ("--port", port),
    }
    for name, (option, value) in options.items():
        if value is not None:
            _place(flags, name, value)
            named[name] = option
    for assignment in assignments or ():
        name, sign, value = assignment.partition("=")
        if not sign:
            raise UsageError(f"--set {assignment}: write NAME=VALUE, such as kafka.group_id=mine")
        try:
            _place(flags, name, value)
        except (AttributeError, TypeError):
            raise UsageError(f"--set {assignment}: contradicts an earlier flag") from None
        named[name] = "--set"
    return flags, named


def _place(flags: dict[str, Any], name: str, value: Any) -> None:
    *sections, leaf = name.split(".")
    for section in sections:
        flags = flags.setdefault(section, {})
    flags[leaf] = value


def _require_readable(path: str) -> None:
    """A pipe will do, such as a shell's `<(…)`."""
    if path != "-" and not Path(path).exists():
        raise UsageError(f"{path}: no such file")
    if Path(path).is_dir():
        raise UsageError(f"{path}: a folder, not a file")


@contextmanager
def _output(path: str) -> Iterator[Any]:
    if path == "-":
        yield sys.stdout
        return
    with ExitStack() as stack:
        try:
            stream = stack.enter_context(Path(path).open("w", encoding="utf-8"))
        except OSError as error:
            raise UsageError(f"{path}: cannot be written: {error.strerror}") from None
        yield stream


@contextmanager
def _progress(what: str) -> Iterator[Any]:
    """A counter on a terminal; nothing elsewhere."""
    if not err.is_terminal:
        with nullcontext():
            yield lambda: None
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description} {task.completed:,}"), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda: progress.advance(task)


def _quiet() -> None:
    """The one-shot commands print what went wrong themselves; the client's own warnings would only come first."""
    logging.getLogger("kafka").setLevel(logging.CRITICAL)


def main() -> None:
    """Console script `review-worker`."""
    run_app(app)
