"""The yearly quota of documents on real databases: never a fourth, never a slot lost, whoever races or dies."""

from __future__ import annotations

import asyncio
import os
import random
import re
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jiebang.model.case import Case, Kind, State, transition
from jiebang.model.plan import Plan, PlannedOperation
from jiebang.participants import PARTICIPANTS
from jiebang.participants.base import Participant
from jiebang.participants.identity import documents
from jiebang.participants.opening import open_participants
from jiebang.participants.wallet.money import WalletParticipant
from jiebang.policy.pack import QuotaRule
from jiebang.saga.audit import Breach
from jiebang.saga.batch import Save
from jiebang.saga.coordinator import Proven, Rechecked, Reply, Timing, step
from jiebang.saga.fence import Op
from jiebang.saga.orders import Order
from jiebang.saga.timeline import first_entry
from jiebang.store.cases import cases as store
from jiebang.store.cases.cases import NewCase
from jiebang.store.checks import quota
from jiebang.store.checks.quota import DocumentUse
from jiebang.store.checks.records import CheckRecordStore
from jiebang.usecases.checks.quota import Quotas, RecheckWithClaim
from jiebang.usecases.driving.advance import Driver, Limits
from jiebang.usecases.operations.verify import verify
from tests.rows import insert, insert_accounts
from tests.store.test_plans import nodes

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

NOW: Final = datetime(2026, 6, 1, 4, 0, tzinfo=UTC)
YEAR: Final = 2026
PLAN: Final = Plan(name="test/1", participants=("social", "gaming", "wallet"), waves=(0, 0, 1))
QUOTA: Final = QuotaRule(
    kinds=frozenset({Kind.CHANGE_IDENTITY, Kind.RESTORE}), per_year=3, used_up="ID-QUOTA", cooling="ID-COOLING"
)
numbers: Final = count(1)


def document() -> bytes:
    """A document that no other test uses."""
    return next(numbers).to_bytes(32, "big")


class FewRules:
    """The part of a pack that a claim reads."""

    quota: QuotaRule | None = QUOTA


