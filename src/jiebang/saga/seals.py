"""Seals: signed statements about the heads of many timelines, each holding the hash of the one before.

A seal's row holds its cases in a compact form of 80 bytes each: account, number, revision, the head of the timeline,
and the record, a hash of everything else stored of the case (`store/timelines/case_records.sql`). What is signed is a
small JSON object with the hash of these bytes and the root of a Merkle tree over heads and records (RFC 9162, section
2.1), so that one person's receipt proves their own case without revealing others. Signing itself is in
`store/timelines/seal_signing_keys.py`.

Seals of form 1, which earlier versions made, hold heads without records: 48 bytes a case. They stay good as they are.
"""

from __future__ import annotations

import struct
from base64 import urlsafe_b64decode
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec
from msgspec import Meta

from jiebang.model.decoding import decode
from jiebang.model.errors import InvalidInputError
from jiebang.saga.chain import time_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Form = Literal[1, 2]
"""The form of a seal: 1 holds heads, 2 heads and records."""
FORM: Final[Form] = 2
"""The form in which seals are made today."""
_LEAF: Final = {1: struct.Struct(">QII32s"), 2: struct.Struct(">QII32s32s")}
NOTHING: Final = bytes(32)
"""The `previous` hash of the first seal."""
BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""The time up to which everything is sealed where there is no seal yet."""

_Hex = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class Leaf(msgspec.Struct, frozen=True, gc=False):
    """The head that a timeline had after a revision, and the record of the case (empty in a seal of form 1).

    The record of a case that ended is over all that is stored of it; of a live one, over what never changes any more.
    """

    account_id: int
    case_no: int
    revision: int
    head: bytes
    record: bytes = b""

    def node(self) -> bytes:
        """Return the leaf's hash in the tree."""
        return sha256(b"\0" + self.head + self.record).digest()


class Statement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The signed content of a seal. Hashes are hexadecimal.

    Of the sealed cases the first `ended` ended after the previous seal's `ended_until` and no later than this one's;
    the `live` ones that follow were saved no later than `moved_until`. `restored`: the number of the seal that a
    restore from backup lost, together with all others after `previous`, as operator `by` acknowledged. `registers`: by
    table, the hash of what the installation itself decided (its policies and who agreed to them, ...) until
    `registers_until`; a seal of form 1 has none.
    """

    v: Form = 1
    seal: int
    previous: _Hex
    at: str
    ended_until: str
    moved_until: str
    ended: int
    live: int
    cases: _Hex
    root: _Hex
    restored: int | None = None
    by: str | None = None
    registers: dict[str, _Hex] | None = None
    registers_until: str | None = None


def pack(leaves: Sequence[Leaf]) -> bytes:
    """Return leaves in the compact form of a seal's row: of form 2, if they have records."""
    return b"".join(
        _LEAF[2].pack(leaf.account_id, leaf.case_no, leaf.revision, leaf.head, leaf.record)
        if leaf.record
        else _LEAF[1].pack(leaf.account_id, leaf.case_no, leaf.revision, leaf.head)
        for leaf in leaves
    )


def leaf_bytes(form: Form) -> int:
    """Return how many bytes a case takes in the row of a seal."""
    return _LEAF[form].size


def unpack(packed: bytes, form: Form) -> list[Leaf]:
    """Return the leaves of a seal's row; an incomplete one at the end is left out."""
    whole = len(packed) - len(packed) % leaf_bytes(form)
    return [Leaf(*fields) for fields in _LEAF[form].iter_unpack(packed[:whole])]


def statement(
    *,
    seal: int,
    previous: bytes,
    at: datetime,
    ended: Sequence[Leaf],
    live: Sequence[Leaf],
    ended_until: datetime,
    moved_until: datetime,
    registers: Mapping[str, bytes],
    registers_until: datetime,
    restored: int | None = None,
    by: str | None = None,
) -> tuple[bytes, bytes]:
    """Return what is to be signed (canonical JSON), and the packed cases for the seal's row."""
    packed = pack([*ended, *live])
    said = Statement(
        v=FORM,
        seal=seal,
        previous=previous.hex(),
        at=time_text(at),
        ended_until=time_text(ended_until),
        moved_until=time_text(moved_until),
        ended=len(ended),
        live=len(live),
        cases=sha256(packed).hexdigest(),
        root=root(packed, FORM).hex(),
        restored=restored,
        by=by,
        registers={name: found.hex() for name, found in registers.items()},
        registers_until=time_text(registers_until),
    )
    return msgspec.json.encode(said, order="sorted"), packed


