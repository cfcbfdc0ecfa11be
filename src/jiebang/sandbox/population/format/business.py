"""A person's enterprises, and their merchant numbers."""
# ruff: noqa: RUF012 - msgspec makes every object an empty list of its own

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from jiebang.sandbox.population.format.fields import Id, Instant, PopulationRecord, ShortText


class MembershipRecord(PopulationRecord):
    """An enterprise that the person belongs to."""

    enterprise_id: Id
    name: ShortText
    credit_code: ShortText
    role: Literal["administrator", "member"]
    legal_person: bool
    joined_at: Instant
    left_at: Instant | None = None


class ApprovalRecord(PopulationRecord):
    """An approval process that the person started in one of those enterprises."""

    approval_id: Id
    enterprise_id: Id
    title: ShortText
    state: Literal["in_flight", "approved", "rejected", "recalled"]
    submitted_at: Instant
    ended_at: Instant | None = None


class ApiCredentialRecord(PopulationRecord):
    """An API credential issued to the person for one of those enterprises."""

    credential_id: Id
    enterprise_id: Id
    name: ShortText
    issued_at: Instant
    revoked_at: Instant | None = None


class EnterpriseRecord(PopulationRecord):
    """Memberships, approvals, credentials."""

    api_rights: bool = False
    memberships: list[MembershipRecord] = []
    approvals: list[ApprovalRecord] = []
    api_credentials: list[ApiCredentialRecord] = []


class MerchantNumberRecord(PopulationRecord):
    """A merchant number, of 8 to 10 digits."""

    merchant_no: Annotated[str, Meta(min_length=8, max_length=10)]
    name: ShortText
    category: ShortText
    opened_at: Instant
    closed_at: Instant | None = None


class RetainedRecord(PopulationRecord):
    """A record of one of those merchant numbers that commercial retention keeps."""

    record_id: Id
    merchant_no: Annotated[str, Meta(min_length=8, max_length=10)]
    kind: Literal["real_name", "settlement", "licence"]
    recorded_at: Instant


class MerchantRecord(PopulationRecord):
    """Merchant numbers and their records."""

    merchant_numbers: list[MerchantNumberRecord] = []
    retained_records: list[RetainedRecord] = []
