"""Loading people: all or nothing, every bad line told, nothing personal in clear, and twice is refused."""

from __future__ import annotations

import asyncio
import io
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import asyncpg
import msgspec
import pytest

from jiebang.policy.coarse import coarsen_birth_date
from jiebang.policy.documents import make_resident_id
from jiebang.sandbox.ledger import Binding
from jiebang.sandbox.population.format import Person
from jiebang.sandbox.population.generate import generate
from jiebang.sandbox.population.load import LoadBrokenError, LoadRefusedError, load
from jiebang.sandbox.population.tables import LoadKeys
from jiebang.store import encryption
from jiebang.store.retention.key_wrapping import MASTER, RETENTION, FileWrappingKey, KeyLocks, OwnedKey

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

NOW = datetime(2026, 1, 15, 4, tzinfo=UTC)
LOCKS = KeyLocks(
    master=FileWrappingKey(MASTER, b"m" * 32, os.urandom), retention=FileWrappingKey(RETENTION, b"r" * 32, os.urandom)
)
KEYS = LoadKeys(LOCKS, b"d" * 32, b"p" * 32)
COUNT = 60
_TABLES = """
SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
WHERE schemaname NOT IN ('pg_catalog', 'information_schema') AND tablename <> 'schema_migration'
"""


def made(count: int = COUNT, first: int = 1) -> list[bytes]:
    return list(generate(count, 7, first=first, now=NOW))


def changed(line: bytes, path: str, value: Any) -> bytes:
    document = json.loads(line)
    *steps, last = path.split(".")
    place: Any = document
    for step in steps:
        place = place[int(step)] if isinstance(place, list) else place[step]
    place[last] = value
    return json.dumps(document, ensure_ascii=False).encode() + b"\n"


async def rows_in(pools: Mapping[str, Pool]) -> dict[str, int]:
    counts = {}
    for name, pool in pools.items():
        for (table,) in await pool.fetch(_TABLES):
            counts[f"{name}:{table}"] = await pool.fetchval(f"SELECT count(*) FROM {table}")  # noqa: S608 - names from the catalogue
    return counts


@pytest.fixture(autouse=True)
async def _emptied(pools: Mapping[str, Pool]) -> AsyncIterator[None]:
    yield
    for pool in pools.values():
        tables = [table for (table,) in await pool.fetch(_TABLES)]
        await pool.execute(f"TRUNCATE {', '.join(tables)}")


async def test_everything_of_the_file_is_in_the_databases(
    databases: Mapping[str, str], pools: Mapping[str, Pool]
) -> None:
    lines = made()
    seen = list[tuple[int, int]]()
    told = await load(io.BytesIO(b"".join(lines)), databases, KEYS, now=NOW, progress=lambda *at: seen.append(at))
    counts = await rows_in(pools)
    assert (told.loaded, told.lines, told.people, told.bad_lines) == (True, COUNT, COUNT, 0)
    assert told.rows == sum(counts.values())
    assert told.bindings_skipped == 2 * COUNT
    assert seen[-1] == (sum(map(len, lines)), COUNT)
    people = [msgspec.json.decode(line, type=Person) for line in lines]
    assert counts["wallet:wallet.entry"] == sum(len(person.wallet.entries) for person in people)
    assert counts["identity_guiyang:identity.change"] == counts["identity_shenzhen:identity.change"] > COUNT
    assert {name for name, count in counts.items() if name.endswith(".account") and count != COUNT} == set()


async def test_texts_and_times_come_back_as_they_were(databases: Mapping[str, str], pools: Mapping[str, Pool]) -> None:
    """A chat is evidence: quotation marks, newlines and emoji must survive the way through COPY."""
    body = 'a"b\\c\nd\te\u0001f,]\n[g null \\n 🈚 \\.'
    line = changed(changed(made(1)[0], "social.messages.0.body", body), "social.nickname", "null")
    line = changed(line, "social.messages.0.sent_at", "2026-01-01T08:00:00.123456+08:00")
    await load(io.BytesIO(line), databases, KEYS, now=NOW)
    row = await pools["social"].fetchrow("SELECT * FROM social.message WHERE message_id = 101")
    assert row is not None
    assert (row["body"], row["sent_at"]) == (body, datetime(2026, 1, 1, 0, 0, 0, 123456, tzinfo=UTC))
    assert await pools["social"].fetchval("SELECT nickname FROM social.account") == "null"
    grant = await pools["openplatform"].fetchrow("SELECT * FROM openplatform.oauth_grant ORDER BY grant_id")
    first = json.loads(line)["openplatform"]["oauth_grants"][0]
    assert grant is not None
    assert grant["scopes"] == first["scopes"]


