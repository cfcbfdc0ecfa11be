"""The API under more than it can take: open-loop load from half to five times the limit and back.

A real installation: the API and a worker in processes of their own, two durable servers, the sandbox's networks. First
the limit is measured: how many people a second can submit, prove twice and have it done, when each waits for an answer.
Then people come at a rate that does not care how we are. Whoever is let in proves at once; whoever is not comes back
as somebody else's turn later. At the end every case that was accepted is looked for in the store, and must have ended.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sys
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from time import perf_counter, time
from typing import Final
from uuid import uuid4

import asyncpg
import msgspec
import structlog
import uvloop

from bench.measure import Bar, Result, Row, row
from bench.picture import Axis, Line, chart
from jiebang.app import App, open_app
from jiebang.model.proof import Method
from jiebang.participants import PARTICIPANTS
from jiebang.sandbox.processes import sandbox
from jiebang.sandbox.stage import platform_processes
from jiebang.settings import Settings
from jiebang.store.encryption import SALT_BYTES, password_hash
from jiebang.store.postgres.data_directory import remove
from jiebang.store.postgres.embedded import wait_until_stopped
from jiebang.usecases.cases.codes import derive_code

LEVELS: Final = (0.5, 1.0, 2.0, 3.0, 5.0, 5.0, 3.0, 2.0, 1.0, 0.5)
"""Load over the limit, one after the other."""
SECONDS: Final = 4
"""How long each lasts."""
CLIENTS: Final = 32
"""How many people wait for answers while the limit is measured."""
CALIBRATE_SECONDS: Final = 6.0
"""How long the limit is measured."""
SMOKE: Final = {"size": 1, "levels": (0.5, 1.0, 5.0, 0.5), "calibrate": 0.5, "people": 2_000}
CONNECTIONS: Final = 1_024
PATIENCE_S: Final = 120.0
_PEOPLE: Final = 20_000
_PASSWORD: Final = "246810"  # noqa: S105 - of people who do not exist
_OK, _CREATED, _BUSY, _FULL, _FAULT = 200, 201, 429, 503, 500
_IDENTITY: Final = (
    ", state, level, document_type, sealed, document_index, birth_date, region, changed_at",
    """, 'active', 2, 'resident_id', decode(repeat('00', 64), 'hex'), decode(lpad(to_hex(id), 64, '0'), 'hex'),
       date '1990-01-01', NULL, timestamptz '2024-01-01Z'""",
)


class Second(msgspec.Struct):
    """What happened in one second. Times of those accepted are in ms, from when they came."""

    offered: int = 0
    accepted: int = 0
    refused: int = 0
    faults: int = 0
    done: int = 0
    latencies: list[float] = []

    @property
    def p99(self) -> float:
        """The slowest but one in a hundred of those accepted; 0 where nobody was."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) * 99 // 100, len(ordered) - 1)] if ordered else 0.0


class Client:
    """Kept-alive connections to the API."""

    def __init__(self, port: int, token: str) -> None:
        self._port, self._token = port, token
        self._idle: deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = deque()
        self._places = asyncio.Semaphore(CONNECTIONS)

    async def post(self, path: str, body: bytes) -> tuple[int, bytes, bytes]:
        """Return status, head and body of an answer."""
        said = (
            f"POST {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {self._token}\r\n"
            f"content-type: application/json\r\nidempotency-key: {uuid4()}\r\n"
            f"content-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        async with self._places:
            while self._idle:
                try:
                    return await self._on(*self._idle.pop(), said)
                except (OSError, EOFError):
                    continue  # it was kept for too long; under its key the same request may come again
            return await self._on(*await asyncio.open_connection("127.0.0.1", self._port), said)

    async def _on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, said: bytes
    ) -> tuple[int, bytes, bytes]:
        writer.write(said)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        answer = await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        if b"connection: close" in head:
            writer.close()
        else:
            self._idle.append((reader, writer))
        return int(head.split()[1]), head, answer

    def close(self) -> None:
        """Close the connections."""
        for _, writer in self._idle:
            writer.close()


