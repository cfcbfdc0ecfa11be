"""One person's unreadable facts must not block strangers: a bad row of every kind, at every reader."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import asyncpg
import polars as pl
import pytest

from jiebang.model.case import Case, Kind, State
from jiebang.model.ids import CaseIds
from jiebang.model.origin import Origin
from jiebang.participants import PARTICIPANTS
from jiebang.participants.opening import open_participants
from jiebang.participants.wallet.movements import Transfer
from jiebang.policy.frame import read_column
from jiebang.saga.coordinator import FACT_UNAVAILABLE
from jiebang.usecases.cases.prove import read_wallet_version
from jiebang.usecases.checks.check import Checker
from jiebang.usecases.checks.request import CheckRequest
from jiebang.usecases.operations.verify import verify
from jiebang.usecases.policy.export_facts import export_facts
from tests.packs import pack
from tests.rows import BOUND, insert

if TYPE_CHECKING:
    from jiebang.participants.base import Participant
    from jiebang.store.postgres.pool import Pool

NOW: Final = datetime(2026, 3, 15, 4, 0, tzinfo=UTC)
LONG_AGO: Final = datetime(2024, 1, 1, tzinfo=UTC)
PACK: Final = pack("wechat")
BAD: Final = 5
GOOD: Final = (1, 2, 3, 4, 6, 7, 8)
EVERYONE: Final = tuple(range(1, 9))
FEN_LIMIT: Final = 2**63 - 1

EXTREMES: Final[Mapping[str, tuple[str, ...]]] = {
    "timestamp with time zone": (
        "'infinity'", "'-infinity'", "'20000-01-01'", "'4713-01-01 BC'", "'9999-12-31 23:59:59Z'", "'0001-01-01Z'",
    ),
    "date": ("'infinity'", "'-infinity'", "'20000-01-01'", "'4713-01-01 BC'", "'9999-12-31'", "'0001-01-01'"),
    "bigint": (str(FEN_LIMIT), str(-FEN_LIMIT - 1), "0"),
    "integer": (str(2**31 - 1), str(-(2**31)), "0"),
    "smallint": (str(2**15 - 1), str(-(2**15)), "0"),
    "text": ("''", "repeat('x', 100000)", "E'\\x01\\u202e{balance_fen}{}'"),
    "text[]": ("'{}'", "array[NULL]::text[]", "array[repeat('x', 10000)]"),
    "uuid": ("'00000000-0000-0000-0000-000000000000'",),
    "bytea": ("''", "sha256('x')"),
    "bytea[]": ("'{}'", "array[NULL]::bytea[]", "array[sha256('x')]"),
    "bigint[]": ("'{}'", "array[NULL]::bigint[]", "array[-1]"),
    "boolean": ("true", "false"),
}  # fmt: skip
"""By type: the values at its ends, as SQL. Whatever a CHECK refuses is no row that a schema admits."""

ROWS: Final[Mapping[str, tuple[str, str]]] = {
    "wallet.entry": ("wallet", """INSERT INTO wallet.entry
        (account_id, entry_id, kind, title, amount_fen, state, made_at)
        VALUES ($1, gen_random_uuid(), 'payment', 't', -1, 'pending', now())"""),
    "wallet.red_packet": ("wallet", """INSERT INTO wallet.red_packet
        (account_id, packet_id, sender, amount_fen, state, sent_at, expires_at)
        VALUES ($1, 1, 's', 1, 'unclaimed', now(), now() + interval '1 day')"""),
    "wallet.bank_card": ("wallet", "INSERT INTO wallet.bank_card VALUES ($1, 1, 1, 'b', 'debit', '1234', now())"),
    "wallet.autodebit_contract": ("wallet", """INSERT INTO wallet.autodebit_contract
        (account_id, contract_id, merchant, service, signed_at) VALUES ($1, 1, 'm', 's', now())"""),
    "wallet.credit_product": ("wallet", "INSERT INTO wallet.credit_product VALUES ($1, 1, 'p', 1, now())"),
    "wallet.arrears": ("wallet", "INSERT INTO wallet.arrears VALUES ($1, 1, 't', 1, now())"),
    "wallet.freeze": ("wallet", "INSERT INTO wallet.freeze VALUES ($1, 1, 'a', 'c', 1, now())"),
    "security.device": ("security", """INSERT INTO security.device
        VALUES ($1, 'd', 'ios', 'm', 'v', false, now(), now())"""),
    "security.login": ("security", "INSERT INTO security.login VALUES ($1, 1, 'd', 'p', now(), 'new_device')"),
    "security.hold": ("security", "INSERT INTO security.hold VALUES ($1, 1, 'legal', 'a', 'c', now())"),
    "social.contact": ("social", "INSERT INTO social.contact VALUES ($1, 99, 'r', false, now())"),
}  # fmt: skip
"""A row of each table that facts are made of, beside the participants' account rows."""


