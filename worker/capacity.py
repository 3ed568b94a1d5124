"""Capacity: what a stream of reviews needs, from what one worker was measured to do. Arithmetic only, no broker.

    R, I, O     measured: reviews/s of one worker, bytes of a review and of a prediction in the broker's log
    A           measured: reviews of a transaction; else what the default settings allow under a backlog
    P           reviews/s of the stream at its peak
    u           share of R that a worker is planned with
    d, t        seconds of an outage, seconds in which its backlog is to be drained
    F, C        copies of every record, groups that read the predictions

    workers         N = ⌈P / (R u)⌉ and those to spare, each with a device of its own
    partitions      K = k N with k = ⌈u / (1 - u)⌉, at least 2, unless k is given
    drained in      P d / (N R - P)
    to drain in t   the work of m = P (1 + d / t) / R workers; each can have q = ⌊K / m⌋ partitions: ⌈K / q⌉ workers, at
                    least N. Where K is below m, k rises to ⌈m / N⌉
    transactions    P / A a second, each of 757 + 62 min(k, A) + 93 min(K, A) bytes
    written         W = P I + P O + the transactions' bytes
    brokers         in F W, out P I + C P O + (F - 1) W
    storage a day   F P I and F P O, times 86,400

Why K is a multiple of N: a worker has whole partitions, and the one with the most of them falls behind first. Why k:
when a worker is lost, another one has k + 1 partitions instead of k, and (k + 1) / k of u must not be more than it can
do. Why all of them at once: adding partitions later changes where keys go.

Why as many for the predictions: any number keeps the order of a key, and of reviews without one; the same number also
keeps a partition's number, so that whoever joins reviews and predictions reads pairs of partitions. The bytes of a
transaction are those that a broker (Kafka 4.3) wrote for offsets, transaction states and markers.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import ceil, floor
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from worker.errors import UsageError
from worker.settings import BatchSettings

DAY_SECONDS = 86_400

TRANSACTION_BYTES = 757
INPUT_PARTITION_BYTES = 62
OUTPUT_PARTITION_BYTES = 93
"""What a broker writes for a transaction, for each input partition of which it commits an offset, and for each output
partition that it has records in: measured on Kafka 4.3, with names of about ten characters."""

Rate = Annotated[float, Field(ge=1e-3, le=1e9)]
Minutes = Annotated[float, Field(gt=0, le=1e6)]
Days = Annotated[float, Field(gt=0, le=1e5)]
Bytes = Annotated[float, Field(gt=0, le=1e9)]


class _Given(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)


class Figures(_Given):
    """What was measured of one worker, on its device and with its reviews."""

    reviews_per_second: Rate
    """Under a backlog."""
    input_bytes: Bytes
    """Mean of a review in the broker's log, compressed as its publishers do."""
    output_bytes: Bytes
    """The same of a prediction."""
    device: str = "one device"
    reviews_per_transaction: Annotated[float, Field(ge=1, le=1e6)] | None = None
    """None: as many as the default settings allow under a backlog."""

    @property
    def batch(self) -> float:
        """Reviews of a transaction."""
        settings = BatchSettings()
        most = min(settings.max_reviews, self.reviews_per_second * settings.target_seconds)
        return self.reviews_per_transaction or max(1, most)


class Plan(_Given):
    """What is asked for."""

    target: Annotated[tuple[Rate, ...], Field(min_length=1)] = (1_000, 10_000, 100_000)
    """Reviews per second at the peak."""
    utilization: Annotated[float, Field(ge=0.01, le=0.99)] = 0.7
    """Share of its speed that a worker is planned with. At 1 a queue would never shrink."""
    spare: Annotated[int, Field(ge=0, le=1_000_000)] = 1
    outage_minutes: Minutes = 30
    drain_minutes: Minutes = 60
    partitions_per_worker: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """None: by the rule."""
    replication: Annotated[int, Field(ge=1, le=100)] = 3
    readers: Annotated[int, Field(ge=0, le=10_000)] = 1
    input_retention_days: Days = 7
    output_retention_days: Days = 7


