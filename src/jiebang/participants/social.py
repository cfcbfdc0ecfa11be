"""Participant social: contacts, groups, messages, moments, friend requests, e-mail."""

from __future__ import annotations

from typing import Final

from jiebang.participants.database import Particulars

SOCIAL: Final = Particulars(
    owner="social",
    facts="""
SELECT a.account_id, a.facts_version,
    (SELECT count(*) FROM social.contact c WHERE c.account_id = a.account_id) AS contacts,
    (SELECT count(*) FROM social.message m WHERE m.account_id = a.account_id) AS messages,
    a.email IS NOT NULL AS email_bound
FROM social.account a
WHERE a.account_id = ANY ($1::bigint[])
""",
    on_confirm={
        "friend_requests_blocked": "coalesce(e.friend_requests_blocked, a.friend_requests_blocked)",
        "moments_per_day": "coalesce(e.moments_per_day::smallint, a.moments_per_day)",
    },
)
