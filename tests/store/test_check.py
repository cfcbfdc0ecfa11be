"""The check against real databases: what stands in the rows is what the person reads, and silence never passes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import msgspec
import polars as pl
import pytest

from jiebang.model.case import Case, Kind, State
from jiebang.model.check import CheckAnswer
from jiebang.model.errors import KindNotOfferedError, UnknownAccountError
from jiebang.model.facts import FactBatch, FactType
from jiebang.model.ids import CaseIds
from jiebang.model.origin import SERVICE, UNKNOWN, Origin
from jiebang.model.plan import UNNAMED, PlannedOperation
from jiebang.participants import PARTICIPANTS
from jiebang.participants.base import Participant
from jiebang.participants.opening import open_participants
from jiebang.policy import packs
from jiebang.policy.condition import compile_condition, vocabulary
from jiebang.policy.load import load_pack
from jiebang.policy.pack import Pack
from jiebang.saga import timeline
from jiebang.saga.coordinator import FACT_UNAVAILABLE
from jiebang.saga.fence import Answer, Op
from jiebang.saga.orders import Order
from jiebang.store.cases import cases as store
from jiebang.store.cases.cases import NewCase
from jiebang.store.operations import outages
from jiebang.usecases.checks.check import Checker
from jiebang.usecases.checks.request import CheckRequest
from tests.packs import pack
from tests.rows import BOUND, insert

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

NOW: Final = datetime(2026, 3, 15, 4, 0, tzinfo=UTC)
LONG_AGO: Final = datetime(2024, 1, 1, tzinfo=UTC)
PACK: Final = pack("wechat")
EMONEY: Final = pack("emoney")
IDS: Final = CaseIds(b"0123456789abcdef")
CLEAN, CENT, HELD, RECLAIMED, SPLIT, LIVE, BARE, ENDING = range(1, 9)
EVERYONE: Final = range(1, 9)

READY: Final = Case(
    account_id=CLEAN,
    case_no=1,
    kind=Kind.REVOKE,
    state=State.READY,
    plan="wechat/2",
    marks="." * 11,
    revision=1,
    created_at=NOW,
    by_service=True,
)

Build = Callable[..., Checker]


@pytest.fixture(scope="module")
async def world(pools: Mapping[str, Pool]) -> Mapping[str, Pool]:
    """Eight people in all databases; BARE has a row in the platform's and the identity databases only."""
    await insert(pools["platform"], "platform.account", [{"account_id": one, "created_at": NOW} for one in EVERYONE])
    for name in PARTICIPANTS.databases:
        owner = "identity" if name.startswith("identity") else name
        own: dict[str, Any] = {}
        if owner == "identity":
            own = {**BOUND, "changed_at": LONG_AGO}
        if owner == "security":
            own = {"primary_device_id": "phone-1", "primary_device_since": LONG_AGO}
        rows = [{"account_id": one, **own} for one in EVERYONE if one != BARE or owner == "identity"]
        await insert(pools[name], f"{owner}.account", rows)
    await pools["wallet"].execute(
        "UPDATE wallet.account SET balance_fen = 1, facts_version = 5 WHERE account_id = $1", CENT
    )
    await pools["identity_guiyang"].execute(
        "UPDATE identity.account SET changed_at = $2 WHERE account_id = $1", SPLIT, NOW - timedelta(days=400)
    )
    return pools


@pytest.fixture
async def build(world: Mapping[str, Pool]) -> AsyncIterator[Build]:
    """Make checkers on the world: `instead` replaces participants, `platform` the platform's pool."""
    databases = open_participants(PARTICIPANTS, world, lambda: NOW, pepper=b"p" * 32)

    def made(
        *,
        instead: Mapping[str, Participant] | None = None,
        platform: Pool | None = None,
        limit: float = 5.0,
        pack: Pack = PACK,
    ) -> Checker:
        return Checker(
            registry=PARTICIPANTS,
            pack=lambda: pack,
            participants={**databases, **(instead or {})},
            platform=world["platform"] if platform is None else platform,
            case_ids=IDS,
            clock=lambda: NOW,
            limit=timedelta(seconds=limit),
        )

    yield made
    for database in databases.values():
        await database.aclose()


def codes(answers: Sequence[CheckAnswer]) -> list[list[str]]:
    return [[blocker.code for blocker in answer.blockers] for answer in answers]


