"""What a hostile or broken party may send in the place of something valid, as strategies of hypothesis."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import strategies as st

TEXT = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["", "\x00", "\ud800", "\u202e", "\x1b[2J", "1", "null", "٣", "a" * 300, "'; DROP TABLE x"]),
)
NUMBERS = st.one_of(
    st.integers(),
    st.sampled_from([0, -1, (1 << 31), (1 << 32), (1 << 53) - 1, 1 << 53, (1 << 63) - 1, 1 << 63, 1 << 64, 10**30]),
    st.floats(),
    st.sampled_from([1.0, 1e15, 1e300, 5e-324]),
)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)),
    max_leaves=12,
)
BRACKETS = st.builds(
    lambda opening, depth, closed: opening * depth + (b"1" + b"]" * depth if closed else b""),
    st.sampled_from([b"[", b'{"a":', b'[{"a":']),
    st.sampled_from([50, 400, 900, 1_500, 5_000]),
    st.booleans(),
)
"""Nesting that a reader may follow until its stack is used up."""


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value inside a JSON value, itself among them."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, one in inner for place in places(one, (*path, key)))]


@st.composite
def warped(draw: st.DrawFn, valid: Any) -> bytes:
    """Return a valid message with one value replaced, one member added, or one name said twice."""
    whole = copy.deepcopy(valid)
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(places(whole)))
        if not path:
            if isinstance(whole, dict) and draw(st.booleans()):
                whole[draw(TEXT)] = draw(JSON)
            continue
        inside = whole
        for key in path[:-1]:
            inside = inside[key]
        inside[path[-1]] = draw(JSON)
    text = json.dumps(whole)
    if draw(st.booleans()) and text.startswith("{") and len(text) > 2:
        name = draw(st.sampled_from(sorted(whole)))
        text = text[:-1] + f", {json.dumps(name)}: {json.dumps(draw(JSON))}}}"
    return text.encode()


@st.composite
def scratched(draw: st.DrawFn, valid: bytes) -> bytes:
    """Return valid bytes with some cut out, put in, or overwritten."""
    at = draw(st.integers(0, len(valid)))
    until = draw(st.integers(at, min(len(valid), at + 8)))
    put = draw(st.one_of(st.binary(max_size=4), st.sampled_from([b"\xff", b"\x00", b"\xed\xa0\x80", b'"', b"\\ud800"])))
    return valid[:at] + put + valid[until:]


def hostile(valid: Any) -> st.SearchStrategy[bytes]:
    """Return bytes that may stand where the JSON of `valid` is expected."""
    return st.one_of(
        warped(valid),
        scratched(json.dumps(valid).encode()),
        JSON.map(lambda value: json.dumps(value).encode()),
        BRACKETS,
        st.binary(max_size=60),
    )
