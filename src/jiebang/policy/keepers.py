"""Hold a pack's consequences against its plans: each names what keeps it, and each thing that a plan does is told.

What does not hold is a shortfall: a version that an earlier jiebang admitted, without keepers, is loaded all the same.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from jiebang.model.facts import PLATFORM
from jiebang.model.promises import EFFECT, KEEPER_TYPES, NOTICE, PLATFORM_KEEPERS, Keeper

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jiebang.model.case import Kind
    from jiebang.model.participants import ParticipantRegistry
    from jiebang.model.plan import Plan
    from jiebang.policy.shape import ConsequenceShape, PackShape
    from jiebang.policy.source import Path, Source


def list_promises(plan: Plan, registry: ParticipantRegistry) -> dict[Keeper, tuple[str, ...]]:
    """Return all that a plan promises, each with the participants where it is observed; copies of an owner have one."""
    found = dict[Keeper, tuple[str, ...]]()
    for name, planned in plan.operations.items():
        declared = registry[name]
        for kind, keeper in declared.promises(planned):
            key = Keeper(kind, declared.owner, keeper)
            found[key] = (*found.get(key, ()), name)
    return found


def check_keepers(
    document: Source, shape: PackShape, plans: Mapping[Kind, Plan], registry: ParticipantRegistry
) -> list[tuple[Keeper, ...]]:
    """Return the keepers of each consequence that exist, noting each that does not, and all that is not told.

    `plans`: those without a fault; of the others nothing is noted, since their faults are.
    """
    made = {kind: list_promises(plan, registry) for kind, plan in plans.items()}
    found = [
        _check_consequence(document, shape, one, ("consequences", at), made, registry)
        for at, one in enumerate(shape.consequences)
    ]
    for kind, promises in made.items():
        told = {
            keeper for one, kept in zip(shape.consequences, found, strict=True) if kind in one.kinds for keeper in kept
        }
        for keeper, names in promises.items():
            if keeper not in told:
                path: Path = ("plans", kind.value, "operations", names[0])
                document.shortfall(
                    (*path, "effects", keeper.name) if keeper.type == EFFECT else path,
                    f"没有后果告知“{keeper}”:须有一项 {kind.value} 的后果以它为 kept_by",
                    f"no consequence of {kind.value} tells of '{keeper}': one must name it in `kept_by`",
                )
    return found


def _check_consequence(
    document: Source,
    shape: PackShape,
    one: ConsequenceShape,
    path: Path,
    made: Mapping[Kind, Mapping[Keeper, tuple[str, ...]]],
    registry: ParticipantRegistry,
) -> tuple[Keeper, ...]:
    for at, kind in enumerate(one.kinds):
        if kind not in shape.plans:
            document.shortfall(
                (*path, "kinds", at),
                f"无人兑现“{one.code}”:没有 {kind.value} 的编排",
                f"nothing keeps '{one.code}': there is no plan of {kind.value}",
            )
    if not one.kept_by:
        document.shortfall(
            path,
            f"无人兑现“{one.code}”:缺少“kept_by”",
            f"nothing keeps '{one.code}': it has no 'kept_by'",
        )
    found = list[Keeper]()
    for type_, names in one.kept_by.items():
        if type_ not in KEEPER_TYPES:
            known = ", ".join(KEEPER_TYPES)
            document.shortfall(
                (*path, "kept_by", type_),
                f"没有“{type_}”这种兑现方式;可用:{known}",
                f"there are no keepers '{type_}'; known are {known}",
            )
            continue
        for at, name in enumerate(names):
            keeper = _make_keeper(type_, name)
            place: Path = (*path, "kept_by", type_, at)
            if keeper in found:
                document.shortfall(place, f"“{name}”重复", f"'{name}' is named twice")
            elif keeper.owner == PLATFORM:
                found += [keeper] if _check_own(document, shape, keeper, place) else []
            else:
                found += [keeper] if _check_made(document, one, keeper, place, made, registry) else []
    return tuple(found)


def _make_keeper(type_: str, name: str) -> Keeper:
    owner, dot, rest = name.partition(".")
    return Keeper(type_, owner, rest) if dot else Keeper(type_, PLATFORM, name)


def _check_own(document: Source, shape: PackShape, keeper: Keeper, place: Path) -> bool:
    """Check a keeper of the platform's own; a notice must be worded."""
    if keeper.type == NOTICE:
        if keeper.name not in shape.messages:
            document.shortfall(place, f"messages 中没有“{keeper.name}”", f"`messages` has no '{keeper.name}'")
        return keeper.name in shape.messages
    own = PLATFORM_KEEPERS.get(keeper.type) or frozenset()
    if keeper.name not in own:
        known = ", ".join(sorted(own)) or "—"
        document.shortfall(
            place, f"平台没有“{keeper}”;可用:{known}", f"the platform has no '{keeper}'; known are {known}"
        )
    return keeper.name in own


def _check_made(
    document: Source,
    one: ConsequenceShape,
    keeper: Keeper,
    place: Path,
    made: Mapping[Kind, Mapping[Keeper, tuple[str, ...]]],
    registry: ParticipantRegistry,
) -> bool:
    """Check that a participant keeps it in every kind of case that the consequence is told of."""
    lacking = [kind for kind in one.kinds if kind in made and keeper not in made[kind]]
    if not lacking:
        return True
    kinds = ", ".join(kind.value for kind in lacking)
    known = [str(other) for kind in lacking for other in made[kind] if other.type == keeper.type]
    near = ", ".join(_list_near(str(keeper), known)) or "—"
    stranger = registry.of_owner(keeper.owner) is None
    zh = f"没有参与方“{keeper.owner}”" if stranger else f"{kinds} 的编排并不做“{keeper}”"
    en = f"there is no participant '{keeper.owner}'" if stranger else f"the plan of {kinds} does no '{keeper}'"
    document.shortfall(place, f"{zh};相近的有:{near}", f"{en}; near ones are {near}")
    return False


def _list_near(name: str, known: Sequence[str]) -> list[str]:
    return get_close_matches(name, dict.fromkeys(known), n=3, cutoff=0)
