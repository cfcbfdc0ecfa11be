"""A participant that is a database of ours: one generic implementation, and each participant's declaration.

Try, Confirm and Cancel are one statement per batch, with arrays as arguments and at most one row written per case: the
fence mark and the participant's own columns change atomically. The statement is an update under the fence's *guard*;
for a row that it wrote, the written values are the answer. Only for orders without a written row a second statement
reads the row, or inserts it, and the *answer* comes from the shared `saga.fence.fence` on the row as read. Where guard
and fence disagree, another op came between read and write, and the answer is PENDING: the op is sent again.

A Confirm may not fail, so the effects of a plan are held against the declared bounds before any statement, once a
batch: a Try of what Confirm could not apply is refused, and a Confirm of it (its Try was granted by an earlier version)
is answered with an error, which leaves the row as it is and is an operator's task.

An account without a row counts as case number 0, finished. An op that the fence lets write inserts the row, because the
mark must be stored: without it a late Try could still be granted after its Cancel.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
import structlog

from jiebang.model.facts import FactBatch, FactType
from jiebang.model.limits import LimitReading
from jiebang.model.plain import make_all_plain, make_plain, may_act
from jiebang.participants.core.staging import StagingArea
from jiebang.participants.core.statements import (
    EFFECT_UNFIT,
    build_operation,
    build_reads,
    build_refusing,
    build_unnamed,
)
from jiebang.saga.coordinator import Reply
from jiebang.saga.fence import NO_ROW, Answer, CaseOp, FenceRow, Op, fence
from jiebang.saga.orders import Answers, Order, Orders, collect_answers

if TYPE_CHECKING:
    import asyncpg

    from jiebang.model.check import Text
    from jiebang.model.participants import Declaration
    from jiebang.model.plan import PlannedOperation

    Pool = asyncpg.Pool[asyncpg.Record]

_log = structlog.get_logger(__name__)
_FACTS_FROM: Final = 2
"""Facts follow account_id and facts_version in the columns of a facts query."""


class DatabaseParticipant:
    """A database of ours as a `Participant`. The pool belongs to its opener: `aclose` leaves it open."""

    def __init__(self, name: str, declared: Declaration, pool: Pool, clock: Callable[[], datetime]) -> None:
        self.name = name
        self._pool, self._clock = pool, clock
        self._owner, self._facts_sql, self._limits_sql = declared.owner, declared.facts_sql, declared.limits_sql
        self._read_sql = build_reads(declared.owner)
        self._operations = {
            operation: build_operation(declared.owner, operation, how) for operation, how in declared.operations.items()
        }
        self._operations[""] = build_unnamed(declared)
        self._declared = declared
        self.staging = StagingArea(declared, pool, clock) if declared.stages else None
        """The staging area; None for a participant none of whose operations applies staged values."""
        self._names = [fact.name for fact in declared.facts]
        self._items = frozenset(fact.name for fact in declared.facts if fact.type is FactType.ITEMS)
        self._texts = frozenset(fact.name for fact in declared.facts if fact.type is FactType.TEXT)

    async def facts(self, accounts: Sequence[int]) -> FactBatch:
        """Read all facts of `accounts` in one query."""
        rows = await self._pool.fetch(self._facts_sql, sorted(set(accounts)))
        if not rows:
            return FactBatch(self._owner, (), (), dict.fromkeys(self._names, ()))
        ids, versions, *columns = zip(*rows, strict=True)
        names = list(rows[0].keys())[_FACTS_FROM:]
        return FactBatch(
            self._owner,
            ids,
            versions,
            {
                name: [_decode_items(value) if value and value != "[]" else () for value in column]
                if name in self._items
                else list(map(_clean, column))
                if name in self._texts
                else column
                for name, column in zip(names, columns, strict=True)
            },
        )

    async def limits(self, accounts: Sequence[int]) -> Mapping[int, Sequence[LimitReading]]:
        """Read the limits in force of `accounts` now, in one query. An account without any is absent."""
        if not self._limits_sql:
            return {}
        found: defaultdict[int, list[LimitReading]] = defaultdict(list)
        for account_id, *read in await self._pool.fetch(self._limits_sql, sorted(set(accounts)), self._clock()):
            found[account_id].append(LimitReading(*read))
        return found

    async def apply(self, op: Op, orders: Sequence[Order], planned: PlannedOperation) -> Sequence[Reply]:
        """Carry out `op` of an operation in one statement, and a second one for rows that the first did not write.

        Of several cases of one account only the lowest is answered. Raises KeyError for an unknown operation.
        """
        return (await self.carry_out(op, Orders.of(_select_lowest(orders)), planned)).one_by_one()

    async def carry_out(self, op: Op, orders: Orders, planned: PlannedOperation) -> Answers:
        """Carry out `op` as `apply` does, in columns."""
        fault = None if op is Op.CANCEL else self._find_fault(op, planned)
        if fault is not None:
            _log.error("effect_unfit", participant=self.name, op=op.value, effect=fault[0], reason=fault[1].en)
            if op is Op.CONFIRM:
                return await self._answer_unfit(orders)
        sql = self._select_statements(op, planned)
        [(yes, accounts, refused, codes)] = await self._pool.fetch(sql[op], *self._build_arguments(op, orders, planned))
        now = self._clock()
        if yes == len(orders):
            return Answers(self.name, op, orders, now, orders.everybody)
        granted, refusals = frozenset(accounts or ()), dict(zip(refused or (), codes or (), strict=True))
        case_nos = dict(zip(orders.accounts, orders.case_nos, strict=True))
        rest = [
            Reply(
                account_id,
                case_nos[account_id],
                self.name,
                op,
                Answer.REFUSED,
                code,
                FenceRow(case_nos[account_id], CaseOp.CANCELLED),
                now,
            )
            for account_id, code in refusals.items()
        ]
        unwritten = [
            each for each in orders.one_by_one() if each.account_id not in granted and each.account_id not in refusals
        ]
        if unwritten:
            rest += await self._judge(op, unwritten, planned)
        return Answers(self.name, op, orders, now, granted, rest)

    def _find_fault(self, op: Op, planned: PlannedOperation) -> tuple[str, Text] | None:
        """Return the first effect that cannot be applied, if any. A Confirm passes over one that is not declared."""
        if not planned.effects:
            return None
        _, operation = self._declared.operation(planned.operation)
        known = operation.effects or {}
        effects = {name: value for name, value in planned.effects.items() if op is Op.TRY or name in known}
        return operation.find_fault(effects)

    def _select_statements(self, op: Op, planned: PlannedOperation) -> Mapping[str, str]:
        """Return the operation's statements; for a Try of what Confirm could not apply, those that refuse it."""
        if op is not Op.TRY or self._find_fault(op, planned) is None:
            return self._operations[planned.operation]
        return build_refusing(self._owner, *self._declared.operation(planned.operation), EFFECT_UNFIT)

    async def _answer_unfit(self, orders: Orders) -> Answers:
        """Answer a Confirm whose effects cannot be applied: as the fence does where nothing is written, else an error.

        One statement, which reads.
        """
        rows, batch = await self.look(orders.accounts), orders.one_by_one()
        replies = []
        for order in batch:
            row = rows.get(order.account_id, NO_ROW)
            verdict = fence(row, order.case_no, Op.CONFIRM)
            answer, code = (Answer.ERROR, EFFECT_UNFIT) if verdict.write else (verdict.answer, verdict.code)
            replies.append(Reply(order.account_id, order.case_no, self.name, Op.CONFIRM, answer, code, row))
        return collect_answers(self.name, Op.CONFIRM, orders, replies, self._clock())

    async def _judge(self, op: Op, batch: Sequence[Order], planned: PlannedOperation) -> list[Reply]:
        """Answer orders whose rows the guard left unchanged, or that have no row."""
        sql = self._select_statements(op, planned)
        rows = await self._pool.fetch(sql[f"judge_{op}"], *self._build_arguments(op, Orders.of(batch), planned))
        before, written = dict[int, tuple[FenceRow, str | None]](), dict[int, FenceRow]()
        for wrote, account_id, case_no, case_op, refusal in rows:
            row = FenceRow(case_no, CaseOp(case_op)) if case_op is not None else NO_ROW
            if wrote:
                written[account_id] = row
            else:
                before[account_id] = (row, refusal)
        return [
            self._build_reply(op, order, *before[order.account_id], written.get(order.account_id)) for order in batch
        ]

    async def look(self, accounts: Sequence[int]) -> Mapping[int, FenceRow]:
        """Read the fence rows of `accounts`. An account without a row is absent."""
        rows = await self._pool.fetch(self._read_sql["look"], sorted(set(accounts)))
        return {account_id: FenceRow(case_no, CaseOp(case_op)) for account_id, case_no, case_op in rows}

    async def marks(self, after: int, upto: int, limit: int) -> Mapping[int, FenceRow]:
        """Read the fence rows above `after` up to `upto` that ever took a case, the first `limit`, in key order."""
        rows = await self._pool.fetch(self._read_sql["marks"], after, upto, limit)
        return {account_id: FenceRow(case_no, CaseOp(case_op)) for account_id, case_no, case_op in rows}

    async def try_again(self, orders: Sequence[Order], planned: PlannedOperation) -> Mapping[int, str]:
        """Try for the accounts that can grant it; return the code of each other one, which does not change."""
        batch = Orders.of(_select_lowest(orders))
        sql = self._select_statements(Op.TRY, planned)
        rows = await self._pool.fetch(sql["try_again"], *self._build_arguments(Op.TRY, batch, planned))
        written = {account_id for wrote, account_id, *_ in rows if wrote}
        case_nos = dict(zip(batch.accounts, batch.case_nos, strict=True))
        return {
            account_id: refusal
            for wrote, account_id, case_no, case_op, refusal in rows
            if not wrote and account_id not in written and refusal is not None
            if case_op is None or (case_no < case_nos[account_id] and case_op != CaseOp.TRIED)
        }

    async def aclose(self) -> None:
        """Do nothing: the pool belongs to whoever opened it."""

    def _build_arguments(self, op: Op, orders: Orders, planned: PlannedOperation) -> list[Any]:
        keys: list[Any] = [orders.accounts, orders.case_nos]
        match op:
            case Op.TRY:
                return [*keys, orders.versions or [None] * len(orders)]
            case Op.CONFIRM:
                return [*keys, msgspec.json.encode(planned.effects).decode(), self._clock()]
            case Op.CANCEL:
                return keys

    def _build_reply(self, op: Op, order: Order, row: FenceRow, refusal: str | None, written: FenceRow | None) -> Reply:
        verdict = fence(row, order.case_no, op, refusal)
        answer, code = (verdict.answer, verdict.code) if verdict.write == written else (Answer.PENDING, None)
        return Reply(order.account_id, order.case_no, self.name, op, answer, code, written or row)


def _select_lowest(orders: Sequence[Order]) -> list[Order]:
    """Return the orders in key order, of each account only the lowest case: a later one waits for it."""
    lowest = dict[int, "Order"]()
    for order in sorted(orders, key=lambda order: (order.account_id, order.case_no)):
        lowest.setdefault(order.account_id, order)
    return list(lowest.values())


_decode_list: Final = msgspec.json.Decoder(list[Any]).decode


def _decode_items(text: str) -> list[Any]:
    """Decode a list of items. Their texts are what people typed anywhere: made plain where they are not."""
    return cast("list[Any]", make_all_plain(_decode_list(text))) if may_act(text) else _decode_list(text)


def _clean(value: str | None) -> str | None:
    return value if value is None or value.isprintable() else make_plain(value, lines=False)
