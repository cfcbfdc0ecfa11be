"""Values that a case brings to a participant, staged there under the case's number before the case is ready.

The saga carries no payload: Try refuses where the values of its operation are not staged, Confirm applies them, Cancel
deletes them (`statements.py`). A chore of the worker deletes values that no case will apply.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jiebang.model.check import Text
from jiebang.model.errors import InvalidInputError
from jiebang.participants.core.statements import build_staging

if TYPE_CHECKING:
    from jiebang.model.participants import Declaration, Operation
    from jiebang.store.postgres.pool import Pool

_Key = tuple[int, int]
"""(account, case_no)."""

_DIFFERS: Final = Text("该申请先前已交来另一份资料", "something else was brought for this case before")
_LATE: Final = Text("该系统已办理到此申请或更新的申请", "the participant has come to this case, or to a later one")
_TWICE: Final = Text("同一申请在一批中出现两次，内容不同", "the case is named twice, with different values")
_MISSING: Final = Text("缺少此项", "is missing")
_STRANGE: Final = Text("该操作不需要此项", "is nothing that the operation takes up")


class GivenValues(msgspec.Struct, frozen=True, kw_only=True):
    """The values of one case by name, of the types that the operation declares (int, bool, str, date, bytes)."""

    account_id: int
    case_no: int
    values: Mapping[str, Any]

    def __repr__(self) -> str:
        """Return account and case only: the values may be personal."""
        return f"GivenValues({self.account_id}, {self.case_no})"


class StagingArea:
    """The staged rows of one participant database. Every method takes a batch.

    All raise one of SILENCE, or an error of asyncpg, when the database does not answer; then nothing has changed.
    """

    def __init__(self, declared: Declaration, pool: Pool, clock: Callable[[], datetime]) -> None:
        self._operations, self._pool, self._clock = declared.operations, pool, clock
        self._sql = build_staging(declared.owner)

    async def stage(self, operation: str, batch: Sequence[GivenValues]) -> dict[_Key, InvalidInputError]:
        """Stage the values of cases for `operation`; return the refused cases with the reasons. The others are staged.

        Staging the same values again changes nothing. Refused are values that are missing, unknown to the operation or
        of another type; values that differ from those staged before; and a case that the participant has reached or
        passed. Raises KeyError for an unknown operation.
        """
        how = self._operations[operation]
        refused = dict[_Key, InvalidInputError]()
        good = dict[_Key, str]()
        for one in batch:
            key = one.account_id, one.case_no
            fault = _find_fault(how, one.values)
            text = "" if fault else msgspec.json.encode(_to_json_values(one.values), order="sorted").decode()
            if fault is None and good.setdefault(key, text) != text:
                fault = InvalidInputError(field="case_no", reason=_TWICE)
            if fault is not None:
                refused[key] = fault
        wanted = sorted(good.keys() - refused.keys())
        columns = [[key[0] for key in wanted], [key[1] for key in wanted], [good[key] for key in wanted]]
        rows = await self._pool.fetch(self._sql["stage"], *columns, operation, self._clock())
        if len(rows) < len(wanted):
            for account_id, case_no, there, same in await self._pool.fetch(self._sql["staged"], *columns, operation):
                if not same:
                    reason = _DIFFERS if there else _LATE
                    refused[account_id, case_no] = InvalidInputError(field="case_no", reason=reason)
        return refused

    async def page(self, after: _Key, before: datetime, limit: int) -> list[_Key]:
        """Return the cases above `after` with values staged before a time, in key order, the first `limit`."""
        rows = await self._pool.fetch(self._sql["staged_page"], *after, before, limit)
        return [(row["account_id"], row["case_no"]) for row in rows]

    async def drop(self, keys: Sequence[_Key]) -> int:
        """Delete the staged values of cases, except where a granted Try needs them; return how many rows."""
        status = await self._pool.execute(
            self._sql["drop_staged"], [account for account, _ in keys], [case_no for _, case_no in keys]
        )
        return int(status.split()[-1])


def _find_fault(how: Operation, values: Mapping[str, Any]) -> InvalidInputError | None:
    for name, kind in how.given.items():
        reason = kind.fault(values[name]) if name in values else _MISSING
        if reason is not None:
            return InvalidInputError(field=name, reason=reason)
    for name in sorted(values.keys() - how.given.keys()):
        return InvalidInputError(field=name, reason=_STRANGE)
    return None


def _to_json_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values in the JSON form that PostgreSQL converts to their types."""
    return {
        name: f"\\x{value.hex()}"
        if isinstance(value, bytes)
        else value.isoformat()
        if isinstance(value, date)
        else value
        for name, value in values.items()
    }
