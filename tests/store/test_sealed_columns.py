"""`jiebang verify` over a database in which each column of each table was changed once, and each row deleted.

Every change is found, or the column stands in `UNSEALED` with the reason why it need not be. The tables and columns are
read from the catalogue: what a migration adds tomorrow is in here too. All constraints are dropped first, since whoever
may write the database may drop them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import pytest

from jiebang.model.case import Case, Kind, State
from jiebang.model.facts import PLATFORM
from jiebang.model.plan import Plan
from jiebang.participants import PARTICIPANTS
from jiebang.participants.wallet.money import MoneyAudit
from jiebang.saga.batch import Save
from jiebang.saga.timeline import first_entry
from jiebang.store.cases import cases
from jiebang.store.cases.cases import NewCase
from jiebang.store.timelines.seal_signing_keys import build_seal_keys
from jiebang.usecases.operations.verify import VerificationReport, verify
from jiebang.usecases.timelines.seal import Sealer, SealPace
from tests.store.test_schema_rules import COLUMNS, TABLES

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

PLAN = Plan(name="p/1", participants=("social", "wallet"), waves=(0, 1))
AT: Final = datetime(2026, 4, 1, 8, tzinfo=UTC)
DOCUMENT: Final = sha256(b"document").digest()

UNSEALED: Final[Mapping[str, str]] = {
    "platform.account.created_at": "when the account was loaded here; nothing rests on it",
    "platform.account.account_id": "of an account without a case: nothing of ours happened there",
    **dict.fromkeys(
        [f"platform.account.{name}_counted" for name in ("cases", "codes", "messages")]
        + [f"platform.account.{name}" for name in ("counted_since", "case_opened_at", "told_at", "unlocked_at")],
        "how much was asked for of late: a cap on nuisances, which no case rests on once it is open",
    ),
    "platform.wrong_try": "what locks proofs for a day, and goes after; a proof that was given is in the seal",
    "platform.outbox.due_at": "when to try again; the row changes after the case was sealed",
    "platform.outbox.attempt": "how often it was tried; changes after the case was sealed",
    "platform.outbox.delivered_at": "a message may be delivered long after the seal; the gateway keeps the proof",
    "platform.idempotency": "answers kept for a day, to be given again; the answers themselves are authenticated",
    "platform.quota_refusal": "starts a cooling-off; the refusal itself was the answer, and nothing was done",
    "platform.bucket_lease": "who works on what for the next seconds",
    "platform.seal_floor": "a guard of the sealer; a late save that it let through would be found",
    "platform.worker": "who is alive",
    "platform.worker_freed": "whose buckets an operator took back: it moves work, and decides nothing",
    "platform.task": "a list of what operators must look at; it decides nothing, and each act on it is logged",
    "platform.policy_state.revision": "tells processes to read again",
    "platform.policy_state.before": "what counted until in_force_since: the sealed activations say the same",
    "platform.policy_state.shadow": "what runs in shadow decides nothing",
    "platform.policy_state.shadow_by": "what runs in shadow decides nothing",
    "platform.policy_state.shadow_since": "what runs in shadow decides nothing",
    "platform.policy_state.only_one": "without its row no process has a policy, and none works",
    "platform.policy_shadow": "counters, about nobody",
}
"""Columns, or whole tables, whose change `verify` does not find, and why it need not."""

OTHERS: Final[Mapping[str, str]] = {
    "keys": "a data key that was changed opens nothing any more; the witness must fit the chain of seals",
    **{
        PARTICIPANTS.owner_of(name): "the participant's own records: verify compares its fence rows with "
        "our cases, and the wallet's balances with its ledger; what else is true there its owner must prove"
        for name in PARTICIPANTS.databases
    },
}
"""Owners whose tables no seal of the platform covers, and why."""

VALUES: Final[Mapping[str, str]] = {
    "platform.account.last_case_no": "0",  # a higher one gives no number twice: a race loses numbers, too
    "platform.cases.kind": "'close_payment'",
    "platform.retention_act.act": "'hold'",
    "platform.cases.state": "'expired'",
    "platform.cases.marks": "'dz'",
    "platform.check_record.step": "'take'",
    "platform.policy_state.only_one": "2",
}
"""What a column is changed to where another value of its type is none of its values."""
BY_TYPE: Final[Mapping[str, str]] = {
    "boolean": "NOT {0}",
    "bigint": "coalesce({0}, 0) + 1",
    "integer": "coalesce({0}, 0) + 1",
    "smallint": "coalesce({0}, 0) + 1",
    "text": "coalesce({0}, '') || 'x'",
    "timestamp with time zone": "coalesce({0}, '2026-04-01T08:00:00Z') - interval '1 second'",
    "bytea": "coalesce({0}, '') || '\\x00'",
    "jsonb": "jsonb_build_array({0})",
    "uuid": "gen_random_uuid()",
    "bigint[]": "coalesce({0}, '{{}}') || 7::bigint",
    "text[]": "coalesce({0}, '{{}}') || 'x'::text",
}

ROWS: Final[Sequence[str]] = (
    "INSERT INTO platform.proof VALUES (1, 1, 'payment_password', NULL, NULL, 4, $1)",
    "INSERT INTO platform.check_record VALUES (1, 1, 'submit', $1, 'p/1', 'PASSED', sha256('a') || sha256('b'))",
    "INSERT INTO platform.check_record VALUES (2, 1, 'submit', $1, 'p/1', 'PASSED', sha256('c') || sha256('d'))",
    "INSERT INTO platform.consent VALUES (1, gen_random_uuid(), 'PAY-AUTODEBIT', '{7}', NULL, $1, $1)",
    """INSERT INTO platform.remedy VALUES (1, gen_random_uuid(), 'PAY-AUTODEBIT', 'end', $1, $1, '{"items": []}')""",
    """INSERT INTO platform.step_up
       VALUES (1, gen_random_uuid(), 'SEC-LOGIN', 'confirm', '{7}', '\\x01', 'd', 0, $1, $1, $1, NULL)""",
    "INSERT INTO platform.identity_quota VALUES (sha256('document'), 2026, 1, 1, 1, $1)",
    "INSERT INTO platform.quota_refusal VALUES (sha256('q'), $1, 1)",
    "INSERT INTO platform.outbox VALUES (1, gen_random_uuid(), 1, 1, 'case_opened', '{}', $1, $1, 0, NULL)",
    "INSERT INTO platform.idempotency VALUES ('c', 'r', 'k', '', 200, '', NULL, NULL, $1)",
    "INSERT INTO platform.bucket_lease VALUES (1, 'w', $1)",
    "INSERT INTO platform.worker VALUES ('w', $1)",
    "INSERT INTO platform.worker_freed VALUES ('w', $1, 'mei', 4, $1)",
    "INSERT INTO platform.recovery VALUES (1, '{platform}', 'mei', $1, $1, '{}')",
    "INSERT INTO platform.participant_outage VALUES ('wallet', $1, 'moved', 'mei', $1, 'mei')",
    "INSERT INTO platform.task VALUES (1, 1, 'parked', 'wallet', 1, 1, 'confirm', NULL, $1, 'mei', $1, $1, 'n')",
    """INSERT INTO platform.policy_pack VALUES ('p/1', 'p', 1, 'text', sha256('text'), 'mei', $1)""",
    "INSERT INTO platform.policy_activation VALUES (1, 'p/1', 'install', 'mei', $1, NULL, NULL, $1, NULL, NULL)",
    "INSERT INTO platform.policy_state VALUES (1, 1, 1, 'p/1', $1, 'p/1')",
    "INSERT INTO platform.policy_shadow VALUES ('p/2', 'p/1', 'revoke', '', '', 3, 1, 1, 1)",
    "INSERT INTO platform.account (account_id, created_at) VALUES (9, $1)",
    """INSERT INTO platform.plan_correction VALUES
       (1, 'p/1', 'revoke', 'social', 'moments_per_day', '3', '99999', 'no column', 'mei', $1, 'li', $1, NULL)""",
    "INSERT INTO platform.wrong_try VALUES (1, $1, gen_random_uuid(), 'sms_code')",
    "INSERT INTO platform.retention_act VALUES (1, gen_random_uuid(), 'read', 'order 7', 'mei', $1)",
    "INSERT INTO platform.key_fingerprint VALUES ('master.key', $1, sha256('k'))",
)
WHERE: Final[Mapping[str, str]] = {
    "platform.account.account_id": "account_id = 9",
    "platform.account": "account_id = 1",
    "platform.case_event": "account_id = 1 AND revision = 2",
}
"""Which row is changed, of those tables that have several: that of the case that ended."""
OF_THE_LIVE: Final = frozenset(
    {"account_id", "case_no", "bucket", "kind", "plan", "created_at", "device_id", "by_service"}
    | {"revision", "state", "head", "document_index"}
)
"""Columns of a live case that are found too: those that stay as they are, and those that its timeline tells."""


class NoMoney:
    """A wallet without money."""

    async def audit_money(self, _accounts: Sequence[int]) -> MoneyAudit:
        return MoneyAudit(balance_fen=0, wrong=[])

    async def transfers_fen(self) -> int:
        return 0


class Installation:
    """A platform's database with a row of everything, sealed; and its audit."""

    def __init__(self, pool: Pool, folder: Path) -> None:
        self.pool, self.anchor, self.keys = pool, folder / "anchor.jsonl", build_seal_keys(b"k" * 32)
        self.tables: dict[str, Mapping[str, str]] = {}

    async def audit(self) -> VerificationReport:
        return await verify(
            pool=self.pool,
            participants={},
            wallet=NoMoney(),
            plan_of=lambda _case: PLAN,
            keys=self.keys,
            anchor_at=self.anchor,
            settle=timedelta(),
        )

    async def is_found(self, table: str, change: str) -> bool:
        """Whether the audit finds a change, which is then undone."""
        await self.pool.execute(f"CREATE TABLE kept AS SELECT * FROM {table}")  # noqa: S608 - of the catalogue
        try:
            assert (await self.pool.execute(change)).split()[-1] == "1", change
            return not (await self.audit()).clean
        finally:
            await self.pool.execute(f"DELETE FROM {table}")  # noqa: S608 - of the catalogue
            await self.pool.execute(f"INSERT INTO {table} SELECT * FROM kept")  # noqa: S608 - of the catalogue
            await self.pool.execute("DROP TABLE kept")


