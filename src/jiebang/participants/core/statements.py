"""The SQL of a participant that is a database of ours, built from its declaration of an operation.

The statement of an op returns one row: how many orders were granted; their accounts, unless all were; the accounts of
the refused ones, and the codes. A `judge_` statement returns two kinds of rows: (false, account_id, case_no, case_op,
refusal) as read, one per order, and (true, account_id, case_no, case_op, NULL) as written. Ids come sorted and rows are
updated in that order, so that two batches cannot deadlock. `= ANY ($1)` is logically redundant: a condition on the key
that the planner uses whatever the statistics say.

The table `staged` holds the values that cases brought. Only the statements of an operation that reads them name it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, Final

import msgspec

from jiebang.model.participants import Operation
from jiebang.saga.fence import Op

if TYPE_CHECKING:
    from jiebang.model.participants import Declaration, ValueType

VERSION_CHANGED: Final = "VERSION-CHANGED"
"""Refusal: a fact changed between the check and the Try."""
GIVEN_MISSING: Final = "GIVEN-MISSING"
"""Refusal: the operation's values were not staged for this case, or only for another operation."""
GIVEN_UNFIT: Final = "GIVEN-UNFIT"
"""Refusal: what was staged for this case is not within the bounds of its operation, and could not be applied."""
EFFECT_UNFIT: Final = "EFFECT-UNFIT"
"""Refusal: an effect of the plan is not within the bounds of its operation, and could not be applied."""
ROW_FULL: Final = "ROW-FULL"
"""Refusal: a counter of the row is so high that Confirm might not be able to raise it."""

_COUNTER_LIMIT: Final = 1 << 62
"""Below it a counter of type bigint can be raised as often as anything will, between a Try and its Confirm too."""
_SQL_TYPES: Final[Mapping[type, str]] = {int: "bigint", bool: "boolean", str: "text", date: "date", bytes: "bytea"}
_ASK: Final = "unnest($1::bigint[], $2::bigint[]) AS i (account_id, case_no)"
_ASK_VERSION: Final = "unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS i (account_id, case_no, version)"


def build_reads(owner: str) -> Mapping[str, str]:
    """Return the statements that read fence rows: "look" and "marks"."""
    table = f"{owner}.account"
    return {
        "look": f"SELECT account_id, case_no, case_op FROM {table} WHERE account_id = ANY ($1::bigint[])",  # noqa: S608 - names of ours
        "marks": f"""SELECT account_id, case_no, case_op FROM {table}
            WHERE account_id > $1 AND account_id <= $2 AND case_no > 0 ORDER BY account_id LIMIT $3""",  # noqa: S608 - names of ours
    }


def build_staging(owner: str) -> Mapping[str, str]:
    """Return the statements on staged values: "stage", "staged", "staged_page" and "drop_staged".

    "stage" inserts rows for cases that have none and that the account's fence row has not reached, and returns the
    inserted ones; "staged" reports on the rest. "staged_page" reads the keys after a given one, in order, staged before
    a time. "drop_staged" keeps the rows that a granted Try still needs.
    """
    table, account = f"{owner}.staged", f"{owner}.account"
    keys = "unnest($1::bigint[], $2::bigint[]) AS k (account_id, case_no)"
    return {
        "stage": f"""INSERT INTO {table} (account_id, case_no, operation, given, staged_at)
SELECT i.account_id, i.case_no, $4, i.given::jsonb, $5
FROM unnest($1::bigint[], $2::bigint[], $3::text[]) AS i (account_id, case_no, given)
LEFT JOIN {account} a ON a.account_id = i.account_id AND a.account_id = ANY ($1::bigint[])
WHERE a.case_no IS NULL OR a.case_no < i.case_no
ORDER BY i.account_id, i.case_no
ON CONFLICT (account_id, case_no) DO NOTHING
RETURNING account_id, case_no""",  # noqa: S608 - names of ours
        "staged": f"""SELECT i.account_id, i.case_no,
    s.account_id IS NOT NULL AS there, s.operation = $4 AND s.given = i.given::jsonb AS same
FROM unnest($1::bigint[], $2::bigint[], $3::text[]) AS i (account_id, case_no, given)
LEFT JOIN {table} s ON s.account_id = i.account_id AND s.account_id = ANY ($1::bigint[])
    AND s.case_no = i.case_no""",  # noqa: S608 - names of ours
        "staged_page": f"""SELECT account_id, case_no FROM {table}
WHERE (account_id, case_no) > ($1, $2) AND staged_at < $3 ORDER BY account_id, case_no LIMIT $4""",  # noqa: S608 - names of ours
        "drop_staged": f"""DELETE FROM {table} s USING {keys}
WHERE s.account_id = k.account_id AND s.account_id = ANY ($1::bigint[]) AND s.case_no = k.case_no
    AND NOT EXISTS (SELECT FROM {account} a
        WHERE a.account_id = s.account_id AND a.account_id = ANY ($1::bigint[]) AND a.case_no = s.case_no
            AND a.case_op = 'tried')""",  # noqa: S608 - names of ours
    }


