"""A participant that is a database of ours: one generic implementation, each participant giving only its particulars.

Try, Confirm and Cancel are one statement a batch, with arrays in and at most one row written a case: the fence mark and
the participant's own columns change together or not at all. The statement is an update under the fence's *guard*, and
where it wrote, what it wrote is the answer. Only for orders it wrote nothing for, a second statement reads the row, or
makes it, and the *answer* comes from the shared `saga.fence.fence` on the row as read. Where guard and fence disagree,
another op came between read and write, and the answer is PENDING: asked again, the row tells.

An account without a row is number 0, finished. An op that the fence lets write creates the row, because the mark must
stand somewhere: without it a late Try could still be granted after its Cancel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jiebang.model.facts import FACTS, FactBatch, FactType
from jiebang.model.plan import EFFECTS
from jiebang.saga.coordinator import Reply
from jiebang.saga.fence import NO_ROW, Answer, CaseOp, FenceRow, Op, fence
from jiebang.saga.orders import Answers, Order, Orders

if TYPE_CHECKING:
    import asyncpg

    Pool = asyncpg.Pool[asyncpg.Record]

VERSION_CHANGED: Final = "VERSION-CHANGED"
"""A fact changed between the check and the Try."""

_FACTS_FROM: Final = 2
"""Facts follow account_id and facts_version in the columns of a facts query."""

_SQL_TYPES: Final[Mapping[type, str]] = {int: "bigint", bool: "boolean", str: "text"}


class Particulars(msgspec.Struct, frozen=True, kw_only=True):
    """What is a participant's own. All SQL is over its account row `a`.

    `owner`: schema, and owner of its facts. `facts`: a query over accounts `$1::bigint[]` that returns account_id,
    facts_version and a column for each fact. `refusals`: code -> condition under which a Try is refused, the first that
    holds; it reads neither the fence nor a column of on_try. `missing`: code that refuses a Try of an account without a
    row (None: nothing to unbind there, granted). `on_try`, `on_confirm`, `on_cancel`: column -> expression; on_confirm
    also sees the plan's effects as `e` (NULL where the plan leaves one out) and the time as `e.now`. on_cancel undoes
    on_try, and leaves an untried row alone.
    """

    owner: str
    facts: str
    refusals: Mapping[str, str] = {}
    missing: str | None = None
    on_try: Mapping[str, str] = {}
    on_confirm: Mapping[str, str] = {}
    on_cancel: Mapping[str, str] = {}


class DatabaseParticipant:
    """One of the nine databases, speaking `Participant`. The pool stays its opener's: `aclose` leaves it open."""

    def __init__(self, name: str, own: Particulars, pool: Pool, clock: Callable[[], datetime]) -> None:
        self.name = name
        self._pool, self._clock = pool, clock
        self._owner, self._facts_sql = own.owner, own.facts
        self._sql = statements(name, own)
        facts = [fact for fact in FACTS.values() if fact.owner == own.owner]
        self._names = [fact.name for fact in facts]
        self._items = frozenset(fact.name for fact in facts if fact.type is FactType.ITEMS)

    async def facts(self, accounts: Sequence[int]) -> FactBatch:
        """Read all facts of `accounts` in one query."""
        rows = await self._pool.fetch(self._facts_sql, sorted(set(accounts)))
        if not rows:
            return FactBatch(
                self._owner, (), (), {name: () for name, fact in FACTS.items() if fact.owner == self._owner}
            )
        ids, versions, *columns = zip(*rows, strict=True)
        names = list(rows[0].keys())[_FACTS_FROM:]
        return FactBatch(
            self._owner,
            ids,
            versions,
            {
                name: [_items(value) if value and value != "[]" else () for value in column]
                if name in self._items
                else column
                for name, column in zip(names, columns, strict=True)
            },
        )

    async def apply(self, op: Op, orders: Sequence[Order], effects: Mapping[str, Any]) -> Sequence[Reply]:
        """Carry out `op` in one statement, two where some row was not as it usually is.

        Of several cases of one account only the lowest is answered.
        """
        return (await self.carry_out(op, Orders.of(_lowest(orders)), effects)).one_by_one()

    async def carry_out(self, op: Op, orders: Orders, effects: Mapping[str, Any]) -> Answers:
        """Carry out `op` as `apply` does, in columns: of a row that was written, what was written is the answer."""
        [(yes, accounts, refused, codes)] = await self._pool.fetch(self._sql[op], *self._arguments(op, orders, effects))
        now = self._clock()
        if yes == len(orders):
            return Answers(self.name, op, orders, now, orders.everybody)
        said_yes, refusals = frozenset(accounts or ()), dict(zip(refused or (), codes or (), strict=True))
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
        left = [
            each for each in orders.one_by_one() if each.account_id not in said_yes and each.account_id not in refusals
        ]
        if left:
            rest += await self._unwritten(op, left, effects)
        return Answers(self.name, op, orders, now, said_yes, rest)

    async def _unwritten(self, op: Op, batch: Sequence[Order], effects: Mapping[str, Any]) -> list[Reply]:
        """Answer orders whose rows the guard kept as they are, or that have no row."""
        rows = await self._pool.fetch(self._sql[f"judge_{op}"], *self._arguments(op, Orders.of(batch), effects))
        before, written = dict[int, tuple[FenceRow, str | None]](), dict[int, FenceRow]()
        for wrote, account_id, case_no, case_op, refusal in rows:
            row = FenceRow(case_no, CaseOp(case_op)) if case_op is not None else NO_ROW
            if wrote:
                written[account_id] = row
            else:
                before[account_id] = (row, refusal)
        return [self._reply(op, order, *before[order.account_id], written.get(order.account_id)) for order in batch]

    async def look(self, accounts: Sequence[int]) -> Mapping[int, FenceRow]:
        """Read the fence rows of `accounts`. An account without a row is absent."""
        rows = await self._pool.fetch(self._sql["look"], sorted(set(accounts)))
        return {account_id: FenceRow(case_no, CaseOp(case_op)) for account_id, case_no, case_op in rows}

    async def marks(self, after: int, upto: int, limit: int) -> Mapping[int, FenceRow]:
        """Read the fence rows above `after` up to `upto` that ever took a case, the first `limit`, in key order."""
        rows = await self._pool.fetch(self._sql["marks"], after, upto, limit)
        return {account_id: FenceRow(case_no, CaseOp(case_op)) for account_id, case_no, case_op in rows}

    async def try_again(self, orders: Sequence[Order]) -> Mapping[int, str]:
        """Try for the accounts that can grant it; of the others, which stay as they are, return the code."""
        batch = Orders.of(_lowest(orders))
        rows = await self._pool.fetch(self._sql["try_again"], *self._arguments(Op.TRY, batch, {}))
        written = {account_id for wrote, account_id, *_ in rows if wrote}
        case_nos = dict(zip(batch.accounts, batch.case_nos, strict=True))
        return {
            account_id: refusal
            for wrote, account_id, case_no, case_op, refusal in rows
            if not wrote and account_id not in written and refusal is not None
            if case_op is None or (case_no < case_nos[account_id] and case_op != CaseOp.TRIED)
        }

    async def aclose(self) -> None:
        """Let go of nothing: connections belong to the pool, and the pool to whoever opened it."""

    def _arguments(self, op: Op, orders: Orders, effects: Mapping[str, Any]) -> list[Any]:
        keys: list[Any] = [orders.accounts, orders.case_nos]
        match op:
            case Op.TRY:
                return [*keys, orders.versions or [None] * len(orders)]
            case Op.CONFIRM:
                return [*keys, msgspec.json.encode(effects).decode(), self._clock()]
            case Op.CANCEL:
                return keys

    def _reply(self, op: Op, order: Order, row: FenceRow, refusal: str | None, written: FenceRow | None) -> Reply:
        verdict = fence(row, order.case_no, op, refusal)
        answer, code = (verdict.answer, verdict.code) if verdict.write == written else (Answer.PENDING, None)
        return Reply(order.account_id, order.case_no, self.name, op, answer, code, written or row)


