"""A plan: which participants a case of one kind needs, in which waves, and which operation each carries out.

Plans are data: they are part of policy packs (domain.md §5 gives their content). Participants declare the operations
and their effects (`model.participants`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

WALLET: Final = "wallet"


class PlannedOperation(msgspec.Struct, frozen=True):
    """What one participant does for a case: the operation, by its name, and the effects that its Confirm applies.

    `effects`: the JSON object for Confirm; an omitted effect changes nothing. An empty `operation` means the
    participant's `Declaration.formerly`, as in plans from before operations had names.
    """

    operation: str = ""
    effects: Mapping[str, Any] = {}


UNNAMED: Final = PlannedOperation()
"""The operation without a name, and without effects."""


class EffectCorrection(msgspec.Struct, frozen=True):
    """What stands in the place of one effect of a plan that could not be applied. A `value` of None leaves it out."""

    participant: str
    effect: str
    value: Any


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Participants in Try order, each with its wave (0 first), and the operation that each carries out.

    `participants[i]` is tried in wave `waves[i]`; waves are in ascending order, and the wallet, where the plan has
    it, is alone in the last. `operations` has an entry for every participant: UNNAMED where none was
    given. Raises ValueError when these do not hold.
    """

    name: str
    participants: tuple[str, ...]
    waves: tuple[int, ...]
    operations: Mapping[str, PlannedOperation] = {}

    def __post_init__(self) -> None:
        """Refuse a plan whose shape the coordinator could not follow."""
        if not self.participants or len(set(self.participants)) != len(self.participants):
            message = f"plan {self.name}: participants must be named once each, at least one"
            raise ValueError(message)
        if len(self.waves) != len(self.participants) or list(self.waves) != sorted(self.waves) or self.waves[0] != 0:
            message = f"plan {self.name}: one wave for each participant, growing from 0"
            raise ValueError(message)
        if WALLET in self.participants and (self.participants[-1] != WALLET or self.waves.count(self.waves[-1]) != 1):
            message = f"plan {self.name}: the wallet's wave comes last, alone"
            raise ValueError(message)
        unknown = {name for name, one in self.operations.items() if one != UNNAMED} - set(self.participants)
        if unknown:
            message = f"plan {self.name}: operations for {sorted(unknown)}, which it does not name"
            raise ValueError(message)
        every = {name: self.operations.get(name, UNNAMED) for name in self.participants}
        msgspec.structs.force_setattr(self, "operations", every)

    def corrected(self, corrections: Iterable[EffectCorrection]) -> Plan:
        """Return the plan with effects set right, in order; those of participants that it does not name are ignored."""
        operations = dict(self.operations)
        for each in corrections:
            if each.participant not in operations:
                continue
            planned = operations[each.participant]
            effects = {name: value for name, value in planned.effects.items() if name != each.effect}
            if each.value is not None:
                effects[each.effect] = each.value
            operations[each.participant] = PlannedOperation(planned.operation, effects)
        return msgspec.structs.replace(self, operations=operations)
