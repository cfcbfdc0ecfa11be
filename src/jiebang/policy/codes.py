"""Codes: what each means, in full, without a person. Ours, those of older systems, and near ones for a slip."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jiebang.model.case import Kind
from jiebang.model.check import Severity, Text
from jiebang.model.errors import JiebangError, UnknownCodeError
from jiebang.policy.calendar import NEXT_YEAR, NOW, TODAY, derived
from jiebang.policy.pack import EARLIEST, Foreseen, Option, Pack, Words
from jiebang.policy.wording import fill

if TYPE_CHECKING:
    from jiebang.model.participants import ParticipantRegistry
    from jiebang.policy.wording import Wording

_NEAR: Final = 5
_ALIKE: Final = 0.5
_OTHER_NAMES: Final[Mapping[str, Text]] = {
    EARLIEST: Text("最早可办理的日期", "the earliest date"),
    NOW: Text("现在", "now"),
    TODAY: Text("今天", "today"),
    NEXT_YEAR: Text("明年 1 月 1 日", "1 January next year"),
    "owner": Text("来源", "the source"),
    "facts": Text("事实", "the facts"),
}


class CodeGroup(StrEnum):
    """What a code belongs to."""

    BLOCKER = "blocker"
    CONSEQUENCE = "consequence"
    ALTERNATIVE = "alternative"
    REASON = "reason"
    ERROR = "error"


class CodeExplained(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One code in full. A person's own values are not here: their places are named in 〈 〉 and [ ].

    `legacy`: the codes of older systems that meant this one. `condition`: when it is raised, in SQL, with the `params`.
    """

    code: str
    group: CodeGroup
    title: Text
    pack: str
    explanation: Text | None = None
    what: Text | None = None
    where: Text | None = None
    on_the_spot: bool | None = None
    takes: Text | None = None
    lasts: Text | None = None
    reaches: Text | None = None
    costs: Text | None = None
    appeal: Text | None = None
    severity: Severity | None = None
    kinds: tuple[Kind, ...] = ()
    participant: str | None = None
    source: str | None = None
    legal_basis: str | None = None
    condition: str | None = None
    params: Mapping[str, Any] = {}
    legacy: tuple[str, ...] = ()


def all_errors(root: type[JiebangError] = JiebangError) -> Mapping[str, type[JiebangError]]:
    """Return every error with a code of its own, by code; those that a room defines only once that room is imported."""
    found = {root.code: root} if "code" in vars(root) else {}
    for kind in root.__subclasses__():
        found.update(all_errors(kind))
    return found


def explain(pack: Pack, asked: str) -> CodeExplained:
    """Return what a code means, whichever case it is written in. Raises UnknownCodeError, which names near codes."""
    by_old = {old.upper(): code for old, code in pack.legacy_codes.items()}
    code = by_old.get(asked.upper(), asked.upper())
    for words in (*(rule.words for rule in pack.rules), pack.unavailable):
        if words.code == code:
            return _blocker(pack, words)
    for one in pack.consequences:
        if one.code == code:
            return _consequence(pack, one)
    for option in pack.alternatives:
        if option.code == code:
            return _alternative(pack, option)
    if code in pack.reasons:
        return CodeExplained(code=code, group=CodeGroup.REASON, title=pack.reasons[code], pack=pack.id)
    errors = all_errors()
    if code in errors:
        error = errors[code]
        return CodeExplained(code=code, group=CodeGroup.ERROR, title=error.title, what=error.action, pack=pack.id)
    raise UnknownCodeError(asked=asked, near=_near(asked.upper(), [*known(pack), *by_old]))


def known(pack: Pack) -> list[str]:
    """Return every code that `explain` knows, those of older systems apart."""
    rules = [*(rule.code for rule in pack.rules), pack.unavailable.code]
    others = [*(one.code for one in pack.consequences), *(one.code for one in pack.alternatives), *pack.reasons]
    return list(dict.fromkeys([*rules, *others, *all_errors()]))


def _near(code: str, codes: Iterable[str]) -> list[str]:
    return get_close_matches(code, list(codes), n=_NEAR, cutoff=_ALIKE)


def _whole(pack: Pack, text: Wording) -> Text:
    """Fill a text without a person: each place is the name of what will stand there."""
    return fill(text, {name: _place(pack.registry, name) for name in text.names})


def _place(registry: ParticipantRegistry, name: str) -> Text:
    fact = registry.facts.get(derived(registry).get(name, name))
    meaning = _OTHER_NAMES[name] if fact is None else Text(fact.zh, fact.en)
    return Text(f"〈{meaning.zh}〉", f"[{meaning.en}]")


def _blocker(pack: Pack, words: Words) -> CodeExplained:
    rule = next((rule for rule in pack.rules if rule.code == words.code), None)
    used = rule.when.params if rule is not None else frozenset()
    return CodeExplained(
        code=words.code,
        group=CodeGroup.BLOCKER,
        title=_whole(pack, words.title),
        pack=pack.id,
        explanation=_whole(pack, words.explanation),
        what=_whole(pack, words.what),
        where=_whole(pack, words.where),
        on_the_spot=words.on_the_spot,
        takes=_whole(pack, words.takes),
        appeal=_whole(pack, words.appeal),
        severity=rule.severity if rule is not None else Severity.BLOCKS,
        kinds=tuple(kind for kind in Kind if (rule is None and kind in pack.kinds) or (rule and kind in rule.kinds)),
        source=words.source,
        legal_basis=words.legal_basis,
        condition=rule.when.text if rule is not None else None,
        params={name: pack.params[name].value for name in sorted(used)},
        legacy=tuple(old for old, code in pack.legacy_codes.items() if code == words.code),
    )


def _consequence(pack: Pack, one: Foreseen) -> CodeExplained:
    return CodeExplained(
        code=one.code,
        group=CodeGroup.CONSEQUENCE,
        title=_whole(pack, one.title),
        pack=pack.id,
        explanation=_whole(pack, one.explanation),
        lasts=_whole(pack, one.lasts),
        kinds=tuple(kind for kind in Kind if kind in one.kinds),
        participant=one.participant,
        source=one.source,
        legal_basis=one.legal_basis,
        condition=one.when.text if one.when is not None else None,
        params={name: pack.params[name].value for name in sorted(one.when.params if one.when is not None else ())},
    )


def _alternative(pack: Pack, option: Option) -> CodeExplained:
    return CodeExplained(
        code=option.code,
        group=CodeGroup.ALTERNATIVE,
        title=_whole(pack, option.title),
        pack=pack.id,
        reaches=_whole(pack, option.reaches),
        costs=_whole(pack, option.costs),
        kinds=tuple(kind for kind in Kind if kind in option.kinds),
        source=option.source,
        condition=option.when.text if option.when is not None else None,
    )