@dataclass(frozen=True)
class Need:
    """What one target needs. Bytes are of all copies together."""

    reviews_per_second: float
    reviews_a_day: float
    workers: int
    busy: float
    """Share of what the workers can do."""
    busiest_when_one_is_lost: float | None
    """The same, of the worker with the most partitions; above 1 it falls behind. None for a worker that is alone."""
    partitions: int
    """Of the input, and of the predictions."""
    drain_minutes: float
    """After the outage, with these workers."""
    workers_to_drain: int
    """So that it is drained in the time that was asked for."""
    transactions_per_second: float
    transaction_bytes_per_second: float
    """Of one copy."""
    broker_in_bytes_per_second: float
    broker_out_bytes_per_second: float
    copies_bytes_per_second: float
    """From broker to broker; part of both."""
    input_bytes_a_day: float
    output_bytes_a_day: float
    input_bytes_kept: float
    output_bytes_kept: float


def need(figures: Figures, plan: Plan, target: float) -> Need:
    """The formulae above.

    Args:
        figures: of one worker.
        plan: what is asked for.
        target: reviews per second at the peak.
    """
    one = figures.reviews_per_second
    workers = max(1, _up(target / (one * plan.utilization))) + plan.spare
    outage, drain = plan.outage_minutes * 60, plan.drain_minutes * 60
    busy_to_drain = target * (1 + outage / drain) / one
    by_rule = max(2, _up(plan.utilization / (1 - plan.utilization)))
    each = max(plan.partitions_per_worker or by_rule, _up(busy_to_drain / workers))
    partitions = each * workers
    batch = figures.batch
    transactions = target / batch
    transaction_bytes = transactions * (
        TRANSACTION_BYTES + INPUT_PARTITION_BYTES * min(each, batch) + OUTPUT_PARTITION_BYTES * min(partitions, batch)
    )
    read, scored = target * figures.input_bytes, target * figures.output_bytes
    written = read + scored + transaction_bytes
    copies = (plan.replication - 1) * written
    input_day, output_day = (DAY_SECONDS * plan.replication * it for it in (read, scored))
    return Need(
        reviews_per_second=target,
        reviews_a_day=target * DAY_SECONDS,
        workers=workers,
        busy=target / (workers * one),
        busiest_when_one_is_lost=(
            target * ceil(partitions / (workers - 1)) / partitions / one if workers > 1 else None
        ),
        partitions=partitions,
        drain_minutes=target * outage / (workers * one - target) / 60,
        workers_to_drain=max(workers, ceil(partitions / floor(round(partitions / busy_to_drain, 9)))),
        transactions_per_second=transactions,
        transaction_bytes_per_second=transaction_bytes,
        broker_in_bytes_per_second=written + copies,
        broker_out_bytes_per_second=read + plan.readers * scored + copies,
        copies_bytes_per_second=copies,
        input_bytes_a_day=input_day,
        output_bytes_a_day=output_day,
        input_bytes_kept=input_day * plan.input_retention_days,
        output_bytes_kept=output_day * plan.output_retention_days,
    )


def _up(number: float) -> int:
    """The next whole number; 4.000000000000001 is 4, which 0.8 / (1 - 0.8) makes of it."""
    return ceil(round(number, 9))


def document(figures: Figures, plan: Plan) -> dict[str, Any]:
    """Everything, for a program."""
    return {
        "figures": figures.model_dump() | {"reviews_per_transaction": figures.batch},
        "plan": plan.model_dump(mode="json"),
        "reviews_a_day_per_worker": figures.reviews_per_second * DAY_SECONDS,
        "needs": [asdict(need(figures, plan, target)) for target in plan.target],
    }