class World:
    """Eight people in all databases, of whom one will have a row that cannot be read."""

    def __init__(self, pools: Mapping[str, Pool]) -> None:
        self.pools = pools
        self.participants: Mapping[str, Participant] = open_participants(
            PARTICIPANTS, pools, lambda: NOW, pepper=b"p" * 32
        )

    def checker(self, window: timedelta | None = timedelta(milliseconds=2)) -> Checker:
        return Checker(
            registry=PARTICIPANTS,
            pack=lambda: PACK,
            participants=self.participants,
            platform=self.pools["platform"],
            case_ids=CaseIds(b"0123456789abcdef"),
            clock=lambda: NOW,
            limit=timedelta(seconds=20),
            window=window,
        )

    async def fill(self) -> None:
        await insert(
            self.pools["platform"], "platform.account", [{"account_id": e, "created_at": NOW} for e in EVERYONE]
        )
        for name in PARTICIPANTS.databases:
            owner = name.split("_")[0]
            own: dict[str, Any] = {**BOUND, "changed_at": LONG_AGO} if owner == "identity" else {}
            if owner == "security":
                own = {"primary_device_id": "phone-1", "primary_device_since": LONG_AGO}
            await insert(self.pools[name], f"{owner}.account", [{"account_id": one, **own} for one in EVERYONE])
        for name, statement in ROWS.values():
            await self.pools[name].execute(statement, BAD)


@pytest.fixture(scope="module")
async def world(pools: Mapping[str, Pool]) -> World:
    made = World(pools)
    await made.fill()
    return made


@asynccontextmanager
async def changed(pool: Pool, statement: str, *, table: str) -> AsyncIterator[bool]:
    """Change the bad person's rows of a table for a while; yields whether the schema admitted it."""
    kept = await pool.fetch(f"SELECT * FROM (SELECT t::text AS row FROM {table} t WHERE account_id = $1) AS k", BAD)  # noqa: S608 - ROWS
    try:
        await pool.execute(statement, BAD)
    except asyncpg.PostgresError:
        yield False
        return
    try:
        yield True
    finally:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(f"DELETE FROM {table} WHERE account_id = $1", BAD)  # noqa: S608 - ROWS
            for row in kept:
                await connection.execute(f"INSERT INTO {table} SELECT (($1::text)::{table}).*", row["row"])


async def columns(pool: Pool, table: str) -> list[tuple[str, str]]:
    rows = await pool.fetch(
        """SELECT attname, format_type(atttypid, atttypmod) AS type FROM pg_attribute
           WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped AND attname <> 'account_id'""",
        table,
    )
    return [(row["attname"], row["type"]) for row in rows]


def places() -> list[tuple[str, str]]:
    """Each table that facts are made of, with a database that holds it."""
    own = {name: name.split("_")[0] for name in PARTICIPANTS.databases}
    return [(name, f"{owner}.account") for name, owner in own.items()] + [
        (at, table) for table, (at, _) in ROWS.items()
    ]


def blocked_for_facts(answers: Any) -> set[int]:
    return {one.account_id for one in answers if FACT_UNAVAILABLE in {each.code for each in one.blockers}}


@pytest.mark.parametrize(("name", "table"), places(), ids=str)
async def test_whatever_stands_in_one_row_the_others_are_answered(world: World, name: str, table: str) -> None:
    """Each column of each table at the ends of its type: strangers must get the answer that they get without it."""
    checker, pool = world.checker(), world.pools[name]
    requests = [CheckRequest(one, Origin("phone-1")) for one in EVERYONE]
    alone = {
        one.account_id: one
        for one in await checker.check([CheckRequest(a, Origin("phone-1")) for a in GOOD], Kind.REVOKE)
        for one in await checker.check([CheckRequest(a, Origin("phone-1")) for a in GOOD], Kind.REVOKE)
    }
    for column, kind in await columns(pool, table):
        for value in EXTREMES[kind]:
            where = f"{table}.{column} = {value}"
            change = f"UPDATE {table} SET {column} = {value}::{kind} WHERE account_id = $1"  # noqa: S608 - ROWS, EXTREMES
            async with changed(pool, change, table=table) as admitted:
                if not admitted:
                    continue
                answers = {one.account_id: one for one in await checker.check(requests, Kind.REVOKE)}
            assert set(answers) == set(EVERYONE), where
            for good in GOOD:
                assert answers[good] == alone[good], where
            # Whatever became of the bad one: what is unread blocks, and so do the rows that it has.
            assert answers[BAD].passes is False, where


async def owe_too_much(pool: Pool) -> None:
    """Debts whose sum is beyond a bigint, each of an amount that the format of a population allows."""
    await pool.execute(
        """INSERT INTO wallet.arrears
           SELECT $1, n, 't', 9007199254740991, now(), NULL FROM generate_series(2, 1101) n""",
        BAD,
    )