def fits(said: Statement, *, seal: int, ended_until: datetime, moved_until: datetime, packed: bytes) -> bool:
    """Whether a signed statement matches the other columns of its seal's row."""
    return (
        said.seal == seal
        and said.ended_until == time_text(ended_until)
        and said.moved_until == time_text(moved_until)
        and said.ended + said.live == len(packed) / leaf_bytes(said.v)
        and said.cases == sha256(packed).hexdigest()
        and said.root == root(packed, said.v).hex()
    )


def seal_hash(signed: str) -> bytes:
    """Return the hash of a signed statement, which the next seal and the external anchor hold."""
    return sha256(signed.encode()).digest()


@lru_cache(maxsize=32)
def _levels(packed: bytes, form: Form) -> list[list[bytes]]:
    """Return the levels of the tree over packed cases, leaves first.

    A node without a sibling moves up unchanged; this gives the same tree as RFC 9162's recursive definition.
    """
    level = [leaf.node() for leaf in unpack(packed, form)]
    levels = [level]
    while len(level) > 1:
        above = [sha256(b"\1" + level[at] + level[at + 1]).digest() for at in range(0, len(level) - 1, 2)]
        if len(level) % 2:
            above.append(level[-1])
        level = above
        levels.append(level)
    return levels


def root(packed: bytes, form: Form) -> bytes:
    """Return the root of the tree over packed cases; of none, the hash of the empty string."""
    return _levels(packed, form)[-1][0] if packed else sha256().digest()


def decode_statement(signed: str) -> Statement | None:
    """Decode a seal (a JWS in compact form) without checking its signature; None where it does not decode."""
    try:
        middle = signed.split(".")[1]
        return decode(urlsafe_b64decode(middle + "=" * (-len(middle) % 4)), Statement)
    except (IndexError, ValueError, InvalidInputError):  # binascii.Error is a ValueError
        return None


def find_leaf(packed: bytes, form: Form, leaf: Leaf) -> tuple[int, Leaf] | None:
    """Return the index of a timeline's head among packed cases, and the leaf with its record; None if it is not there.

    `leaf`: account, number, revision and head, without a record.
    """
    wanted, size = pack([leaf]), leaf_bytes(form)
    at = packed.find(wanted)
    while at >= 0 and at % size:
        at = packed.find(wanted, at + 1)
    return None if at < 0 else (at // size, unpack(packed[at : at + size], form)[0])


class SealFault(StrEnum):
    """What can be wrong with a seal, or with a case that it seals."""

    MISSING = "seal_missing"
    FORGED = "seal_forged"  # not signed with a key of ours, or not matching the row's other columns
    UNLINKED = "seal_does_not_follow"  # it does not hold the hash of the one before
    CHAIN_CUT = "seal_chain_cut"  # the external anchor has a later seal, or another hash
    CASE_GONE = "sealed_case_gone"
    TIMELINE_CUT = "sealed_timeline_cut"
    REWRITTEN = "sealed_timeline_rewritten"
    GONE_ON = "sealed_case_went_on_after_its_end"
    NOT_SEALED = "ended_case_not_sealed"  # though seals cover the time when it ended
    RECORD_CHANGED = "sealed_case_record_changed"  # of what stands beside the timeline
    REGISTER_CHANGED = "sealed_register_changed"  # of what the installation decided
    NO_ANCHOR = "anchor_missing"  # though there are seals


class Side(StrEnum):
    """On which side of the hash computed so far a path step's hash is joined."""

    LEFT = "left"
    RIGHT = "right"


class PathStep(msgspec.Struct, frozen=True):
    """One step from a leaf to the root: the sibling's hash (hexadecimal), and its side."""

    side: Side
    hash: str


def path(packed: bytes, form: Form, index: int) -> list[PathStep]:
    """Return the Merkle inclusion path of leaf `index` (0 first)."""
    steps: list[PathStep] = []
    for level in _levels(packed, form)[:-1]:
        sibling = index ^ 1
        if sibling < len(level):
            steps.append(PathStep(Side.RIGHT if sibling > index else Side.LEFT, level[sibling].hex()))
        index //= 2
    return steps
