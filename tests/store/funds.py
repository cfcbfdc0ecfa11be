"""The funds race: people send money to each other while they revoke their identity, and workers die in between.

All that moves is the product: `WalletParticipant`, `Worker`, `Driver`, leases, the guarded saves, on real PostgreSQL;
and the super-app, through which people send. What judges is not: a trigger writes down every change of a wallet in the
order in which its row's lock let them happen, and the judge reads that, the entries and the cases with statements of
its own.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import UUID, uuid5

import asyncpg
import msgspec

from jiebang.model.case import Case, Key, Kind, State
from jiebang.model.errors import JiebangError, WalletBusyError
from jiebang.model.plan import Plan, PlannedOperation
from jiebang.participants import PARTICIPANTS
from jiebang.participants.base import Participant
from jiebang.participants.opening import open_participants
from jiebang.participants.wallet.money import WalletParticipant
from jiebang.participants.wallet.movements import EntryState, MovementOutcome, Transfer, WalletAction
from jiebang.saga.batch import Save
from jiebang.saga.coordinator import Proven, Rechecked, Reply, Timing, step
from jiebang.saga.fence import Op
from jiebang.saga.orders import Order
from jiebang.saga.timeline import entries, first_entry
from jiebang.sandbox.superapp.answers import AnswerStore, RequestKey, StoredAnswer
from jiebang.sandbox.superapp.money import Movement, transfer
from jiebang.sandbox.superapp.once import OncePerKey
from jiebang.store.cases import cases as store
from jiebang.store.cases.cases import NewCase
from jiebang.store.checks.records import CheckRecordStore
from jiebang.usecases.driving.advance import Driver, Limits
from jiebang.usecases.periodic import PeriodicChore
from jiebang.worker import Pace, Worker
from tests.rows import AT, insert, insert_accounts
from tests.store.turns import Turns, taking

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

PARTIES: Final = ("security", "social", "wallet")
PLAN: Final = Plan(name="race/1", participants=PARTIES, waves=(0, 0, 1))
LEASE: Final = timedelta(seconds=3)
GRACE: Final = LEASE / 8
"""Beyond a lease: the turns that the next worker's first statements may have to wait for."""
TIMING: Final = Timing(try_limit=timedelta(milliseconds=600), resend=timedelta(milliseconds=100), resend_limit=LEASE)
PACE: Final = Pace(lease=LEASE, busy_poll=LEASE / 100, idle_poll=LEASE / 40, chore_poll=LEASE / 20)
SLOW: Final = 0.3
NEVER: Final = timedelta(minutes=10)
PATIENCE: Final = 8 * LEASE
"""A race that takes longer, in logical time, never ends."""
OPENING: Final = 1_000
_SPACE: Final = UUID("7f1f0d1c-2a39-4a3d-8f58-0a4f6c1b2d3e")
_accounts: Iterator[int] = itertools.count(1_000_000, 10)

WITNESS: Final = """
CREATE SCHEMA race;
CREATE TABLE race.seen (seq bigserial PRIMARY KEY, account_id bigint NOT NULL, what text NOT NULL, case_no bigint,
    moved boolean, open_entries integer, state text);
CREATE INDEX ON race.seen (account_id);
CREATE FUNCTION race.witness() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO race.seen (account_id, what, case_no, moved, open_entries, state)
    VALUES (new.account_id,
        CASE WHEN (old.case_no, old.case_op) IS DISTINCT FROM (new.case_no, new.case_op)
            THEN new.case_op ELSE 'move' END,
        new.case_no, (old.balance_fen, old.open_entries) IS DISTINCT FROM (new.balance_fen, new.open_entries),
        new.open_entries, new.state);
    RETURN NULL;
END $$;
CREATE TRIGGER witness AFTER UPDATE ON wallet.account FOR EACH ROW EXECUTE FUNCTION race.witness();
"""


class CaughtError(AssertionError):
    """A property that did not hold."""


class Lossy:
    """A participant as a worker meets it: questions and answers get lost, and the worker may die of a good one."""

    def __init__(self, real: Participant, turns: Turns, losses: float, deadly: float) -> None:
        self._real, self.name, self._turns, self._losses, self._deadly = real, real.name, turns, losses, deadly

    async def facts(self, accounts: Sequence[int]) -> Any:
        return await self._real.facts(accounts)

    async def look(self, accounts: Sequence[int]) -> Any:
        return await self._real.look(accounts)

    async def marks(self, after: int, upto: int, limit: int) -> Any:
        return await self._real.marks(after, upto, limit)

    async def aclose(self) -> None:
        """Nothing of ours to close."""

    async def apply(self, op: Op, orders: Sequence[Order], planned: PlannedOperation) -> Sequence[Reply]:
        fate = self._turns.dice.random()
        if fate < self._losses / 2:
            raise TimeoutError
        await self._slowly()
        replies = await self._real.apply(op, orders, planned)
        if op is Op.TRY and self._turns.dice.random() < self._deadly:
            self._turns.die()
        await self._slowly()
        if fate < self._losses:
            raise TimeoutError
        return replies

    async def _slowly(self) -> None:
        """Be on the way for a while, now and then: time for others to come in between."""
        if self._turns.dice.random() < SLOW:
            await self._turns.nap(timedelta(milliseconds=self._turns.dice.randrange(100)))


