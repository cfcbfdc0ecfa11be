"""Where a version of a policy protects people less than the one before: for whoever adds, compares or approves it.

A changed condition is held against the old one on the values at which either changes its truth (`analyse`): what it
lets pass that was stopped before is found, not guessed. Where that is no proof, the finding says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jiebang.model.check import Severity, Text
from jiebang.model.participants import Weaker
from jiebang.policy.analyse import compare_conditions
from jiebang.policy.bounds import PROOF_BOUNDS, describe_duration, describe_number
from jiebang.policy.devices import Act, DeviceRule

if TYPE_CHECKING:
    from jiebang.model.case import Kind
    from jiebang.model.participants import ValueType
    from jiebang.model.plan import PlannedOperation
    from jiebang.policy.devices import Devices
    from jiebang.policy.pack import Pack, Proofs, Rule
    from jiebang.policy.protection import Protection

_STRICTNESS: Final[Mapping[Severity, int]] = {Severity.INFORMS: 0, Severity.NEEDS_CONSENT: 1, Severity.BLOCKS: 2}


_NARROWNESS: Final = (DeviceRule.ANY, DeviceRule.CASE, DeviceRule.PRIMARY).index
_PROTECTION: Final[Mapping[str, Weaker]] = {
    "window": Weaker.LESS,
    "case_pause": Weaker.LESS,
    **{f"{of}.{use}": Weaker.MORE for of in ("account", "address") for use in ("cases", "codes", "messages")},
    "tell_after": Weaker.MORE,
    "unlock_pause": Weaker.LESS,
    "unlock_tries": Weaker.MORE,
}
"""Which change of each number of `protection` protects less."""


class Weakening(msgspec.Struct, frozen=True):
    """One place where protection weakens. `path`: as in `proofs.revoke.tries` or `rules[PAY-BALANCE].when`."""

    path: str
    what: Text


def find_weakenings(before: Pack, after: Pack) -> list[Weakening]:
    """Return where `after` protects less than `before`, and where it falls short of what is admitted now."""
    return [
        *_compare_proofs(before, after),
        *_compare_rules(before, after),
        *_compare_quotas(before, after),
        *_compare_plans(before, after),
        *_compare_remedies(before, after),
        *_compare_devices(before.devices, after.devices),
        *_compare_protection(before.protection, after.protection),
        *(
            Weakening(f"{each.file}:{each.line}", Text(f"低于现行底线：{each.zh}", f"below today's floor: {each.en}"))
            for each in after.shortfalls
        ),
    ]


def _is_weaker(before: Any, after: Any, direction: Weaker | None) -> bool:
    if direction is Weaker.MORE:
        return bool(after > before)
    return bool(after < before) if direction is Weaker.LESS else bool(after != before)


def _compare_proofs(before: Pack, after: Pack) -> Iterator[Weakening]:
    for kind, old in before.proofs.items():
        new = after.proofs.get(kind)
        if new is None:
            continue  # a kind that is not offered any more needs no proof
        for method in old.methods:
            if method not in new.methods:
                what = Text(f"不再验证 {method}", f"{method} is no longer asked for")
                yield Weakening(f"proofs.{kind}.methods", what)
        for name, bound in PROOF_BOUNDS.items():
            was, becomes = _read_number(old, name), _read_number(new, name)
            if _is_weaker(was, becomes, bound.weaker):
                yield Weakening(
                    f"proofs.{kind}.{name}",
                    _describe_change(describe_number(name, was), describe_number(name, becomes)),
                )


def _read_number(proofs: Proofs, name: str) -> int:
    value: int | timedelta = getattr(proofs, name)
    return int(value.total_seconds()) if isinstance(value, timedelta) else value


def _describe_change(was: Text, becomes: Text) -> Text:
    return Text(f"由 {was.zh} 变为 {becomes.zh}", f"from {was.en} to {becomes.en}")


def _compare_rules(before: Pack, after: Pack) -> Iterator[Weakening]:
    rules = {rule.code: rule for rule in after.rules}
    for old in before.rules:
        path, new = f"rules[{old.code}]", rules.get(old.code)
        if new is None:
            yield Weakening(path, Text("规则已删除", "the rule is gone"))
            continue
        if gone := _list_kinds(old.kinds - new.kinds):
            yield Weakening(f"{path}.kinds", Text(f"不再适用于 {gone}", f"no longer for {gone}"))
        if _STRICTNESS[new.severity] < _STRICTNESS[old.severity]:
            what = Text(f"由 {old.severity} 放宽为 {new.severity}", f"from {old.severity} to {new.severity}")
            yield Weakening(f"{path}.severity", what)
        elif old.consent_to is not None and new.severity is old.severity and new.consent_to != old.consent_to:
            what = Text(f"不再逐项同意 {old.consent_to}", f"no longer a consent to each of {old.consent_to}")
            yield Weakening(f"{path}.consent_to", what)
        yield from _compare_whens(before, old, after, new)


def _compare_whens(before: Pack, old: Rule, after: Pack, new: Rule) -> Iterator[Weakening]:
    used = old.when.params | new.when.params
    numbers = [{name: pack.params[name].value for name in used & pack.params.keys()} for pack in (before, after)]
    if old.when.text == new.when.text and numbers[0] == numbers[1]:
        return
    path = f"rules[{old.code}].when"
    passes, proven = compare_conditions(before, old, after, new)
    if passes:
        what = Text("以前会被拦下的，有些现在会通过", "some who were stopped before are let pass now")
        yield Weakening(path, what)
    elif not proven:
        what = Text(
            "条件已改，未能证明不会放过以前会被拦下的",
            "the condition changed, and it could not be shown that nobody is let pass who was stopped before",
        )
        yield Weakening(path, what)


def _list_kinds(kinds: frozenset[Kind]) -> str:
    return ", ".join(sorted(kinds))


def _compare_quotas(before: Pack, after: Pack) -> Iterator[Weakening]:
    old, new = before.quota, after.quota
    if old is None:
        return
    if new is None:
        yield Weakening("quota", Text("不再限制变更次数", "changes are no longer counted"))
        return
    if new.per_year > old.per_year:
        was, becomes = str(old.per_year), str(new.per_year)
        yield Weakening("quota.per_year", _describe_change(Text(was, was), Text(becomes, becomes)))
    if gone := _list_kinds(old.kinds - new.kinds):
        yield Weakening("quota.kinds", Text(f"不再计入 {gone}", f"{gone} no longer counts"))


def _compare_plans(before: Pack, after: Pack) -> Iterator[Weakening]:
    for kind, old in before.plans.items():
        new = after.plans.get(kind)
        for name in old.participants if new is not None else ():
            path = f"plans.{kind}.operations.{name}"
            was, becomes = old.operations[name], None if new is None else new.operations.get(name)
            if becomes is None:
                yield Weakening(path, Text("不再参与", "it takes no part any more"))
            elif becomes.operation != was.operation:
                what = Text(f"操作由 {was.operation} 变为 {becomes.operation}",
                            f"the operation changes from {was.operation} to {becomes.operation}")  # fmt: skip
                yield Weakening(path, what)
            else:
                yield from _compare_effects(after, name, was, becomes, path)


def _compare_effects(
    after: Pack, name: str, was: PlannedOperation, becomes: PlannedOperation, path: str
) -> Iterator[Weakening]:
    """Compare what one operation applies. What a remote participant is sent has no known direction."""
    declared = after.registry[name].operation(was.operation)[1].effects or {}
    for effect, value in was.effects.items():
        place = f"{path}.effects.{effect}"
        if effect not in becomes.effects:
            yield Weakening(place, Text("不再写明此效果", "the effect is left out"))
            continue
        changed, kind = becomes.effects[effect], declared.get(effect)
        if changed != value and _is_effect_weaker(value, changed, kind):
            yield Weakening(place, _describe_change(Text(str(value), str(value)), Text(str(changed), str(changed))))


def _is_effect_weaker(value: Any, changed: Any, kind: ValueType | None) -> bool:
    if kind is None or kind.fault(value) is not None or kind.fault(changed) is not None:
        return True  # nothing is known of its direction
    if kind.among:
        value, changed = kind.among.index(value), kind.among.index(changed)
    return _is_weaker(value, changed, kind.weaker)


def _compare_remedies(before: Pack, after: Pack) -> Iterator[Weakening]:
    for name, code in after.remedies.items():
        if before.remedies.get(name) != code and any(rule.code == code for rule in before.rules):
            what = Text(f"{code} 现可由本人当场解除", f"people can clear {code} themselves now")
            yield Weakening(f"remedies.{name}", what)


def _compare_devices(before: Devices, after: Devices) -> Iterator[Weakening]:
    for act in Act:
        was, becomes = (devices.get(act, DeviceRule.ANY) for devices in (before, after))
        if _NARROWNESS(becomes) < _NARROWNESS(was):
            yield Weakening(f"devices.{act}", _describe_change(Text(was, was), Text(becomes, becomes)))


def _compare_protection(before: Protection | None, after: Protection | None) -> Iterator[Weakening]:
    if before is None:
        return
    if after is None:
        what = Text(
            "不再限制次数，错误尝试也不再告知本人", "no pauses and caps any more, and the owner hears of no wrong try"
        )
        yield Weakening("protection", what)
        return
    for name, weaker in _PROTECTION.items():
        was, becomes = (_describe_amount(attrgetter(name)(each)) for each in (before, after))
        if _is_weaker(was[0], becomes[0], weaker):
            yield Weakening(f"protection.{name}", _describe_change(was[1], becomes[1]))


def _describe_amount(value: int | timedelta) -> tuple[int, Text]:
    """Return a number of protection, in seconds where it is a length of time, and its words."""
    if isinstance(value, timedelta):
        seconds = int(value.total_seconds())
        return seconds, describe_duration(seconds)
    return value, Text(str(value), str(value))
