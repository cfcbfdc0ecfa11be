"""A property: its name, what must hold, what would break otherwise, and how it is examined."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec

from jiebang.model.check import Text

if TYPE_CHECKING:
    from jiebang.participants.conformance.subject import Subject


class Property(msgspec.Struct, frozen=True):
    """One property of the protocol. `examine` raises DeviationError, NotApplicableError, or one of SILENCE.

    `name`: stable, for reports and scripts. `holds`: what must hold. `breaks`: what would break for whom otherwise.
    """

    name: str
    holds: Text
    breaks: Text
    examine: Callable[[Subject], Awaitable[None]]
