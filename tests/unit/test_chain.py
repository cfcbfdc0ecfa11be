"""The chain of a timeline and the tree of a seal: pure, and the same as anybody computes with public standards."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jiebang.saga import chain, seals
from jiebang.saga.chain import (
    ChainHead,
    ChainRow,
    TimelineFault,
    canonical,
    digest,
    find_faults,
    genesis,
    head,
    time_text,
)
from jiebang.saga.seals import Leaf, Side, pack, path, root, unpack

AT = datetime(2026, 4, 1, 8, 0, 0, 120_000, tzinfo=UTC)
TOLD: list[list[dict[str, Any]]] = [
    [{"at": AT, "what": "state", "state": "open"}],
    [{"what": "state", "state": "trying"}, {"what": "send", "participant": "wallet", "op": "try", "attempt": 0}],
    [{"what": "answer", "participant": "wallet", "code": '零钱 "x"/\u2028\x1f'}],
    [{"what": "state", "state": "done", "at": "2026-04-01T08:00:03Z"}],
]

words = st.dictionaries(
    st.sampled_from(["at", "what", "participant", "op", "answer", "code", "state", "attempt"]),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])) | st.integers(-(2**53), 2**53)
    | st.booleans() | st.none(),
)  # fmt: skip


@given(st.lists(words, min_size=1))
def test_the_canonical_form_is_what_any_json_library_writes(told: list[dict[str, Any]]) -> None:
    """A third party must come to the same bytes with a library of theirs, whatever the order of the keys was."""
    theirs = json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert canonical(told) == theirs
    assert canonical(json.loads(json.dumps(told, indent=1))) == theirs


def test_a_time_has_one_text() -> None:
    """Whole seconds and other zones must not make another head."""
    assert chain.time_text(AT) == "2026-04-01T08:00:00.120000Z"
    assert chain.time_text(AT.astimezone(timezone(timedelta(hours=8)))) == "2026-04-01T08:00:00.120000Z"
    assert chain.time_text(AT.replace(microsecond=0)) == "2026-04-01T08:00:00.000000Z"


def timeline() -> tuple[ChainHead, list[ChainRow]]:
    rows, before = list[ChainRow](), genesis(7, 1)
    for revision, told in enumerate(TOLD, start=1):
        at = AT + timedelta(seconds=revision)
        before = head(before, digest(revision, time_text(at), canonical(told)))
        rows.append(ChainRow(revision, at, msgspec.json.encode(told).decode(), before))
    return ChainHead(7, 1, len(rows), "done", before, AT + timedelta(seconds=1)), rows


def found(case: ChainHead, rows: list[ChainRow]) -> list[tuple[TimelineFault, int]]:
    return list(find_faults(case, rows))


def test_an_untouched_timeline_has_no_fault() -> None:
    """An audit that cries wolf is one nobody reads."""
    assert found(*timeline()) == []


@pytest.mark.parametrize("at", range(len(TOLD)))
def test_a_changed_row_is_one_fault_at_its_place(at: int) -> None:
    """Whoever looks into it must be told where, not that everything after it is wrong as well."""
    case, rows = timeline()
    other = rows[at].entries.replace('"what"', '"when"')
    for change in (
        {"entries": other},
        {"at": rows[at].at + timedelta(microseconds=1)},
        {"entries": "[1, 2]"},
        {"entries": "{}"},
    ):
        changed = [*rows]
        changed[at] = msgspec.structs.replace(rows[at], **change)
        assert (TimelineFault.CHANGED, at + 1) in found(case, changed)
        assert {fault for fault in found(case, changed) if fault[0] is TimelineFault.CHANGED} == {
            (TimelineFault.CHANGED, at + 1)
        }


def test_rows_that_are_gone_are_missed() -> None:
    """In the middle, at the beginning, at the end, and all of them."""
    case, rows = timeline()
    assert found(case, [rows[0], rows[2], rows[3]]) == [(TimelineFault.MISSING, 2)]
    assert found(case, rows[1:]) == [(TimelineFault.MISSING, 1)]
    assert found(case, rows[:-1]) == [(TimelineFault.CUT, 4)]
    assert found(case, []) == [(TimelineFault.CUT, 1)]


def test_a_case_set_back_or_forward_does_not_fit_its_timeline() -> None:
    """What the person is shown stands on the case's row."""
    case, rows = timeline()
    assert found(msgspec.structs.replace(case, revision=3), rows) == [(TimelineFault.CUT, 5)]
    assert found(msgspec.structs.replace(case, state="aborted"), rows) == [(TimelineFault.DIFFERS, 4)]
    assert found(msgspec.structs.replace(case, head=bytes(32)), rows) == [(TimelineFault.DIFFERS, 4)]
    assert found(msgspec.structs.replace(case, created_at=AT), rows) == [(TimelineFault.DIFFERS, 4)]
    assert found(msgspec.structs.replace(case, reason="REFUSED"), rows) == [(TimelineFault.DIFFERS, 4)]


def test_a_timeline_belongs_to_its_case() -> None:
    """One that was copied from another case must not pass as this one's."""
    case, rows = timeline()
    for other in (msgspec.structs.replace(case, case_no=2), msgspec.structs.replace(case, account_id=8)):
        assert found(other, rows) == [(TimelineFault.CHANGED, 1)]


def leaves(count: int) -> list[Leaf]:
    return [Leaf(2**52 + n, 2**32 - 1 - n, n + 1, hashlib.sha256(str(n).encode()).digest()) for n in range(count)]


def with_records(count: int) -> list[Leaf]:
    return [msgspec.structs.replace(leaf, record=hashlib.sha256(leaf.head).digest()) for leaf in leaves(count)]


def rfc_9162(heads: list[bytes]) -> bytes:
    """The tree as section 2.1.1 defines it, from the top."""
    if len(heads) == 1:
        return hashlib.sha256(b"\0" + heads[0]).digest()
    split = 1 << (len(heads) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + rfc_9162(heads[:split]) + rfc_9162(heads[split:])).digest()


@pytest.mark.parametrize("form", [1, 2])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 9, 31, 100])
def test_every_case_of_a_seal_is_proven_by_its_path(count: int, form: seals.Form) -> None:
    """A person's receipt must lead to the signed root, and nobody else's head may, in any form of seal."""
    of = leaves(count) if form == 1 else with_records(count)
    packed = pack(of)
    assert unpack(packed, form) == of
    assert len(packed) == count * {1: 48, 2: 80}[form]
    assert root(packed, form) == rfc_9162([leaf.head + leaf.record for leaf in of])
    for index, leaf in enumerate(of):
        bare = msgspec.structs.replace(leaf, record=b"")
        assert seals.find_leaf(packed, form, bare) == (index, leaf)
        for start, right in ((leaf.head + leaf.record, True), (hashlib.sha256(b"another").digest(), False)):
            node = hashlib.sha256(b"\0" + start).digest()
            for step in path(packed, form, index):
                other = bytes.fromhex(step.hash)
                node = hashlib.sha256(b"\1" + (other + node if step.side is Side.LEFT else node + other)).digest()
            assert (node == root(packed, form)) is right
    assert seals.find_leaf(packed, form, Leaf(1, 1, 1, bytes(32))) is None


def test_an_inner_node_cannot_pass_as_a_head() -> None:
    """Leaves and nodes are hashed apart, or two heads joined could be shown as a third person's."""
    of = leaves(2)
    inner = Leaf(1, 1, 1, root(pack(of), 1))
    assert root(pack([inner]), 1) != root(pack(of), 1)