class Crowd:
    """People who submit and prove, and the outcomes."""

    def __init__(self, app: App, client: Client, people: Sequence[int]) -> None:
        self._app, self._client = app, client
        self.people = deque(people)
        self.accepted: dict[str, int] = {}
        self.seconds: dict[int, Second] = {}
        self.unsaid = 0
        self.odd = b""
        self._waiting: set[asyncio.Task[bool]] = set()
        self.statuses: dict[int, int] = {}

    def second(self, at: float) -> Second:
        """Return the record of the second that `at` falls into."""
        return self.seconds.setdefault(int(at), Second())

    async def submit(self) -> bool:
        """Have the next person submit, and prove if let in; whether they were."""
        account = self.people.popleft()
        came, began = time(), perf_counter()
        self.second(came).offered += 1
        status, head, answer = await self._client.post("/v1/cases", b'{"account":"%d","kind":"revoke"}' % account)
        self.statuses[status] = self.statuses.get(status, 0) + 1
        if status == _CREATED:
            case = msgspec.json.decode(answer)["id"]
            self.accepted[case] = account
            self.second(came).accepted += 1
            self.second(came).latencies.append((perf_counter() - began) * 1000)
            await self._prove(case, account)
            return True
        if status in (_BUSY, _FULL):
            self.second(came).refused += 1
            self.unsaid += b"\r\nretry-after: " not in head or b'"zh"' not in answer or b'"en"' not in answer
        else:
            self.second(came).faults += 1
            self.odd = answer
        self.people.append(account)
        return False

    async def _prove(self, case: str, account: int) -> None:
        """Prove, and again where the answer was to come back: a person does not give up half way."""
        row = await self._app.pools["platform"].fetchrow(
            "SELECT case_no, nonce FROM platform.proof WHERE account_id = $1 AND nonce IS NOT NULL", account
        )
        if row is None:
            return
        digits = self._app.context.pack().proofs[next(iter(self._app.context.pack().proofs))].code_digits
        secrets = {
            Method.PAYMENT_PASSWORD: _PASSWORD,
            Method.SMS_CODE: derive_code(self._app.secrets.codes, account, row["case_no"], row["nonce"], digits),
        }
        for method, secret in secrets.items():
            body = msgspec.json.encode({"method": method.value, "secret": secret})
            status = _FULL
            while status in (_BUSY, _FULL):
                status, head, _ = await self._client.post(f"/v1/cases/{case}/proofs", body)
                self.statuses[status] = self.statuses.get(status, 0) + 1
                if status in (_BUSY, _FULL):
                    await asyncio.sleep(int(head.partition(b"retry-after: ")[2].partition(b"\r\n")[0]))
            if status != _OK:
                self.second(time()).faults += 1

    async def limit(self, seconds: float) -> float:
        """Return how many a second are let in and proven when a few people take turns, each waiting for the answer."""
        until = perf_counter() + seconds
        before = len(self.accepted)

        async def one() -> None:
            while perf_counter() < until:
                if not await self.submit():
                    await asyncio.sleep(0.05)

        began = perf_counter()
        await asyncio.gather(*(one() for _ in range(CLIENTS)))
        if len(self.accepted) == before:
            raise RuntimeError(self.odd.decode(errors="replace") or "nobody was let in")
        return (len(self.accepted) - before) / (perf_counter() - began)

    async def come(self, rate: float, seconds: float) -> None:
        """Start submissions at `rate` a second, without waiting for answers. Returns after the last start."""
        began, count = perf_counter(), int(rate * seconds)
        for number in range(count):
            pause = began + number / rate - perf_counter()
            if pause > 0:
                await asyncio.sleep(pause)
            task = asyncio.create_task(self.submit())
            self._waiting.add(task)
            task.add_done_callback(self._waiting.discard)

    async def left(self) -> None:
        """Wait for the last answers."""
        while self._waiting:
            await asyncio.wait(self._waiting)


