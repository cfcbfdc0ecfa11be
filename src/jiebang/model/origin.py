"""Who makes a request about an account: a service of the platform, or a person at one of their devices."""

from __future__ import annotations

from typing import Final

import msgspec

_NOBODYS: Final = ""


class Origin(msgspec.Struct, frozen=True, gc=False):
    """Where a request comes from: a service, or a person at a `device` (None: it is not known at which).

    `address`: the network address it came from, where that is known.

    A service is told by its own mark. What is not known of a person is not known, and passes nothing.
    """

    device: str | None = None
    service: bool = False
    address: str | None = None

    @property
    def device_fact(self) -> str | None:
        """The device as a fact: None for a service, which has none; of a person at an unknown device, one of nobody's.

        So a rule that lets requests without a device pass lets services pass, and nobody else.
        """
        return None if self.service else self.device or _NOBODYS


SERVICE: Final = Origin(service=True)
"""A service of the platform, which acts for any account and has no device."""
UNKNOWN: Final = Origin()
"""A person at a device that is not known."""
