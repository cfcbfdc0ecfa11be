"""Every SQL statement of the product, found in its code: what is written tomorrow is in here too, or a test says so.

Named statements stand in `.sql` files, a participant's are built by `participants.core.statements`, and the few
that stand in Python are listed in `INLINE`. `unknown` reads all Python of the product for SQL in none of them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import jiebang
from jiebang.model.facts import PLATFORM
from jiebang.model.participants import Operation, ValueType
from jiebang.participants import PARTICIPANTS
from jiebang.participants.core.statements import build_operation, build_reads, build_staging, build_unnamed
from jiebang.participants.identity import documents
from jiebang.store.postgres.named_sql import load

Label = tuple[str, str]
"""(database, "file.name" or "participant.op")."""

_ROOT: Final = Path(jiebang.__file__).parent
_OWNERS: Final = {PLATFORM: [PLATFORM], "keys": ["keys"]} | {
    declared.owner: list(declared.databases) for declared in PARTICIPANTS.declarations if declared.databases
}
_TABLE: Final = re.compile(rf"\b(?:FROM|JOIN|INTO|UPDATE)\s+({'|'.join(_OWNERS)})\.")
_SQL: Final = re.compile(r"\b(?:SELECT|INSERT INTO|UPDATE|DELETE FROM)\s")

INLINE: Final[Mapping[Label, str]] = {
    ("identity_shenzhen", "identity.bound"): documents._BOUND,
    ("identity_shenzhen", "identity.brought_in"): documents._BROUGHT_IN,
    ("identity_shenzhen", "identity.epochs"): documents._EPOCHS,
}

ELSEWHERE: Final[Mapping[str, str]] = {
    "sandbox/": "what stands in for the outside world keeps its own SQLite, and loads people in bulk",
    "store/postgres/migrate.py": "a few rows of migrations",
    "store/postgres/embedded.py": "the server's own catalogue",
    "store/postgres/sessions.py": "the server's own catalogue",
    "app/checkup.py": "the server's own catalogue",
}
"""Where SQL may stand that no plan is tested of, and why."""

HARMLESS: Final[Mapping[str, str]] = {
    "SELECT clock_timestamp()": "asks a database for its time",
    "SELECT 1": "asks whether a database answers",
    "SELECT pg_advisory_xact_lock($1)": "takes a lock and reads nothing",
    "SELECT count(*) FROM platform.account": "how long a command of the operator's will take, for its progress bar",
}


def _named() -> Iterator[tuple[Label, str]]:
    for path in sorted(_ROOT.rglob("*.sql")):
        if "\n-- name: " not in "\n" + path.read_text(encoding="utf-8"):
            continue  # a schema
        package = ".".join(["jiebang", *path.parent.relative_to(_ROOT).parts])
        for name, sql in load(package, path.name).items():
            found = set(_TABLE.findall(sql))
            assert len(found) == 1, f"{path.name}: {name} reads tables of {found or 'nobody'}"
            for database in _OWNERS[found.pop()]:
                yield (database, f"{path.stem}.{name}"), sql


def _built() -> Iterator[tuple[Label, str]]:
    for declared in PARTICIPANTS.declarations:
        for name in declared.databases:
            yield (name, f"{name}.facts"), declared.facts_sql
            if declared.limits_sql:
                yield (name, f"{name}.limits"), declared.limits_sql
            built = {**build_unnamed(declared), **build_reads(declared.owner)}
            for operation, how in declared.operations.items():
                built |= {
                    f"{operation}.{op}": sql for op, sql in build_operation(declared.owner, operation, how).items()
                }
            if declared.stages:
                built |= {f"staging.{what}": sql for what, sql in build_staging(declared.owner).items()}
            for op, sql in built.items():
                yield (name, f"{name}.{op}"), sql


_GIVEN: Final = Operation(given={"value": ValueType(int)})
_STAGED: Final = {**build_staging("newcomer"), **build_operation("newcomer", "take", _GIVEN)}
"""Over what is staged, which no participant of the product takes up: tests/newcomer plans these."""

STATEMENTS: Final[Mapping[Label, str]] = {**dict(_named()), **dict(_built()), **INLINE}


def _texts(tree: ast.AST) -> Iterator[str]:
    """Every string in a module, its docstrings apart; of an f-string the pieces between what is put in."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def unknown() -> list[str]:
    """Return what looks like SQL in the product's Python and is no part of a known statement, with its file."""
    found = []
    for path in sorted(_ROOT.rglob("*.py")):
        where = path.relative_to(_ROOT).as_posix()
        if where.startswith(tuple(ELSEWHERE)):
            continue
        for text in _texts(ast.parse(path.read_text(encoding="utf-8"))):
            piece = text.strip()
            if not _SQL.search(piece) or piece in HARMLESS:
                continue
            if not any(piece in sql for sql in (*STATEMENTS.values(), *_STAGED.values())):
                found.append(f"{where}: {piece[:80]}")
    return found
