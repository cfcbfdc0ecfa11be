"""Headers that hold one value: a second one, even the same, makes it unknown which of them counts.

RFC 9110, 5.3: such a header is sent once. RFC 6750, 3.1: a token given twice is an invalid request (400). The draft of
Idempotency-Key: an item, not a list, so two lines cannot be parsed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jiebang.model.errors import HeaderRepeatedError

if TYPE_CHECKING:
    from collections.abc import Iterable

_SINGLE: Final = frozenset(
    {b"authorization", b"content-length", b"content-type", b"host", b"idempotency-key", b"last-event-id"}
)
"""Those that a service here reads; lists, as Accept-Language and the signatures, may come in any number of lines."""


def refuse_repeated_headers(fields: Iterable[tuple[bytes, bytes]]) -> None:
    """Raise HeaderRepeatedError (fields: header) where a header that holds one value comes twice."""
    seen = set[bytes]()
    for name, _ in fields:
        known = name.lower()
        if known in _SINGLE:
            if known in seen:
                raise HeaderRepeatedError(header=known.decode())
            seen.add(known)