class Broken:
    """A participant across the network that fails in a way of its own; the databases stay the real ones."""

    def __init__(self, name: str, answer: Callable[[Sequence[int]], Any]) -> None:
        self.name, self._answer = name, answer

    async def facts(self, accounts: Sequence[int]) -> FactBatch | None:
        found = self._answer(accounts)
        batch: FactBatch | None = await found if asyncio.iscoroutine(found) else found
        return batch

    async def apply(self, op: Op, orders: Sequence[Order], planned: PlannedOperation) -> list[Any]:
        raise NotImplementedError

    async def look(self, accounts: Sequence[int]) -> Mapping[int, Any]:
        raise NotImplementedError

    async def marks(self, after: int, upto: int, limit: int) -> Mapping[int, Any]:
        raise NotImplementedError

    async def aclose(self) -> None:
        """Nothing to close."""


def _raise(error: Exception) -> Any:
    raise error


async def test_rows_become_answers_in_the_order_asked(build: Build) -> None:
    answers = await build().check([CheckRequest(one, SERVICE) for one in (SPLIT, CENT, CLEAN, BARE, CENT)], Kind.REVOKE)
    assert [answer.account_id for answer in answers] == [SPLIT, CENT, CLEAN, BARE, CENT]
    assert codes(answers) == [[FACT_UNAVAILABLE], ["PAY-BALANCE"], [], [], ["PAY-BALANCE"]]
    assert "¥0.01" in answers[1].blockers[0].explanation.zh
    assert answers[1].versions["wallet"] == 5
    assert set(answers[2].versions) == set(PARTICIPANTS.databases)
    assert answers[3].versions["merchant"] == 0
    assert answers[0].blockers[0].facts["owner"] == "identity"


async def test_the_device_counts_only_where_there_is_one(build: Build) -> None:
    """A service of ours has none and says who it is; a person on a borrowed tablet has the wrong one."""
    checker = build()
    origins = {CLEAN: Origin("phone-1"), CENT: Origin("tablet"), HELD: SERVICE}
    answers = await checker([CLEAN, CENT, HELD], Kind.REVOKE, origins)
    assert codes(answers) == [[], ["PAY-BALANCE", "SEC-DEVICE"], []]


@pytest.mark.parametrize("origins", [{CLEAN: UNKNOWN}, {CLEAN: Origin("")}, {}])
@pytest.mark.parametrize("older", [False, True])
async def test_a_device_that_is_unknown_never_passes(build: Build, origins: dict[int, Origin], older: bool) -> None:
    """A thief whose token names no device must not be taken for a service, under a version admitted earlier neither."""
    policy = formerly_of_devices() if older else PACK
    assert codes(await build(pack=policy)([CLEAN], Kind.REVOKE, origins)) == [["SEC-DEVICE"]]
    assert codes(await build(pack=policy)([CLEAN], Kind.REVOKE, {CLEAN: SERVICE})) == [[]]


async def test_an_account_without_a_primary_device_is_no_exception(build: Build, world: Mapping[str, Pool]) -> None:
    """Nothing known on either side is no match."""
    security = world["security"]
    kept = "UPDATE security.account SET primary_device_id = $2, primary_device_since = $3 WHERE account_id = $1"
    await security.execute(kept, CLEAN, None, None)
    try:
        assert codes(await build()([CLEAN], Kind.REVOKE, {CLEAN: UNKNOWN})) == [["SEC-DEVICE"]]
    finally:
        await security.execute(kept, CLEAN, "phone-1", LONG_AGO)


def formerly_of_devices() -> Pack:
    """The pack as it was when a missing device meant a service."""
    text, source = packs.text("wechat")
    now = (
        "NOT request_by_service AND (request_device_id IS NULL OR request_device_id IS DISTINCT FROM primary_device_id)"
    )
    assert now in text
    then = "request_device_id IS NOT NULL AND request_device_id IS DISTINCT FROM primary_device_id"
    return load_pack(text.replace(now, then), source, PARTICIPANTS)


async def test_unknown_accounts_are_named_all_at_once(build: Build) -> None:
    with pytest.raises(UnknownAccountError) as unknown:
        await build().check([CheckRequest(one, SERVICE) for one in (99, CLEAN, 98, -1, 0, 1 << 60)], Kind.REVOKE)
    assert unknown.value.fields["accounts"] == ["-1", "0", "98", "99", str(1 << 60)]
    with pytest.raises(KindNotOfferedError):
        await build(pack=EMONEY).check([CheckRequest(CLEAN, SERVICE)], Kind.RESTORE)
    assert await build().check([], Kind.REVOKE) == []


