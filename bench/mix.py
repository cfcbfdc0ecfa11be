"""Cases of which some are refused and some time out, among those that go well.

Two thin wrappers round real participants do it. Of one case in twenty, `security` tells the re-check another version
than its row's, as if a fact changed in between: its real Try refuses, and everything tried is cancelled. Of one in a
hundred, `social` is never asked to Try and nobody answers, until the deadline: that is silence, and it is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final, cast

import msgspec

from bench.cost import Meter, Outcome
from bench.world import World, now
from jiebang.model.plan import PlannedOperation
from jiebang.participants.core.database import DatabaseParticipant
from jiebang.participants.core.statements import VERSION_CHANGED
from jiebang.saga.coordinator import TIMED_OUT, Reply, Timing
from jiebang.saga.fence import Op
from jiebang.saga.orders import Answers, Orders

if TYPE_CHECKING:
    from jiebang.model.facts import FactBatch
    from jiebang.saga.fence import FenceRow
    from jiebang.saga.orders import Order

TRY_LIMIT: Final = timedelta(seconds=2)
"""Well above what a Try takes under this load, and short beside the time that a round takes."""
_REFUSED: Final = (20, 7)
_SILENT: Final = (100, 13)
"""Of accounts: one in how many, and which."""


def refused(account_id: int) -> bool:
    """Whether an account's Try is to be refused."""
    return account_id % _REFUSED[0] == _REFUSED[1]


def silent(account_id: int) -> bool:
    """Whether an account's Try gets no answer."""
    return account_id % _SILENT[0] == _SILENT[1]


class _Wrapped:
    """A real participant; subclasses change one answer."""

    def __init__(self, real: DatabaseParticipant) -> None:
        self.real, self.name = real, real.name

    async def facts(self, accounts: Sequence[int]) -> FactBatch | None:
        """Ask the real one."""
        return await self.real.facts(accounts)

    async def apply(self, op: Op, orders: Sequence[Order], planned: PlannedOperation) -> Sequence[Reply]:
        """Ask the real one."""
        return await self.real.apply(op, orders, planned)

    async def carry_out(self, op: Op, orders: Orders, planned: PlannedOperation) -> Answers:
        """Ask the real one."""
        return await self.real.carry_out(op, orders, planned)

    async def look(self, accounts: Sequence[int]) -> Mapping[int, FenceRow]:
        """Ask the real one."""
        return await self.real.look(accounts)

    async def marks(self, after: int, upto: int, limit: int) -> Mapping[int, FenceRow]:
        """Ask the real one."""
        return await self.real.marks(after, upto, limit)

    async def aclose(self) -> None:
        """Leave the real one open: it is not ours."""


class Refusing(_Wrapped):
    """Reports a wrong facts version for some accounts, so that their Try is refused."""

    async def facts(self, accounts: Sequence[int]) -> FactBatch | None:
        """Read facts; those of some accounts will be another version by the Try."""
        batch = await self.real.facts(accounts)
        if batch is None:
            return None
        versions = [version + refused(account) for account, version in zip(batch.accounts, batch.versions, strict=True)]
        return msgspec.structs.replace(batch, versions=versions)


class Silent(_Wrapped):
    """Drops the Trys of some accounts."""

    async def carry_out(self, op: Op, orders: Orders, planned: PlannedOperation) -> Answers:
        """Carry out what was not dropped."""
        if op is not Op.TRY or not any(map(silent, orders.accounts)):
            return await self.real.carry_out(op, orders, planned)
        heard = Orders.of([order for order in orders.one_by_one() if not silent(order.account_id)])
        answers = await self.real.carry_out(op, heard, planned) if len(heard) else Answers(self.name, op, heard)
        return msgspec.structs.replace(answers, orders=orders)


async def mix(world: World, cases: int) -> Outcome:
    """Have one worker of the product drive `cases`; count until all have ended but those that time out.

    A case that times out counts if it has ended by then: the last two seconds of waiting for a deadline are no work.
    """
    parties = dict(world.participants)
    security, social = (cast("DatabaseParticipant", parties[name]) for name in ("security", "social"))
    parties["security"], parties["social"] = Refusing(security), Silent(social)
    driver = world.driver(participants=parties, timing=Timing(try_limit=TRY_LIMIT))
    accounts, meter, started = world.unused(cases), Meter(world), now()
    async with asyncio.TaskGroup() as together:
        together.create_task(world.record(accounts))
        outcome = await world.drained(driver, cases, meter=meter)
    rows = await world.pools["platform"].fetch(
        """SELECT account_id, state, reason, ended_at FROM platform.cases
           WHERE account_id BETWEEN $1 AND $2 AND case_no = 1 ORDER BY ended_at""",
        accounts[0],
        accounts[-1],
    )
    found = {row["account_id"]: (row["state"], row["reason"]) for row in rows}
    for account in accounts:
        wanted = ("aborted", VERSION_CHANGED) if refused(account) else ("aborted", TIMED_OUT)
        if (refused(account) or silent(account)) and found[account] != wanted:
            message = f"a case that was to be {wanted} is {found[account]}"
            raise RuntimeError(message)
    done = [account for account, (state, _) in found.items() if state == "done"]
    await world.require_done(done)
    until = max(row["ended_at"] for row in rows if row["reason"] != TIMED_OUT)
    ended = sum(row["ended_at"] <= until for row in rows)
    return msgspec.structs.replace(
        outcome, cases=ended, seconds=(until - started).total_seconds(), latencies=outcome.latencies
    )