async def test_names_and_numbers_are_sealed_and_open_with_the_keys_alone(
    databases: Mapping[str, str], pools: Mapping[str, Pool]
) -> None:
    lines = made(3)
    await load(io.BytesIO(b"".join(lines)), databases, KEYS, now=NOW)
    for line in lines:
        person = msgspec.json.decode(line, type=Person)
        assert person.identity is not None
        account = person.account_id
        query = "SELECT sealed, document_index, birth_date, region FROM identity.account WHERE account_id = $1"
        copies = [await pools[name].fetchrow(query, account) for name in ("identity_shenzhen", "identity_guiyang")]
        assert copies[0] == copies[1]
        assert copies[0] is not None
        sealed, index, born, region = copies[0]
        wraps = await pools["keys"].fetchrow(
            "SELECT wrapped, retained FROM keys.data_key WHERE account_id = $1", account
        )
        assert wraps is not None
        [data_key] = LOCKS.master.unwrap([OwnedKey(account, 1, wraps["wrapped"])])
        assert LOCKS.retention.unwrap([OwnedKey(account, 1, wraps["retained"])]) == [data_key], "law's lock, same key"
        assert LOCKS.retention.unwrap([OwnedKey(account, 1, wraps["wrapped"])]) == [None], "one lock, one key"
        assert data_key is not None
        identity = encryption.unseal(data_key, sealed, account, 1)
        of = person.identity
        assert of.birth_date is not None
        assert identity == encryption.SealedIdentity(of.name, of.document_number, of.birth_date, of.region)
        assert (born, region) == (coarsen_birth_date(of.birth_date, NOW), None), "nothing more beside it"
        assert index == encryption.document_index(KEYS.documents, "resident_id", person.identity.document_number)
        assert person.identity.name.encode() not in sealed
    salt, mark = (await pools["wallet"].fetchrow("SELECT password_salt, password_hash FROM wallet.account LIMIT 1"))[:]  # type: ignore[index]
    assert mark == encryption.password_hash(KEYS.passwords, salt, "246810")
    salts = {salt for (salt,) in await pools["wallet"].fetch("SELECT password_salt FROM wallet.account")}
    assert len(salts) == 3, "equal passwords must not look equal"
    labels = [label for (label,) in await pools["security"].fetch("SELECT label FROM security.second_factor")]
    assert all("*" in label for label in labels)


BAD: Sequence[tuple[str, Any, str]] = [
    ("wallet.balance_fen", "much", "wallet.balance_fen"),  # told by the decoder
    ("identity.document_number", "1" * 18, "identity.document_number"),  # told by the checks
    ("wallet.entries.2.ended_at", None, "wallet.entries[2].ended_at"),  # refused by a table
    ("social.contacts.1.contact_id", 3, "social.contacts[1].contact_id"),  # refused by another, whose line this is
]


async def test_one_bad_line_and_nothing_is_loaded(databases: Mapping[str, str], pools: Mapping[str, Pool]) -> None:
    lines = made(COUNT)
    for number, (path, value, _) in enumerate(BAD, 3):
        lines[number - 1] = changed(lines[number - 1], path, value)
    told = await load(io.BytesIO(b"".join(lines)), databases, KEYS, now=NOW)
    assert not told.loaded
    assert set((await rows_in(pools)).values()) == {0}
    assert {(3, BAD[0][2]), (4, BAD[1][2])} <= {(fault.line, fault.field) for fault in told.faults}


@pytest.mark.parametrize("bad", BAD[2:])
async def test_a_line_that_only_a_table_refuses_is_told_too(
    bad: tuple[str, Any, str], databases: Mapping[str, str], pools: Mapping[str, Pool]
) -> None:
    path, value, field = bad
    lines = made(12)
    value = json.loads(lines[5])["social"]["contacts"][0]["contact_id"] if "contact" in path else value
    lines[5] = changed(lines[5], path, value)
    told = await load(io.BytesIO(b"".join(lines)), databases, KEYS, now=NOW)
    assert field in [fault.field for fault in told.faults if fault.line == 6]
    assert (told.loaded, told.bad_lines) == (False, 1)
    assert set((await rows_in(pools)).values()) == {0}