async def test_a_kind_without_a_plan_can_be_checked_all_the_same(build: Build) -> None:
    """A person sees what would stand in the way before the day the kind is offered."""
    [answer] = await build().check([CheckRequest(CLEAN, SERVICE)], Kind.RESTORE)
    assert (codes([answer]), answer.offered) == ([["ID-BOUND"]], False)
    [answer] = await build().check([CheckRequest(CLEAN, SERVICE)], Kind.REVOKE)
    assert (answer.passes, answer.offered) == (True, True)
    assert {one.participant for one in answer.consequences} >= {"identity", "wallet", "security", "social", "unionpay"}


async def test_a_live_case_blocks_every_check_but_its_own(build: Build, world: Mapping[str, Pool]) -> None:
    """A worker that takes a case must not be stopped by that very case."""
    new = NewCase(account_id=LIVE, kind=Kind.REVOKE, plan="wechat/2", participants=11, due_at=NOW + timedelta(days=1))
    new = msgspec.structs.replace(new, by_service=True)
    opened = await store.insert(world["platform"], [new], NOW, [timeline.first_entry(NOW)])
    case = opened[LIVE]
    checker = build()
    [another] = await checker.check([CheckRequest(LIVE, SERVICE)], Kind.REVOKE)
    assert codes([another]) == [["CASE-OPEN"]]
    assert another.blockers[0].facts["live_case"] == IDS.encode(LIVE, case.case_no)
    assert IDS.decode(another.blockers[0].facts["live_case"]) == case.key
    own, stale = await checker.check(
        [CheckRequest(LIVE, SERVICE, own_case=case.case_no), CheckRequest(LIVE, SERVICE, own_case=case.case_no + 1)],
        Kind.REVOKE,
    )
    assert codes([own, stale]) == [[], ["CASE-OPEN"]]
    found = await checker.recheck([case, msgspec.structs.replace(case, account_id=CENT)])
    assert found[case.key].blockers == ()
    assert found[case.key].versions == dict.fromkeys(PARTICIPANTS.databases, 1)
    assert found[CENT, case.case_no].blockers == ("PAY-BALANCE",)
    gone = await checker.recheck([msgspec.structs.replace(case, account_id=97)])
    assert gone[97, case.case_no].blockers == ("UNKNOWN-ACCOUNT",)


async def test_a_reclaimed_identity_is_none_in_both_data_centres(build: Build, world: Mapping[str, Pool]) -> None:
    """The two data centres confirm at different instants; that must not read as a disagreement for ever."""
    for hours, name in enumerate(("identity_shenzhen", "identity_guiyang")):
        at = NOW + timedelta(hours=hours)
        side = open_participants(PARTICIPANTS, world, lambda at=at: at, pepper=b"p" * 32)[name]  # type: ignore[misc]
        for op, answer in ((Op.TRY, Answer.GRANTED), (Op.CONFIRM, Answer.DONE)):
            [reply] = await side.apply(op, [Order(RECLAIMED, 1, 1)], PACK.plans[Kind.REVOKE].operations[name])
            assert reply.answer is answer
    assert codes(await build().check([CheckRequest(RECLAIMED, SERVICE)], Kind.REVOKE)) == [["ID-NONE"]]


async def test_between_the_two_confirms_the_identity_is_unread(build: Build, world: Mapping[str, Pool]) -> None:
    side = open_participants(PARTICIPANTS, world, lambda: NOW, pepper=b"p" * 32)["identity_shenzhen"]
    await side.apply(Op.TRY, [Order(ENDING, 1, 1)], UNNAMED)
    [answer] = await build().check([CheckRequest(ENDING, SERVICE)], Kind.REVOKE)
    assert codes([answer]) == [[FACT_UNAVAILABLE]]
    assert answer.versions["identity_shenzhen"] is answer.versions["identity_guiyang"] is None
    assert answer.versions["wallet"] == 1


