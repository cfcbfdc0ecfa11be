"""The SQL by which a participant that is a database of ours observes what keeps its promises, built from its probes.

One statement a batch, whatever it observes. It takes the cases in columns, the plan's effects, the time, and whether to
answer for every case, or only for those of which not everything is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jiebang.model.plan import PlannedOperation
from jiebang.participants.core.statements import build_effects

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jiebang.model.participants import Declaration
    from jiebang.model.promises import Probe

KeeperKey = tuple[str, str]
"""A keeper of one participant: its type and its name."""


def build_probe(declared: Declaration, operation: str, keepers: Sequence[KeeperKey]) -> str:
    """Return the statement that observes `keepers` after an operation; a row has a state, since and until for each.

    An account without a row, or whose row has not confirmed the case, has broken them all.
    """
    _, how = declared.operation(operation)
    probes = [declared.probes[kind][name] for kind, name in keepers]
    table = f"{declared.owner}.account"
    observed = ",\n        ".join(_build_observation(at, probe) for at, probe in enumerate(probes))
    states = " AND ".join(f"o.s{at} = 'kept'" for at in range(len(probes)))
    return f"""WITH i AS MATERIALIZED (
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::timestamptz[], $4::timestamptz[])
        AS i (account_id, case_no, begun_at, ended_at)
){build_effects(how.effects or {}, 5)}, o AS MATERIALIZED (
    SELECT i.account_id,
        {observed}
    FROM i CROSS JOIN e LEFT JOIN {table} a ON a.account_id = i.account_id AND a.account_id = ANY ($1::bigint[])
)
SELECT o.* FROM o WHERE $7::boolean OR NOT ({states})"""  # noqa: S608 - names and expressions of ours


def _build_observation(at: int, probe: Probe) -> str:
    """Return the columns of one probe. While a later case is tried, what it has reserved says nothing."""
    due = f"\n            WHEN {probe.due} THEN 'due'" if probe.due else ""
    return f"""CASE
            WHEN a.account_id IS NULL OR a.case_no < i.case_no
                OR a.case_no = i.case_no AND a.case_op <> 'confirmed' THEN 'broken'
            WHEN a.case_no > i.case_no AND a.case_op = 'confirmed' THEN 'ended'
            WHEN {probe.holds} THEN 'kept'{due}
            WHEN a.case_no > i.case_no AND a.case_op = 'tried' THEN 'due'
            ELSE 'broken' END AS s{at}, {probe.since or "NULL::timestamptz"} AS f{at},
        {probe.until or "NULL::timestamptz"} AS u{at}"""


def list_probes(declared: Declaration) -> Mapping[str, tuple[KeeperKey, ...]]:
    """Return every keeper of each operation, as where a plan gives it all its effects."""
    return {
        operation: tuple(declared.promises(PlannedOperation(operation, how.effects or {})))
        for operation, how in declared.operations.items()
    }
