"""From which device each request about a person's account or case must come; a pack says it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class DeviceRule(StrEnum):
    """Which of a person's devices may make a request. A device that is unknown may only where `any` may."""

    ANY = "any"
    CASE = "case"
    """The one on which the case was opened (for the proof of a remedy: on which that was asked for). Where there is
    none yet, or a service opened it: the primary device."""
    PRIMARY = "primary"


class Act(StrEnum):
    """What a person can ask for after the check, as far as policy tells devices apart.

    Handing a request over from another device is none of these: it begins on any device and ends on the primary one.
    """

    PROOF = "proof"
    CODE = "code"
    CASH_OUT = "cash_out"
    REMEDY = "remedy"
    CONFIRMATION = "confirmation"
    CONSENT = "consent"
    WITHDRAWAL = "withdrawal"
    CONSENT_WITHDRAWAL = "consent_withdrawal"


Devices = Mapping[Act, DeviceRule]
"""The rule of each act; an act without one may come from any device."""
