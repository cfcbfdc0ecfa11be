"""A hundred names taken back: no dump, table or log has them in clear, and no backup of before opens any more."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import asyncpg
import msgspec
import structlog
from cryptography.exceptions import InvalidTag

from jiebang.model.plan import PlannedOperation
from jiebang.participants import PARTICIPANTS
from jiebang.participants.opening import open_participants
from jiebang.saga.fence import Answer, Op
from jiebang.saga.orders import Order
from jiebang.sandbox.population.format import Person
from jiebang.sandbox.population.generate import generate
from jiebang.sandbox.population.load import load
from jiebang.sandbox.population.tables import LoadKeys
from jiebang.store.encryption import unseal
from jiebang.store.retention.key_wrapping import OwnedKey
from tests.store.key_world import CENTRES, LOCKS, World, open_world, turn

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool
    from jiebang.store.retention.key_wrapping import WrappingKey

COUNT = 100
LIVING = 20
NOW = datetime.fromisoformat("2026-01-15T04:00:00Z")
ENDED = NOW + timedelta(hours=1)
TABLES = """
SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
WHERE schemaname NOT IN ('pg_catalog', 'information_schema')
"""


async def dump(databases: Mapping[str, str]) -> dict[str, bytes]:
    """Every table of every database, as COPY writes it."""
    found = dict[str, bytes]()
    for name, dsn in databases.items():
        connection = await asyncpg.connect(dsn)
        for (table,) in await connection.fetch(TABLES):
            into = io.BytesIO()
            await connection.copy_from_query(f"SELECT * FROM {table}", output=into)  # noqa: S608 - of the catalogue
            found[f"{name} {table}"] = into.getvalue()
        await connection.close()
    return found


async def reclaim(pools: Mapping[str, Pool], accounts: list[int]) -> None:
    """Try and Confirm at both data centres, as a case does."""
    opened = open_participants(PARTICIPANTS, pools, lambda: ENDED, pepper=bytes(32))
    planned = PlannedOperation("reclaim", {"key_destroyed_after_minutes": 5})
    for name in CENTRES:
        for op, answer in ((Op.TRY, Answer.GRANTED), (Op.CONFIRM, Answer.DONE)):
            replies = await opened[name].apply(op, [Order(account, 1, 1) for account in accounts], planned)
            assert {reply.answer for reply in replies} == {answer}


def list_opened(dumps: Mapping[str, bytes], keys: bytes, lock: WrappingKey) -> set[int]:
    """The accounts whose names a lock opens: any sealed bytes of the dumps, beside a dump of the keys."""
    wraps = dict[int, bytes]()
    for line in keys.splitlines():
        account, epoch, *columns = line.decode().split("\t")
        for column in columns:
            if len(column) == len("\\\\x") + 120:
                [key] = lock.unwrap([OwnedKey(int(account), int(epoch), bytes.fromhex(column[3:]))])
                if key is not None:
                    wraps[int(account)] = key
    opened = set[int]()
    for text in dumps.values():
        for line in text.splitlines():
            first, *columns = line.decode().split("\t")
            for column in columns:
                if first.isdigit() and int(first) in wraps and column.startswith("\\\\x"):
                    try:
                        assert unseal(wraps[int(first)], bytes.fromhex(column[3:]), int(first), 1).name
                        opened.add(int(first))
                    except InvalidTag:
                        continue
    return opened


async def test_no_backup_of_before_opens_beside_todays_keys(
    databases: Mapping[str, str], pools: Mapping[str, Pool]
) -> None:
    """Whoever kept last year's backup would otherwise still have the name that was taken back."""
    world: World = await open_world(pools)
    lines = list(generate(200, 7, now=NOW))
    people = [msgspec.json.decode(line, type=Person) for line in lines]
    report = await load(io.BytesIO(b"".join(lines)), databases, LoadKeys(LOCKS, b"d" * 32, b"p" * 32), now=NOW)
    assert report.loaded
    named = [person for person in people if person.identity is not None]
    taken, living = named[:COUNT], named[COUNT : COUNT + LIVING]
    accounts = [person.account_id for person in taken]
    assert (len(taken), len(living)) == (COUNT, LIVING)
    before = {name: text for name, text in (await dump(databases)).items() if not name.startswith("keys ")}
    everybody = {person.account_id for person in named}
    keys_then = (await dump({"keys": databases["keys"]}))["keys keys.data_key"]
    assert list_opened(before, keys_then, LOCKS.master) == everybody, "the backup was worth something before"

    with structlog.testing.capture_logs() as logs:
        await reclaim(pools, accounts)
        await world.end_cases(accounts, at=ENDED)
        await turn(world.chore(), ENDED + timedelta(minutes=2))
    after = await dump(databases)
    keys_now = after["keys keys.data_key"]
    assert list_opened(before, keys_now, LOCKS.master) == everybody - set(accounts)
    assert list_opened(after, keys_now, LOCKS.master) == everybody - set(accounts)
    assert list_opened(before, keys_now, LOCKS.retention) == everybody, "law's part, with law's key alone"
    ends = datetime.fromisoformat("2036-01-16T00:00:00+08:00")
    await turn(world.chore(), ends)
    ended = await dump(databases)
    for dumps in (before, after, ended):
        for lock in (LOCKS.master, LOCKS.retention):
            opened = list_opened(dumps, ended["keys keys.data_key"], lock)
            assert opened == everybody - set(accounts), "to the day, nothing opens any more for anybody"

    found = list[str]()
    written = {**before, **after, "the log": json.dumps(logs, default=str, ensure_ascii=False).encode()}
    raw_keys = [key for key in LOCKS.master.unwrap(_wraps(keys_then)) if key is not None]
    assert len(raw_keys) == len(everybody)
    secrets = [(person.account_id, secret) for person in taken for secret in _list_secrets(person)]
    assert len(secrets) >= 2 * COUNT
    for where, text in written.items():
        found += [f"{account} in {where}" for account, secret in secrets if secret.encode() in text]
        found += [f"a key in {where}" for key in raw_keys if key.hex().encode() in text or key in text]
    assert found == []


def _wraps(keys: bytes) -> list[OwnedKey]:
    lines = [line.decode().split("\t") for line in keys.splitlines()]
    return [OwnedKey(int(line[0]), int(line[1]), bytes.fromhex(line[2][3:])) for line in lines]


def _list_secrets(person: Person) -> list[str]:
    """What must stand nowhere in clear: number, phone and name, of three characters: shorter ones occur by chance."""
    assert person.identity is not None
    phones = [factor.address for factor in person.security.second_factors if factor.kind == "sms"]
    name = [person.identity.name] if len(person.identity.name) > 2 else []
    return [*name, person.identity.document_number, *phones, *(phone[-11:] for phone in phones)]