class Silenced:
    """A real participant that answers no Try while it is silenced."""

    def __init__(self, real: Participant) -> None:
        self._real, self.name, self.silent = real, real.name, False

    async def apply(self, op: Op, orders: Sequence[Order], planned: PlannedOperation) -> Sequence[Reply]:
        if self.silent and op is Op.TRY:
            raise OSError
        return await self._real.apply(op, orders, planned)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class World:
    """Real databases; accounts whose documents the tests choose; cases of them that are proven."""

    def __init__(self, pools: Mapping[str, Pool]) -> None:
        self.pools, self.platform = pools, pools["platform"]
        self.now = NOW
        real = open_participants(PARTICIPANTS, pools, lambda: self.now, pepper=bytes(32))
        wallet = real["wallet"]
        assert isinstance(wallet, WalletParticipant)
        self.wallet = wallet
        self.social = Silenced(real["social"])
        self.participants: dict[str, Participant] = {**real, "social": self.social}
        self.quotas = Quotas(PARTICIPANTS, self.participants, self.platform, lambda: self.now)
        self._accounts = count(1)

    async def people(self, documents: Sequence[bytes]) -> list[int]:
        """Bind each document to a new account, everywhere."""
        ids = [next(self._accounts) for _ in documents]
        await insert(self.platform, "platform.account", [{"account_id": one, "created_at": NOW} for one in ids])
        for name in PARTICIPANTS.databases:
            owner = "identity" if name.startswith("identity") else name
            await insert_accounts(self.pools[name], owner, ids)
            if owner == "identity":
                await self.pools[name].execute(
                    """UPDATE identity.account a SET document_index = i.document
                       FROM unnest($1::bigint[], $2::bytea[]) AS i (account_id, document)
                       WHERE a.account_id = i.account_id""",
                    ids,
                    documents,
                )
        return ids

    async def ready(self, documents: Sequence[bytes]) -> list[Case]:
        """Open a case for a new account a document, and prove it."""
        ids = await self.people(documents)
        new = [
            NewCase(
                account_id=one,
                kind=Kind.CHANGE_IDENTITY,
                plan=PLAN.name,
                participants=len(PLAN.participants),
                due_at=self.now,
                document_index=of,
            )
            for one, of in zip(ids, documents, strict=True)
        ]
        opened_cases = await store.insert(self.platform, new, self.now, [first_entry(self.now)])
        return await self.saved(
            [step(case, PLAN, Proven(1), self.now, Timing()).case for case in opened_cases.values()]
        )

    async def saved(self, cases: Sequence[Case]) -> list[Case]:
        """Save stepped cases; those whose guard refused are left out."""
        saves = [Save(cases=[case], entries=[first_entry(self.now)]) for case in cases]
        return list((await store.save(self.platform, saves, self.now)).kept().values())

    async def recheck(self, cases: Sequence[Case]) -> Mapping[tuple[int, int], Rechecked]:
        """What blocks is tested with the check; here everybody passes."""
        return {case.key: Rechecked(dict.fromkeys(PLAN.participants, 1)) for case in cases}

    def claiming(self, recheck: Any = None) -> RecheckWithClaim:
        pack: Any = FewRules
        return RecheckWithClaim(
            recheck or self.recheck, self.quotas, pool=self.platform, pack=lambda: pack, clock=lambda: self.now
        )

    def driver(self, recheck: Any = None) -> Driver:
        return Driver(
            pool=self.platform,
            participants=self.participants,
            plan_of=lambda _case: PLAN,
            recheck=recheck or self.claiming(),
            clock=lambda: self.now,
            timing=Timing(try_limit=timedelta(0)) if self.social.silent else Timing(),
            limits=Limits(),
            records=CheckRecordStore(bytes(32), lambda: os.urandom(16)),
        )

    async def driven(self, cases: Sequence[Case], rounds: int = 4) -> list[Case]:
        """Take cases as far as they go; return them as they then stand."""
        driver = self.driver()
        for _ in range(rounds):
            found = await store.load_many(self.platform, [case.key for case in cases])
            await driver.drive([case for case in found.values() if case.due_at is not None])
            self.now += timedelta(seconds=1)
        await driver.aclose()
        return [found[case.key] for case in cases]

    async def slots(self, of: bytes) -> dict[tuple[int, int], int]:
        """Who holds the document's slots this year, by case."""
        rows = await self.platform.fetch(
            "SELECT account_id, case_no, slot FROM platform.identity_quota WHERE document_index = $1 AND year = $2",
            of,
            YEAR,
        )
        assert len({row["slot"] for row in rows}) == len(rows)
        return {(row["account_id"], row["case_no"]): row["slot"] for row in rows}

    async def audit(self) -> set[tuple[Breach, int]]:
        report = await verify(
            pool=self.platform,
            participants={name: self.participants[name] for name in PLAN.participants},
            wallet=self.wallet,
            plan_of=lambda _case: PLAN,
            page=40,
            settle=timedelta(milliseconds=1),
        )
        return {(each.breach, each.account_id) for each in report.violations}


@pytest.fixture(scope="module")
async def world(pools: Mapping[str, Pool]) -> AsyncIterator[World]:
    return World(pools)  # type: ignore[return-value] # pytest-asyncio takes a coroutine as well


# --- Claims that race ------------------------------------------------------------------------------------------------

FATES: Final = ("done", "aborted", "dies", "dies before saving")