class _Answers(AnswerStore):
    """The super-app's answers, in memory; what SQLite does takes no turn."""

    def __init__(self, turns: Turns) -> None:
        super().__init__(Path(":memory:"))
        self._turns = turns

    async def take(self, asked: RequestKey, now: datetime) -> UUID | StoredAnswer:
        return await self._turns.outside(lambda: AnswerStore.take(self, asked, now))

    async def keep(self, asked: RequestKey, answer: StoredAnswer) -> None:
        await self._turns.outside(lambda: AnswerStore.keep(self, asked, answer))


class RacedWorker(Worker):
    """The worker, resting by logical time."""

    turns: Turns

    async def _pause(self, limit: timedelta) -> None:
        if not self._stopping.is_set():
            await self.turns.nap(limit)


class Race:
    """One race: accounts, whoever sends, proves and withdraws, and two workers. `kind` may be a mistaken wallet."""

    def __init__(self, seed: int, pools: Mapping[str, Pool], kind: type[WalletParticipant] = WalletParticipant) -> None:
        self.seed, self.real, self.turns = seed, pools, Turns(seed)
        self.dice, self.clock = self.turns.dice, self.turns.clock
        first = next(_accounts)
        self.people = [first, first + 1, first + 2]
        self.shop = first + 3  # empty, and closed at some time
        self.calm = self.dice.random() < 0.6  # the wallet always answers: then nobody may be told "busy" for long
        self.told: defaultdict[UUID, list[EntryState]] = defaultdict(list)
        self.busiest = timedelta()
        self.met: Counter[str] = Counter()
        self._once = OncePerKey(_Answers(self.turns), self.clock)
        self._ids = itertools.count()
        self._running = 0
        self._pools = {name: taking(self.turns, pools[name]) for name in ("platform", *PARTIES)}
        self.wallet = kind(self._pools["wallet"], self.clock, pepper=bytes(32))

    def id(self) -> UUID:
        return uuid5(_SPACE, f"{self.people[0]} {next(self._ids)}")

    async def run(self) -> None:
        """Run it, and hold what came of it to every property. Raises CaughtError."""
        await self.real["platform"].execute("DELETE FROM platform.worker; DELETE FROM platform.bucket_lease")
        await self._people()
        actors = {f"worker-{number}": self._works(f"worker-{number}") for number in range(2)}
        for number in range(self.dice.randint(2, 4)):
            actors[f"sender-{number}"] = self._counted(self._sends())
        for account in self.people:
            if self.dice.random() < 0.85:
                actors[f"person-{account % 10}"] = self._counted(self._revokes(account))
        actors["card"] = self._counted(self._cashes_out())
        if self.dice.random() < 0.5:
            actors["bank"] = self._counted(self._closes())
        if self.dice.random() < 0.5:
            self.turns.dies("worker-0", self.dice.randint(20, 250))
        if self.dice.random() < 0.5:
            self.turns.dies("sender-0", self.dice.randint(5, 120))
        if not await self.turns.run(actors, PATIENCE):
            raise CaughtError("it does not end")
        await self._judged()

    def _counted(self, work: Coroutine[Any, Any, None]) -> Coroutine[Any, Any, None]:
        """Let the workers know that somebody still wants something of them."""
        self._running += 1

        async def counted() -> None:
            try:
                await work
            finally:
                self._running -= 1

        return counted()

    async def _people(self) -> None:
        ids = [*self.people, self.shop]
        await self.real["platform"].execute(
            "INSERT INTO platform.account (account_id, created_at) SELECT unnest($1::bigint[]), now()", ids
        )
        await asyncio.gather(*(insert_accounts(self.real[name], name, ids) for name in PARTIES if name != "wallet"))
        await insert_accounts(self.real["wallet"], "wallet", self.people, balance_fen=OPENING)
        await insert_accounts(self.real["wallet"], "wallet", [self.shop])
        opening = {"kind": "opening", "title": "", "amount_fen": OPENING, "state": "completed"}
        await insert(
            self.real["wallet"],
            "wallet.entry",
            [
                {"account_id": each, "entry_id": self.id(), "made_at": AT, "ended_at": AT, **opening}
                for each in self.people
            ],
        )

    # --- Those who act -----------------------------------------------------------------------------------------------

    async def _sends(self) -> None:
        """Send money, again under the same id while the wallet is busy, and now and then once more afterwards."""
        for _ in range(self.dice.randint(2, 5)):
            await self.turns.nap(timedelta(milliseconds=self.dice.randrange(200)))
            sender, receiver = self.dice.sample([*self.people, *self.people, self.shop], 2)
            amount = self.dice.choice([1, 17, 400, OPENING])
            one = Transfer(transfer_id=self.id(), sender=sender, receiver=receiver, amount_fen=amount)
            way = self.dice.choice([self._whole, self._begun, self._asked])
            await self._until_not_busy(one, way)
            if self.dice.random() < 0.2:
                await self._until_not_busy(one, way)

    async def _until_not_busy(self, one: Transfer, way: Callable[[Transfer], Any]) -> None:
        since: datetime | None = None
        while True:
            outcome = await way(one)
            if not isinstance(outcome.refusal, WalletBusyError):
                break
            since = since or self.turns.now
            self.met["busy"] += 1
            await self.turns.nap(timedelta(milliseconds=self.dice.randint(5, 60)))
        if since is not None:
            self.busiest = max(self.busiest, self.turns.now - since)
        if outcome.state is not None:  # a refusal says nothing of a repeat under the same id
            self.told[outcome.entry_id].append(outcome.state)

    async def _whole(self, one: Transfer) -> MovementOutcome:
        return (await self.wallet.transfer([one]))[0]

    async def _begun(self, one: Transfer) -> MovementOutcome:
        """Only the first step: its process dies, and the sweeper does the second."""
        return (await self.wallet.begin_transfers([one]))[0]

    async def _asked(self, one: Transfer) -> MovementOutcome:
        """As the super-app does, under an Idempotency-Key."""

        async def work(action_id: UUID) -> StoredAnswer:
            moved = await transfer(self.wallet, msgspec.structs.replace(one, transfer_id=action_id))
            return StoredAnswer(200, msgspec.json.encode(moved))

        def kept(error: JiebangError) -> StoredAnswer:
            refusals.append(error)
            return StoredAnswer(409, error.code.encode())

        refusals = list[JiebangError]()
        key = RequestKey(caller="race", route="transfer", key=str(one.transfer_id), body_hash=bytes(32))
        try:
            answer, _ = await self._once.answer(key, work, kept)
        except JiebangError as refusal:
            return MovementOutcome(entry_id=one.transfer_id, refusal=refusal)
        if answer.status != 200:
            # A refusal that was kept before tells its code alone.
            return MovementOutcome(entry_id=one.transfer_id, refusal=next(iter(refusals), JiebangError()))
        moved = msgspec.json.decode(answer.body, type=Movement)
        return MovementOutcome(entry_id=moved.id, state=moved.state)

    async def _cashes_out(self) -> None:
        if self.dice.random() < 0.5:
            return
        await self.turns.nap(timedelta(milliseconds=self.dice.randrange(600)))
        action = WalletAction(entry_id=self.id(), account_id=self.dice.choice(self.people))
        while isinstance((await self.wallet.cash_out([action]))[0].refusal, WalletBusyError):
            await self.turns.nap(timedelta(milliseconds=20))

    async def _closes(self) -> None:
        """Close the shop's wallet, which has nothing of its own to lose, whatever is on its way to it."""
        await self.turns.nap(timedelta(milliseconds=self.dice.randrange(500)))
        await self._pools["wallet"].execute(
            """UPDATE wallet.account a SET state = 'closed', facts_version = facts_version + 1
               WHERE account_id = $1 AND balance_fen = 0 AND case_op <> 'tried' AND NOT EXISTS (
                   SELECT FROM wallet.entry e
                   WHERE e.account_id = a.account_id AND e.state = 'pending' AND e.amount_fen < 0)""",
            self.shop,
        )

    async def _revokes(self, account: int) -> None:
        """Open a case and prove it, wait for its end, and perhaps begin another; now and then wish to withdraw."""
        for _ in range(self.dice.randint(1, 2)):
            await self.turns.nap(timedelta(milliseconds=self.dice.randrange(300)))
            key = await self._proves(account)
            if key is None:
                return
            if self.dice.random() < 0.2:
                await self.turns.nap(timedelta(milliseconds=self.dice.randrange(60)))
                await store.wish_withdraw(self._pools["platform"], [key], self.clock())
            while True:
                await self.turns.nap(LEASE / 30)
                case = (await store.load_many(self._pools["platform"], [key]))[key]
                if case.due_at is None:
                    break

    async def _proves(self, account: int) -> Key | None:
        """As `usecases.prove` does: the wallet's version is read first, then the proof is saved with it."""
        platform = self._pools["platform"]
        new = NewCase(
            account_id=account, kind=Kind.REVOKE, plan=PLAN.name, participants=len(PARTIES), due_at=self.clock() + NEVER
        )
        made = await store.insert(platform, [new], self.clock(), [first_entry(self.clock())])
        if account not in made:
            return None
        version = (await self.wallet.facts([account])).versions[0]
        async with self.real["wallet"].acquire() as connection, connection.transaction():
            # At one moment, while no movement can be half way: from here on none may happen until the commit point.
            await connection.execute("SET LOCAL lock_timeout = '50ms'")
            try:
                locked = await connection.fetchval(
                    "SELECT facts_version FROM wallet.account WHERE account_id = $1 FOR UPDATE", account
                )
            except asyncpg.LockNotAvailableError:
                locked = None
            if locked is not None:
                await connection.execute(
                    "INSERT INTO race.seen (account_id, what, case_no) VALUES ($1, 'proven', $2)",
                    account,
                    made[account].case_no,
                )
        if locked is None:
            await store.wish_withdraw(platform, [made[account].key], self.clock())
            return made[account].key
        decision = step(made[account], PLAN, Proven(version), self.clock(), TIMING)
        save = Save(cases=[decision.case], entries=entries(made[account], decision.case, (), (), self.clock()))
        await store.save(platform, [save], self.clock())
        return made[account].key

    async def _works(self, name: str) -> None:
        losses = 0.05 if self.dice.random() < 0.6 else 0.0
        real = {
            party: each
            for party, each in open_participants(PARTICIPANTS, self._all(), self.clock, pepper=bytes(32)).items()
            if party in PARTIES
        }
        real["wallet"] = self.wallet
        parties = {
            party: Lossy(
                each,
                self.turns,
                0.0 if party == "wallet" and self.calm else losses,
                0.3 if party == "wallet" and name == "worker-0" else 0.0,
            )
            for party, each in real.items()
        }
        driver = Driver(
            pool=self._pools["platform"],
            participants=cast("Mapping[str, Participant]", parties),
            plan_of=lambda _case: PLAN,
            recheck=self._recheck,
            records=CheckRecordStore(bytes(32), lambda: os.urandom(16)),
            clock=self.clock,
            timing=TIMING,
            limits=Limits(round=timedelta(seconds=20), call=timedelta(seconds=20)),
        )
        worker = RacedWorker(
            worker_id=f"{self.people[0]}-{name}",
            pool=self._pools["platform"],
            driver=driver,
            chores={"transfers": PeriodicChore(self._finish, LEASE / 10)},
            clock=self.clock,
            pace=PACE,
        )
        worker.turns = self.turns
        await self.turns.nap(LEASE / 4 * self.dice.random())  # workers do not look at their leases in step
        running = asyncio.create_task(worker.run())
        try:
            while not await self._all_over():
                if running.done():
                    break  # it has failed, which is told below
                await self.turns.nap(LEASE / 8)
            worker.stop()
            await running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    def _all(self) -> Mapping[str, Pool]:
        return {name: self._pools.get(name, pool) for name, pool in self.real.items()}

    async def _finish(self, _buckets: frozenset[int], now: datetime) -> int:
        return await self.wallet.complete_pending(now - LEASE / 20)

    async def _all_over(self) -> bool:
        """Say whether those who ask are done, all cases have ended and all transfers gone through."""
        if self._running:
            return False
        live = await self._pools["platform"].fetchval(
            "SELECT count(*) FROM platform.cases WHERE account_id = ANY ($1::bigint[]) AND ended_at IS NULL",
            self.people,
        )
        pending = await self._pools["wallet"].fetchval(
            "SELECT count(*) FROM wallet.entry WHERE account_id = ANY ($1::bigint[]) AND state = 'pending'",
            [*self.people, self.shop],
        )
        return not live and not pending

    async def _recheck(self, cases: Sequence[Case]) -> Mapping[Key, Rechecked]:
        accounts = [case.account_id for case in cases]
        every = open_participants(PARTICIPANTS, self._all(), self.clock, pepper=bytes(32))
        batches = {name: await every[name].facts(accounts) for name in PARTIES}
        versions = {
            name: dict(zip(batch.accounts, batch.versions, strict=True)) for name, batch in batches.items() if batch
        }
        return {
            case.key: Rechecked({name: of.get(case.account_id, 0) for name, of in versions.items()}) for case in cases
        }

    # --- The judge ---------------------------------------------------------------------------------------------------

    async def _judged(self) -> None:
        wallet, ids = self.real["wallet"], [*self.people, self.shop]
        rows = await wallet.fetch("SELECT * FROM wallet.entry WHERE account_id = ANY ($1::bigint[])", ids)
        accounts = await wallet.fetch("SELECT * FROM wallet.account WHERE account_id = ANY ($1::bigint[])", ids)
        seen = await wallet.fetch("SELECT * FROM race.seen WHERE account_id = ANY ($1::bigint[]) ORDER BY seq", ids)
        cases = await store.load_of_accounts(self.real["platform"], self.people)
        self.met.update(case.state.value for case in cases)
        self.met.update(row["state"] for row in rows if row["kind"] == "transfer" and row["amount_fen"] < 0)
        self.met["death"] += not self.turns.lives("worker-0")
        self._books(rows, accounts)
        self._transfers(rows, {row["account_id"]: row["state"] for row in accounts})
        for case in cases:
            self._case(case, [row for row in seen if row["account_id"] == case.account_id])
        if self.calm and self.busiest > LEASE + GRACE:
            raise CaughtError(f"told busy for {self.busiest}")

    def _books(self, rows: Sequence[asyncpg.Record], accounts: Sequence[asyncpg.Record]) -> None:
        """No money made or lost: each balance is its ledger's, and all together the openings less what was paid out."""
        for account in accounts:
            own = [row for row in rows if row["account_id"] == account["account_id"]]
            if account["balance_fen"] != sum(row["amount_fen"] for row in own if row["state"] == "completed"):
                raise CaughtError(f"the books of {account['account_id']} are wrong")
            if account["state"] == "closed" and account["balance_fen"]:
                raise CaughtError("a closed wallet holds money")
            if account["open_entries"] or any(row["state"] == "pending" for row in own):
                raise CaughtError(f"a transfer of {account['account_id']} never ended")
        paid_out = -sum(row["amount_fen"] for row in rows if row["kind"] == "cash_out")
        if sum(row["balance_fen"] for row in accounts) + paid_out != OPENING * len(self.people):
            raise CaughtError("money was made or lost")

    def _transfers(self, rows: Sequence[asyncpg.Record], states: Mapping[int, str]) -> None:
        """Both sides of a transfer agree, whoever asked was told the truth, and only a closed wallet sends back."""
        sides: defaultdict[UUID, list[asyncpg.Record]] = defaultdict(list)
        for row in rows:
            if row["kind"] == "transfer":
                sides[row["entry_id"]].append(row)
        for entry_id, pair in sides.items():
            if len(pair) != 2 or pair[0]["amount_fen"] + pair[1]["amount_fen"] or pair[0]["state"] != pair[1]["state"]:
                raise CaughtError(f"the two sides of {entry_id} differ")
            receiver = max(pair, key=lambda row: row["amount_fen"])["account_id"]
            if pair[0]["state"] == "returned" and states[receiver] != "closed":
                raise CaughtError(f"{entry_id} came back from an open wallet")
        for entry_id, told in self.told.items():
            state = sides[entry_id][0]["state"] if entry_id in sides else None
            if any(each not in (state, EntryState.PENDING) for each in told):
                raise CaughtError(f"{entry_id} was told {told} and is {state}")

    def _case(self, case: Case, seen: Sequence[asyncpg.Record]) -> None:
        """A done case's wallet was confirmed; nothing moved from the last proof to that, nor from a Try to its end."""
        own = [row for row in seen if row["case_no"] == case.case_no and row["what"] != "move"]
        marks = [row["what"] for row in own]
        if ("confirmed" in marks) != (case.state is State.DONE):
            raise CaughtError(f"{case.key} is {case.state}, and its wallet was {marks}")
        if case.state is State.DONE:
            proven, confirmed = (
                next(row["seq"] for row in own if row["what"] == what) for what in ("proven", "confirmed")
            )
            if any(row["moved"] for row in seen if proven < row["seq"] <= confirmed):
                raise CaughtError(f"money moved under {case.key}, which was done")
        tried = [row for row in own if row["what"] == "tried"]
        for row in tried:
            end = next((each["seq"] for each in own if each["seq"] > row["seq"]), row["seq"])
            if row["open_entries"] or any(each["moved"] for each in seen if row["seq"] <= each["seq"] <= end):
                raise CaughtError(f"money moved while {case.key} held the wallet")
