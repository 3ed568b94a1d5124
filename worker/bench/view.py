"""What was measured, as a table for people."""

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from worker.bench.engine import EngineFigures
from worker.bench.rounds import Spread
from worker.bench.route import Latency, RouteFigures
from worker.bench.suite import BACKLOG_RATE, Found, StubFigures

Row = tuple[str, str, str]


def table(found: Found) -> Table:
    """A row for each figure: what, the median, and from least to most of the rounds."""
    made = Table(box=SIMPLE_HEAD, pad_edge=False)
    made.add_column("")
    made.add_column("median", justify="right", no_wrap=True)
    made.add_column("rounds", justify="right", no_wrap=True, style="dim")
    stubs = (_stub(its) for its in found.stub)
    parts = (_engine(found.engine), _lengths(found), _route(found.route), _latency(found.latency), *stubs)
    for part in (*parts, _backlogs(found)):
        for number, (what, value, rounds) in enumerate(part):
            made.add_row(what if number == 0 else f"  {what}", value, rounds, style="bold" if number == 0 else None)
    return made


def head(found: Found) -> str:
    """One line: where and what."""
    its = found.engine or found.route
    device = f" on {its.device}, {its.engine}, {its.precision}" if its else ""
    load = f"{found.machine['cores']} cores, load {found.machine['load']:.1f} at the beginning"
    return escape(f"{found.model}{device}; {load}")


def _rate(what: str, rates: Spread, unit: str = "/s") -> Row:
    return what, f"{_number(rates.median)}{unit}", f"{_number(rates.least)} to {_number(rates.most)}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.3g}"


def _engine(its: EngineFigures | None) -> Iterator[Row]:
    if its is None:
        return
    yield _rate(f"engine {its.engine}: reviews", its.reviews_per_second)
    yield _rate(f"tokens, {its.tokens_per_review:,.0f} a review", its.tokens_per_second)
    yield _rate("without tokenizing, reviews", its.engine_reviews_per_second)
    yield _rate("tokenizer alone, reviews", its.tokenizer_reviews_per_second)
    yield "padding", f"{its.padding_ratio:.1%}", ""
    if its.limit_flop_per_second and its.share_of_limit is not None:
        limit = its.limit_flop_per_second
        yield (
            f"matrix products in {its.precision}, GFLOP",
            f"{limit.median / 1e9:,.0f}/s",
            f"{limit.least / 1e9:,.0f} to {limit.most / 1e9:,.0f}",
        )
        yield f"share of that, {its.flop_per_review / 1e9:,.3g} GFLOP a review", f"{its.share_of_limit:.0%}", ""


def _lengths(found: Found) -> Iterator[Row]:
    if found.lengths:
        yield "engine by length", "", ""
    for its in found.lengths:
        yield _rate(f"{its.tokens} tokens, reviews", its.reviews_per_second)


def _route(its: RouteFigures | None) -> Iterator[Row]:
    if its is None:
        return
    yield _rate(f"route, backlogs of {its.reviews:,}: reviews", its.reviews_per_second)
    for stage, share in its.stages.items():
        yield f"{stage}, share of the time", f"{share:.1%}", ""
    yield "of commit: transactions", f"{its.transactions_share:.1%}", ""
    yield "reviews a transaction", f"{its.reviews_per_transaction:,.3g}", ""
    yield "start to ready", f"{its.ready_seconds:.1f} s", ""
    yield "memory", f"{its.memory_bytes / 1e6:,.0f} MB", ""


def _latency(its: Latency | None) -> Iterator[Row]:
    if its is None:
        return
    yield f"latency at {_number(its.reviews_per_second)} reviews/s", "", ""
    for name, seconds in (("50 %", its.p50), ("95 %", its.p95), ("99 %", its.p99), ("most", its.most)):
        yield name, f"{seconds * 1000:,.0f} ms", ""


def _stub(its: StubFigures) -> Iterator[Row]:
    yield _rate(f"route without a model, {its.bytes_per_review:,} bytes: reviews", its.reviews_per_second)
    yield "transactions, share of the time", f"{its.transactions_share:.1%}", ""
    yield "reviews a transaction", f"{its.reviews_per_transaction:,.0f}", ""


def _backlogs(found: Found) -> Iterator[Row]:
    if found.backlogs:
        yield f"cost of a backlog, a stub of {BACKLOG_RATE:,.0f} reviews/s", "", ""
    for backlog in found.backlogs:
        cost = backlog.milliseconds_per_review
        yield (
            f"{backlog.reviews:,} reviews, {backlog.memory_bytes / 1e6:,.0f} MB",
            f"{cost.median:.4f} ms",
            f"{cost.least:.4f} to {cost.most:.4f}",
        )
