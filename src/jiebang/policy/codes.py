"""Explain codes without a person's values: ours, those of older systems, and near matches for a misspelt one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jiebang.model.case import Kind
from jiebang.model.check import Severity, Text
from jiebang.model.errors import JiebangError, UnknownCodeError
from jiebang.policy.calendar import NEXT_YEAR, NOW, TODAY, derived_columns
from jiebang.policy.pack import EARLIEST, AlternativeRule, BlockerText, ConsequenceRule, Pack
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
    """What sort of thing a code names."""

    BLOCKER = "blocker"
    CONSEQUENCE = "consequence"
    ALTERNATIVE = "alternative"
    REASON = "reason"
    ERROR = "error"


class CodeExplained(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything about one code. In place of a person's values stand their names, in 〈 〉 and [ ].

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
    """Return every error class with a code of its own, by code; only of modules that are imported already."""
    found = {root.code: root} if "code" in vars(root) else {}
    for kind in root.__subclasses__():
        found.update(all_errors(kind))
    return found


def explain(pack: Pack, asked: str) -> CodeExplained:
    """Explain a code, in upper or lower case. Raises UnknownCodeError, which names near codes."""
    by_old = {old.upper(): code for old, code in pack.legacy_codes.items()}
    code = by_old.get(asked.upper(), asked.upper())
    for words in (*(rule.words for rule in pack.rules), pack.unavailable):
        if words.code == code:
            return _explain_blocker(pack, words)
    for one in pack.consequences:
        if one.code == code:
            return _explain_consequence(pack, one)
    for option in pack.alternatives:
        if option.code == code:
            return _explain_alternative(pack, option)
    if code in pack.reasons:
        return CodeExplained(code=code, group=CodeGroup.REASON, title=pack.reasons[code], pack=pack.id)
    errors = all_errors()
    if code in errors:
        error = errors[code]
        return CodeExplained(code=code, group=CodeGroup.ERROR, title=error.title, what=error.action, pack=pack.id)
    raise UnknownCodeError(asked=asked, near=_find_near(asked.upper(), [*list_codes(pack), *by_old]))


def list_codes(pack: Pack) -> list[str]:
    """Return every code that `explain` knows, without those of older systems."""
    rules = [*(rule.code for rule in pack.rules), pack.unavailable.code]
    others = [*(one.code for one in pack.consequences), *(one.code for one in pack.alternatives), *pack.reasons]
    return list(dict.fromkeys([*rules, *others, *all_errors()]))


def _find_near(code: str, codes: Iterable[str]) -> list[str]:
    return get_close_matches(code, list(codes), n=_NEAR, cutoff=_ALIKE)


def _fill_with_names(pack: Pack, text: Wording) -> Text:
    """Fill each place of a text with the name of the value that goes there."""
    return fill(text, {name: _describe_place(pack.registry, name) for name in text.names})


def _describe_place(registry: ParticipantRegistry, name: str) -> Text:
    fact = registry.facts.get(derived_columns(registry).get(name, name))
    meaning = _OTHER_NAMES[name] if fact is None else Text(fact.zh, fact.en)
    return Text(f"〈{meaning.zh}〉", f"[{meaning.en}]")


def _explain_blocker(pack: Pack, words: BlockerText) -> CodeExplained:
    rule = next((rule for rule in pack.rules if rule.code == words.code), None)
    used = rule.when.params if rule is not None else frozenset()
    return CodeExplained(
        code=words.code,
        group=CodeGroup.BLOCKER,
        title=_fill_with_names(pack, words.title),
        pack=pack.id,
        explanation=_fill_with_names(pack, words.explanation),
        what=_fill_with_names(pack, words.what),
        where=_fill_with_names(pack, words.where),
        on_the_spot=words.on_the_spot,
        takes=_fill_with_names(pack, words.takes),
        appeal=_fill_with_names(pack, words.appeal),
        severity=rule.severity if rule is not None else Severity.BLOCKS,
        kinds=tuple(kind for kind in Kind if (rule is None and kind in pack.kinds) or (rule and kind in rule.kinds)),
        source=words.source,
        legal_basis=words.legal_basis,
        condition=rule.when.text if rule is not None else None,
        params={name: pack.params[name].value for name in sorted(used)},
        legacy=tuple(old for old, code in pack.legacy_codes.items() if code == words.code),
    )


def _explain_consequence(pack: Pack, one: ConsequenceRule) -> CodeExplained:
    return CodeExplained(
        code=one.code,
        group=CodeGroup.CONSEQUENCE,
        title=_fill_with_names(pack, one.title),
        pack=pack.id,
        explanation=_fill_with_names(pack, one.explanation),
        lasts=_fill_with_names(pack, one.lasts),
        kinds=tuple(kind for kind in Kind if kind in one.kinds),
        participant=one.participant,
        source=one.source,
        legal_basis=one.legal_basis,
        condition=one.when.text if one.when is not None else None,
        params={name: pack.params[name].value for name in sorted(one.when.params if one.when is not None else ())},
    )


def _explain_alternative(pack: Pack, option: AlternativeRule) -> CodeExplained:
    return CodeExplained(
        code=option.code,
        group=CodeGroup.ALTERNATIVE,
        title=_fill_with_names(pack, option.title),
        pack=pack.id,
        reaches=_fill_with_names(pack, option.reaches),
        costs=_fill_with_names(pack, option.costs),
        kinds=tuple(kind for kind in Kind if kind in option.kinds),
        source=option.source,
        condition=option.when.text if option.when is not None else None,
    )