async def test_the_rest_is_loaded_when_asked(databases: Mapping[str, str], pools: Mapping[str, Pool]) -> None:
    lines = made(COUNT)
    lines[2] = b"not JSON\n"
    lines[3] = changed(lines[3], "wallet.balance_fen", 5)
    contact = json.loads(lines[4])["social"]["contacts"][0]["contact_id"]
    lines[4] = changed(lines[4], "social.contacts.1.contact_id", contact)
    lines[5] = lines[0]
    told = await load(io.BytesIO(b"".join(lines)), databases, KEYS, now=NOW, skip_bad=True)
    assert (told.loaded, told.people, told.bad_lines) == (True, COUNT - 4, 4)
    assert {fault.line for fault in told.faults} == {3, 4, 5, 6}
    counts = await rows_in(pools)
    assert told.rows == sum(counts.values())
    assert {count for name, count in counts.items() if name.endswith(".account")} == {COUNT - 4}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("created_at", "0001-01-01T00:00:00+08:00"),
        ("created_at", "9999-12-31T23:59:59-12:00"),
        ("wallet.entries.0.made_at", "0001-01-01T00:00:00+00:01"),
        ("social.messages.0.sent_at", "9999-12-31T23:59:59Z"),
    ],
)
async def test_a_time_out_of_range_is_one_line_s_fault(
    path: str, value: str, databases: Mapping[str, str], pools: Mapping[str, Pool]
) -> None:
    """An operator was told that a database had gone away, and nobody of the file could be loaded."""
    lines = made(5)
    lines[2] = changed(lines[2], path, value)
    told = await load(io.BytesIO(b"".join(lines)), databases, KEYS, now=NOW, skip_bad=True)
    assert (told.loaded, told.people, told.bad_lines) == (True, 4, 1)
    assert [fault.line for fault in told.faults] == [3]
    assert told.faults[0].field == path.replace(".0.", "[0].")
    assert (await rows_in(pools))["wallet:wallet.account"] == 4


async def test_what_departs_from_its_standard_is_loaded_and_marked(
    databases: Mapping[str, str], pools: Mapping[str, Pool]
) -> None:
    """Rules and officers must be able to see it: refused, its holder could never take a name back."""
    lines = made(4)
    number = make_resident_id("449999", date(1990, 5, 17), 123)
    lines[0] = changed(changed(lines[0], "identity.document_number", number), "identity.birth_date", "1990-05-17")
    lines[0] = changed(lines[0], "wallet.bank_cards.0.number", "6214830000000000001")
    company = {"enterprise_id": 9, "name": "厦门甲公司", "credit_code": "91350203m0001fue2p", "legal_person": True}
    company |= {"role": "administrator", "joined_at": "2020-01-01T00:00:00Z"}
    lines[1] = changed(lines[1], "enterprise.memberships", [company])
    for place, value in {
        "document_type": "passport",
        "document_number": "E1234567<4DEU8503<<2F3001019<<<<<<<<<<<<<<02",
        "birth_date": None,
    }.items():
        lines[2] = changed(lines[2], f"identity.{place}", value)
    told = await load(io.BytesIO(b"".join(lines)), databases, KEYS, now=NOW)
    assert (told.loaded, told.faults) == (True, [])
    assert told.doubts == {
        "identity.document_number": 2,
        "wallet.bank_cards.number": 1,
        "enterprise.memberships.credit_code": 1,
    }
    for name in ("identity_shenzhen", "identity_guiyang"):
        rows = await pools[name].fetch("SELECT document_doubt, birth_date FROM identity.account ORDER BY account_id")
        assert [row["document_doubt"] for row in rows] == ["region_unlisted", None, "birth_date_partial", None]
        assert rows[2]["birth_date"] == date(1985, 12, 31), "the last day that it leaves open, and of its year"
    cards = await pools["wallet"].fetch("SELECT tail, doubt FROM wallet.bank_card WHERE doubt IS NOT NULL")
    assert [tuple(card) for card in cards] == [("0001", "check_character")]
    codes = await pools["enterprise"].fetch("SELECT credit_code, credit_code_doubt FROM enterprise.membership")
    assert ("91350203M0001FUE2P", "check_character") in [tuple(code) for code in codes]


