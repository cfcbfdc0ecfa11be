"""Declarative participants: described in YAML, loaded from a folder of the settings, and taken the whole way."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from jiebang.app import App, migrate, open_app
from jiebang.cli.cases.as_person import prove_case, submit_case
from jiebang.model.case import Kind, State
from jiebang.model.errors import MigrationRefusedError, PackInvalidError, SettingsError
from jiebang.model.participants import Declaration, ParticipantRegistry
from jiebang.model.plan import PlannedOperation
from jiebang.participants import PARTICIPANTS
from jiebang.participants.core.database import DatabaseParticipant
from jiebang.participants.declarative.load import load_declaration
from jiebang.participants.starters import StarterLanguage, build_starter
from jiebang.policy import packs
from jiebang.policy.load import load_pack
from jiebang.saga.fence import Answer, CaseOp, FenceRow, Op
from jiebang.saga.orders import Order
from jiebang.sandbox.processes import sandbox
from jiebang.settings import read_settings
from jiebang.store.encryption import password_hash
from jiebang.store.postgres.data_directory import remove
from jiebang.store.postgres.embedded import database_dsn, ensure_databases
from jiebang.store.postgres.migrate import load_migrations, migrate_all
from jiebang.store.postgres.pool import open_pools
from jiebang.usecases.policy import lifecycle
from tests.conformance.suite import ParticipantSuite, Subject
from tests.newcomer.test_newcomer_installed import ended, working
from tests.newcomer.world import PASSWORD, SALT
from tests.patience import PATIENCE_S
from tests.rows import insert_accounts

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

NAME: Final = "teahouse"
TEXT: Final = build_starter(NAME, StarterLanguage.YAML)[f"{NAME}.yaml"]
NOW: Final = datetime(2026, 4, 1, 12, 0, tzinfo=UTC)
CLOSE: Final = PlannedOperation("close", {"kept": 5, "pause_days": 3})
ids: Iterator[int] = itertools.count(7_700_001)


def declared(text: str = TEXT) -> Declaration:
    found, problems = load_declaration(text, "teahouse.yaml", PARTICIPANTS.names, PARTICIPANTS.facts)
    assert not problems, "\n".join(map(str, problems))
    assert found is not None
    return found


@pytest.fixture(scope="module")
async def dsn(servers: Mapping[str, str]) -> AsyncIterator[str]:
    registry = ParticipantRegistry((*PARTICIPANTS.declarations, declared()))
    made = await ensure_databases(servers, {NAME: registry.placement[NAME]})
    assert await migrate_all(made, registry) == {NAME: (1,)}
    assert await migrate_all(made, registry) == {NAME: ()}
    yield made[NAME]
    async with open_pools({"server": database_dsn(made[NAME], "postgres")}, size=1) as pools:
        await pools["server"].execute(f"DROP DATABASE {NAME} WITH (FORCE)")


@pytest.fixture(scope="module")
async def pool(dsn: str) -> AsyncIterator[Pool]:
    async with open_pools({NAME: dsn}, size=8) as pools:
        yield pools[NAME]


@pytest.fixture
def party(pool: Pool) -> DatabaseParticipant:
    return DatabaseParticipant(NAME, declared(), pool, lambda: NOW)


async def members(pool: Pool, count: int, **columns: Any) -> list[int]:
    accounts = list(itertools.islice(ids, count))
    await insert_accounts(pool, NAME, accounts, **columns)
    return accounts


class TestDeclarative(ParticipantSuite):
    """The suite over what the starter describes."""

    @pytest.fixture
    def subject(self, party: DatabaseParticipant, pool: Pool) -> Subject:
        async def refused(count: int) -> tuple[list[Order], str]:
            accounts = await members(pool, count, teahouse_in_use=True)
            return [Order(account, 1) for account in accounts], "IN-USE"

        unfit = PlannedOperation("close", {"kept": 1_000_001})
        return Subject(party, lambda count: members(pool, count), refused, CLOSE, unfit=unfit)


async def test_a_confirm_writes_what_the_file_says(party: DatabaseParticipant, pool: Pool) -> None:
    """What the file promises, a person is told; anything else would be done to them unasked."""
    [account] = await members(pool, 1, teahouse_amount=12)
    await pool.execute("INSERT INTO teahouse.voucher VALUES ($1, 1, 'a pot of tea', 1)", account)
    before = await party.facts([account])
    assert {name: column[0] for name, column in before.columns.items()} == {
        "teahouse_amount": 12,
        "teahouse_in_use": False,
        "teahouse_vouchers": 1,
        "teahouse_voucher_items": [{"id": "1", "title": "a pot of tea"}],
    }
    await party.apply(Op.TRY, [Order(account, 1)], CLOSE)
    assert await pool.fetchval("SELECT reserved FROM teahouse.account WHERE account_id = $1", account)
    await party.apply(Op.CONFIRM, [Order(account, 1)], CLOSE)
    row = await pool.fetchrow("SELECT * FROM teahouse.account WHERE account_id = $1", account)
    assert row is not None
    assert (row["teahouse_amount"], row["reserved"], row["paused_until"]) == (5, False, NOW + timedelta(days=3))
    after = await party.facts([account])
    assert (after.columns["teahouse_vouchers"][0], list(after.columns["teahouse_voucher_items"][0])) == (0, [])
    assert after.versions[0] > before.versions[0]


async def test_an_effect_left_out_changes_nothing(party: DatabaseParticipant, pool: Pool) -> None:
    [account] = await members(pool, 1, teahouse_amount=12)
    for op in (Op.TRY, Op.CONFIRM):
        (reply,) = await party.apply(op, [Order(account, 1)], PlannedOperation("close"))
        assert reply.answer in (Answer.GRANTED, Answer.DONE)
    row = await pool.fetchrow("SELECT * FROM teahouse.account WHERE account_id = $1", account)
    assert row is not None
    assert (row["teahouse_amount"], row["reserved"], row["paused_until"]) == (12, False, None)


LATER: Final = TEXT.replace(
    "  reserved: {type: reservation}", "  stamps: {type: int, default: 0, since: 2}\n  reserved: {type: reservation}"
).replace("      title:", "      worth_fen: {type: fen, default: 100, since: 2}\n      title:")


async def test_tables_grow_by_versions_and_never_change_behind_ones_back(dsn: str, pool: Pool) -> None:
    """A file that was edited must add to the tables of people, or be refused: never drift from them in silence."""
    [account] = await members(pool, 1)
    later = declared(LATER)
    assert later.migrations[0] == declared().migrations[0]
    registry = ParticipantRegistry((*PARTICIPANTS.declarations, later))
    assert await migrate_all({NAME: dsn}, registry) == {NAME: (2,)}
    assert await pool.fetchval("SELECT stamps FROM teahouse.account WHERE account_id = $1", account) == 0
    changed = declared(LATER.replace("title: {type: text, most: 100}", "title: {type: text, most: 200}"))
    with pytest.raises(MigrationRefusedError) as caught:
        await migrate_all({NAME: dsn}, ParticipantRegistry((*PARTICIPANTS.declarations, changed)))
    assert caught.value.fields["version"] == 1
    flag, mark = "  teahouse_in_use: {type: bool}\n", "  reserved: {type: reservation}"
    reordered = declared(LATER.replace(flag, "").replace(mark, flag + mark))
    assert reordered.migrations == later.migrations, "the order of a file says nothing"


def mistake(old: str, new: str) -> str:
    assert old in TEXT, old
    return TEXT.replace(old, new, 1)


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("participant: x\n", "1:1", "'server' is missing"),
        (mistake("server: guiyang", "server: moon"), None, "one of shenzhen, guiyang"),
        (mistake("participant: teahouse", "participant: wallet"), None, "means something else"),
        (mistake("participant: teahouse", "participant: Tea-House"), None, "does not fit"),
        (mistake("type: time, optional", "type: int, optional"), None, "a time, and only it"),
        (mistake("{type: bool}", "{type: bool, least: 1}"), None, "no least and most"),
        (mistake("default: 0, most: 1000000", "default: 9, most: 5"), None, "the default does not fit"),
        (mistake("default: 0, most: 1000000", "most: 5"), None, "needs a default"),
        (mistake("  teahouse_in_use: {type", "  select: {type"), None, "means something else"),
        (
            mistake("  reserved: {type: reservation}", "  reserved: {type: bool}"),
            None,
            "must be a column of type reservation",
        ),
        (
            mistake("column: teahouse_in_use, is: true", "column: reserved, is: true"),
            None,
            "a reservation cannot be a condition",
        ),
        (
            mistake("column: teahouse_in_use, is: true", "column: teahouse_in_use, is: 3"),
            None,
            "does not fit the column",
        ),
        (mistake("column: teahouse_in_use, is: true", "column: nothing, is: true"), None, "no column 'nothing'"),
        (mistake("{at_most: kept}", "{at_most: keep}"), None, "no effect 'keep'"),
        (mistake("{at_most: kept}", "{effect: kept, to: 3}"), None, "exactly one of"),
        (mistake("kept: {type: int, most: 1000000}", "kept: {type: text}"), None, "of another type"),
        (mistake("{at_most: kept}", "{effect: pause_days}").replace("most: 365", "most: 2000000"), None, "exceed"),
        (mistake("pause_days: {type: int, most: 365}", "pause_days: {type: int}"), None, "needs a most"),
        (mistake("pause_days: {type: int, most: 365}", "pause_days: {type: int, most: 99999}"), None, "needs a most"),
        (mistake("  - table: voucher", "  - table: ticket"), None, "no table 'ticket'"),
        (mistake("count: voucher}", "count: ticket}"), None, "no table 'ticket'"),
        (mistake("fields: [title]", "fields: [name]"), None, "no column 'name'"),
        (mistake("  teahouse_amount: {zh", "  balance_fen: {zh"), None, "another participant declares"),
        (
            mistake(
                "paused_until: {type: time, optional: true}", "paused_until: {type: time, optional: true, since: 3}"
            ),
            None,
            "version 2",
        ),
        (mistake("while_tried: [reserved]", "when_tried: [reserved]"), None, "unknown key 'when_tried'"),
        (mistake("      kept:", "      now:"), None, "means something else"),
        (TEXT + "participant: again\n", None, "repeated"),
        ("a: &x 1\n", "1:4", "anchors"),
        ("", "1:1", "empty"),
    ],
)
def test_a_mistake_is_told_with_its_place(text: str, place: str | None, words: str) -> None:
    """Whoever writes no code has nothing but this to find the mistake by."""
    found, problems = load_declaration(text, "t.yaml", PARTICIPANTS.names, PARTICIPANTS.facts)
    assert found is None
    told = [each for each in problems if words in each.en]
    assert told, "\n".join(map(str, problems))
    assert told[0].zh != told[0].en
    assert told[0].line >= 1
    if place is not None:
        assert f"{told[0].line}:{told[0].column}" == place


# --- From the settings, the whole way ---------------------------------------------------------------------------------


def folder_of(place: Path, text: str = TEXT) -> Path:
    folder = place / "参与方 participants"
    folder.mkdir(parents=True)
    (folder / "teahouse.yaml").write_text(text, "utf-8")
    (folder / "README.md").write_text("not a participant", "utf-8")
    return folder


def test_settings_name_a_folder(tmp_path: Path) -> None:
    """Loaded in one process and not in another, cases would hang: it is part of the settings."""
    folder_of(tmp_path)
    (tmp_path / "jiebang.toml").write_text('participants = "参与方 participants"\n', "utf-8")
    found = read_settings({}, tmp_path).declared
    assert found.names == (*PARTICIPANTS.databases, NAME, *PARTICIPANTS.networks)
    assert load_migrations(NAME, found)[0].sql.startswith("CREATE SCHEMA teahouse")
    bad = tmp_path / "bad"
    folder_of(bad, mistake("server: guiyang", "server: moon").replace("{at_most: kept}", "{at_most: kept, to: 1}"))
    with pytest.raises(SettingsError) as caught:
        read_settings({"JIEBANG_PARTICIPANTS": str(bad / "参与方 participants")}, tmp_path)
    [problem] = caught.value.fields["problems"]
    line = (
        TEXT.splitlines().index("server: guiyang            # 内置服务器 / the embedded server: shenzhen, guiyang") + 1
    )
    assert problem.where == f"participants teahouse.yaml:{line}:9"
    with pytest.raises(SettingsError) as caught:
        read_settings({"JIEBANG_PARTICIPANTS": str(tmp_path / "nowhere")}, tmp_path)
    assert caught.value.fields["problems"][0].where == "participants"


def pack_text() -> tuple[str, str]:
    """The e-money pack with the tea house in its plan."""
    text, _ = packs.text("emoney")
    for old, new in (
        ("name: emoney", "name: with_tea"),
        ("owners:\n", 'owners:\n  teahouse: {zh: "茶馆", en: "the tea house"}\n'),
        ("identity_guiyang, security]", "identity_guiyang, security, teahouse]"),
        ("methods: [payment_password, sms_code]", "methods: [payment_password]"),
        (
            "      security: {op",
            '      teahouse: {operation: close, effects: {kept: ":tries"}}\n      security: {op',
        ),
    ):
        assert old in text
        text = text.replace(old, new, 1)
    return text, "with_tea.yaml"


def test_a_plan_is_held_against_what_the_file_declares() -> None:
    """A plan whose effect no Confirm could apply must be refused when the pack is read, not in the middle of a case."""
    load_pack(*pack_text(), ParticipantRegistry((*PARTICIPANTS.declarations, declared())))
    narrow = declared(mistake("kept: {type: int, most: 1000000}", "kept: {type: int, most: 4}"))
    with pytest.raises(PackInvalidError):
        load_pack(*pack_text(), ParticipantRegistry((*PARTICIPANTS.declarations, narrow)))


@pytest.fixture
async def app(
    databases: Mapping[str, str], dsn: str, pool: Pool, new_folder: Callable[[str], Path]
) -> AsyncIterator[App]:
    """An installation whose settings name the folder."""
    await pool.execute("TRUNCATE teahouse.account, teahouse.voucher")  # the suite's marks, of accounts of nobody
    home = new_folder("declarative") / "home"
    home.mkdir()
    environ = {
        "JIEBANG_HOME": str(home),
        "JIEBANG_DATABASES": json.dumps({**databases, NAME: dsn}),
        "JIEBANG_PARTICIPANTS": str(folder_of(home, LATER)),
        "JIEBANG_SANDBOX": "true",
    }
    settings = read_settings(environ, home)
    await migrate(settings)
    async with sandbox(home), open_app(settings) as opened:
        platform = opened.pools["platform"]
        await lifecycle.add(platform, opened.declared, *pack_text(), "Ann", datetime.now(UTC))
        for name in ("Ann", "Ben"):
            await lifecycle.activate(platform, opened.declared, "with_tea/2", name, datetime.now(UTC))
        async with asyncio.timeout(PATIENCE_S):
            while opened.registry.in_force().id != "with_tea/2":  # noqa: ASYNC110 - the process looks by itself
                await asyncio.sleep(0.05)
        yield opened
    remove(home)


async def test_a_case_goes_through_with_it_or_not_at_all(app: App) -> None:
    """All or nothing holds of whoever takes part, with code of its own or without."""
    leaving, held = itertools.islice(ids, 2)
    await insert_accounts(app.pools[NAME], NAME, [leaving], teahouse_amount=12)
    await insert_accounts(app.pools[NAME], NAME, [held], teahouse_amount=12, teahouse_in_use=True)
    mark = password_hash(app.secrets.passwords, SALT, PASSWORD)
    await app.pools["platform"].execute(
        "INSERT INTO platform.account (account_id, created_at) SELECT unnest($1::bigint[]), now()", [leaving, held]
    )
    for name in PARTICIPANTS.databases:
        own = {"password_salt": SALT, "password_hash": mark} if name == "wallet" else {}
        await insert_accounts(app.pools[name], PARTICIPANTS.owner_of(name), [leaving, held], **own)
    for account in (leaving, held):
        case = await submit_case(app, account, Kind.REVOKE, None)
        proven = await prove_case(app, case["id"], PASSWORD, None, quiet=True)
        assert proven["state"] == State.READY.value, proven
    async with working(app):
        assert await ended(app, leaving, held) == {leaving: State.DONE, held: State.ABORTED}
    rows = await app.participants[NAME].look([leaving, held])
    assert rows == {leaving: FenceRow(1, CaseOp.CONFIRMED), held: FenceRow(1, CaseOp.CANCELLED)}
    amounts = await app.pools[NAME].fetch(
        "SELECT teahouse_amount FROM teahouse.account WHERE account_id = ANY ($1) ORDER BY account_id", [leaving, held]
    )
    assert [row["teahouse_amount"] for row in amounts] == [5, 12]
    assert (await app.verify()).clean


@pytest.mark.parametrize("page", ["docs/participants-sdk.md", "docs/zh/participants-sdk.md"])
def test_the_file_of_the_page_can_be_loaded(page: str) -> None:
    """It is copied first."""
    text = (Path(__file__).parents[2] / page).read_text("utf-8")
    [block] = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    assert declared(block).owner == NAME
