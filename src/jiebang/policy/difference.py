"""What differs between two plain values: answers that should be alike, or two versions of a policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from jiebang.policy.load import load_pack
from jiebang.policy.shape import PackShape
from jiebang.policy.source import Source

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from jiebang.model.participants import ParticipantRegistry

_NAMES: Final = ("code", "kind", "id")
"""What tells the members of a list apart, where they have one of these; else their place does."""


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
    return list(_walk(before, after, ""))


def of_packs(before: tuple[str, str], after: tuple[str, str], registry: ParticipantRegistry) -> list[Difference]:
    """Compare two versions of a policy, each given as its text and the name of its file. Raises PackInvalidError."""
    return differences(*(_plain(*side, registry) for side in (before, after)))


def _plain(text: str, source: str, registry: ParticipantRegistry) -> Any:
    """Return what a pack's file says, to the letter. Raises PackInvalidError."""
    load_pack(text, source, registry)
    return msgspec.json.decode(msgspec.json.encode(Source(text, source).read(PackShape)))


def _walk(before: Any, after: Any, path: str) -> Iterator[Difference]:
    if isinstance(before, dict) and isinstance(after, dict):
        yield from _members(before, after, f"{path}." if path else "", "")
    elif isinstance(before, list) and isinstance(after, list):
        name = next((name for name in _NAMES if _named(before, name) and _named(after, name)), None)
        if name is None:
            yield from _members(dict(enumerate(before)), dict(enumerate(after)), f"{path}[", "]")
            return
        old, new = _keyed(before, name), _keyed(after, name)
        yield from _members(old, new, f"{path}[", "]")
        kept = [one for one in old if one in new], [one for one in new if one in old]
        if kept[0] != kept[1]:
            yield Difference(path, "reordered", *kept)
    elif type(before) is not type(after) or before != after:
        yield Difference(path, "changed", before, after)


def _named(items: list[Any], name: str) -> bool:
    """Whether every item has the name."""
    return all(isinstance(item, dict) and isinstance(item.get(name), str) for item in items)


def _keyed(items: list[Any], name: str) -> dict[str, Any]:
    """Return the items by name; of those with the same name, the second and later are numbered."""
    found: dict[str, Any] = {}
    for item in items:
        key, at = item[name], 1
        while key in found:
            at += 1
            key = f"{item[name]}#{at}"
        found[key] = item
    return found


def _members(before: Mapping[Any, Any], after: Mapping[Any, Any], opened: str, closed: str) -> Iterator[Difference]:
    for name, old in before.items():
        path = f"{opened}{name}{closed}"
        if name in after:
            yield from _walk(old, after[name], path)
        else:
            yield Difference(path, "removed", old, None)
    for name, new in after.items():
        if name not in before:
            yield Difference(f"{opened}{name}{closed}", "added", None, new)