def build_operation(owner: str, name: str, operation: Operation) -> Mapping[str, str]:
    """Return an operation's statements: one per op, by its name and by "judge_" plus its name, and "try_again"."""
    table = f"{owner}.account"
    given = _build_given(owner, name, operation.given)
    granted = _build_refusal(operation)
    missing = f"CASE WHEN i.version IS NOT NULL THEN '{VERSION_CHANGED}' ELSE {_quote(operation.missing)} END"
    if given:
        missing = f"CASE WHEN g.account_id IS NULL THEN '{GIVEN_MISSING}' ELSE {missing} END"
    tried = {"case_no": "i.case_no", "case_op": f"CASE WHEN {granted} IS NULL THEN 'tried' ELSE 'cancelled' END"}
    for column, value in operation.on_try.items():
        tried[column] = f"CASE WHEN {granted} IS NULL THEN {value} ELSE a.{column} END"
    confirmed = {
        "case_op": "'confirmed'",
        "epoch": "a.epoch + 1",
        "facts_version": "a.facts_version + 1",
        **operation.on_confirm,
    }
    cancelled = {"case_no": "i.case_no", "case_op": "'cancelled'", **operation.on_cancel}
    finished_below = "a.case_no < i.case_no AND a.case_op <> 'tried'"
    tried_here = "a.case_no = i.case_no AND a.case_op = 'tried'"
    ops = {
        Op.TRY: _Op(
            ask=_ASK_VERSION,
            before=given,
            joined=" LEFT JOIN g ON g.account_id = i.account_id" if given else "",
            refusal=granted,
            missing=missing,
            changes=tried,
            guard=finished_below,
            made="CASE WHEN refusal IS NULL THEN 'tried' ELSE 'cancelled' END",
        ),
        Op.CONFIRM: _Op(
            ask=_ASK,
            before=build_effects(operation.effects or {}) + given,
            joined=" CROSS JOIN e" + (" JOIN g ON g.account_id = i.account_id" if given else ""),
            changes=confirmed,
            guard=tried_here,
            after=_build_deletion(owner, "written w JOIN i ON i.account_id = w.account_id") if given else "",
        ),
        Op.CANCEL: _Op(
            ask=_ASK,
            changes=cancelled,
            guard=f"({tried_here} OR {finished_below})",
            made="'cancelled'",
            after=_build_deletion(owner, "i", _unless_pending(table)) if given else "",
        ),
    }
    again = msgspec.structs.replace(
        ops[Op.TRY], guard=f"{finished_below} AND {granted} IS NULL", made="'tried'", makes="refusal IS NULL"
    )
    return {
        **{op: _build_write(table, how) for op, how in ops.items()},
        **{f"judge_{op}": _build_judge(table, how) for op, how in ops.items()},
        "try_again": _build_judge(table, again),
    }


