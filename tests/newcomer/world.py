"""The newcomer's database, and people in it: what both of its test modules work with."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jiebang.model.participants import ParticipantRegistry
from jiebang.model.plan import PlannedOperation
from jiebang.participants import PARTICIPANTS
from jiebang.participants.core.database import DatabaseParticipant
from jiebang.participants.core.staging import GivenValues, StagingArea
from jiebang.store.encryption import SALT_BYTES
from jiebang.store.postgres.embedded import database_dsn, ensure_databases
from jiebang.store.postgres.migrate import migrate_all
from jiebang.store.postgres.pool import open_pools
from tests.newcomer.loyalty import DECLARATION as LOYALTY
from tests.rows import insert_accounts

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

REGISTRY: Final = ParticipantRegistry((*PARTICIPANTS.declarations, LOYALTY))
PACK: Final = (Path(__file__).with_name("pack.yaml").read_text("utf-8"), "pack.yaml")
NOW: Final = datetime(2026, 4, 1, 12, 0, tzinfo=UTC)
PASSWORD, SALT = "246810", bytes(SALT_BYTES)
BROUGHT: Final[Mapping[str, Any]] = {"partner": "茶馆", "since": date(2026, 5, 1), "mark": b"\0\1\2\3", "points": 7}
OPERATIONS: Final = {
    "forfeit": PlannedOperation("forfeit", {"points_kept": 10}),
    "transfer": PlannedOperation("transfer", {"notify": True}),
}
ids: Iterator[int] = itertools.count(7_000_001)


@asynccontextmanager
async def database(servers: Mapping[str, str]) -> AsyncIterator[str]:
    """Make and migrate the newcomer's database as an installation does, and drop it afterwards; yield its DSN."""
    made = await ensure_databases(servers, LOYALTY.databases)
    assert await migrate_all(made, REGISTRY) == {"loyalty": (1,)}
    yield made["loyalty"]
    async with open_pools({"server": database_dsn(made["loyalty"], "postgres")}, size=1) as pools:
        await pools["server"].execute("DROP DATABASE loyalty WITH (FORCE)")


def area(loyalty: DatabaseParticipant) -> StagingArea:
    assert loyalty.staging is not None
    return loyalty.staging


async def people(pool: Pool, count: int, **columns: Any) -> list[int]:
    accounts = list(itertools.islice(ids, count))
    await insert_accounts(pool, "loyalty", accounts, **columns)
    return accounts


def given(account: int, case_no: int = 1, **changes: Any) -> GivenValues:
    return GivenValues(account_id=account, case_no=case_no, values={**BROUGHT, **changes})


async def staged(pool: Pool, *accounts: int) -> list[tuple[int, int]]:
    rows = await pool.fetch(
        "SELECT account_id, case_no FROM loyalty.staged WHERE account_id = ANY ($1::bigint[]) ORDER BY 1, 2",
        list(accounts),
    )
    return [(row["account_id"], row["case_no"]) for row in rows]