async def bring_to_an_end(pool: Pool, account: int) -> Case:
    """Take a case to its end, with two rows of a timeline."""
    new = NewCase(
        account_id=account,
        kind=Kind.REVOKE,
        plan=PLAN.name,
        participants=2,
        due_at=AT,
        device_id="d",
        document_index=DOCUMENT if account == 1 else None,
    )
    found = (await cases.insert(pool, [new], AT, [first_entry(AT)]))[account]
    if account != 1:
        return found
    await pool.execute("UPDATE platform.cases SET wallet_version = 3, deadline = $1 WHERE account_id = 1", AT)
    stepped = msgspec.structs.replace(
        found,
        revision=2,
        state=State.DONE,
        marks="dd",
        due_at=None,
        deadline=AT,
        versions=(1, 3),
    )
    entry = {"at": AT, "what": "state", "state": "done"}
    await cases.save(pool, [Save(cases=[stepped], entries=[entry], template="case_done")], AT)
    return stepped


@pytest.fixture(scope="module")
async def installation(pools: Mapping[str, Pool], tmp_path_factory: pytest.TempPathFactory) -> Installation:
    pool = pools[PLATFORM]
    made = Installation(pool, tmp_path_factory.mktemp("anchor"))
    await pool.execute("INSERT INTO platform.account (account_id, created_at) VALUES (1, $1), (2, $1)", AT)
    for account in (1, 2):
        await bring_to_an_end(pool, account)
    for statement in ROWS:
        await pool.execute(statement, *([AT] if "$1" in statement else ()))
    sealer = Sealer(pool=pool, keys=made.keys, anchor_at=made.anchor, pace=SealPace())
    assert await sealer.turn(datetime.now(UTC)) == 2
    for table in await pool.fetch(TABLES, "schema_migration"):
        made.tables[table["name"]] = {row["name"]: row["type"] for row in await pool.fetch(COLUMNS, table["oid"])}
        for row in await pool.fetch(
            "SELECT conname FROM pg_catalog.pg_constraint WHERE conrelid = $1 ORDER BY contype <> 'p'", table["oid"]
        ):
            await pool.execute(f"ALTER TABLE {table['name']} DROP CONSTRAINT IF EXISTS {row['conname']}")
        for index in await pool.fetch(
            "SELECT indexrelid::regclass::text AS name FROM pg_catalog.pg_index WHERE indrelid = $1 AND indisunique",
            table["oid"],
        ):
            await pool.execute(f"DROP INDEX {index['name']}")
    return made


