"""Remote participants that an installation adds by its settings: each is declared in the table that says where it is.

    [networks.acme]
    base_url = "https://…"
    [networks.acme.operations.close]
    effects.points_kept = { type = "int", most = 100 }

From then on it is a participant like the clearing networks: plans name it and its operations, cases go through it, it
is audited and recovered. It owns no facts.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from jiebang.model.check import Text
from jiebang.model.facts import PLATFORM, QUOTA, REQUEST
from jiebang.model.participants import Declaration, Operation, ValueType

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
RESERVED_NAMES: Final = frozenset({PLATFORM, QUOTA, REQUEST, "keys", "phone"})
"""Names that mean something else in an installation: our own owners, the store of data keys, the gateway's link."""
_TYPES: Final[Mapping[str, type]] = {"int": int, "bool": bool, "str": str}


class EffectSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One effect: its type, and the bounds of a number or of a text's length (0 to 2**53 - 1 where not given)."""

    type: Literal["int", "bool", "str"]
    least: int = 0
    most: int = (1 << 53) - 1


class OperationSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One operation: the effects that its Confirm takes, by name; "any": whatever a plan says is sent unchanged."""

    effects: dict[str, EffectSettings] | Literal["any"] = {}


class DeclarationFaultError(ValueError):
    """A declaration that cannot be. `place`: where in it; `what`: what is wrong, without its values."""

    def __init__(self, place: str, what: Text) -> None:
        """`place` is empty for the whole."""
        super().__init__(what.en)
        self.place, self.what = place, what


def declare(name: str, operations: object, taken: Collection[str]) -> Declaration:
    """Return the declaration of the remote participant `name` with these operations, as the settings give them.

    None: they give none. `taken`: names of other participants and owners. Raises DeclarationFaultError.
    """
    if operations is None:
        zh, en = (
            "没有此名称;若要声明新的参与方,请写明 operations",
            "is no name we know; `operations` here would declare it",
        )
        raise DeclarationFaultError("", Text(zh, en))
    if not _NAME.fullmatch(name):
        raise DeclarationFaultError(
            "", Text("名称应为小写字母、数字与下划线", "a name is lower-case letters, digits, _")
        )
    if name in RESERVED_NAMES or name in taken:
        raise DeclarationFaultError("", Text("此名称已另有所指", "that name means something else already"))
    try:
        found = msgspec.convert(operations, dict[str, OperationSettings])
    except msgspec.ValidationError as error:
        place = str(error).partition(" - at `$")[2].rstrip("`")
        what = Text(
            "应为操作及其效果(type、least、most)", "must hold operations with their effects (type, least, most)"
        )
        raise DeclarationFaultError(f"operations{place}", what) from error
    if not found:
        raise DeclarationFaultError("operations", Text("至少须有一项操作", "needs at least one operation"))
    declared = {operation: _operation(operation, one) for operation, one in found.items()}
    return Declaration(owner=name, package=__name__, operations=declared)


def _operation(name: str, one: OperationSettings) -> Operation:
    if one.effects == "any":
        effects: dict[str, ValueType] | None = None
        names: Collection[str] = (name,)
    else:
        effects = {effect: _effect(f"operations.{name}.effects.{effect}", kind) for effect, kind in one.effects.items()}
        names = (name, *effects)
    for word in names:
        if not _NAME.fullmatch(word):
            what = Text("名称应为小写字母、数字与下划线", "a name is lower-case letters, digits, _")
            raise DeclarationFaultError(f"operations.{name}", what)
    return Operation(effects=effects)


def _effect(place: str, kind: EffectSettings) -> ValueType:
    if kind.least > kind.most:
        raise DeclarationFaultError(place, Text("least 大于 most", "least is above most"))
    return ValueType(_TYPES[kind.type], least=kind.least, most=kind.most)