async def test_a_database_that_does_not_answer_in_time_is_unread(build: Build, world: Mapping[str, Pool]) -> None:
    """One slow database must not hold the whole batch, and must not let anybody pass."""
    async with world["security"].acquire() as holder, holder.transaction():
        await holder.execute("LOCK TABLE security.account IN ACCESS EXCLUSIVE MODE")
        slow, cent = await build(limit=1.0).check(
            [CheckRequest(CLEAN, SERVICE), CheckRequest(CENT, SERVICE)], Kind.REVOKE
        )
    assert codes([slow, cent]) == [[FACT_UNAVAILABLE], ["PAY-BALANCE", FACT_UNAVAILABLE]]
    assert slow.blockers[0].facts["owner"] == "security"
    assert slow.versions["security"] is None
    assert codes(await build().check([CheckRequest(CLEAN, SERVICE)], Kind.REVOKE)) == [[]]


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: _raise(OSError("gone")),
        lambda _: _raise(TimeoutError()),
        lambda _: _raise(RuntimeError("bug")),
        lambda _: asyncio.sleep(3600),
        lambda accounts: FactBatch("gaming", accounts, [1] * len(accounts), {}),
        lambda accounts: FactBatch("gaming", accounts, [1] * len(accounts), {"game_guard": ["no"] * len(accounts)}),
        lambda accounts: FactBatch("wallet", accounts, [1] * len(accounts), {"game_guard": [False] * len(accounts)}),
        lambda accounts: FactBatch(
            "gaming", [*accounts, *accounts], [1, 1] * len(accounts), {"game_guard": [False, True] * len(accounts)}
        ),
        lambda _: None,
    ],
    ids=["down", "timed out", "bug", "hangs", "no column", "wrong type", "other owner", "twice", "no facts"],
)
async def test_a_broken_participant_costs_its_own_facts_only(build: Build, answer: Any) -> None:
    checker = build(instead={"gaming": Broken("gaming", answer)}, limit=1.0)
    clean, cent = await checker.check([CheckRequest(CLEAN, SERVICE), CheckRequest(CENT, SERVICE)], Kind.REVOKE)
    assert codes([clean, cent]) == [[FACT_UNAVAILABLE], ["PAY-BALANCE", FACT_UNAVAILABLE]]
    assert clean.versions["gaming"] is None
    assert clean.versions["wallet"] == 1


async def test_without_our_own_store_nothing_passes_and_nothing_is_tried(
    build: Build, databases: Mapping[str, str]
) -> None:
    """Unsure whether another case runs, a worker must wait, not go on with the facts of the others."""
    closed = await _closed_pool(databases["platform"])
    checker = build(platform=closed)
    [answer] = await checker.check([CheckRequest(CLEAN, SERVICE)], Kind.REVOKE)
    assert codes([answer]) == [[FACT_UNAVAILABLE]]
    assert answer.blockers[0].facts["owner"] == "platform"
    found = await checker.recheck([READY])
    assert found[READY.key].blockers == ()
    assert set(found[READY.key].versions.values()) == {None}


async def _closed_pool(dsn: str) -> Pool:
    pool = await asyncpg.create_pool(dsn, min_size=1, max_size=1)
    await pool.close()
    return pool


# Conditions mean what PostgreSQL means.

_PG_TYPES: Final = {
    FactType.INT: "bigint",
    FactType.FEN: "bigint",
    FactType.BOOL: "boolean",
    FactType.TEXT: "text",
    FactType.TIME: "timestamptz",
    FactType.DATE: "date",
}
_DTYPES: Final = {
    FactType.INT: pl.Int64(),
    FactType.FEN: pl.Int64(),
    FactType.BOOL: pl.Boolean(),
    FactType.TEXT: pl.String(),
    FactType.TIME: pl.Datetime("us", "UTC"),
    FactType.DATE: pl.Date(),
}
_PARAMS: Final[Mapping[str, tuple[FactType, int | str]]] = {
    "days": (FactType.INT, 3),
    "limit_fen": (FactType.FEN, 2),
    "word": (FactType.TEXT, "b"),
}
_ATOMS: Final = [
    "balance_fen > 0",
    "balance_fen - arrears_fen BETWEEN -1 AND :limit_fen",
    "-(contacts - messages) >= :days - 4",
    "contacts IN (0, 2, messages)",
    "contacts NOT IN (1, grants)",
    "identity_state = :word",
    "identity_state <> 'a'",
    "document_type IS DISTINCT FROM identity_state",
    "document_type IS NOT DISTINCT FROM identity_state",
    "birth_date - identity_changed_date <= :days",
    "birth_date + 2 > identity_changed_date - :days",
    "birth_date BETWEEN identity_changed_date - 2 AND identity_changed_date",
    "identity_changed_at < abnormal_login_at",
    "legal_hold",
    "legal_hold = email_bound",
    "game_guard IS NULL",
    "game_guard IS NOT TRUE",
    "email_bound IS FALSE",
    "birth_date IS NOT NULL",
    "TRUE",
]
_NAMES: Final = {name: kind for name, kind in vocabulary(PARTICIPANTS).items() if any(name in atom for atom in _ATOMS)}
_VALUES: Final[Mapping[FactType, Sequence[Any]]] = {
    FactType.INT: (0, 1, 2, 3),
    FactType.FEN: (-1, 0, 1, 2, 5),
    FactType.BOOL: (True, False),
    FactType.TEXT: ("a", "b", ""),
    FactType.TIME: (NOW, LONG_AGO),
    FactType.DATE: (date(2024, 2, 28), date(2024, 2, 29), date(2024, 3, 1), date(2024, 3, 4)),
}