@pytest.fixture(params=["sum beyond a bigint", "a time no client can read"])
async def bad(world: World, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """The bad person's facts: too large a sum, which must be read all the same, or a time that cannot be."""
    wallet, security = world.pools["wallet"], world.pools["security"]
    if request.param == "sum beyond a bigint":
        await owe_too_much(wallet)
        await wallet.execute(
            "INSERT INTO wallet.freeze SELECT $1, n, 'a', 'c', $2::bigint, now(), NULL FROM generate_series(2, 3) n",
            BAD,
            FEN_LIMIT,
        )
    else:
        await security.execute(
            "UPDATE security.account SET primary_device_since = '20000-01-01' WHERE account_id = $1", BAD
        )
    yield str(request.param)
    await wallet.execute("DELETE FROM wallet.arrears WHERE arrears_id > 1")
    await wallet.execute("DELETE FROM wallet.freeze WHERE freeze_id > 1")
    await security.execute("UPDATE security.account SET primary_device_since = $2 WHERE account_id = $1", BAD, LONG_AGO)


def unread(bad: str) -> set[int]:
    return {BAD} if bad == "a time no client can read" else set()


async def test_in_one_request_with_it(world: World, bad: str) -> None:
    """103 got FACT-UNAVAILABLE because they were asked about together with a stranger."""
    answers = await world.checker().check([CheckRequest(one, Origin("phone-1")) for one in EVERYONE], Kind.REVOKE)
    assert blocked_for_facts(answers) == unread(bad)


async def test_coalesced_with_it(world: World, bad: str) -> None:
    """Callers who do not know of each other share a batch."""
    checker = world.checker(timedelta(milliseconds=50))
    asked = (checker.check([CheckRequest(one, Origin("phone-1"))], Kind.REVOKE) for one in EVERYONE)
    answers = [answer for [answer] in await asyncio.gather(*asked)]
    assert blocked_for_facts(answers) == unread(bad)


async def test_rechecked_with_it(world: World, bad: str) -> None:
    """Seven good cases stayed `ready` as long as that one was due."""
    cases = [
        Case(
            account_id=one, case_no=1, kind=Kind.REVOKE, state=State.READY, plan="wechat/2", marks="." * 11,
            revision=1, created_at=NOW, device_id="phone-1",
        )
        for one in EVERYONE
    ]  # fmt: skip
    found = await world.checker().recheck(cases)
    waiting = {key[0] for key, each in found.items() if None in each.versions.values()}
    assert waiting == unread(bad)


async def test_exported_with_it(world: World, bad: str, tmp_path: Path) -> None:
    """A backtest over people of whom a whole page was unread judges a policy by nothing."""
    target = tmp_path / "facts.parquet"
    await export_facts(world.checker(None), world.pools["platform"], target)
    frame = pl.read_parquet(target)
    read = pl.all_horizontal(read_column("wallet"), read_column("security"))
    assert set(frame.filter(~read)["account_id"].to_list()) == unread(bad)


async def test_the_version_at_the_last_proof(world: World, bad: str) -> None:
    """Nobody's last proof may be refused for what another's wallet holds, nor one's own for owing much."""
    wallet = world.participants["wallet"]

    asking: Any = SimpleNamespace(wallet=wallet)
    assert [await read_wallet_version(asking, one) for one in EVERYONE] == [1] * len(EVERYONE)
    assert bad


async def test_audited_with_it(world: World, bad: str) -> None:
    """An audit that one row ends audits nobody."""
    report = await verify(
        pool=world.pools["platform"],
        participants=world.participants,
        wallet=world.participants["wallet"],  # type: ignore[arg-type]
        plan_of=lambda case: PACK.plans[case.kind],
        settle=timedelta(milliseconds=1),
    )
    assert (report.accounts, report.unread) == (len(EVERYONE), [])
    assert bad


async def test_all_transfers_are_added_up_whatever_their_amounts(world: World) -> None:
    """Three people with absurd amounts would leave the whole ledger unaudited."""
    wallet = world.pools["wallet"]
    await wallet.execute(
        """INSERT INTO wallet.entry
               (account_id, entry_id, kind, counterparty_id, title, amount_fen, state, made_at, ended_at)
           SELECT 1, gen_random_uuid(), 'transfer', 2, 't', $1::bigint, 'completed', now(), now()
           FROM generate_series(1, 3)""",
        FEN_LIMIT,
    )
    assert await world.participants["wallet"].transfers_fen() == 3 * FEN_LIMIT  # type: ignore[attr-defined]
    await wallet.execute("DELETE FROM wallet.entry WHERE kind = 'transfer'")


async def test_a_transfer_that_cannot_be_completed_holds_up_no_other(world: World) -> None:
    """Whose receiver's balance would overflow: the sweeper would try all of them together, in vain, for ever."""
    wallet: Any = world.participants["wallet"]
    await world.pools["wallet"].execute(
        "UPDATE wallet.account SET balance_fen = CASE account_id WHEN $1 THEN $2::bigint ELSE 100 END", BAD, FEN_LIMIT
    )
    transfers = [Transfer(transfer_id=uuid4(), sender=1, receiver=to, amount_fen=1, title="t") for to in (2, BAD, 3)]
    begun = await wallet.begin_transfers(transfers)
    assert all(one.refusal is None for one in begun)
    assert await wallet.complete_pending(NOW + timedelta(days=1)) == 2
    pending = (
        "SELECT counterparty_id FROM wallet.entry WHERE state = 'pending' AND kind = 'transfer' AND amount_fen < 0"
    )
    assert [row[0] for row in await world.pools["wallet"].fetch(pending)] == [BAD]
