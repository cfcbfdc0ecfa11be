"""How people prove that it is them."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Method(StrEnum):
    """How a person proves that it is them (domain.md §4)."""

    PAYMENT_PASSWORD = "payment_password"  # noqa: S105 - the name of a method, not a password
    SMS_CODE = "sms_code"
    DOCUMENT = "document"
    """The document of the identity that the case brings, as a verifier confirms it."""


SECRETS: Final = (Method.PAYMENT_PASSWORD, Method.SMS_CODE)
"""The methods that are a secret of the person's; they also prove remedies."""
