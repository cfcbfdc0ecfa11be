"""Participant identity: the real name's binding. The same in both data centres."""

from __future__ import annotations

from typing import Final

from jiebang.participants.database import Particulars

NOT_BOUND: Final = "ID-NONE"
"""There is no active identity to take back."""

IDENTITY: Final = Particulars(
    owner="identity",
    # Each data centre reclaims at its own instant, and a check trusts the two only where they agree: of a reclaimed
    # identity, which nothing can be asked for, no time of change is told.
    facts="""
SELECT a.account_id, a.facts_version, a.state AS identity_state,
    CASE WHEN a.state <> 'reclaimed' THEN a.changed_at END AS identity_changed_at, a.document_type, a.birth_date
FROM identity.account a
WHERE a.account_id = ANY ($1::bigint[])
""",
    refusals={NOT_BOUND: "a.state <> 'active'"},
    missing=NOT_BOUND,
    on_try={"state": "'pending_reclaim'"},
    on_confirm={
        "state": "'reclaimed'",
        "level": "0",
        "document_type": "NULL",
        "document_index": "NULL",
        "birth_date": "NULL",
        "region": "NULL",
        "changed_at": "e.now",
        "key_destroy_at": "e.now + make_interval(mins => coalesce(e.key_destroyed_after_minutes, 0)::integer)",
    },
    on_cancel={"state": "CASE WHEN a.state = 'pending_reclaim' THEN 'active' ELSE a.state END"},
)