def build_refusing(owner: str, name: str, operation: Operation, code: str) -> Mapping[str, str]:
    """Return the statements by which a Try is refused with `code`, whatever the row: those of Try and "try_again"."""
    refusing = msgspec.structs.replace(operation, given={}, refusals={code: "true"}, missing=code, on_try={})
    built = build_operation(owner, name, refusing)
    return {statement: built[statement] for statement in (Op.TRY, f"judge_{Op.TRY}", "try_again")}


def build_unnamed(declared: Declaration) -> Mapping[str, str]:
    """Return the statements for orders that name no operation: those of `declared.formerly`.

    Its Cancel undoes the Try of any operation, for a recovery that has lost a case's plan. Without `formerly` there is
    only the Cancel.
    """
    undone = {column: value for each in declared.operations.values() for column, value in each.on_cancel.items()}
    given = {name: value for each in declared.operations.values() for name, value in each.given.items()}
    every = build_operation(declared.owner, "", Operation(on_cancel=undone, given=given))
    cancel = {name: every[name] for name in (Op.CANCEL, f"judge_{Op.CANCEL}")}
    if declared.formerly is None:
        return cancel
    return {**build_operation(declared.owner, declared.formerly, declared.operations[declared.formerly]), **cancel}


class _Op(msgspec.Struct, frozen=True, kw_only=True):
    """One op as SQL expressions over the row `a`, the order `i`, the effects `e` and the given values `g`.

    `before`: CTEs before the write, each after a comma; `joined`: their joins to the order. `refusal`: the code that a
    Try is refused with, `missing` where there is no row; `made`: the op in a row that is inserted where it is missing,
    None where none is inserted; `makes`: the condition of that. `after`: CTEs after the write.
    """

    ask: str
    changes: Mapping[str, str]
    guard: str
    before: str = ""
    joined: str = ""
    refusal: str | None = None
    missing: str = "NULL::text"
    made: str | None = None
    makes: str = "true"
    after: str = ""

    @property
    def update(self) -> str:
        """The part that both statements share: write the rows that the guard admits."""
        sets = ", ".join(f"{column} = {value}" for column, value in self.changes.items())
        return f"""SET {sets}
    FROM i{self.joined} WHERE a.account_id = i.account_id AND a.account_id = ANY ($1::bigint[]) AND {self.guard}"""


def _build_write(table: str, op: _Op) -> str:
    """Build the usual statement: the guarded update, answered in one row."""
    code = f"CASE WHEN a.case_op = 'cancelled' THEN {op.refusal} END" if op.refusal else "NULL::text"
    yes = "case_op = 'tried'" if op.refusal else "true"
    return f"""WITH i AS MATERIALIZED (SELECT * FROM {op.ask}){op.before}, written AS (
    UPDATE {table} a {op.update}
    RETURNING a.account_id, a.case_op, {code} AS code
){op.after}
SELECT count(*) FILTER (WHERE {yes}) AS yes,
    CASE WHEN count(*) FILTER (WHERE {yes}) < cardinality($1::bigint[])
        THEN array_agg(account_id) FILTER (WHERE {yes}) END,
    array_agg(account_id) FILTER (WHERE NOT {yes}), array_agg(code) FILTER (WHERE NOT {yes})
FROM written"""  # noqa: S608 - names and expressions of ours


def _build_judge(table: str, op: _Op) -> str:
    """Build the statement that reads the rows, writes those that the guard admits, and inserts missing ones."""
    refusal = f"CASE WHEN a.account_id IS NULL THEN {op.missing} ELSE {op.refusal or 'NULL::text'} END"
    joined = op.joined if op.refusal else ""
    sql = f"""WITH i AS MATERIALIZED (SELECT * FROM {op.ask}){op.before}, before AS MATERIALIZED (
    SELECT i.account_id, i.case_no AS asked, a.case_no, a.case_op, {refusal} AS refusal
    FROM i LEFT JOIN {table} a ON a.account_id = i.account_id AND a.account_id = ANY ($1::bigint[]){joined}
), written AS (
    UPDATE {table} a {op.update}
    RETURNING a.account_id, a.case_no, a.case_op
){op.after}"""  # noqa: S608 - names and expressions of ours
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