def rows(figures: Figures, plan: Plan) -> list[tuple[str, list[str]]]:
    """The table's lines for a person: what, and a cell for each target."""
    needs = [need(figures, plan, target) for target in plan.target]

    def line(what: str, cell: Any) -> tuple[str, list[str]]:
        return what, [cell(it) for it in needs]

    def lost(it: Need) -> str:
        return "-" if it.busiest_when_one_is_lost is None else f"{it.busiest_when_one_is_lost:.0%}"

    spare = f"{plan.spare} to spare" if plan.spare else "none to spare"
    return [
        line("reviews a day", lambda it: f"{it.reviews_a_day:,.0f}"),
        line(f"workers, a device each, {spare}", lambda it: f"{it.workers:,}"),
        line("  how busy", lambda it: f"{it.busy:.0%}"),
        line("  the busiest when one is lost", lost),
        line("partitions of reviews and predictions", lambda it: f"{it.partitions:,}"),
        line(f"outage of {plan.outage_minutes:g} min, drained in", lambda it: f"{it.drain_minutes:,.0f} min"),
        line(f"  workers to drain it in {plan.drain_minutes:g} min", lambda it: f"{it.workers_to_drain:,}"),
        line("transactions/s", lambda it: f"{it.transactions_per_second:,.1f}"),
        line("brokers, in", lambda it: _megabytes(it.broker_in_bytes_per_second)),
        line("brokers, out", lambda it: _megabytes(it.broker_out_bytes_per_second)),
        line("  of both, copies", lambda it: _megabytes(it.copies_bytes_per_second)),
        line("  of in, transactions", lambda it: _megabytes(it.transaction_bytes_per_second * plan.replication)),
        line("storage a day, reviews", lambda it: _gigabytes(it.input_bytes_a_day)),
        line("storage a day, predictions", lambda it: _gigabytes(it.output_bytes_a_day)),
        line(f"  kept, reviews {plan.input_retention_days:g} days", lambda it: _gigabytes(it.input_bytes_kept)),
        line(f"  kept, predictions {plan.output_retention_days:g} days", lambda it: _gigabytes(it.output_bytes_kept)),
    ]


def _megabytes(number: float) -> str:
    return f"{number / 1e6:,.2f} MB/s"


def _gigabytes(number: float) -> str:
    return f"{number / 1e9:,.1f} GB"


# === What the user gave ===


def read_figures(path: str | None, given: Mapping[str, Any]) -> Figures:
    """Figures from a JSON file, and from options, which win.

    Args:
        path: of an object with the fields of `Figures` and whatever else; `-` for standard input, None for no file.
        given: options by the names of the fields; None where one was not given.

    Raises:
        UsageError: there is no such file, or a figure is missing or impossible.
    """
    options = {name: value for name, value in given.items() if value is not None}
    found = _read(path) if path else {}
    try:
        return Figures(**{name: found[name] for name in Figures.model_fields if name in found} | options)
    except ValidationError as error:
        name, message = _first(error)
        option = f"--{name.replace('_', '-')}"
        if message == "Field required":
            raise UsageError(f"no {name}: give {option}, or --from FILE with it") from None
        raise UsageError(f"{option if name in options else f'--from {path}: {name}'}: {message}") from None


def make_plan(**given: Any) -> Plan:
    """What is asked for, by the names of the fields of `Plan`.

    Raises:
        UsageError: a value is impossible.
    """
    try:
        return Plan(**given)
    except ValidationError as error:
        name, message = _first(error)
        raise UsageError(f"--{name.replace('_', '-')}: {message}") from None


def _read(path: str) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
        found = json.loads(text)
    except OSError as error:
        raise UsageError(f"--from {path}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"--from {path}: not JSON in UTF-8: {error}") from None
    if not isinstance(found, dict):
        raise UsageError(f"--from {path}: not a JSON object with reviews_per_second, input_bytes and output_bytes")
    return found


def _first(error: ValidationError) -> tuple[str, str]:
    """Name and message of the first fault."""
    fault = error.errors(include_url=False)[0]
    return str(fault["loc"][0]), fault["msg"]