async def test_loading_an_account_twice_is_told_and_harms_nothing(
    databases: Mapping[str, str], pools: Mapping[str, Pool]
) -> None:
    await load(io.BytesIO(b"".join(made(10))), databases, KEYS, now=NOW)
    before = await rows_in(pools)
    told = await load(io.BytesIO(b"".join(made(3, first=9))), databases, KEYS, now=NOW)
    assert [(fault.line, fault.field) for fault in told.faults] == [(1, "account_id"), (2, "account_id")]
    assert not told.loaded
    assert await rows_in(pools) == before
    rest = await load(io.BytesIO(b"".join(made(3, first=9))), databases, KEYS, now=NOW, skip_bad=True)
    assert (rest.loaded, rest.people) == (True, 1)


@pytest.mark.parametrize("skip_bad", [False, True])
async def test_an_account_that_only_one_database_knows_stops_the_load(
    skip_bad: bool, databases: Mapping[str, str], pools: Mapping[str, Pool]
) -> None:
    """Left behind by something else: no line is to blame, so the error names the database and the table."""
    await pools["gaming"].execute("INSERT INTO gaming.account (account_id) VALUES (4)")
    with pytest.raises(LoadRefusedError) as caught:
        await load(io.BytesIO(b"".join(made(5))), databases, KEYS, now=NOW, skip_bad=skip_bad)
    assert caught.value.fields == {"database": "gaming", "table": "gaming.account", "lines": "1-5"}
    assert sum((await rows_in(pools)).values()) == 1


async def test_a_database_that_does_not_answer_stops_the_load(
    databases: Mapping[str, str], pools: Mapping[str, Pool]
) -> None:
    dsns = {**databases, "merchant": databases["merchant"] + "_absent"}
    with pytest.raises(LoadBrokenError) as caught:
        await load(io.BytesIO(b"".join(made(5))), dsns, KEYS, now=NOW)
    assert caught.value.fields == {"database": "merchant", "kept": []}
    assert set((await rows_in(pools)).values()) == {0}


async def test_a_database_that_dies_half_way_leaves_nothing_behind(
    databases: Mapping[str, str], pools: Mapping[str, Pool]
) -> None:
    async def kill(_bytes: int, _people: int) -> None:
        connection = await asyncpg.connect(databases["social"])
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'jiebang load' "
            "AND datname = current_database()"
        )
        await connection.close()

    killing = list[asyncio.Task[None]]()
    with pytest.raises(LoadBrokenError) as caught:
        await load(
            io.BytesIO(b"".join(made(4100))),
            databases,
            KEYS,
            now=NOW,
            progress=lambda *at: killing.append(asyncio.ensure_future(kill(*at))) if not killing else None,
        )
    await asyncio.gather(*killing)
    assert caught.value.fields["kept"] == []
    assert set((await rows_in(pools)).values()) == {0}


class _Network:
    """Takes bindings, and sees whether the databases held the accounts by then."""

    def __init__(self, platform: Pool) -> None:
        self.bound = list[Binding]()
        self.late = list[int]()
        self._platform = platform

    async def bind(self, bindings: Sequence[Binding]) -> list[int]:
        self.late.append(await self._platform.fetchval("SELECT count(*) FROM platform.account"))
        self.bound.extend(bindings)
        return []


async def test_networks_hear_of_bindings_once_the_databases_hold_the_people(
    databases: Mapping[str, str], pools: Mapping[str, Pool]
) -> None:
    """A network cannot roll back: bindings of people who were never loaded would stay there for ever."""
    networks = {name: _Network(pools["platform"]) for name in ("unionpay", "netsunion")}
    bad = changed(made(1)[0], "wallet.balance_fen", 7)
    assert not (await load(io.BytesIO(bad), databases, KEYS, now=NOW, networks=networks)).loaded
    assert networks["unionpay"].bound == []
    told = await load(io.BytesIO(b"".join(made(5))), databases, KEYS, now=NOW, networks=networks)
    assert (told.bindings, told.bindings_skipped) == (10, 0)
    assert [len(network.bound) for network in networks.values()] == [5, 5]
    assert networks["netsunion"].late == [5]


async def test_an_empty_file_and_one_of_blank_lines_load_nobody(databases: Mapping[str, str]) -> None:
    for text in (b"", b"\n\n  \n"):
        told = await load(io.BytesIO(text), databases, KEYS, now=NOW)
        assert (told.loaded, told.people, told.rows) == (True, 0, 0)
