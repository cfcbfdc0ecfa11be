"""Participant openplatform: OAuth grants and tokens, apps, mini programs, official accounts, reviews, quotas."""

from __future__ import annotations

from typing import Final

from jiebang.participants.database import Particulars

OPENPLATFORM: Final = Particulars(
    owner="openplatform",
    facts="""
SELECT a.account_id, a.facts_version, g.grants, g.grant_items, m.mini_programs, m.mini_program_items,
    o.official_accounts, o.official_account_items
FROM openplatform.account a
CROSS JOIN LATERAL (
    SELECT count(*) AS grants, jsonb_agg(jsonb_build_object(
        'id', g.grant_id::text, 'app', g.app_name, 'scopes', array_to_string(g.scopes, ', ')
    ) ORDER BY g.grant_id)::text AS grant_items
    FROM openplatform.oauth_grant g
    WHERE g.account_id = a.account_id AND g.epoch = a.epoch AND g.revoked_at IS NULL
) g
CROSS JOIN LATERAL (
    SELECT count(*) AS mini_programs, jsonb_agg(jsonb_build_object(
        'id', m.program_id, 'name', m.name
    ) ORDER BY m.program_id)::text AS mini_program_items
    FROM openplatform.mini_program m
    WHERE m.account_id = a.account_id AND m.state = 'published'
) m
CROSS JOIN LATERAL (
    SELECT count(*) AS official_accounts, jsonb_agg(jsonb_build_object(
        'id', o.official_id, 'name', o.name
    ) ORDER BY o.official_id)::text AS official_account_items
    FROM openplatform.official_account o
    WHERE o.account_id = a.account_id AND o.role = 'administrator' AND o.left_at IS NULL
) o
WHERE a.account_id = ANY ($1::bigint[])
""",
    # The level of somebody who develops nothing stays none: an effect never gives what was not there.
    on_confirm={
        "api_quota_level": "CASE a.api_quota_level WHEN 'none' THEN 'none' "
        "ELSE coalesce(e.api_quota_level, a.api_quota_level) END"
    },
)