def _now() -> datetime:
    return datetime.now(UTC)


async def _fill(app: App, people: int) -> None:
    """Insert people without blockers into all databases."""
    for name in PARTICIPANTS.databases:
        columns, values = _IDENTITY if name.startswith("identity") else ("", "")
        await app.pools[name].execute(
            f"""INSERT INTO {PARTICIPANTS.owner_of(name)}.account (account_id{columns})
                SELECT id{values} FROM generate_series(1, $1::bigint) id""",  # noqa: S608 - names of ours
            people,
            timeout=300,
        )
    await app.pools["platform"].execute(
        "INSERT INTO platform.account (account_id, created_at) SELECT id, now() FROM generate_series(1, $1::bigint) id",
        people,
    )
    salt = bytes(SALT_BYTES)
    await app.pools["wallet"].execute(
        "UPDATE wallet.account SET password_salt = $1, password_hash = $2",
        salt,
        password_hash(app.secrets.passwords, salt, _PASSWORD),
        timeout=300,
    )


@asynccontextmanager
async def _open_api(people: int) -> AsyncIterator[tuple[App, Client]]:
    folder = Path(tempfile.mkdtemp(prefix="jiebang-bench-"))
    folder.chmod(0o711)  # noqa: ASYNC240 - the database's own user must get in; nothing else runs yet
    home = folder / "home"
    settings = Settings(home=home, keys=home / "keys", sandbox=True)
    try:
        async with open_app(settings) as first:
            await _fill(first, people)
        async with (
            sandbox(home) as outside,
            open_app(settings) as app,
            platform_processes(home, api_port=0) as processes,
        ):
            client = Client(processes["api"].port, outside.issuer.service("bench", _now(), str(uuid4())))
            yield app, client
            client.close()
    finally:
        await wait_until_stopped(home)
        remove(home)
        shutil.rmtree(folder, ignore_errors=True)


async def _wait_for_ends(app: App, crowd: Crowd) -> tuple[int, int]:
    """Wait for the accepted cases to end; return how many are not in the store, and how many have not ended."""
    keys = [app.case_ids.decode(case) for case in crowd.accepted]
    accounts, numbers = [key[0] for key in keys if key], [key[1] for key in keys if key]
    fresh = await asyncpg.connect(app.databases["platform"])
    try:
        until = perf_counter() + PATIENCE_S
        while True:
            rows = await fresh.fetch(
                """SELECT c.state, c.ended_at FROM unnest($1::bigint[], $2::bigint[]) AS i (account_id, case_no)
                   JOIN platform.cases c USING (account_id, case_no)""",
                accounts,
                numbers,
            )
            going = [found for found in rows if found["ended_at"] is None]
            if not going or perf_counter() > until:
                break
            await asyncio.sleep(0.5)
    finally:
        await fresh.close()
    for found in rows:
        if found["state"] == "done":
            crowd.second(found["ended_at"].timestamp()).done += 1
    return len(crowd.accepted) - len(rows), sum(found["state"] != "done" for found in rows)


async def _measure(
    seconds: int, levels: Sequence[float], calibrate: float, people: int
) -> tuple[float, list[tuple[float, Second]], Crowd, tuple[int, int]]:
    async with _open_api(people) as (app, client):
        crowd = Crowd(app, client, range(1, people + 1))
        await crowd.limit(calibrate / 3)  # plans and connections are warm after this
        limit = await crowd.limit(calibrate)
        await asyncio.sleep(calibrate / 3)  # what is left of it ends
        crowd.seconds.clear()
        began = int(time()) + 1
        await asyncio.sleep(began - time())
        for level in levels:
            await crowd.come(limit * level, seconds)
        await crowd.left()
        missing = await _wait_for_ends(app, crowd)
        each = [level for level in levels for _ in range(seconds)]
        seconds_seen = [(level, crowd.second(began + at)) for at, level in enumerate(each)]
    return limit, seconds_seen, crowd, missing


