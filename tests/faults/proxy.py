"""A proxy between clients and a broker that knows enough of Kafka's protocol to lose, delay and cut single requests.

    client ──requests──> rules ──stall──> broker
    client <──stall── rules <──answers── broker

It takes the place of a bad network: what it does to a link is what a network does, and neither end is told. Clients
leave the address they were given for the one that the broker advertises, so the broker has a second listener that
advertises the proxy's port; by its first one the tests' own tools go past the proxy.

A frame is its size (4 bytes) and so many bytes. A request's begin with API key (2), version (2) and correlation id (4),
an answer's with the correlation id of its request. TLS is not understood.
"""

import asyncio
import struct
from asyncio import StreamReader, StreamWriter
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from threading import Event, Thread
from typing import Any

from faults.cluster import Node, properties
from running import HOST, free_ports

REQUEST = struct.Struct(">4x h 2x i")
"""API key and correlation id, behind the size."""

ANSWER = struct.Struct(">4x i")
"""Correlation id, behind the size."""

ANSWER_SECONDS = 30
"""How long the broker's side stays open for an answer that somebody waits for, after the client has left."""

FLUSH_SECONDS = 1
REFUSAL_SECONDS = 0.3


class Api(IntEnum):
    """Requests that a fault is worth being done to, by their keys in Kafka's protocol."""

    PRODUCE = 0
    FETCH = 1
    METADATA = 3
    FIND_COORDINATOR = 10
    JOIN_GROUP = 11
    HEARTBEAT = 12
    SYNC_GROUP = 14
    INIT_PRODUCER_ID = 22
    ADD_PARTITIONS_TO_TXN = 24
    ADD_OFFSETS_TO_TXN = 25
    END_TXN = 26
    TXN_OFFSET_COMMIT = 28


# === Faults of single requests ===


@dataclass(frozen=True)
class DropReply:
    """The broker does as it is asked, and the client never hears of it: from here on its connection is silent."""

    close_after: float | None = None
    """Seconds from the lost answer until both sides are closed; None leaves that to the client."""


@dataclass(frozen=True)
class HoldRequest:
    """The broker gets the request late, and with it what follows on the same connection; other connections go on.

    It gets it even when the client has closed the connection by then, as a network may still hold what was sent.
    """

    seconds: float
    hang_up: bool = False
    """Close the client's side at once: it knows that the connection is lost, and not what will become of the request.
    Else it waits, for as long as its own patience lasts."""


@dataclass(frozen=True)
class Cut:
    """Both sides are closed, and the broker never gets the request. (After it got it: `DropReply(close_after=0)`.)"""


Fault = DropReply | HoldRequest | Cut


class Rule:
    """What happens to the next so many requests of a kind. Tests wait for it: a fault that never was proves nothing."""

    def __init__(self, api: Api, fault: Fault, times: int) -> None:
        self.api = api
        self.fault = fault
        self._to_meet = self._to_do = times
        self._met, self._done = Event(), Event()

    def wait_until_met(self, seconds: float = 20) -> None:
        """Wait until the last of its requests has come to the proxy."""
        assert self._met.wait(seconds), f"{self._to_meet} more {self.api.name} did not come within {seconds} s"

    def wait_until_done(self, seconds: float = 20) -> None:
        """Wait until the broker has answered the last of them, whether or not the client may hear it, or until it is
        cut."""
        assert self._done.wait(seconds), f"{self._to_do} more {self.api.name} were not done within {seconds} s"

    def takes(self, api_key: int) -> bool:
        """Whether a request that has just come is one of its own; it is counted then."""
        if api_key != self.api or not self._to_meet:
            return False
        self._to_meet -= 1
        if not self._to_meet:
            self._met.set()
        return True

    def finish(self) -> None:
        """One of its requests is dealt with."""
        self._to_do -= 1
        if not self._to_do:
            self._done.set()


# === The link ===


