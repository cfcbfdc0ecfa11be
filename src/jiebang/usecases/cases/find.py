"""Find a case: as it is now, with its timeline as it was recorded or as an event stream shows it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from jiebang.model.case import ENDED
from jiebang.model.errors import UnknownCaseError
from jiebang.saga.seals import Leaf, decode_statement, find_leaf, path
from jiebang.store.cases import cases, proofs
from jiebang.store.timelines import seals, timeline_rows
from jiebang.usecases.cases.context import CaseDetails, Context, SealInclusion

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jiebang.model.case import Case, Key
    from jiebang.saga.chain import ChainRow
    from jiebang.store.timelines.timeline_rows import TimelineRow


async def find(context: Context, key: Key) -> CaseDetails:
    """Return a case with its proofs and, after its end, where it was sealed. Raises UnknownCaseError."""
    case = (await cases.load_many(context.platform, [key])).get(key)
    if case is None:
        raise UnknownCaseError
    await context.know([case])
    proofs_by_case = await proofs.load_of_cases(context.platform, [key])
    found = CaseDetails(case=case, plan=context.plan_of(case), proofs=proofs_by_case.get(key, {}))
    return found if case.state not in ENDED else msgspec.structs.replace(found, sealed=await _find_seal(context, case))


async def find_with_timeline(context: Context, key: Key) -> tuple[CaseDetails, list[ChainRow]]:
    """Return a case and its recorded timeline, against which a receipt is checked. Raises UnknownCaseError.

    A row added between the two reads is left out, so that the rows end with the head of the case.
    """
    found = await find(context, key)
    rows = (await timeline_rows.read_recorded(context.platform, [key]))[key]
    return found, [row for row in rows if row.revision <= found.case.revision]


async def read_timelines(context: Context, seen: Mapping[Key, int]) -> list[TimelineRow]:
    """Return the timelines of cases, each after its revision in `seen` (0: from the beginning)."""
    return await timeline_rows.read_after(context.platform, seen)


async def _find_seal(context: Context, case: Case) -> SealInclusion | None:
    """Return where the head of an ended case was sealed; None if it was not yet, or if it has changed since."""
    seal = (await seals.load_of_cases(context.platform, [case.key])).get(case.key)
    signed = None if seal is None else decode_statement(seal.statement)
    if seal is None or signed is None:
        return None
    found = find_leaf(seal.cases, signed.v, Leaf(*case.key, case.revision, case.head))
    if found is None:
        return None
    index, leaf = found
    return SealInclusion(
        seal_no=seal.seal_no,
        at=datetime.fromisoformat(signed.at),
        statement=seal.statement,
        record=leaf.record,
        path=path(seal.cases, signed.v, index),
    )
