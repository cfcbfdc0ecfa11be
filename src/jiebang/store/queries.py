"""Named SQL: a `.sql` file holds queries, each after a line `-- name: the_name` and a comment that gives its reason."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)


@cache
def load(package: str, file: str) -> Mapping[str, str]:
    """Return the queries of `file` in `package` by name. Raises ValueError for a name given twice."""
    parts = _NAME.split(files(package).joinpath(file).read_text(encoding="utf-8"))
    names, bodies = parts[1::2], parts[2::2]
    if len(set(names)) != len(names):
        message = f"{package}/{file}: a query is named twice"
        raise ValueError(message)
    return dict(zip(names, (body.strip() for body in bodies), strict=True))
