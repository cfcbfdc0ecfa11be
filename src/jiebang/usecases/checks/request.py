"""The request for a check of one account."""

from __future__ import annotations

import msgspec

from jiebang.model.origin import UNKNOWN, Origin


class CheckRequest(msgspec.Struct, frozen=True):
    """One account to check. `origin`: who asks; unless it is said, a person at an unknown device.

    `own_case`: the number of the case that the check is made for, which does not count as another live case.
    `document`: the blind index of the document that this case uses (None: the one bound to the account). `agreed`: what
    the person agrees to with this request, beside earlier consents: (code of the rule, id of an item; None: the whole).
    """

    account_id: int
    origin: Origin = UNKNOWN
    own_case: int | None = None
    document: bytes | None = None
    agreed: tuple[tuple[str, str | None], ...] = ()
