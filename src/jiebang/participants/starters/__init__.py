"""Starters that `jiebang participant new` writes: they run, and pass the suite, before anything is changed in them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from importlib.resources import files
from typing import Final

_NAME: Final = "NAME"


class StarterLanguage(StrEnum):
    """What a starter is written in."""

    PYTHON = "python"
    YAML = "yaml"


_FILES: Final[Mapping[StarterLanguage, Mapping[str, str]]] = {
    StarterLanguage.PYTHON: {"service.py": "service.py.txt", "README.md": "python.md.txt"},
    StarterLanguage.YAML: {"NAME.yaml": "participant.yaml.txt", "README.md": "yaml.md.txt"},
}


def build_starter(name: str, language: StarterLanguage) -> dict[str, str]:
    """Return the files of a starter: their text by name."""
    folder = files(__name__)
    return {
        file.replace(_NAME, name): folder.joinpath(template).read_text("utf-8").replace(_NAME, name)
        for file, template in _FILES[language].items()
    }