def after(case: Case, state: State, now: datetime) -> Case:
    """The case one step on, as the coordinator would leave it."""
    size = len(PLAN.participants)
    match state:
        case State.TRYING:
            return transition(case, state, marks="t" * size, versions=(1,) * size, deadline=now, due_at=now)
        case State.CONFIRMING:
            return transition(case, state, marks="c" * size, due_at=now)
        case State.DONE:
            return transition(case, state, marks="d" * size, due_at=None)
        case State.CANCELLING:
            return transition(case, state, marks="x" * size, due_at=now, reason="X")
        case State.ABORTED:
            return transition(case, state, marks="z" * size, due_at=None, reason="X")
        case _:
            return transition(case, State.REJECTED, due_at=None, reason="ID-QUOTA")


async def work(world: World, keys: Sequence[tuple[int, int]], fates: Mapping[tuple[int, int], str], dice: int) -> None:
    """A worker that takes cases in batches of its own choice, and dies of some of them."""
    chance = random.Random(dice)  # noqa: S311 - hypothesis chooses the seed
    left = chance.sample(list(keys), len(keys))
    while left:
        batch, left = left[: (size := chance.randint(1, 5))], left[size:]
        found = await store.load_many(world.platform, batch)
        ready = [case for case in found.values() if case.state is State.READY]
        told = await world.claiming()(ready)
        going = [
            after(case, State.REJECTED if told[case.key].blockers else State.TRYING, world.now)
            for case in ready
            if case.key in told and (fates[case.key] != "dies before saving" or told[case.key].blockers)
        ]
        trying = [case for case in await world.saved(going) if case.state is State.TRYING]
        for fate, states in (
            ("done", (State.CONFIRMING, State.DONE)),
            ("aborted", (State.CANCELLING, State.ABORTED)),
        ):
            taken = [case for case in trying if fates[case.key] == fate]
            for state in states:
                taken = await world.saved([after(case, state, world.now) for case in taken])


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from(FATES)), min_size=1, max_size=14),
    st.lists(st.integers(0, 1 << 30), min_size=2, max_size=4, unique=True),
)
async def test_however_many_race_and_die_no_document_is_used_more_than_its_quota(
    world: World, wanted: list[tuple[int, str]], workers: list[int]
) -> None:
    """Else two workers would each let a third change through; or a dead one would keep a person from theirs."""
    papers = [document() for _ in range(3)]
    cases = await world.ready([papers[paper] for paper, _ in wanted])
    fates = {case.key: fate for case, (_, fate) in zip(sorted(cases, key=lambda one: one.key), wanted, strict=True)}
    of = {case.key: case.document_index for case in cases}
    await asyncio.gather(*(work(world, list(fates), fates, dice) for dice in workers))
    held = {key: paper for paper in papers for key in await world.slots(paper)}
    assert all(of[key] == paper for key, paper in held.items())
    assert max(Counter(held.values()).values(), default=0) <= QUOTA.per_year
    # The next worker goes on from what was saved; what the dead ones claimed is found again, not claimed anew.
    survivors = dict.fromkeys(fates, "done")
    await work(world, list(fates), survivors, 1)
    stuck = [case for case in (await store.load_many(world.platform, fates)).values() if case.state is State.TRYING]
    ended = await world.saved([after(case, State.CONFIRMING, world.now) for case in stuck])
    await world.saved([after(case, State.DONE, world.now) for case in ended])
    final = await store.load_many(world.platform, fates)
    assert {case.state for case in final.values()} <= {State.DONE, State.ABORTED, State.REJECTED}
    now_held = {key for paper in papers for key in await world.slots(paper)}
    assert now_held == {key for key, case in final.items() if case.state is State.DONE}
    assert {key for key in held if fates[key] in ("dies", "dies before saving")} <= now_held
    by_paper: defaultdict[bytes | None, list[Case]] = defaultdict(list)
    for case in final.values():
        by_paper[case.document_index].append(case)
    for of_paper in by_paper.values():
        if len(of_paper) <= QUOTA.per_year:
            assert State.REJECTED not in {case.state for case in of_paper}, "a slot was free and yet refused"