def statements(name: str, own: Particulars) -> Mapping[str, str]:
    """Return a participant's statements: each op's, "judge_" and the op, "look", "marks" and "try_again".

    An op answers with one row: how many of the orders it wrote with a yes; which, where that is not all; which it wrote
    with a refusal, and the codes. Judging answers with two
    kinds of rows: (false, account_id, case_no, case_op, refusal) as read, one an order, and (true, account_id, case_no,
    case_op, NULL) as written. Ids come sorted and are updated in that order, so that two batches never wait for each
    other crosswise. `= ANY ($1)` says nothing new: it is a condition on the key that no missing statistic (how many
    rows are tried?) can talk the planner out of.
    """
    table = f"{own.owner}.account"
    granted = _refusal(own)
    missing = f"CASE WHEN i.version IS NOT NULL THEN '{VERSION_CHANGED}' ELSE {_literal(own.missing)} END"
    tried = {"case_no": "i.case_no", "case_op": f"CASE WHEN {granted} IS NULL THEN 'tried' ELSE 'cancelled' END"}
    for column, value in own.on_try.items():
        tried[column] = f"CASE WHEN {granted} IS NULL THEN {value} ELSE a.{column} END"
    confirmed = {
        "case_op": "'confirmed'",
        "epoch": "a.epoch + 1",
        "facts_version": "a.facts_version + 1",
        **own.on_confirm,
    }
    cancelled = {"case_no": "i.case_no", "case_op": "'cancelled'", **own.on_cancel}
    finished_below = "a.case_no < i.case_no AND a.case_op <> 'tried'"
    tried_here = "a.case_no = i.case_no AND a.case_op = 'tried'"
    ops = {
        Op.TRY: _Op(
            ask=_ASK_VERSION,
            refusal=granted,
            missing=missing,
            changes=tried,
            guard=finished_below,
            made="CASE WHEN refusal IS NULL THEN 'tried' ELSE 'cancelled' END",
        ),
        Op.CONFIRM: _Op(ask=_ASK, effects=_effects(name), changes=confirmed, guard=tried_here),
        Op.CANCEL: _Op(ask=_ASK, changes=cancelled, guard=f"({tried_here} OR {finished_below})", made="'cancelled'"),
    }
    again = msgspec.structs.replace(
        ops[Op.TRY], guard=f"{finished_below} AND {granted} IS NULL", made="'tried'", makes="refusal IS NULL"
    )
    return {
        **{op: _write(table, how) for op, how in ops.items()},
        **{f"judge_{op}": _judge(table, how) for op, how in ops.items()},
        "try_again": _judge(table, again),
        "look": f"SELECT account_id, case_no, case_op FROM {table} WHERE account_id = ANY ($1::bigint[])",  # noqa: S608 - names of ours
        "marks": f"""SELECT account_id, case_no, case_op FROM {table}
            WHERE account_id > $1 AND account_id <= $2 AND case_no > 0 ORDER BY account_id LIMIT $3""",  # noqa: S608 - names of ours
    }