def _table(limit: float, seconds_seen: Sequence[tuple[float, Second]]) -> str:
    heads = "  second   load  offered accepted  refused     done   p99 ms"
    lines = [
        f"  {at:6}  {level:4.1f}x {one.offered:8} {one.accepted:8} {one.refused:8} {one.done:8} {one.p99:8.0f}"
        for at, (level, one) in enumerate(seconds_seen, 1)
    ]
    return "\n".join([f"  limit: {limit:.0f} cases a second", heads, *lines])


def _picture(seconds_seen: Sequence[tuple[float, Second]], levels: Sequence[float], path: Path) -> None:
    per = len(seconds_seen) // len(levels)
    starts = [0, *accumulate(per for _ in levels)][:-1]
    places = [(float(at), (f"{level:g}×", f"{at} s")) for at, level in zip(starts, levels, strict=True)]

    def line(zh: str, en: str, name: str) -> Line:
        return Line((zh, en), [(float(at), float(getattr(one, name))) for at, (_, one) in enumerate(seconds_seen)])

    path.write_text(
        chart(
            ("负载升至上限五倍再回落", "Load to five times the limit and back"),
            Axis(("负载(占上限)与时间", "load over the limit, and time"), places),
            Axis(("每秒申请数", "cases a second")),
            [
                line("到来", "offered", "offered"),
                line("受理", "accepted", "accepted"),
                line("拒绝", "refused", "refused"),
                line("办结", "done", "done"),
            ],
        ),
        encoding="utf-8",
    )


def _mean(seconds_seen: Sequence[tuple[float, Second]], level: float, name: str) -> float:
    found = [getattr(one, name) for each, one in seconds_seen if each == level]
    return float(sum(found)) / len(found)


def run(
    rounds: int,
    size: int | None,
    *,
    picture: str | None = None,
    levels: Sequence[float] = LEVELS,
    calibrate: float = CALIBRATE_SECONDS,
    people: int = _PEOPLE,
) -> Result:
    """Measure once, whatever `rounds` says. `size`: seconds of each level. `picture`: where to draw it, as SVG.

    `levels`: load over the limit, one after the other; `calibrate`: seconds in which the limit is measured.
    """
    del rounds
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    seconds = size or SECONDS
    limit, seconds_seen, crowd, (lost, unended) = uvloop.run(_measure(seconds, levels, calibrate, people))
    sys.stderr.write(_table(limit, seconds_seen) + os.linesep)
    if picture:
        _picture(seconds_seen, levels, Path(picture))
    rows = [row("limit", "cases/s", [limit], f"{CLIENTS} people, each waiting for the answer")]
    for level in sorted(set(levels)):
        for name in ("offered", "accepted", "refused", "done", "p99"):
            unit = "ms" if name == "p99" else "cases/s"
            rows.append(row(f"{level:g}x: {name}", unit, [_mean(seconds_seen, level, name)]))
    rows.append(Row("accepted, all", "cases", len(crowd.accepted), [len(crowd.accepted)]))
    calm = [one for _, one in seconds_seen[-max(seconds // 2, 1) :]]
    offered = sum(one.offered for one in calm)
    faults = sum(count for status, count in crowd.statuses.items() if status >= _FAULT and status != _FULL)
    bars = [
        Bar("5xx other than 503", faults, at_most=0),
        Bar("refusals without Retry-After or a language", crowd.unsaid, at_most=0),
        Bar("accepted, not in the store", lost, at_most=0),
        Bar("accepted, not done in the end", unended, at_most=0),
        Bar("refused once load has fallen, share", sum(one.refused for one in calm) / max(offered, 1), at_most=0.01),
        Bar(
            "done at 5x / at 1x",
            _mean(seconds_seen, 5.0, "done") / max(_mean(seconds_seen, 1.0, "done"), 1),
            at_least=0.7,
        ),
    ]
    return Result(rows, bars)