async def test_an_untouched_installation_is_clean(installation: Installation) -> None:
    """An audit that cries wolf is one nobody reads."""
    report = await installation.audit()
    assert report.clean, report
    assert (report.timelines.seals, report.timelines.sealed, report.timelines.unsealed) == (2, 2, 0)


async def test_every_table_is_decided_on(pools: Mapping[str, Pool], installation: Installation) -> None:
    """A table that is neither sealed nor in a list is one whose changes nobody would ever see."""
    owners = {table["nspname"] for pool in pools.values() for table in await pool.fetch(TABLES, "schema_migration")}
    assert owners == {PLATFORM, *OTHERS}
    known = {*installation.tables, *(f"{table}.{name}" for table, of in installation.tables.items() for name in of)}
    assert UNSEALED.keys() <= known, "a list names what is gone"
    for table in installation.tables:
        filled = await installation.pool.fetchval(f"SELECT EXISTS (SELECT FROM {table})")  # noqa: S608 - of the catalogue
        assert filled, f"{table} has no row: add one to ROWS"


async def test_every_change_of_a_column_is_found_or_need_not_be(installation: Installation) -> None:
    """A reason, a time, a device, a proof: whatever a person or a court would rely on cannot be changed in silence."""
    missed: list[str] = []
    found: list[str] = []
    for table, columns in installation.tables.items():
        for name, type_ in columns.items():
            column = f"{table}.{name}"
            value = VALUES.get(column) or BY_TYPE[type_].format(name)
            where = WHERE.get(column) or WHERE.get(table) or _first(table, columns)
            change = f"UPDATE {table} SET {name} = {value} WHERE {where}"  # noqa: S608 - of the catalogue
            listed = column in UNSEALED or table in UNSEALED
            if await installation.is_found(table, change) == listed:
                (found if listed else missed).append(column)
    assert missed == [], "not found by the audit"
    assert found == [], "found, though the list says otherwise"