async def test_a_batch_takes_what_is_left_and_the_rest_is_refused(world: World) -> None:
    """Set-based or not: of eight people with one document three change, and five are told why not."""
    paper = document()
    cases = await world.driven(await world.ready([paper] * 8))
    assert Counter(case.state for case in cases) == {State.DONE: 3, State.REJECTED: 5}
    assert {case.reason for case in cases if case.state is State.REJECTED} == {"ID-QUOTA"}
    assert set(await world.slots(paper)) == {case.key for case in cases if case.state is State.DONE}


async def test_a_case_rolled_back_gives_its_slot_to_the_next(world: World) -> None:
    """A silent database must not cost anybody one of their three changes."""
    paper = document()
    first = await world.ready([paper] * 3)
    world.social.silent = True
    try:
        broken = await world.driven(first, rounds=6)
    finally:
        world.social.silent = False
    assert {(case.state, case.reason) for case in broken} == {(State.ABORTED, "TRY-TIMED-OUT")}
    assert await world.slots(paper) == {}
    assert {case.state for case in await world.driven(await world.ready([paper] * 3))} == {State.DONE}
    assert len(await world.slots(paper)) == 3


async def test_a_case_whose_funds_moved_after_the_claim_keeps_nothing(world: World) -> None:
    """The step after the claim may still refuse."""
    paper = document()
    cases = await world.ready([paper])

    async def moved_on(asked: Sequence[Case]) -> Mapping[tuple[int, int], Rechecked]:
        return {case.key: Rechecked({**dict.fromkeys(PLAN.participants, 1), "wallet": 2}) for case in asked}

    driver = world.driver(world.claiming(moved_on))
    await driver.drive(cases)
    await driver.aclose()
    [case] = (await store.load_many(world.platform, [cases[0].key])).values()
    assert (case.state, case.reason) == (State.REJECTED, "FUNDS-MOVED")
    assert await world.slots(paper) == {}


async def test_a_case_that_ended_meanwhile_gets_no_slot(world: World) -> None:
    """Nobody would ever give it back."""
    paper = document()
    [case] = await world.ready([paper])
    await world.saved([after(case, State.REJECTED, world.now)])
    assert await quota.claim(world.platform, [(case, 3)], YEAR, NOW) == (set(), set())
    assert await world.claiming()([case]) == {}
    assert await world.slots(paper) == {}


async def test_an_end_that_waited_for_a_claim_gives_its_slot_back(world: World) -> None:
    """The save's own view of the table is older than the slot."""
    paper = document()
    [case] = await world.ready([paper])
    async with world.platform.acquire() as slow:
        claim = slow.transaction()
        await claim.start()
        await slow.fetch(quota._SQL["lock_unmoved"], [case.account_id], [case.case_no], [case.revision])
        ending = asyncio.create_task(world.saved([after(case, State.REJECTED, world.now)]))
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        while not await world.platform.fetchval(waiting):  # noqa: ASYNC110 - the server's state offers no event
            await asyncio.sleep(0.01)
        await slow.fetch(quota._SQL["claim_slots"], [paper], [case.account_id], [case.case_no], [3], YEAR, NOW)
        await claim.commit()
        assert len(await ending) == 1
    assert await world.slots(paper) == {}


async def test_a_smaller_quota_counts_what_was_claimed_under_a_larger_one(world: World) -> None:
    """A new version of the policy with fewer changes a year must not find room among old slots."""
    paper = document()
    cases = await world.ready([paper] * 6)
    held, full = await quota.claim(world.platform, [(case, 5) for case in cases], YEAR, NOW)
    assert (len(held), len(full)) == (5, 1)
    first = min(cases, key=lambda case: case.key)
    await quota.release(world.platform, [first])
    [late] = [case for case in cases if case.key in full]
    assert await quota.claim(world.platform, [(late, 3)], YEAR, NOW) == (set(), {late.key})
    assert await quota.claim(world.platform, [(late, 5)], YEAR, NOW) == ({late.key}, set())


