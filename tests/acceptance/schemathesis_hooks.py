"""Hooks for the schemathesis that test_openapi.py runs: some of what it makes up is replaced by what exists.

`KNOWN` names real cases and accounts; without them nearly every generated request would end at "unknown".
"""

from __future__ import annotations

import json
import os
from typing import Any
from zlib import crc32

import schemathesis

KNOWN: dict[str, list[str]] = json.loads(os.environ["JIEBANG_TEST_KNOWN"])


def _known(kind: str, seed: object) -> str | None:
    """Return one of the known in three cases of four, by what was made up: the same input stays the same."""
    number = crc32(repr(seed).encode())
    return KNOWN[kind][number // 4 % len(KNOWN[kind])] if number % 4 else None


def _valid(value: object) -> bool:
    return isinstance(value, str) and value.isascii() and value.isdigit() and value[0] != "0" and len(value) < 16


@schemathesis.hook
def map_path_parameters(context: Any, path_parameters: dict[str, Any]) -> dict[str, Any]:
    """Put real case ids in place of well-formed ones."""
    made_up = (path_parameters or {}).get("case_id")
    if isinstance(made_up, str) and made_up.startswith("case_") and len(made_up) == 31:
        # A running case's events have no end; those of one that has ended do.
        kind = "ended" if context.operation.path.endswith("/events") else "cases"
        return {**path_parameters, "case_id": _known(kind, made_up) or made_up}
    return path_parameters


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Put real accounts in place of well-formed ones."""
    del context
    if not isinstance(body, dict):
        return body
    changed = dict(body)
    for at, field in enumerate(("account", "from", "to")):
        if _valid(body.get(field)):
            changed[field] = _known(("accounts", "accounts", "others")[at], body[field]) or body[field]
    if isinstance(body.get("accounts"), list) and body["accounts"] and all(map(_valid, body["accounts"])):
        changed["accounts"] = [_known("accounts", each) or each for each in body["accounts"]]
    return changed
