"""Names that look alike: one person must not count as two by a letter of another script (after Unicode TS 39).

What it covers: letters with marks, full-width, mathematical, circled and other compatibility forms of any script (by
NFKD); upper and lower case; spaces, punctuation and invisible characters (none of them tells two names apart); Latin,
Greek, Cyrillic, Armenian and Cherokee letters and digits that are drawn like a Latin letter; katakana and a few
ideographs that are drawn like another ideograph. What it does not: the whole of Unicode's confusables.txt, other
scripts among themselves, and simplified against traditional characters.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_DRAWN_LIKE: Final[Mapping[str, str]] = {
    "a": "АаΑαɑᴀᎪ",
    "ae": "æÆӕӔ",
    "b": "ВвЬьΒβʙᏴƀ",
    "c": "СсϹϲᴄᏟⅽ",
    "d": "ԁᎠᴅđðĐÐ",
    "e": "ЕеΕεᴇᎬєЄɛҽ",
    "f": "ϝϜƒ",
    "g": "ɡցԍɢᏀǥ",
    "h": "НнҺһΗհʜᎻħĦ",
    "j": "ЈјϳᴊᎫ",
    "k": "КкΚκᴋᏦқҚ",
    "l": "ilI1|ІіΙιıɩɪӀӏʟᏞłŁ",
    "n": "ηոпПΝɴŋ",
    "o": "0ОоΟοσՕօᴏ〇øØθΘ",
    "oe": "œŒ",
    "p": "РрΡρᴘᏢþÞ",
    "q": "ԛզ",
    "r": "гГґҐʀᎡ",
    "rn": "mМмΜᴍᎷ",
    "s": "ЅѕꜱᏚ5ʂ",
    "t": "ТтΤτᴛᎢŧŦ",
    "u": "иИυսμᴜʋ",
    "v": "ѴѵνᴠᏙ",
    "vv": "wѠѡωԜԝաᴡᏔшШ",
    "x": "ХхΧχ×",
    "y": "УуΥγʏүҮ",
    "z": "ΖζᴢᏃƶ2",
    "3": "ЗзӠӡ",
    "6": "б",
    "口": "ロ囗",
    "工": "エ",
    "八": "ハ",
    "力": "カ",
    "卜": "ト",
    "夕": "タ",
    "二": "ニ",
    "三": "ミ",
    "一": "ー—",
    "日": "曰",
    "己": "已巳",
    "土": "士",
    "未": "末",
    "人": "入",
}
_PROTOTYPES: Final = {ord(drawn): prototype for prototype, alike in _DRAWN_LIKE.items() for drawn in alike}
_DROPPED: Final = frozenset("ZCPSM")
"""Categories that tell no two names apart, by first letter: spaces, controls, punctuation, symbols, marks."""


def looks_alike(one: str, other: str) -> bool:
    """Whether two names could be taken for each other, in upper case, lower case, or as they are written."""
    return not set(_list_skeletons(one)).isdisjoint(_list_skeletons(other))


def _list_skeletons(name: str) -> Iterator[str]:
    """Yield a skeleton for each case: some letters, such as Greek eta, look like another one in each."""
    plain = unicodedata.normalize("NFKC", name)
    return (skeleton(form) for form in (plain, plain.upper(), plain.lower(), plain.casefold()))


def skeleton(name: str) -> str:
    """Return what a name has in common with all that look like it. It is to be compared, never shown.

    Until nothing changes: decompose, replace what is drawn like another letter, drop what tells no names apart.
    """
    before, text = None, name
    while text != before:
        before = text
        text = unicodedata.normalize("NFKD", text).translate(_PROTOTYPES)
        text = "".join(each for each in text if unicodedata.category(each)[0] not in _DROPPED).casefold()
    return text