async def test_every_row_that_is_deleted_is_found_or_need_not_be(installation: Installation) -> None:
    """The check that a case rests on, the consent that a person gave: gone is changed, too."""
    missed = []
    for table, columns in installation.tables.items():
        if table in UNSEALED or f"{table}.{next(iter(columns))}" in UNSEALED:
            continue
        where = WHERE.get(table) or _first(table, columns)
        if not await installation.is_found(table, f"DELETE FROM {table} WHERE {where}"):  # noqa: S608 - of the catalogue
            missed.append(table)
    assert missed == []


async def test_what_stays_as_it_is_of_a_live_case_is_found_too(installation: Installation) -> None:
    """A live case is sealed every ten minutes: whose device it came from must not change until its end."""
    columns = installation.tables["platform.cases"]
    found = set()
    for name in OF_THE_LIVE:
        value = VALUES.get(f"platform.cases.{name}") or BY_TYPE[columns[name]].format(name)
        change = f"UPDATE platform.cases SET {name} = {value} WHERE account_id = 2"  # noqa: S608 - of the catalogue
        if await installation.is_found("platform.cases", change):
            found.add(name)
    assert found == OF_THE_LIVE
    gone = "DELETE FROM platform.check_record WHERE account_id = 2"
    assert await installation.is_found("platform.check_record", gone)


def _first(table: str, columns: Mapping[str, str]) -> str:
    """Return a condition on one row: that of the first account, where there are several."""
    others = {"platform.timeline_seal": "seal_no = 1", "platform.outbox": "template = 'case_opened'"}
    return others.get(table) or ("account_id = 1" if "account_id" in columns else "true")
