"""What migrations do to the rows of an installation of an earlier version."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import date

import asyncpg
import pytest

from jiebang.participants import PARTICIPANTS
from jiebang.store.postgres.embedded import database_dsn
from jiebang.store.postgres.migrate import load_migrations, migrate


@pytest.fixture
async def older(servers: Mapping[str, str]) -> AsyncIterator[str]:
    """The DSN of an empty database."""
    admin = await asyncpg.connect(servers["guiyang"])
    await admin.execute("CREATE DATABASE older TEMPLATE template0")
    yield database_dsn(servers["guiyang"], "older")
    await admin.execute("DROP DATABASE older WITH (FORCE)")
    await admin.close()


PEOPLE = {
    "an adult": ("resident_id", date(1990, 5, 17), "440305", date(1990, 12, 31), None),
    "barely of age": ("resident_id", date(2007, 12, 31), "440305", date(2007, 12, 31), None),
    "a minor": ("resident_id", date(2015, 5, 5), "440305", date(2015, 5, 5), None),
    "of age this year": ("resident_id", date(2008, 3, 16), "440305", date(2008, 3, 16), None),
    "a foreigner": ("passport", date(1980, 2, 29), "DEU", date(1980, 12, 31), "DEU"),
    "a permit holder": (
        "taiwan_permit",
        date(1970, 1, 2),
        "TWN",
        date(1970, 1, 2),
        "TWN",
    ),
}
"""Document, birth date and region as they stood, and as they are to stand. A permit's number carries no birth date."""


async def test_birth_dates_and_regions_beside_sealed_numbers_are_taken_back(older: str) -> None:
    """An upgraded installation must not keep in clear what a new one seals; and no rule may judge anybody otherwise."""
    first, *rest = load_migrations("identity", PARTICIPANTS)
    await migrate(older, "identity", [first])
    db = await asyncpg.connect(older)
    for account, (document, born, region, *_) in enumerate(PEOPLE.values(), start=1):
        await db.execute(
            """INSERT INTO identity.account (account_id, state, level, document_type, sealed, document_index,
                   birth_date, region, changed_at)
               VALUES ($1, 'active', 2, $2, '\\x00', sha256('d'), $3, $4, now())""",
            account,
            document,
            born,
            region,
        )
    await db.execute("INSERT INTO identity.account (account_id, state, changed_at) VALUES (90, 'reclaimed', now())")
    await db.execute("INSERT INTO identity.account (account_id) VALUES (91)")
    assert await migrate(older, "identity", [first, *rest])
    found = await db.fetch("SELECT birth_date, region FROM identity.account WHERE account_id < 90 ORDER BY account_id")
    assert dict(zip(PEOPLE, map(tuple, found), strict=True)) == {name: row[3:] for name, row in PEOPLE.items()}
    with pytest.raises(asyncpg.CheckViolationError):
        await db.execute("UPDATE identity.account SET region = '440305' WHERE account_id = 1")
    await db.close()


async def test_seals_of_an_earlier_version_stay_and_new_ones_fit_beside_them(older: str) -> None:
    """A chain of seals that did not survive the upgrade would look like one that was cut."""
    first, *rest = load_migrations("platform", PARTICIPANTS)
    await migrate(older, "platform", [first])
    db = await asyncpg.connect(older)
    seal = "INSERT INTO platform.timeline_seal VALUES ($1, now(), now(), 's', decode(repeat('00', $2), 'hex'))"
    await db.execute(seal, 1, 3 * 48)
    until = await db.fetchval("SELECT ended_until FROM platform.timeline_seal")
    assert await migrate(older, "platform", [first, *rest])
    assert await db.fetchval("SELECT until FROM platform.seal_floor") == until, "no case may end before what is sealed"
    await db.execute(seal, 2, 2 * 80)
    with pytest.raises(asyncpg.CheckViolationError):
        await db.execute(seal, 3, 50)
    await db.close()
