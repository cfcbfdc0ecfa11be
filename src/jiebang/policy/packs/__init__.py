"""The packs that come with the product, read from the files beside this one."""

from __future__ import annotations

from importlib import resources
from typing import Final

NAMES: Final = tuple(
    sorted(
        file.name.removesuffix(".yaml") for file in resources.files(__name__).iterdir() if file.name.endswith(".yaml")
    )
)
"""The packs that come with the product."""


def text(name: str) -> tuple[str, str]:
    """Return the text and the file name of a built-in pack, as `load.load_pack` takes them.

    Raises FileNotFoundError for a name that is not one of ours.
    """
    file = f"{name}.yaml"
    return resources.files(__name__).joinpath(file).read_text(encoding="utf-8"), file
