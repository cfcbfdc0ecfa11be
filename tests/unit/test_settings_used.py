"""Every setting changes something: it is read where its part of the settings is used."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final

import msgspec
import pytest

import jiebang
from jiebang.api.gate.capacity import Capacity
from jiebang.app.opening import find_limit
from jiebang.saga.coordinator import Timing
from jiebang.settings import HttpSettings, IssuerSettings, NetworkSettings, Settings
from jiebang.store.cases.idempotency import RepeatPolicy
from jiebang.store.postgres.shares import ConnectionLimits
from jiebang.usecases.operations.gauges import GaugePace
from jiebang.usecases.operations.tasks import TaskLimits
from jiebang.usecases.timelines.seal import SealPace
from jiebang.worker import Pace

CALLED: Final[Mapping[type[msgspec.Struct], frozenset[str]]] = {
    Settings: frozenset({"settings"}),
    NetworkSettings: frozenset({"network", "configured"}),
    IssuerSettings: frozenset({"issuer"}),
    HttpSettings: frozenset({"http"}),
    Timing: frozenset({"timing", "saga"}),
    Pace: frozenset({"pace", "worker"}),
    SealPace: frozenset({"pace", "seals"}),
    TaskLimits: frozenset({"limits", "tasks"}),
    GaugePace: frozenset({"pace", "gauges"}),
    RepeatPolicy: frozenset({"repeats", "policy"}),
    Capacity: frozenset({"capacity", "limits"}),
    ConnectionLimits: frozenset({"connections", "limits"}),
}
"""What a value of each part of the settings is called where it is used, underscores apart."""


def _reads() -> Iterator[tuple[str, str]]:
    """Every (name of a value, field read from it) in the product, but in the module that reads the settings."""
    root = Path(jiebang.__file__).parent
    for path in root.rglob("*.py"):
        if path == root / "settings.py" or path == root / "app" / "checkup.py":
            continue
        tree = ast.parse(path.read_text("utf-8"))
        own = {
            id(node): part.name.lower()
            for part in ast.walk(tree)
            if isinstance(part, ast.ClassDef)
            for node in ast.walk(part)
            if isinstance(node, ast.Name) and node.id == "self"
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                value = node.value
                name = (
                    value.attr
                    if isinstance(value, ast.Attribute)
                    else own.get(id(value), value.id)
                    if isinstance(value, ast.Name)
                    else ""
                )
                yield name.lstrip("_"), node.attr


READ: Final = frozenset(_reads())


def test_every_part_of_the_settings_is_looked_at() -> None:
    """A part that is added must be looked at here, too."""
    parts = {type(value) for value in msgspec.structs.asdict(Settings(home=Path(), keys=Path())).values()}
    assert {part for part in parts if issubclass(part, msgspec.Struct)} <= CALLED.keys()


@pytest.mark.parametrize("part", CALLED, ids=lambda part: part.__name__)
def test_every_setting_is_used(part: type[msgspec.Struct]) -> None:
    """Somebody sets it, nothing changes, and nobody says so: as with the limit of a network."""
    unused = [
        field.name
        for field in msgspec.structs.fields(part)
        if not any((name, field.name) in READ for name in CALLED[part])
    ]
    assert unused == []


def test_a_networks_limit_is_that_of_its_settings() -> None:
    """A network that is allowed five seconds was given two, whatever was written."""
    patient = NetworkSettings(base_url="https://n.example", limit=timedelta(seconds=5))
    settings = Settings(home=Path(), keys=Path(), networks={"unionpay": patient})
    assert find_limit(settings, "unionpay") == 5
    assert find_limit(settings, "netsunion") == 2