@pytest.mark.parametrize(
    ("at", "year"),
    [
        (datetime(2026, 12, 31, 15, 59, 59, 999_999, UTC), 2026),
        (datetime(2026, 12, 31, 16, 0, 0, tzinfo=UTC), 2027),
        (datetime(2027, 12, 31, 15, 59, 59, tzinfo=UTC), 2027),
        (datetime(2028, 2, 29, 16, 0, 0, tzinfo=UTC), 2028),
    ],
)
async def test_the_year_turns_at_midnight_in_shanghai(world: World, at: datetime, year: int) -> None:
    """Not in the server's zone: eight hours too late would refuse a change on New Year's morning."""
    paper = document()
    cases = await world.ready([paper])
    world.now = at
    try:
        await world.claiming()(cases)
        # A worker that dies here is followed by one in the next year: the slot found again is the same.
        world.now = at + timedelta(days=1)
        assert not (await world.claiming()(cases))[cases[0].key].blockers
    finally:
        world.now = NOW
    rows = await world.platform.fetch("SELECT year FROM platform.identity_quota WHERE document_index = $1", paper)
    assert [row["year"] for row in rows] == [year]


async def test_both_years_have_their_own_three(world: World) -> None:
    paper = document()
    cases = await world.ready([paper] * 6)
    for year, part in ((2026, cases[:3]), (2027, cases[3:])):
        held, full = await quota.claim(world.platform, [(case, 3) for case in part], year, NOW)
        assert (len(held), full) == (3, set())


# --- What was there before us ----------------------------------------------------------------------------------------


async def changed(
    world: World,
    paper: bytes,
    account_id: int,
    *changes: tuple[str, datetime],
    case_no: int | None = None,
    only: Sequence[str] = ("identity_shenzhen", "identity_guiyang"),
) -> None:
    """Put changes into an account's history at both data centres, or one."""
    for name in only:
        first = await world.pools[name].fetchval(
            "SELECT count(*) FROM identity.change WHERE account_id = $1", account_id
        )
        rows = [
            {
                "account_id": account_id,
                "change_id": first + at,
                "kind": kind,
                "document_type": "resident_id",
                "document_index": paper,
                "at": when,
                "case_no": case_no,
            }
            for at, (kind, when) in enumerate(changes, 1)
        ]
        await insert(world.pools[name], "identity.change", rows)


async def facts(world: World, *accounts: int) -> list[tuple[bool, int, datetime | None]]:
    """The facts of accounts as a check reads them: read, changes this year, refused at."""

    class Asked:
        def __init__(self, account_id: int) -> None:
            self.account_id, self.own_case, self.document = account_id, None, None

    part = await world.quotas.facts([Asked(one) for one in accounts], frozenset(accounts))
    columns = ("read:quota", "document_changes_this_year", "quota_refused_at")
    return list(zip(*(part.frame[name].to_list() for name in columns), strict=True))


START: Final = datetime(2025, 12, 31, 16, tzinfo=UTC)


async def test_history_counts_by_document_whatever_the_account(world: World) -> None:
    """Else a person with two accounts would have six changes, and one who came with a history three more."""
    paper = document()
    one, other, stranger = await world.people([paper, paper, document()])
    second = timedelta(seconds=1)
    await changed(world, paper, one, ("bound", START - 2 * second), ("renamed", START - second), ("renamed", START))
    await changed(world, paper, other, ("bound", START + timedelta(days=2)), ("bound", START + timedelta(days=9)))
    assert await facts(world, one, other, stranger) == [(True, 2, None), (True, 2, None), (True, 0, None)]
    [case] = await world.ready([paper])
    held, _ = await quota.claim(world.platform, [(case, 1)], YEAR, NOW)
    assert held == {case.key}
    assert [row[1] for row in await facts(world, one)] == [3]
    refused = await world.driven(await world.ready([paper]))
    assert [(case.state, case.reason) for case in refused] == [(State.REJECTED, "ID-QUOTA")]


