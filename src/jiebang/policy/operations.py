"""Compile the operations of a pack's plans: each is declared by its participant, with effects of the right types."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jiebang.model.plan import PlannedOperation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jiebang.model.participants import Declaration, Operation
    from jiebang.policy.compose import Composer
    from jiebang.policy.shape import PlanShape
    from jiebang.policy.source import Path


def compile_operations(
    composer: Composer, shape: PlanShape, names: Sequence[str], path: Path
) -> dict[str, PlannedOperation]:
    """Compile each participant's operation, noting each problem with its place. `names`: the plan's participants.

    A plan of the old form, without operation names, gets each participant's `formerly`.
    """
    _note_strangers(composer, shape.effects or {}, shape, (*path, "effects"))
    if shape.operations is None:
        former = {name: _compile_former(composer, shape, name, path) for name in names}
        return {name: operation for name, operation in former.items() if operation is not None}
    _note_strangers(composer, shape.operations, shape, (*path, "operations"))
    if shape.effects is not None:
        composer.document.problem(
            (*path, "effects"),
            "效果应写在 operations 之下",
            "effects stand under `operations`, each with its operation",
        )
    compiled = dict[str, PlannedOperation]()
    for name, one in shape.operations.items():
        place: Path = (*path, "operations", name)
        if name not in names:
            continue
        declared = composer.registry[name]
        if one.operation not in declared.operations:
            known = ", ".join(declared.operations)
            composer.document.problem(
                (*place, "operation"),
                f"“{name}”没有名为“{one.operation}”的操作；可用：{known}",
                f"'{name}' has no operation '{one.operation}'; known are {known}",
            )
            continue
        operation = declared.operations[one.operation]
        effects = _compile_effects(composer, name, operation, one.effects, (*place, "effects"))
        compiled[name] = PlannedOperation(one.operation, effects)
    for name in names:
        if name not in shape.operations:
            composer.document.problem(
                (*path, "operations"), f"缺少“{name}”的操作", f"the operation of '{name}' is missing"
            )
    return compiled


def _note_strangers(composer: Composer, given: Iterable[str], shape: PlanShape, path: Path) -> None:
    known = {name for wave in shape.waves for name in wave}
    for name in given:
        if name not in known:
            composer.document.problem(
                (*path, name), f"写给“{name}”，而编排中没有它", f"this is for '{name}', which it does not name"
            )


def _compile_former(composer: Composer, shape: PlanShape, name: str, path: Path) -> PlannedOperation | None:
    declared: Declaration = composer.registry[name]
    if declared.formerly is None:
        composer.document.problem(
            path, f"缺少 operations：须写明“{name}”的操作", f"`operations` is missing: it must name that of '{name}'"
        )
        return None
    place: Path = (*path, "effects", name)
    effects = _compile_effects(
        composer, name, declared.operations[declared.formerly], (shape.effects or {}).get(name, {}), place
    )
    return PlannedOperation(declared.formerly, effects)


def _compile_effects(
    composer: Composer, name: str, operation: Operation, given: Mapping[str, bool | str], path: Path
) -> dict[str, bool | str | int]:
    compiled = dict[str, bool | str | int]()
    for effect, value in given.items():
        place: Path = (*path, effect)
        kind = None if operation.effects is None else operation.effects.get(effect)
        if kind is None and operation.effects is not None:
            composer.document.problem(
                place, f"“{name}”不认识效果“{effect}”", f"{name} knows no effect '{effect}' in this operation"
            )
        meant: bool | str | int = value
        if isinstance(value, str) and value.startswith(":"):
            param = composer.look_up_param(value, place)
            if param is None:
                continue
            meant = param.value
        compiled[effect] = meant
        if kind is not None and (fault := kind.fault(meant)) is not None:
            composer.document.shortfall(
                place, f"“{name}”的效果“{effect}”{fault.zh}", f"the effect '{effect}' of {name} {fault.en}"
            )
    return compiled
