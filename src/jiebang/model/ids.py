"""Public case ids: account and case number, encrypted in one AES block, so that an id reveals neither.

An id leads to its shard without a lookup. The key is an argument. Of ids that were not made with it, all but one in
2**32 decode to a case number above 32 bits, and are refused without asking a database.
"""

from __future__ import annotations

import base64
import re
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

_PREFIX: Final = "case_"
_CASE_NO_LIMIT: Final = 1 << 32
KEY_BYTES: Final = 16
MAX_ACCOUNT: Final = (1 << 53) - 1
"""The largest account id: JSON readers that count in doubles keep it exactly (RFC 7493, 2.2)."""


def _write_pattern(most: int) -> str:
    """Return the regular expression of the decimal numbers from 1 to `most`, without leading zeros."""
    digits = str(most)
    shorter = f"[1-9][0-9]{{0,{len(digits) - 2}}}"
    below = [
        f"{digits[:at]}[{'0' if at else '1'}-{int(digit) - 1}][0-9]{{{len(digits) - at - 1}}}"
        for at, digit in enumerate(digits)
        if int(digit) > (0 if at else 1)
    ]
    return f"^({'|'.join([shorter, *below, digits])})$"


ACCOUNT_PATTERN: Final = _write_pattern(MAX_ACCOUNT)
"""An account id in JSON: a decimal string from 1 to MAX_ACCOUNT, as a regular expression that says exactly that."""
_ACCOUNT: Final = re.compile(ACCOUNT_PATTERN.strip("^$"), re.ASCII)


def account_of(text: str) -> int | None:
    """Return the account id that `text` writes, or None for anything else."""
    return int(text) if _ACCOUNT.fullmatch(text) else None


class CaseIds:
    """Encodes and decodes public case ids under one 16-byte key."""

    def __init__(self, key: bytes) -> None:
        """`key`: KEY_BYTES random bytes. ECB of exactly one block is a keyed permutation, all that is needed."""
        if len(key) != KEY_BYTES:
            message = f"a case id key has {KEY_BYTES} bytes, not {len(key)}"
            raise ValueError(message)
        self._cipher = Cipher(algorithms.AES(key), modes.ECB())  # noqa: S305 - one block, used as a permutation

    def encode(self, account_id: int, case_no: int) -> str:
        """Return the public id of a case: "case_" and 26 lower-case base32 characters."""
        block = account_id.to_bytes(8, "big") + case_no.to_bytes(8, "big")
        encryptor = self._cipher.encryptor()
        return _PREFIX + base64.b32encode(encryptor.update(block)).decode().rstrip("=").lower()

    def decode(self, public_id: str) -> tuple[int, int] | None:
        """Return (account_id, case_no), or None for anything that is not an id of ours."""
        body = public_id.removeprefix(_PREFIX)
        if body == public_id or len(body) != 26 or body != body.lower():  # noqa: PLR2004 - 16 bytes in base32
            return None
        try:
            block = base64.b32decode(body.upper() + "======")
        except ValueError:
            return None
        decryptor = self._cipher.decryptor()
        plain = decryptor.update(block)
        account_id, case_no = int.from_bytes(plain[:8], "big"), int.from_bytes(plain[8:], "big")
        if (
            not 0 < case_no < _CASE_NO_LIMIT
            or not 0 < account_id < 1 << 63
            or self.encode(account_id, case_no) != public_id
        ):
            return None
        return account_id, case_no
