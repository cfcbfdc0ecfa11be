"""Chinese or English, by the person's locale; every text of the command line stands in both."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jiebang.model.check import Text

Language = Literal["zh", "en"]


def language(environment: Mapping[str, str] = os.environ) -> Language:
    """Return the language of the locale: LC_ALL, then LC_MESSAGES, then LANG, as POSIX has it."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if environment.get(name):
            return "zh" if re.match(r"zh\b|zh_", environment[name].lower()) else "en"
    return "en"


LANGUAGE: Final[Language] = language()


def say(zh: str, en: str) -> str:
    """Return the text in the person's language."""
    return zh if LANGUAGE == "zh" else en


def read(text: Text) -> str:
    """Return a two-language text in the person's language."""
    return say(text.zh, text.en)
