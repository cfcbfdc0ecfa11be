"""Named SQL: a `.sql` file holds statements, each after a line `-- name: the_name` and a comment.

`X.py` has `X.sql`. A statement takes a batch as columns. One that joins repeats its accounts as `= ANY ($1)`: a
condition on the key that the planner uses even where statistics are missing or date from an empty table
(tests/store/test_plans.py).
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

_NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)
_First = TypeVar("_First")
_Second = TypeVar("_Second")


@cache
def load(package: str, file: str) -> Mapping[str, str]:
    """Return the statements of `file` in `package` by name. Raises ValueError for a name given twice."""
    parts = _NAME.split(files(package).joinpath(file).read_text(encoding="utf-8"))
    names, bodies = parts[1::2], parts[2::2]
    if len(set(names)) != len(names):
        message = f"{package}/{file}: a statement is named twice"
        raise ValueError(message)
    return dict(zip(names, (body.strip() for body in bodies), strict=True))


def columns(rows: Collection[object], *fields: str) -> list[list[Any]]:
    """Return the named fields of `rows`, one column per field, as `unnest` takes them."""
    return [list(map(attrgetter(field), rows)) for field in fields]


def key_columns(keys: Iterable[tuple[_First, _Second]]) -> tuple[list[_First], list[_Second]]:
    """Return keys of two parts as two columns, in key order, so that two statements cannot deadlock."""
    ordered = sorted(keys)
    return [key[0] for key in ordered], [key[1] for key in ordered]