async def test_a_change_made_by_a_case_counts_once(world: World) -> None:
    """By its slot; the history tells of it as well."""
    paper = document()
    [done] = await world.driven(await world.ready([paper]))
    await changed(world, paper, done.account_id, ("bound", START - timedelta(days=400)))
    await changed(world, paper, done.account_id, ("document_swapped", NOW), case_no=done.case_no)
    assert [row[:2] for row in await facts(world, done.account_id)] == [(True, 1)]


async def test_documents_of_which_the_data_centres_differ_are_unread(world: World) -> None:
    """Whoever passes on one side's word could be the one whom the other side would refuse."""
    paper, other = document(), document()
    split, apart, fine = await world.people([paper, other, document()])
    await world.pools["identity_guiyang"].execute(
        "UPDATE identity.account SET document_index = $2 WHERE account_id = $1", split, document()
    )
    await changed(world, other, apart, ("bound", START), ("renamed", START), only=["identity_guiyang"])
    assert [row[0] for row in await facts(world, split, apart, fine)] == [False, False, True]
    waiting = await world.driven(await world.ready([other]))
    assert [(case.state, case.reason) for case in waiting] == [(State.READY, "FACT-UNAVAILABLE")]
    assert await world.slots(other) == {}


async def test_a_case_waits_while_a_data_centre_is_silent(world: World) -> None:
    """Neither refused for what is not their fault, nor let through unseen."""
    paper = document()
    cases = await world.ready([paper])
    gone = Quotas(
        PARTICIPANTS, {"identity_shenzhen": world.participants["identity_shenzhen"]}, world.platform, lambda: NOW
    )
    pack: Any = FewRules
    claiming = RecheckWithClaim(world.recheck, gone, pool=world.platform, pack=lambda: pack, clock=lambda: NOW)
    told = await claiming(cases)
    assert told[cases[0].key] == Rechecked(dict.fromkeys(PLAN.participants))
    assert await world.slots(paper) == {}


async def test_a_name_taken_back_is_still_counted_by_its_last_document(world: World) -> None:
    """`restore` begins where no document is bound."""
    paper = document()
    [account] = await world.people([paper])
    await changed(world, paper, account, ("bound", START), ("renamed", START))
    for name in ("identity_shenzhen", "identity_guiyang"):
        await world.pools[name].execute(
            """UPDATE identity.account SET state = 'reclaimed', level = 0, document_type = NULL, document_index = NULL,
                   birth_date = NULL, region = NULL WHERE account_id = $1""",
            account,
        )
    assert await facts(world, account) == [(True, 1, None)]


async def test_own_slots_do_not_count_against_their_case(world: World) -> None:
    """Else the worker after a dead one would find the quota used up by the very case it takes."""
    paper = document()
    cases = await world.ready([paper] * 3)
    await quota.claim(world.platform, [(case, 3) for case in cases], YEAR, NOW)
    uses = [DocumentUse(paper, case.account_id, case.case_no) for case in cases]
    assert [one.slots for one in await quota.read_usage(world.platform, [*uses, DocumentUse(paper, 1)], YEAR)] == [
        2,
        2,
        2,
        3,
    ]


# --- The audit -------------------------------------------------------------------------------------------------------

_HELD: Final = "INSERT INTO platform.identity_quota SELECT {}, now() FROM platform.cases WHERE account_id = $1"
MISTAKES: Final[Mapping[str, tuple[Breach, str]]] = {
    "a slot of a case that was broken off": (
        Breach.SLOT_LEAKED,
        _HELD.format("document_index, 2026, 9, account_id, case_no"),
    ),
    "a slot of no case": (Breach.SLOT_LEAKED, _HELD.format("document_index, 2026, 9, account_id, 77")),
    "a slot of another document": (Breach.SLOT_LEAKED, _HELD.format("sha256('x'), 2026, 9, account_id, case_no")),
    "a change without its slot": (Breach.SLOT_MISSING, "DELETE FROM platform.identity_quota WHERE account_id = $1"),
}


