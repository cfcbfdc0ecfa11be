"""Which rules ask for consent, and which ids a check shows under them."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from jiebang.model.check import CheckAnswer, Severity
from jiebang.model.errors import ConsentNotAskedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jiebang.policy.pack import Pack, Rule


def find_consent_rule(pack: Pack, code: str) -> Rule:
    """Return the rule that asks for consent under `code`. Raises ConsentNotAskedError."""
    asking = {rule.code: rule for rule in pack.rules if rule.severity is Severity.NEEDS_CONSENT}
    if code not in asking:
        raise ConsentNotAskedError(code=code, asked=sorted(asking))
    return asking[code]


def list_shown(pack: Pack, check: CheckAnswer, codes: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return by code the ids that a check shows under those of `codes` that it raises (empty: asked as a whole)."""
    shown_ids = {}
    for blocker in check.blockers:
        if blocker.code in codes and blocker.severity is Severity.NEEDS_CONSENT:
            listed = find_consent_rule(pack, blocker.code).consent_to
            items = () if listed is None else blocker.facts[listed]
            shown_ids[blocker.code] = tuple(str(item["id"]) for item in items)
    return shown_ids


def limit_to_shown(what: Mapping[str, tuple[str, ...]], shown: Collection[str] | None) -> dict[str, tuple[str, ...]]:
    """Reduce what a check shows to the ids the person had seen (`shown`; None: they saw this very check)."""
    if shown is None:
        return dict(what)
    seen = {code: tuple(each for each in ids if each in shown) for code, ids in what.items()}
    return {code: ids for code, ids in seen.items() if ids or not what[code]}


def list_items(what: Mapping[str, tuple[str, ...]]) -> tuple[tuple[str, str | None], ...]:
    """Return consents as a check takes them: (code, id; None for the whole)."""
    return tuple((code, item) for code, ids in what.items() for item in ids or (None,))
