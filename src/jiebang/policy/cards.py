"""Numbers of bank cards (ISO/IEC 7812)."""

from __future__ import annotations

from typing import Final

from jiebang.policy.documents import Doubt

_LENGTHS: Final = (12, 19)
_SINGLE: Final = bytes.maketrans(b"0123456789", bytes(range(10)))
_DOUBLED: Final = bytes.maketrans(b"0123456789", bytes((0, 2, 4, 6, 8, 1, 3, 5, 7, 9)))  # digit sum of twice the digit


def luhn_check(body: str) -> str:
    """Return the Luhn check digit of a card number without it (ISO/IEC 7812)."""
    digits = body.encode()
    return str(-(sum(digits[-1::-2].translate(_DOUBLED)) + sum(digits[-2::-2].translate(_SINGLE))) % 10)


def is_card_number(number: str) -> bool:
    """Whether `number` is 12 to 19 digits, as a card carries them."""
    return number.isascii() and number.isdigit() and _LENGTHS[0] <= len(number) <= _LENGTHS[1]


def doubt_card_number(number: str) -> Doubt | None:
    """Return how a card number departs from ISO/IEC 7812, if it does: some UnionPay debit cards carry no Luhn digit."""
    return None if luhn_check(number[:-1]) == number[-1] else Doubt.CHECK_CHARACTER