@pytest.mark.parametrize("what", MISTAKES)
async def test_the_audit_finds(world: World, what: str) -> None:
    """A slot lost keeps an honest person from a change for a year; a slot missing lets a fourth pass."""
    paper = document()
    cases = await world.driven(await world.ready([paper] * 4))
    breach, mistake = MISTAKES[what]
    rejected = next(case.account_id for case in cases if case.state is State.REJECTED)
    done = next(case.account_id for case in cases if case.state is State.DONE)
    whose = done if breach is Breach.SLOT_MISSING else rejected
    before = await world.audit()
    assert not {one for one in before if one[1] in {case.account_id for case in cases}}
    async with world.platform.acquire() as connection:
        assert (await connection.execute(mistake, whose)).split()[-1] == "1"
    try:
        assert await world.audit() - before == {(breach, whose)}
    finally:
        if breach is Breach.SLOT_LEAKED:
            await world.platform.execute("DELETE FROM platform.identity_quota WHERE slot = 9")


# --- Plans -----------------------------------------------------------------------------------------------------------

STATEMENTS: Final = {
    **{("platform", name): sql for name, sql in quota._SQL.items()},
    ("identity_shenzhen", "bound"): documents._BOUND,
    ("identity_guiyang", "brought_in"): documents._BROUGHT_IN,
}
_BATCH: Final = list(range(5_000_001, 5_000_257))
ARGUMENTS: Final[Mapping[str, Any]] = {
    "int8[]": _BATCH,
    "int4[]": [1] * len(_BATCH),
    "bytea[]": [one.to_bytes(32, "big") for one in _BATCH],
    "bytea": bytes(32),
    "timestamptz": NOW,
    "int2": YEAR,
    "int8": 100,
}


@pytest.fixture(scope="module")
async def crowded(world: World) -> World:
    """Many slots, refusals and changes, of which no statistics exist."""
    papers = "(SELECT decode(lpad(to_hex(g), 64, '0'), 'hex') AS paper, g FROM generate_series(5000001, 5020000) g) p"
    change = "(account_id, change_id, kind, document_type, document_index, at)"
    case = "(account_id, case_no, bucket, kind, state, plan, marks, created_at, ended_at, reason)"
    identities = (
        "identity.account (account_id) SELECT g",
        f"identity.change {change} SELECT g, 1, 'bound', 'passport', paper, now()",
    )
    made: Mapping[str, Sequence[str]] = {
        "platform": (
            "platform.identity_quota SELECT paper, 2026, 1, g, 1, now()",
            "platform.quota_refusal SELECT paper, now(), g",
            f"platform.cases {case} SELECT g, 1, 0, 'restore', 'rejected', 'p', '.', now(), now(), 'X'",
        ),
        "identity_shenzhen": identities,
        "identity_guiyang": identities,
    }
    for name, inserts in made.items():
        for what in inserts:
            await world.pools[name].execute(f"INSERT INTO {what} FROM {papers}")
    return world


@pytest.mark.parametrize(("name", "label"), STATEMENTS)
async def test_a_batch_goes_through_the_index(crowded: World, name: str, label: str) -> None:
    """Whatever the planner believes of a table without statistics, documents and cases must be found by key."""
    async with crowded.pools[name].acquire() as connection:
        prepared = await connection.prepare(STATEMENTS[name, label])
        (top,) = await prepared.explain(*(ARGUMENTS[parameter.name] for parameter in prepared.get_parameters()))
    for node in nodes(top["Plan"]):
        if "Relation Name" in node and node["Node Type"].endswith("Scan"):
            assert node["Node Type"] in ("Index Scan", "Index Only Scan"), f"{label}: {node}"
            assert re.search("account_id|document_index", node.get("Index Cond", "")), f"{label}: {node}"
