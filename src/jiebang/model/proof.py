"""How people prove that it is them."""

from __future__ import annotations

from enum import StrEnum


class Method(StrEnum):
    """How a person proves that it is them (domain.md §4)."""

    PAYMENT_PASSWORD = "payment_password"  # noqa: S105 - the name of a method, not a password
    SMS_CODE = "sms_code"
