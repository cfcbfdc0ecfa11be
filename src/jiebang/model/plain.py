"""Plain text: what a person reads holds no character that acts on the reader's screen instead of being seen.

A name may come with ESC, which moves a terminal's cursor, hides lines and opens links; with a bidirectional control,
which makes text read otherwise than it is stored; with NUL, which a database refuses. Where text comes in it is refused
(`find_acting`) or made plain; where it goes out to people (terminal, SMS, mail, reports) it is made plain once more.
"""

from __future__ import annotations

import re
from typing import Any, Final

_BIDI: Final = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_SEPARATORS: Final = (0x2028, 0x2029)
_BYTE_ORDER: Final = 0xFEFF
_CONTROLS: Final = (*range(0x20), *range(0x7F, 0xA0))
_PICTURES: Final = 0x2400
"""Unicode's pictures of the first 32 control characters begin here: ESC is shown as ␛."""
_DELETE: Final = 0x7F

_SHOWN: Final = (
    dict.fromkeys((*_CONTROLS, *_BIDI, *_SEPARATORS, _BYTE_ORDER), "�")
    | {code: chr(_PICTURES + code) for code in range(0x20)}
    | {_DELETE: "\N{SYMBOL FOR DELETE}"}
)
_SHOWN_IN_LINES: Final = {code: shown for code, shown in _SHOWN.items() if chr(code) not in "\n\t"}
_UNSEEN: Final = dict.fromkeys((*_BIDI, *_SEPARATORS, _BYTE_ORDER))
_ACTING: Final = re.compile(f"[{''.join(map(chr, _SHOWN_IN_LINES))}]")
_ESCAPED: Final = re.compile(rf"[{''.join(chr(code) for code in _SHOWN if code >= _DELETE)}]")
_IN_JSON: Final = re.compile(
    r"\\[bfr]|\\u00(?:[01]|7[fF])|[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]"
)
PLAIN_PATTERN: Final = "^[^" + "".join(rf"\u{code:04x}" for code in _SHOWN_IN_LINES) + "]*$"
"""What `find_acting` finds nothing in, as a pattern of JSON Schema."""


def find_acting(text: str) -> str | None:
    """Return the first character that acts on a reader's screen, as U+XXXX; None where there is none.

    Line feed and tab do no harm.
    """
    found = None if text.isprintable() else _ACTING.search(text)
    return None if found is None else f"U+{ord(found[0]):04X}"


def make_plain(text: str, *, lines: bool = True) -> str:
    """Return text in which each acting character is replaced by one that shows it, of the same width: ␛ for ESC.

    `lines`: whether it may have several, as a mail has; otherwise line feeds and tabs are replaced too.
    """
    return text if text.isprintable() else text.translate(_SHOWN_IN_LINES if lines else _SHOWN)


def make_all_plain(value: Any) -> Any:
    """Return a decoded JSON value with all its strings, also those that name fields, made plain in one line each."""
    if isinstance(value, str):
        return make_plain(value, lines=False)
    if isinstance(value, list):
        return [make_all_plain(each) for each in value]
    if isinstance(value, dict):
        return {make_all_plain(name): make_all_plain(each) for name, each in value.items()}
    return value


def strip_acting(text: str) -> str:
    """Return a text as it comes into the system: without the marks that nobody sees, what controls made plain."""
    return text if text.isprintable() else text.replace("\r\n", "\n").translate(_UNSEEN).translate(_SHOWN_IN_LINES)


def may_act(json: str) -> bool:
    """Whether a JSON text may hold acting characters, so that its strings need be looked at."""
    return _IN_JSON.search(json) is not None


def escape_json(json: str) -> str:
    """Return a JSON document with its acting characters escaped: the same document, harmless on a terminal."""
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", json)
