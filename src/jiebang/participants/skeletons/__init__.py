"""Skeletons that `jiebang participant new` writes: they run, and pass the suite, before anything is changed in them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from importlib.resources import files
from typing import Final

_NAME: Final = "NAME"


class SkeletonLanguage(StrEnum):
    """What a skeleton is written in."""

    PYTHON = "python"
    YAML = "yaml"


_FILES: Final[Mapping[SkeletonLanguage, Mapping[str, str]]] = {
    SkeletonLanguage.PYTHON: {"service.py": "service.py.txt", "README.md": "python.md.txt"},
    SkeletonLanguage.YAML: {"NAME.yaml": "participant.yaml.txt", "README.md": "yaml.md.txt"},
}


def build_skeleton(name: str, language: SkeletonLanguage) -> dict[str, str]:
    """Return the files of a skeleton: their text by name."""
    folder = files(__name__)
    return {
        file.replace(_NAME, name): folder.joinpath(template).read_text("utf-8").replace(_NAME, name)
        for file, template in _FILES[language].items()
    }
