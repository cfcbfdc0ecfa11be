"""The check, served: single checks coalesced against the same service without, and against batches of 256 accounts.

Two processes serve the whole product over the same two database servers with the same people; one of them joins single
checks, the other does not. 64 clients on connections of their own ask for one person at a time, each with that person's
token, or, as a service, for 256 at a time. Whatever comes back without every fact read does not count, and is told.
Evaluation alone is measured beside it, against zen-engine on the same facts: our columns as the check has them, zen's
as mappings ready in memory. The bar is against zen's decision graph, the form in which rules are kept and explained;
the row beside it is everything flattened into one compiled expression, the fastest form it has.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import msgspec
import uvicorn
import uvloop

from bench import zen_rules
from bench.measure import Bar, Result, Row, ratio, row
from jiebang.api.gate.capacity import Capacity
from jiebang.app import App, open_app
from jiebang.model.case import Kind
from jiebang.participants import PARTICIPANTS
from jiebang.policy.calendar import with_calendar
from jiebang.policy.evaluate import evaluate, run_rules
from jiebang.sandbox.issuer import SandboxIssuer
from jiebang.sandbox.population.generate import generate_chunks
from jiebang.sandbox.population.load import load
from jiebang.sandbox.population.tables import LoadKeys
from jiebang.settings import Settings
from jiebang.store.postgres.data_directory import remove
from jiebang.store.postgres.embedded import wait_until_stopped
from jiebang.usecases.checks.check import Checker

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from jiebang.policy.frame import Facts
    from jiebang.policy.pack import Pack

_PEOPLE: Final = 2_000
_CLIENTS: Final = 64
_BATCH: Final = 256
_SECONDS: Final = 4.0
"""How long each way is asked in a round."""
SMOKE: Final = {"size": 64, "seconds": 0.2}
_SEED: Final = 7
_CALLS: Final = 20
_UNREAD: Final = b'"FACT-UNAVAILABLE"'


def _settings(home: Path) -> Settings:
    # The work is measured, not the gate, which would refuse so many requests from one address.
    much = 1_000_000
    wide = Capacity(
        places=much,
        within=timedelta(days=1),  # there are as many places as requests end in this time, and few end at first
        line=much,
        wait=timedelta(minutes=1),
        bodies_per_address=much,
        person_rate=much,
        person_burst=much,
        service_rate=much,
        service_burst=much,
        unproven_rate=much,
        unproven_burst=much,
    )
    return Settings(home=home, keys=home / "keys", sandbox=True, capacity=wide)


def _now() -> datetime:
    return datetime.now(UTC)


# --- The service -----------------------------------------------------------------------------------------------------


def _serve(home: str, coalescing: bool, tell: Connection) -> None:
    """Serve the product in this process until it is killed; report the port."""
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123 - as long as the process lives
    uvloop.run(_serve_until_killed(Path(home), tell, coalescing=coalescing))


async def _serve_until_killed(home: Path, tell: Connection, *, coalescing: bool) -> None:
    async with open_app(_settings(home), pool_size=16) as opened:
        app = opened if coalescing else _without_coalescing(opened)
        config = uvicorn.Config(
            app.api(), port=0, loop="none", http="httptools", ws="none", access_log=False, log_config=None
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 - uvicorn offers no event
            await asyncio.sleep(0.01)
        tell.send(server.servers[0].sockets[0].getsockname()[1])
        await serving


def _without_coalescing(app: App) -> App:
    checker = Checker(
        registry=PARTICIPANTS,
        pack=app.context.pack,
        participants=app.participants,
        platform=app.pools["platform"],
        case_ids=app.case_ids,
        clock=_now,
        window=None,
        shadow=app.shadow,
    )
    context = msgspec.structs.replace(app.context, check=checker, examine=checker.examine)
    return msgspec.structs.replace(app, checker=checker, context=context)


class _Services:
    """The two processes, and what to send them."""

    def __init__(self, home: Path) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.ports: dict[bool, int] = {}
        self._processes = []
        for coalescing in (True, False):
            mine, theirs = spawn.Pipe(duplex=False)
            process = spawn.Process(target=_serve, args=(str(home), coalescing, theirs), daemon=True)
            process.start()
            self._processes.append(process)
            if not mine.poll(60):
                message = "the service did not start"
                raise RuntimeError(message)
            self.ports[coalescing] = mine.recv()

    def close(self) -> None:
        for process in self._processes:
            process.terminate()
            process.join(10)


# --- The clients -----------------------------------------------------------------------------------------------------


def _request(token: str, accounts: Sequence[int]) -> bytes:
    body = msgspec.json.encode({"accounts": [str(each) for each in accounts], "kind": "revoke"})
    head = (
        f"POST /v1/checks HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {token}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> bytes:
    """Send one request and return the body of its answer. Raises RuntimeError for anything but 200."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    body = await reader.readexactly(int(length.partition(b":")[2]))
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(body.decode(errors="replace"))
    return body