def _condition(chance: random.Random, depth: int) -> str:
    if depth == 0 or chance.random() < 0.2:
        return chance.choice(_ATOMS)
    one, other = _condition(chance, depth - 1), _condition(chance, depth - 1)
    shape = chance.choice(
        ["{} AND {}", "{} OR {}", "({} OR {})", "NOT ({} AND {})", "NOT {} OR {}", "({}) IS TRUE AND {}"]
    )
    return shape.format(one, other)


async def test_conditions_mean_what_postgresql_means(pools: Mapping[str, Pool]) -> None:
    """Compliance officers know SQL; a NULL, a date or a NOT that means something else here would mislead them."""
    chance = random.Random(20260315)  # noqa: S311 - a reproducible choice of conditions
    conditions = [*_ATOMS, *(_condition(chance, 3) for _ in range(200))]
    rows = [{name: chance.choice([*_VALUES[kind], None]) for name, kind in _NAMES.items()} for _ in range(120)]
    frame = pl.DataFrame(
        {name: pl.Series([row[name] for row in rows], dtype=_DTYPES[kind]) for name, kind in _NAMES.items()}
    )
    columns = ", ".join(f"${at}::{_PG_TYPES[kind]}[]" for at, kind in enumerate(_NAMES.values(), 1))
    written = [one.replace(":days", "3").replace(":limit_fen", "2").replace(":word", "'b'") for one in conditions]
    expected = await pools["platform"].fetch(
        f"SELECT {', '.join(f'({one})' for one in written)} FROM unnest({columns}) AS f ({', '.join(_NAMES)})",  # noqa: S608 - our own conditions
        *([row[name] for row in rows] for name in _NAMES),
    )
    compiled = [compile_condition(one, FactType.BOOL, _PARAMS, PARTICIPANTS) for one in conditions]
    found = frame.with_columns(one.expr.alias(f"c{at}") for at, one in enumerate(compiled))
    for at, condition in enumerate(conditions):
        assert found[f"c{at}"].to_list() == [row[at] for row in expected], condition


async def test_every_rule_of_the_pack_is_a_condition_postgresql_accepts(pools: Mapping[str, Pool]) -> None:
    """The pack's own conditions, as the officer wrote them, typed by the real thing."""
    for rule in PACK.rules:
        names = sorted(rule.when.names)
        text = rule.when.text
        for name in rule.when.params:
            text = text.replace(f":{name}", str(PACK.params[name].value))
        columns = ", ".join(f"NULL::{_PG_TYPES[vocabulary(PARTICIPANTS)[name]]} AS {name}" for name in names)
        kind = await pools["platform"].fetchval(f"SELECT pg_typeof({text})::text FROM (SELECT {columns}) f")  # noqa: S608 - our own pack
        assert kind == "boolean", rule.code


async def test_a_participant_out_of_service_is_told_with_its_name_and_since_when(
    build: Build, world: Mapping[str, Pool]
) -> None:
    """A person must know that they are not the reason; and a case already proven waits, it is not rejected."""
    platform, checker = world["platform"], build()
    await outages.take_out(platform, ["wallet", "unionpay"], "a new rack", "Ann", NOW)
    await outages.take_out(platform, ["wallet"], "again", "Ben", NOW + timedelta(hours=1))
    try:
        [answer] = await checker.check([CheckRequest(CLEAN, SERVICE)], Kind.REVOKE)
        [blocker] = answer.blockers
        assert blocker.code == "PARTICIPANT-OUT"
        assert "银联（自 2026年3月15日 12:00）；钱包（自 2026年3月15日 12:00）" in blocker.explanation.zh
        assert "UnionPay (since 15 Mar" in blocker.explanation.en
        assert "a new rack" not in msgspec.json.encode(answer).decode(), "operators' reasons are not for persons"
        [appeal] = await checker.check([CheckRequest(CLEAN, SERVICE)], Kind.APPEAL)
        assert appeal.passes, "what needs nobody goes on"
        told = (await checker.recheck([READY]))[READY.key]
        assert (told.blockers, set(told.versions.values())) == ((), {None}), "it waits"
    finally:
        await outages.take_back(platform, ["wallet", "unionpay"], "Ann", NOW + timedelta(hours=2))
    assert codes(await checker.check([CheckRequest(CLEAN, SERVICE)], Kind.REVOKE)) == [[]]
    history = await outages.load_outages(platform, 10)
    assert {(each.participant, each.by, each.back_by) for each in history} == {
        ("wallet", "Ann", "Ann"),
        ("unionpay", "Ann", "Ann"),
    }
