"""A person's devices, logins, second factors and holds."""
# ruff: noqa: RUF012 - msgspec makes every object an empty list of its own

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from jiebang.sandbox.population.format.fields import Id, Instant, PopulationRecord, ShortText, TextId


class DeviceRecord(PopulationRecord):
    """A device of the registry."""

    device_id: TextId
    registered_at: Instant
    last_seen_at: Instant
    platform: Literal["ios", "harmonyos", "android", "windows", "macos", "other"]
    model: ShortText
    os_version: ShortText
    biometric: bool
    retired_at: Instant | None = None


class LoginRecord(PopulationRecord):
    """A login; `anomaly` null: nothing unusual. `confirmed_at`: when the person said that it was they."""

    login_id: Id
    device_id: TextId
    at: Instant
    place: ShortText
    anomaly: Literal["new_device", "far_place", "odd_hour", "many_failures"] | None = None
    confirmed_at: Instant | None = None


class SecondFactorRecord(PopulationRecord):
    """A second factor. Of `address` (a phone, an e-mail, a key's name) a masked label is stored."""

    factor_id: Id
    enrolled_at: Instant
    kind: Literal["sms", "email", "webauthn"]
    address: ShortText
    revoked_at: Instant | None = None


class HoldRecord(PopulationRecord):
    """A hold of a court or authority, or of the risk engine."""

    hold_id: Id
    kind: Literal["legal", "risk"]
    authority: ShortText
    contact: ShortText
    placed_at: Instant
    lifted_at: Instant | None = None


class SecurityRecord(PopulationRecord):
    """Devices, logins, second factors, holds. The primary device is one of `devices`."""

    level: Annotated[int, Meta(ge=1, le=5)] = 1
    primary_device_id: TextId | None = None
    primary_device_since: Instant | None = None
    login_needs_sms: bool = False
    devices: list[DeviceRecord] = []
    logins: list[LoginRecord] = []
    second_factors: list[SecondFactorRecord] = []
    holds: list[HoldRecord] = []