class _Tally:
    """What the clients of one turn counted."""

    def __init__(self) -> None:
        self.accounts, self.unread = 0, 0
        self.latencies: list[float] = []


async def _client(port: int, requests: Sequence[bytes], accounts: int, until: float, tally: _Tally) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 26)
    try:
        for request in itertools.cycle(requests):
            began = time.perf_counter()
            if began >= until:
                return
            body = await _ask(reader, writer, request)
            tally.latencies.append(time.perf_counter() - began)
            if _UNREAD in body:
                tally.unread += accounts
            else:
                tally.accounts += accounts
    finally:
        writer.close()


async def _turn(port: int, requests: Sequence[Sequence[bytes]], accounts: int, seconds: float) -> tuple[float, _Tally]:
    """Have all clients ask for `seconds`; return accounts answered a second, until the last answer is in."""
    tally, began = _Tally(), time.perf_counter()
    await asyncio.gather(*(_client(port, own, accounts, began + seconds, tally) for own in requests))
    return tally.accounts / (time.perf_counter() - began), tally


# --- Measuring -------------------------------------------------------------------------------------------------------


async def _http(app: App, services: _Services, rounds: int, people: int, seconds: float) -> tuple[list[Row], list[Bar]]:
    chance, issuer = random.Random(_SEED), SandboxIssuer(app.settings.home)
    ids = list(range(1, people + 1))
    tokens = {each: issuer.person(each, _now(), str(uuid4()), device=f"bench-{each}") for each in ids}
    service = issuer.service("bench", _now(), str(uuid4()))
    shuffled = chance.sample(ids, len(ids))
    singles = [[_request(tokens[each], [each]) for each in shuffled[at::_CLIENTS]] for at in range(_CLIENTS)]
    batch = min(_BATCH, people)
    batches = [[_request(service, chance.sample(ids, batch))] for _ in range(_CLIENTS)]
    ways: dict[str, tuple[int, list[list[bytes]], int]] = {
        "uncoalesced": (services.ports[False], singles, 1),
        "coalesced": (services.ports[True], singles, 1),
        "batches": (services.ports[True], batches, batch),
    }
    figures: dict[str, list[float]] = {name: [] for name in ways}
    tallies: dict[str, _Tally] = {name: _Tally() for name in ways}
    names = list(ways)
    for number in range(-1, rounds):
        for place in range(len(names)):
            name = names[(place + number) % len(names)]
            figure, tally = await _turn(*ways[name], seconds)
            if number >= 0:
                figures[name].append(figure)
                tallies[name].latencies += tally.latencies
                tallies[name].unread += tally.unread
    notes = {
        "uncoalesced": "single checks, coalescing off",
        "coalesced": "single checks, coalescing on",
        "batches": f"POST /v1/checks with {batch} accounts",
    }
    rows = []
    for name, note in notes.items():
        unread = tallies[name].unread
        told = note + (f"; {unread} accounts with facts unread not counted" if unread else "")
        rows.append(row(f"{name}: rate", "accounts/s", figures[name], told))
        ordered = sorted(tallies[name].latencies)
        rows += [
            row(f"{name}: p{percent}", "ms", [ordered[len(ordered) * percent // 100] * 1000], "of one answer")
            for percent in (50, 99)
        ]
    bars = [
        Bar("coalesced / uncoalesced", ratio(figures["coalesced"], figures["uncoalesced"]), at_least=3),
        Bar("batches / uncoalesced, an account", ratio(figures["batches"], figures["uncoalesced"]), at_least=10),
    ]
    return rows, bars


def _evaluation(pack: Pack, facts: Facts, rounds: int) -> tuple[list[Row], list[Bar]]:
    """Time the rules over a batch of 256, ours against zen's. Raises RuntimeError where they differ."""
    rules, now = pack.rules_of[Kind.REVOKE], _now()
    names = frozenset().union(*(rule.when.names for rule in rules))
    mappings = zen_rules.contexts(with_calendar(facts.frame, names, now, PARTICIPANTS), names)
    graph, expression = zen_rules.decision(pack, rules), zen_rules.expression(pack, rules)
    truth = [list(one) for one in run_rules(pack, facts, Kind.REVOKE, now)[1].iter_rows()]
    if [graph(one) for one in mappings] != truth or [expression(one) for one in mappings] != truth:
        message = "the rival finds something else than the columns"
        raise RuntimeError(message)
    work: Mapping[str, Callable[[], object]] = {
        "ours: rules": lambda: run_rules(pack, facts, Kind.REVOKE, now),
        "ours: rules and every word": lambda: evaluate(pack, facts, Kind.REVOKE, now),
        "zen: decision graph": lambda: [graph(one) for one in mappings],
        "zen: one expression": lambda: [expression(one) for one in mappings],
    }
    size, figures = len(facts.accounts), dict[str, list[float]]()
    for name in [name for _ in range(rounds + 1) for name in work]:
        began = time.perf_counter()
        for _ in range(_CALLS):
            work[name]()
        figures.setdefault(name, []).append(size * _CALLS / (time.perf_counter() - began))
    counted = {name: those[1:] for name, those in figures.items()}
    notes = {
        "ours: rules": f"{len(rules)} rules, batches of {size}",
        "ours: rules and every word": "the whole answer, both languages",
        "zen: decision graph": "the same rules, raised or not",
        "zen: one expression": "the fastest form it has",
    }
    rows = [row(name, "accounts/s", those, notes[name]) for name, those in counted.items()]
    bars = [
        Bar(
            "evaluation / zen decision graph",
            ratio(counted["ours: rules"], counted["zen: decision graph"]),
            at_least=20,
        ),
    ]
    return rows, bars


@asynccontextmanager
async def _open_installation(people: int) -> AsyncIterator[tuple[App, Path]]:
    """Open an installation of our own with `people` in it."""
    folder = Path(tempfile.mkdtemp(prefix="jiebang-bench-"))
    folder.chmod(0o711)  # noqa: ASYNC240 - the database's own user must get in; nothing else runs yet
    home = folder / "home"
    try:
        async with open_app(_settings(home), pool_size=16) as app:
            keys = LoadKeys(app.locks, app.secrets.documents, app.secrets.passwords)
            lines = b"".join(generate_chunks(people, _SEED, now=_now() - timedelta(days=1)))
            await load(BytesIO(lines), app.databases, keys, now=_now() + timedelta(days=1))
            yield app, home
    finally:
        await wait_until_stopped(home)
        remove(home)
        shutil.rmtree(folder, ignore_errors=True)


async def _measure(rounds: int, people: int, seconds: float) -> Result:
    async with _open_installation(people) as (app, home):
        facts = await app.checker.facts(range(1, min(_BATCH, people) + 1))
        rows, bars = _evaluation(app.context.pack(), facts, rounds)
        services = await asyncio.to_thread(_Services, home)
        try:
            more_rows, more_bars = await _http(app, services, rounds, people, seconds)
        finally:
            await asyncio.to_thread(services.close)
    return Result(more_rows + rows, more_bars + bars)


def run(rounds: int, size: int | None, *, seconds: float = _SECONDS) -> Result:
    """Measure; `size` is how many people there are, `seconds` how long each way is asked in a round."""
    return uvloop.run(_measure(rounds, size or _PEOPLE, seconds))
