"""What a person has on the open platform: grants and tokens, and a developer's apps."""
# ruff: noqa: RUF012 - msgspec makes every object an empty list of its own

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from jiebang.sandbox.population.format.fields import Id, Instant, PopulationRecord, ShortText, TextId


class AppRecord(PopulationRecord):
    """A third-party app that the person develops."""

    app_id: TextId
    name: ShortText
    technical_lead: bool
    created_at: Instant
    closed_at: Instant | None = None


class GrantRecord(PopulationRecord):
    """What the person allowed an app."""

    grant_id: Id
    granted_at: Instant
    app_id: TextId
    app_name: ShortText
    scopes: Annotated[list[TextId], Meta(min_length=1, max_length=32)]
    revoked_at: Instant | None = None


class TokenRecord(PopulationRecord):
    """A token under one of those grants."""

    token_id: Id
    grant_id: Id
    issued_at: Instant
    expires_at: Instant
    kind: Literal["access", "refresh"]
    revoked_at: Instant | None = None


class MiniProgramRecord(PopulationRecord):
    """A mini program."""

    program_id: TextId
    name: ShortText
    state: Literal["draft", "published", "suspended", "closed"]
    created_at: Instant


class OfficialAccountRecord(PopulationRecord):
    """An official account that the person tends."""

    official_id: TextId
    name: ShortText
    role: Literal["administrator", "operator"]
    joined_at: Instant
    left_at: Instant | None = None


class ReviewRecord(PopulationRecord):
    """A qualification review of a mini program or a technical one of an app; `subject_id` names it."""

    review_id: Id
    subject_id: TextId
    kind: Literal["qualification", "technical"]
    state: Literal["waiting", "accepted", "rejected"]
    submitted_at: Instant
    decided_at: Instant | None = None


class QuotaRecord(PopulationRecord):
    """What an app may call a day."""

    app_id: TextId
    api: TextId
    calls_per_day: Annotated[int, Meta(ge=0, le=2_147_483_647)]


class OpenPlatformRecord(PopulationRecord):
    """Grants and tokens, and what a developer has."""

    api_quota_level: Literal["none", "test", "standard", "high"] = "none"
    apps: list[AppRecord] = []
    oauth_grants: list[GrantRecord] = []
    oauth_tokens: list[TokenRecord] = []
    mini_programs: list[MiniProgramRecord] = []
    official_accounts: list[OfficialAccountRecord] = []
    reviews: list[ReviewRecord] = []
    quotas: list[QuotaRecord] = []