class Proxy:
    """A port that leads to a broker, on a thread of its own. Faults begin and end by its methods; each returns when it
    is so."""

    def __init__(self, broker: str, port: int) -> None:
        self._port = port
        self._broker = broker
        self._rules: list[Rule] = []
        self._to_broker, self._to_client = asyncio.Event(), asyncio.Event()
        """Set while bytes flow that way."""
        self._listener: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._defects: list[Exception] = []
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """What clients are given, and what the broker advertises to them."""
        return f"{HOST}:{self._port}"

    def on(self, api: Api, fault: Fault, times: int = 1) -> Rule:
        """Do this to the next requests of a kind, on whatever connection. Of several rules for a kind the first one has
        its turn first."""
        rule = Rule(api, fault, times)
        self._rules.append(rule)
        return rule

    def cut(self) -> None:
        """Close all connections, with what is held on them, and refuse new ones, until `heal`."""
        self._await(self._cut())

    def stall(self, *, to_broker: bool = True, to_client: bool = True) -> None:
        """Let nothing through one way or both until `heal`; it comes late then, but it comes, also what was sent by
        somebody who has left. Connections stay open, and new ones are made."""
        self._await(self._stall(to_broker, to_client))

    def heal(self) -> None:
        """Everything flows. Rules that still waited for requests are forgotten."""
        self._rules.clear()
        self._await(self._heal())

    def close(self) -> None:
        """End everything.

        Raises:
            Exception: what went wrong in the proxy itself, so that its own defect is not taken for a fault.
        """
        try:
            self.cut()
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
        if self._defects:
            raise self._defects[0]

    def _await(self, change: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(change, self._loop).result(timeout=20)

    async def _cut(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _stall(self, to_broker: bool, to_client: bool) -> None:
        if to_broker:
            self._to_broker.clear()
        if to_client:
            self._to_client.clear()

    async def _heal(self) -> None:
        self._to_broker.set()
        self._to_client.set()
        if self._listener is None:
            self._listener = await asyncio.start_server(self._serve, HOST, self._port)

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """One connection, from its first byte to its last."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            if self._listener is not None:  # else accepted at the very moment of a cut
                await self._connect(reader, writer)
        except asyncio.CancelledError:
            pass  # a cut; to asyncio, before Python 3.12, a connection that ends so is an error
        except Exception as error:
            self._defects.append(error)
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _connect(self, reader: StreamReader, writer: StreamWriter) -> None:
        host, _, port = self._broker.rpartition(":")
        try:
            broker_reader, broker_writer = await asyncio.open_connection(host, int(port))
        except OSError:  # a dead broker; whoever is accepted and closed at once comes back without any pause
            await asyncio.sleep(REFUSAL_SECONDS)
            return
        try:
            client, broker = _End(reader, writer, self._to_client), _End(broker_reader, broker_writer, self._to_broker)
            await _Connection(client, broker, self._rules).carry()
        finally:
            broker_writer.transport.abort()


@dataclass(frozen=True)
class _End:
    """The socket of a client or of a broker."""

    reader: StreamReader
    writer: StreamWriter
    flows: asyncio.Event
    """Set while bytes flow towards this end."""

    async def read(self) -> bytes | None:
        """The next frame with its size; None when the other has left, in good order or not."""
        try:
            size = await self.reader.readexactly(4)
            return size + await self.reader.readexactly(int.from_bytes(size, "big"))
        except (asyncio.IncompleteReadError, OSError):
            return None

    async def write(self, frame: bytes) -> None:
        """Pass a frame on, as soon as the link lets it; whoever has left does not get it."""
        await self.flows.wait()
        if not self.writer.is_closing():
            self.writer.write(frame)
            with suppress(OSError):
                await self.writer.drain()

    async def flush(self) -> None:
        """Close in good order: what was written arrives."""
        self.writer.close()
        with suppress(OSError, TimeoutError):
            await asyncio.wait_for(self.writer.wait_closed(), FLUSH_SECONDS)


class _Connection:
    """A client's connection and the one to the broker behind it."""

    def __init__(self, client: _End, broker: _End, rules: list[Rule]) -> None:
        self._client = client
        self._broker = broker
        self._rules = rules
        self._awaited: dict[int, Rule] = {}
        """By correlation id: requests whose answers are to come, for better or worse."""
        self._client_left = False

    async def carry(self) -> None:
        """Until one of the two leaves. For an answer that a rule waits for, the broker's side stays open longer."""
        up, down = asyncio.create_task(self._carry_requests()), asyncio.create_task(self._carry_answers())
        try:
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            if self._awaited:
                await asyncio.wait({down}, timeout=ANSWER_SECONDS)
            for task in (up, down):
                if task.done():
                    task.result()
            await asyncio.gather(self._client.flush(), self._broker.flush())
        finally:
            up.cancel()
            down.cancel()
            await asyncio.gather(up, down, return_exceptions=True)

    async def _carry_requests(self) -> None:
        while (frame := await self._client.read()) is not None:
            api_key, correlation = REQUEST.unpack_from(frame)
            rule = next((rule for rule in self._rules if rule.takes(api_key)), None)
            if rule is not None:
                if isinstance(rule.fault, Cut):
                    self._awaited.clear()
                    rule.finish()
                    return
                self._awaited[correlation] = rule
                if isinstance(rule.fault, HoldRequest):
                    await self._hold(rule.fault)
            await self._broker.write(frame)
        # In a stall, not even this gets through: the broker believes in a client that is gone.
        await self._broker.flows.wait()
        self._client_left = True

    async def _hold(self, fault: HoldRequest) -> None:
        if fault.hang_up:
            self._client.writer.close()
        await asyncio.sleep(fault.seconds)

    async def _carry_answers(self) -> None:
        silent = False
        while (frame := await self._broker.read()) is not None:
            (correlation,) = ANSWER.unpack_from(frame)
            rule = self._awaited.pop(correlation, None)
            if rule is not None:
                rule.finish()
                if isinstance(rule.fault, DropReply):
                    silent = True
                    if rule.fault.close_after is not None:
                        await asyncio.sleep(rule.fault.close_after)
                        return
            if not silent:
                await self._client.write(frame)
            if self._client_left and not self._awaited:
                return
        await self._client.flows.wait()


# === Ready to use ===


@contextmanager
def proxy(broker: str, port: int | None = None) -> Iterator[Proxy]:
    """A proxy to the listener at `broker`, which must advertise the proxy's port; gone afterwards."""
    made = Proxy(broker, port or free_ports(1)[0])
    try:
        made.heal()
        yield made
    finally:
        made.close()


@contextmanager
def proxied_broker(folder: Path) -> Iterator[tuple[Node, Proxy]]:
    """A broker, at whose address the tests' own tools are undisturbed, and a proxy, at whose address a worker is not.

    Both are gone afterwards. The broker may be killed and started again meanwhile.
    """
    direct, behind, controller, public = free_ports(4)
    settings = {
        "listeners": f"PLAINTEXT://{HOST}:{direct},PROXIED://{HOST}:{behind},CONTROLLER://{HOST}:{controller}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{direct},PROXIED://{HOST}:{public}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "controller.quorum.voters": f"1@{HOST}:{controller}",
    }
    node = Node(folder, f"{HOST}:{direct}", ("--port", str(direct), "--fast-failover", *properties(settings)))
    with proxy(f"{HOST}:{behind}", public) as link:
        try:
            node.start_again()
            yield node, link
        finally:
            node.kill()
