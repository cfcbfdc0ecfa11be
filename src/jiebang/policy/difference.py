"""Compare two plain values: answers that should be equal, or two versions of a policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from jiebang.policy.load import load_pack
from jiebang.policy.shape import PackShape
from jiebang.policy.source import Source
from jiebang.policy.weakening import Weakening, find_weakenings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from jiebang.model.participants import ParticipantRegistry

_NAMES: Final = ("code", "kind", "id")
"""The key by which list members are matched, where all have one of these; else they are matched by position."""


class Difference(msgspec.Struct, frozen=True):
    """One place where two values differ. `path`: as in `rules[PAY-BALANCE].remedy.takes.zh`.

    `before` and `after` are plain values; None with `what` "added" or "removed" on the side where there is nothing.
    """

    path: str
    what: str
    before: Any
    after: Any


def differences(before: Any, after: Any) -> list[Difference]:
    """Compare two plain values (what JSON can hold) to the leaves, in the order of `before`."""
    return list(_compare(before, after, ""))


def compare_packs(
    before: tuple[str, str], after: tuple[str, str], registry: ParticipantRegistry
) -> tuple[list[Difference], list[Weakening]]:
    """Compare two versions of a policy, each given as its text and the name of its file; return also what weakens.

    Raises PackInvalidError. Falling short of today's floors and bounds is no error here: it is told as a weakening.
    """
    packs = [load_pack(*side, registry, stored=True) for side in (before, after)]
    return differences(*(read_plain(*side, registry) for side in (before, after))), find_weakenings(*packs)


def read_plain(text: str, source: str, registry: ParticipantRegistry) -> Any:
    """Return a pack's file as plain values. Raises PackInvalidError."""
    load_pack(text, source, registry, stored=True)
    return msgspec.json.decode(msgspec.json.encode(Source(text, source).read(PackShape)))


def _compare(before: Any, after: Any, path: str) -> Iterator[Difference]:
    if isinstance(before, dict) and isinstance(after, dict):
        yield from _compare_members(before, after, f"{path}." if path else "", "")
    elif isinstance(before, list) and isinstance(after, list):
        name = next((name for name in _NAMES if _all_have(before, name) and _all_have(after, name)), None)
        if name is None:
            yield from _compare_members(dict(enumerate(before)), dict(enumerate(after)), f"{path}[", "]")
            return
        old, new = _index_items(before, name), _index_items(after, name)
        yield from _compare_members(old, new, f"{path}[", "]")
        kept = [one for one in old if one in new], [one for one in new if one in old]
        if kept[0] != kept[1]:
            yield Difference(path, "reordered", *kept)
    elif type(before) is not type(after) or before != after:
        yield Difference(path, "changed", before, after)


def _all_have(items: list[Any], name: str) -> bool:
    """Whether every item is an object with a text under `name`."""
    return all(isinstance(item, dict) and isinstance(item.get(name), str) for item in items)


def _index_items(items: list[Any], name: str) -> dict[str, Any]:
    """Return the items by key; repeated keys get a number from the second on."""
    found: dict[str, Any] = {}
    for item in items:
        key, at = item[name], 1
        while key in found:
            at += 1
            key = f"{item[name]}#{at}"
        found[key] = item
    return found


def _compare_members(
    before: Mapping[Any, Any], after: Mapping[Any, Any], opened: str, closed: str
) -> Iterator[Difference]:
    for name, old in before.items():
        path = f"{opened}{name}{closed}"
        if name in after:
            yield from _compare(old, after[name], path)
        else:
            yield Difference(path, "removed", old, None)
    for name, new in after.items():
        if name not in before:
            yield Difference(f"{opened}{name}{closed}", "added", None, new)