_ASK: Final = "unnest($1::bigint[], $2::bigint[]) AS i (account_id, case_no)"
_ASK_VERSION: Final = "unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS i (account_id, case_no, version)"


class _Op(msgspec.Struct, frozen=True, kw_only=True):
    """How one op is carried out, in SQL expressions over the row `a`, the order `i` and the effects `e`.

    `refusal`: the code a Try is refused with, `missing` where there is no row; `made`: the op that a missing row is
    made with, None where none is made; `makes`: the condition under which it is.
    """

    ask: str
    changes: Mapping[str, str]
    guard: str
    refusal: str | None = None
    missing: str = "NULL::text"
    effects: str | None = None
    made: str | None = None
    makes: str = "true"

    @property
    def update(self) -> str:
        """What both statements share: write the rows that the guard admits."""
        sets = ", ".join(f"{column} = {value}" for column, value in self.changes.items())
        joined = " CROSS JOIN e" if self.effects else ""
        return f"""SET {sets}
    FROM i{joined} WHERE a.account_id = i.account_id AND a.account_id = ANY ($1::bigint[]) AND {self.guard}"""


def _write(table: str, op: _Op) -> str:
    """Build the one statement of the usual way: the guarded update, answered in one row."""
    code = f"CASE WHEN a.case_op = 'cancelled' THEN {op.refusal} END" if op.refusal else "NULL::text"
    yes = "case_op = 'tried'" if op.refusal else "true"
    return f"""WITH i AS MATERIALIZED (SELECT * FROM {op.ask}){op.effects or ""}, written AS (
    UPDATE {table} a {op.update}
    RETURNING a.account_id, a.case_op, {code} AS code
)
SELECT count(*) FILTER (WHERE {yes}) AS yes,
    CASE WHEN count(*) FILTER (WHERE {yes}) < cardinality($1::bigint[])
        THEN array_agg(account_id) FILTER (WHERE {yes}) END,
    array_agg(account_id) FILTER (WHERE NOT {yes}), array_agg(code) FILTER (WHERE NOT {yes})
FROM written"""  # noqa: S608 - names and expressions of ours


