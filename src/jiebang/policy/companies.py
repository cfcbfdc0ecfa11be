"""Unified social credit codes of companies (GB 32100-2015, GB 11714): read one as it was registered, and make others.

The check characters are python-stdnum's.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from stdnum.cn import uscc

from jiebang.model.check import Text
from jiebang.model.errors import InvalidInputError
from jiebang.policy import regions
from jiebang.policy.documents import Doubt

_BODY: Final = 17
_LENGTH = Text("长度不对", "wrong length")
_CHARACTERS = Text("含有不允许的字符", "a character that such a code does not have there")
_REGION = Text("省份代码不存在", "there is no such province code")
_CREDIT_CODE = re.compile(r"[0-9A-HJ-NPQRTUWXY]{2}[0-9]{6}[0-9A-HJ-NPQRTUWXY]{10}")
_ORG_WEIGHTS: Final = (3, 7, 9, 10, 5, 8, 4, 2)


@lru_cache(maxsize=4096)
def _credit_check(body: str) -> str:
    """Return the check character of GB 32100. Kept, because many people belong to the same companies."""
    return str(uscc.calc_check_digit(body))


def read_credit_code(text: str) -> str:
    """Return a unified social credit code, normalised. Raises InvalidInputError (field "credit_code").

    Its check character may be wrong: companies were registered with such, and trade under them (`doubt_credit_code`).
    Wider than python-stdnum in its first two places: rural collectives ("N2…") and unions carry letters there.
    """
    code = text.strip().upper()
    reason = None
    if len(code) != _BODY + 1:
        reason = _LENGTH
    elif not _CREDIT_CODE.fullmatch(code):
        reason = _CHARACTERS
    elif not regions.is_province(code[2:4]) and code[2:4] != regions.CENTRAL:
        reason = _REGION
    if reason is not None:
        raise InvalidInputError(field="credit_code", reason=reason)
    return code


def doubt_credit_code(code: str) -> Doubt | None:
    """Return how a code that read_credit_code returned departs from GB 32100, if it does.

    Its region is looked at down to the prefecture: development zones register companies under codes of their own.
    """
    if _credit_check(code[:_BODY]) != code[_BODY]:
        return Doubt.CHECK_CHARACTER
    if code[2:4] != regions.CENTRAL and not regions.is_listed_prefecture(code[2:6]):
        return Doubt.REGION_UNLISTED
    return None


def make_credit_code(kind: str, region: str, organisation: str) -> str:
    """Return a credit code: `kind` is authority and type ("91"), `organisation` eight characters of GB 11714."""
    total = sum(int(c, 36) * w for c, w in zip(organisation, _ORG_WEIGHTS, strict=True))
    inner = "0123456789X0"[(11 - total % 11)]
    body = f"{kind}{region}{organisation}{inner}"
    return body + _credit_check(body)