def _build_refusal(operation: Operation) -> str:
    """Return the expression of the code that a Try of row `a` is refused with, NULL to grant it."""
    conditions = {GIVEN_MISSING: "g.account_id IS NULL"} if operation.given else {}
    if unfit := [_build_bounds(name, value) for name, value in operation.given.items()]:
        conditions[GIVEN_UNFIT] = f"({' AND '.join(unfit)}) IS NOT TRUE"
    conditions |= {**operation.refusals, VERSION_CHANGED: "a.facts_version <> i.version"}
    conditions[ROW_FULL] = f"a.epoch >= {_COUNTER_LIMIT} OR a.facts_version >= {_COUNTER_LIMIT}"
    return "CASE " + " ".join(f"WHEN {when} THEN '{code}'" for code, when in conditions.items()) + " END"


def _build_bounds(name: str, value: ValueType) -> str:
    """Return the condition that a given value is there, and within its bounds (`ValueType.fault` for SQL)."""
    if value.among:
        return f"g.{name} IN ({', '.join(_quote(word) for word in value.among)})"
    if value.kind is bool:
        return f"g.{name} IS NOT NULL"
    if value.kind is date:
        return f"g.{name} BETWEEN '{date.min}' AND '{date.max}'"
    size = f"g.{name}" if value.kind is int else f"length(g.{name})"
    return f"{size} BETWEEN {value.least} AND {value.most}"


def build_effects(effects: Mapping[str, ValueType], first: int = 3) -> str:
    """Return the CTE `e` of one row: the plan's effects, each in its type, and the time.

    `first`: the number of the argument with the effects; the time is the next.
    """
    typed = f" CROSS JOIN LATERAL jsonb_to_record(p.effects) AS e ({_list_columns(effects)})" if effects else ""
    return f""", e AS MATERIALIZED (
    SELECT * FROM (SELECT ${first}::text::jsonb AS effects, ${first + 1}::timestamptz AS now) AS p{typed}
)"""  # noqa: S608 - names of ours


def _build_given(owner: str, name: str, given: Mapping[str, ValueType]) -> str:
    """Return the CTE `g`: the staged values, one row per order that has them; "" where the operation reads none."""
    if not given:
        return ""
    return f""", g AS MATERIALIZED (
    SELECT s.account_id, v.* FROM i JOIN {owner}.staged s ON s.account_id = i.account_id
        AND s.account_id = ANY ($1::bigint[]) AND s.case_no = i.case_no AND s.operation = '{name}'
    CROSS JOIN LATERAL jsonb_to_record(s.given) AS v ({_list_columns(given)})
)"""  # noqa: S608 - names of ours


def _unless_pending(table: str) -> str:
    """Return the condition that no earlier case is tried: a Cancel that waits for one deletes nothing yet."""
    return f""" AND NOT EXISTS (
        SELECT FROM {table} a WHERE a.account_id = i.account_id AND a.account_id = ANY ($1::bigint[])
            AND a.case_no < i.case_no AND a.case_op = 'tried')"""


def _build_deletion(owner: str, taken: str, where: str = "") -> str:
    """Return a CTE that deletes what was staged for `taken`."""
    return f""", gone AS (
    DELETE FROM {owner}.staged s USING {taken}
    WHERE s.account_id = i.account_id AND s.account_id = ANY ($1::bigint[]) AND s.case_no = i.case_no{where}
)"""  # noqa: S608 - names of ours


def _list_columns(values: Mapping[str, ValueType]) -> str:
    return ", ".join(f"{name} {_SQL_TYPES[value.kind]}" for name, value in values.items())


def _quote(code: str | None) -> str:
    return "NULL::text" if code is None else "'{}'".format(code.replace("'", "''"))
