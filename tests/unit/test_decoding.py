"""One function decodes all that comes from outside, with one error; what it refuses, and who does not use it."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jiebang
from jiebang.model.decoding import decode, decode_any
from jiebang.model.errors import HeaderRepeatedError, InvalidInputError, UndecodableError
from jiebang.model.ids import ACCOUNT_PATTERN, MAX_ACCOUNT, account_of
from jiebang.remote.bodies import convert_strictly, decode_body, fingerprint
from jiebang.remote.headers import refuse_repeated_headers
from jiebang.remote.problem_details import BodyNotJsonError
from tests.examples import examples
from tests.hostile import JSON, hostile


class Inner(msgspec.Struct):
    a: int = 0
    b: str = ""


class Outer(msgspec.Struct, frozen=True):
    name: str
    many: list[Inner] = []


VALID = {"name": "x", "many": [{"a": 1, "b": "y"}, {"a": 2}]}


@given(hostile(VALID))
@examples(400)
def test_whatever_comes_is_decoded_or_refused_with_one_error(content: bytes) -> None:
    """One byte from anybody would otherwise be a fault of ours, an alarm, and the end of an audit."""
    for shape in (Outer, dict[str, Any], list[int]):
        try:
            assert decode(content, shape) is not None
            continue
        except InvalidInputError as error:
            refused = error
        assert refused.fields["reason"].zh
        assert refused.fields["reason"].en


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"nul", b'{"a":}', b"\xff", b'{"a":"\xff"}', b'{"unknown":"\xff","name":"x"}', b"[" * 3000,
        b'{"a":' * 3000, b'"\\ud800"', b"\xef\xbb\xbf{}", b"NaN", b"[1,]",
        b'{"name":"x","z":' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
)  # fmt: skip
@pytest.mark.parametrize("shape", [Any, Outer])
def test_what_is_no_json(content: bytes, shape: Any) -> None:
    """Bytes that are no UTF-8 inside a member that nobody reads, and nesting without end, are no JSON to anybody."""
    with pytest.raises(InvalidInputError):
        decode(content, shape)
    if shape is Any:
        with pytest.raises(UndecodableError):
            decode(content, shape)
        with pytest.raises(BodyNotJsonError):
            decode_body(content)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b'{"name":"x","name":"y"}', "name"),
        (b'{"name":"x","name":"x"}', "name"),
        (b'{"name":"x","n\\u0061me":"y"}', "name"),
        (b'{"name":"x","many":[{"a":1,"b":"","a":2}]}', "a"),
        (b'{"name":"x","z":{"\\u001b":1,"\\u001b":2}}', "\x1b"),
    ],
)
def test_a_name_that_stands_twice(content: bytes, name: str) -> None:
    """One reader takes the first and another the last: a person would be shown one account and another be acted for."""
    for shape in (Any, Outer):
        with pytest.raises(InvalidInputError) as refused:
            decode(content, shape)
        assert refused.value.fields["field"] == name.encode("ascii", "backslashreplace").decode()


def test_the_colons_that_are_no_members_repeat_nothing() -> None:
    """A text with colons would otherwise be refused, or a name said twice be hidden behind a count that is too high."""
    assert decode(b'{"name":"a:b:c:d","many":[]}', Outer, count_members=lambda _: 2).name == "a:b:c:d"
    with pytest.raises(InvalidInputError):
        decode(b'{"name":"a","many":[],"name":"b"}', Outer, count_members=lambda _: 2)


@given(JSON, st.randoms(use_true_random=False))
@examples(200)
def test_the_same_json_in_another_order_says_the_same(value: Any, random: Any) -> None:
    """A client that writes its body anew for a repeat would otherwise be told that it is another request."""

    def shuffle(one: Any) -> Any:
        if isinstance(one, dict):
            items = [(key, shuffle(inner)) for key, inner in one.items()]
            random.shuffle(items)
            return dict(items)
        if isinstance(one, list):
            return [shuffle(inner) for inner in one]
        return float(one) if isinstance(one, int) and not isinstance(one, bool) and abs(one) < 1 << 50 else one

    body, again = json.dumps(value).encode(), json.dumps(shuffle(value), indent=1, ensure_ascii=True).encode()
    try:
        decode_any(body)
    except InvalidInputError:
        assert fingerprint(body) == body
    else:
        assert fingerprint(body) == fingerprint(again)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b'{"a":"1"}', b'{"a":1}'),
        (b'{"a":[1,2]}', b'{"a":[2,1]}'),
        (b'{"a":true}', b'{"a":1}'),
        (b'{"a":null}', b"{}"),
        (b'{"a":1,"a":2}', b'{"a":2}'),
        (b"", b"null"),
    ],
)
def test_other_json_says_something_else(one: bytes, other: bytes) -> None:
    """Two requests under one key, of which the second would be answered with what the first came to."""
    assert fingerprint(one) != fingerprint(other)


@pytest.mark.parametrize(
    "number", ["1000000000000000000000000000000", "1e300", "-9223372036854775809", "9" * 4000, "1.7976931348623157e308"]
)
def test_numbers_of_any_size(number: str) -> None:
    """JSON sets numbers no bound: one that is too large for every field is refused there, not by a fault of ours."""
    body = f'{{"name":{number},"many":[]}}'.encode()
    assert fingerprint(body) == fingerprint(body.replace(b",", b" ,"))
    with pytest.raises(InvalidInputError):
        convert_strictly(decode_body(body), Outer)


def test_nesting_that_decodes_but_cannot_be_walked_is_refused() -> None:
    """The deepest text that the decoder takes must not be too deep for what comes after it."""
    for depth in range(100, 1200, 50):
        body = b'{"account":' + b"[" * depth + b"]" * depth + b"}"
        fingerprint(body)
        try:
            convert_strictly(decode_body(body), Outer)
        except (InvalidInputError, BodyNotJsonError):
            continue
        pytest.fail("taken for an account")


@given(st.one_of(st.integers(MAX_ACCOUNT - 100, MAX_ACCOUNT + 100), st.integers(0, 10**17)))
@examples(300)
def test_an_account_id_is_what_loads_and_what_can_be_checked(number: int) -> None:
    """A person whose id loads but fits no door could never take a name back."""
    right = 1 <= number <= MAX_ACCOUNT
    assert account_of(str(number)) == (number if right else None)
    assert bool(re.search(ACCOUNT_PATTERN, str(number))) is right
    for wrong in (f"0{number}", f"+{number}", f"{number}\n", f"{number}.0", f" {number}"):
        assert account_of(wrong) is None


@pytest.mark.parametrize(
    "name", [b"Authorization", b"idempotency-key", b"Content-Type", b"last-event-id", b"host", b"content-length"]
)
def test_a_header_of_one_value_that_comes_twice(name: bytes) -> None:
    """Two tokens or two keys: whoever stands between would judge by one and we act by the other."""
    refuse_repeated_headers([(b"accept-language", b"zh"), (b"accept-language", b"en"), (name, b"1")])
    for second in (b"1", b"2"):
        with pytest.raises(HeaderRepeatedError) as refused:
            refuse_repeated_headers([(name, b"1"), (b"x", b"y"), (name.swapcase(), second)])
        assert refused.value.fields == {"header": name.decode().lower()}


OURS = {
    "api/cases/cases.py": "an answer that we encoded in the same request, or kept",
    "api/cases/idempotency.py": "an answer that we kept",
    "api/cases/remedies.py": "an answer that we kept",
    "api/openapi.py": "our own document",
    "api/shapes.py": "timeline entries, as the database's jsonb",
    "cli/cases/as_person.py": "an answer that we encoded in the same process",
    "model/decoding.py": "the one function",
    "participants/core/database.py": "a participant's own database's jsonb",
    "policy/difference.py": "a pack that was read, encoded by us",
    "policy/record.py": "an answer that we encoded in the same call",
    "sandbox/issuer.py": "the stand-in's own key, written whole or not at all",
    "sandbox/ledger.py": "faults, as we wrote them to our own file",
    "sandbox/population/load.py": "a spool that the same process wrote",
    "sandbox/stories.py": "events of our own API, in the demo",
    "sandbox/superapp/door.py": "an answer that we kept",
    "store/cases/remedies.py": "our own database's jsonb",
    "store/checks/platform_facts.py": "our own database's jsonb",
    "store/encryption.py": "what we sealed ourselves: it was authenticated",
    "store/policy/corrections.py": "our own database's jsonb",
    "store/operations/outbox.py": "our own database's jsonb",
    "store/timelines/timeline_rows.py": "our own database's jsonb",
}
"""Files that decode JSON in another way, and why that is not from outside."""


def test_nothing_from_outside_is_decoded_in_another_way() -> None:
    """The next door would let through what the others refuse: a fault of ours for anybody's byte."""
    found = set()
    source = Path(jiebang.__file__).parent
    for path in source.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute):
                spoken = ast.unparse(node)
                if spoken in ("msgspec.json.decode", "msgspec.json.Decoder", "json.loads", "json.load", "jwt.decode"):
                    found.add(str(path.relative_to(source)))
    assert found == OURS.keys()