def _judge(table: str, op: _Op) -> str:
    """Build the careful statement: read the rows, write those that the guard admits, make the missing ones it may."""
    refusal = f"CASE WHEN a.account_id IS NULL THEN {op.missing} ELSE {op.refusal or 'NULL::text'} END"
    sql = f"""WITH i AS MATERIALIZED (SELECT * FROM {op.ask}){op.effects or ""}, before AS MATERIALIZED (
    SELECT i.account_id, i.case_no AS asked, a.case_no, a.case_op, {refusal} AS refusal
    FROM i LEFT JOIN {table} a ON a.account_id = i.account_id AND a.account_id = ANY ($1::bigint[])
), written AS (
    UPDATE {table} a {op.update}
    RETURNING a.account_id, a.case_no, a.case_op
)"""  # noqa: S608 - names and expressions of ours
    if op.made is not None:
        sql += f""", made AS (
    INSERT INTO {table} (account_id, case_no, case_op)
    SELECT account_id, asked, {op.made} FROM before WHERE case_op IS NULL AND {op.makes} ORDER BY account_id
    ON CONFLICT (account_id) DO NOTHING
    RETURNING account_id, case_no, case_op
)"""  # noqa: S608 - names and expressions of ours
        sql += "\nSELECT true, account_id, case_no, case_op, NULL FROM made UNION ALL"
    return f"""{sql}
SELECT true, account_id, case_no, case_op, NULL FROM written
UNION ALL SELECT false, account_id, case_no, case_op, refusal FROM before"""  # noqa: S608 - names of ours


def _refusal(own: Particulars) -> str:
    """The code a Try of row `a` is refused with, NULL to grant it."""
    conditions = {**own.refusals, VERSION_CHANGED: "a.facts_version <> i.version"}
    return "CASE " + " ".join(f"WHEN {when} THEN '{code}'" for code, when in conditions.items()) + " END"


def _effects(name: str) -> str:
    """One row `e`: the plan's effects, each in its type, and the time."""
    columns = ", ".join(f"{effect} {_SQL_TYPES[kind]}" for effect, kind in EFFECTS[name].items())
    known = f" CROSS JOIN LATERAL jsonb_to_record(p.effects) AS e ({columns})" if columns else ""
    return f""", e AS MATERIALIZED (
    SELECT * FROM (SELECT $3::text::jsonb AS effects, $4::timestamptz AS now) AS p{known}
)"""  # noqa: S608 - names of ours


def _literal(code: str | None) -> str:
    return "NULL::text" if code is None else f"'{code}'"


def _lowest(orders: Sequence[Order]) -> list[Order]:
    """The orders in key order, of each account the lowest case alone: a later case waits for the one before it."""
    lowest = dict[int, "Order"]()
    for order in sorted(orders, key=lambda order: (order.account_id, order.case_no)):
        lowest.setdefault(order.account_id, order)
    return list(lowest.values())


_items: Final = msgspec.json.Decoder(list[Any]).decode
