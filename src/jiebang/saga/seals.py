"""Seals: signed statements about the heads of many timelines, each holding the hash of the one before.

A seal's row holds its cases in a compact form of 48 bytes each. What is signed is a small JSON object with the hash of
these bytes and the root of a Merkle tree over the heads (RFC 9162, section 2.1), so that one person's receipt proves
their own head without revealing others. Signing itself is in `store/timelines/seal_signing_keys.py`.
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

from jiebang.saga.chain import time_text

if TYPE_CHECKING:
    from collections.abc import Sequence

_LEAF: Final = struct.Struct(">QII32s")
LEAF_BYTES: Final = _LEAF.size
NOTHING: Final = bytes(32)
"""The `previous` hash of the first seal."""
BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""The time up to which everything is sealed where there is no seal yet."""

_Hex = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class Leaf(msgspec.Struct, frozen=True, gc=False):
    """The head that a timeline had after a revision."""

    account_id: int
    case_no: int
    revision: int
    head: bytes


class Statement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The signed content of a seal. Hashes are hexadecimal.

    Of the sealed cases the first `ended` ended after the previous seal's `ended_until` and no later than this one's;
    the `live` ones that follow were saved no later than `moved_until`. `restored`: the number of the seal that a
    restore from backup lost, together with all others after `previous`, as operator `by` acknowledged.
    """

    v: Literal[1] = 1
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


def pack(leaves: Sequence[Leaf]) -> bytes:
    """Return leaves in the compact form of a seal's row."""
    return b"".join(_LEAF.pack(leaf.account_id, leaf.case_no, leaf.revision, leaf.head) for leaf in leaves)


def unpack(packed: bytes) -> list[Leaf]:
    """Return the leaves of a seal's row; an incomplete one at the end is left out."""
    whole = len(packed) - len(packed) % LEAF_BYTES
    return [Leaf(*fields) for fields in _LEAF.iter_unpack(packed[:whole])]


def statement(
    *,
    seal: int,
    previous: bytes,
    at: datetime,
    ended: Sequence[Leaf],
    live: Sequence[Leaf],
    ended_until: datetime,
    moved_until: datetime,
    restored: int | None = None,
    by: str | None = None,
) -> tuple[bytes, bytes]:
    """Return what is to be signed (canonical JSON), and the packed cases for the seal's row."""
    packed = pack([*ended, *live])
    said = Statement(
        seal=seal,
        previous=previous.hex(),
        at=time_text(at),
        ended_until=time_text(ended_until),
        moved_until=time_text(moved_until),
        ended=len(ended),
        live=len(live),
        cases=sha256(packed).hexdigest(),
        root=root(packed).hex(),
        restored=restored,
        by=by,
    )
    return msgspec.json.encode(said, order="sorted"), packed


def fits(said: Statement, *, seal: int, ended_until: datetime, moved_until: datetime, packed: bytes) -> bool:
    """Whether a signed statement matches the other columns of its seal's row."""
    return (
        said.seal == seal
        and said.ended_until == time_text(ended_until)
        and said.moved_until == time_text(moved_until)
        and said.ended + said.live == len(packed) // LEAF_BYTES
        and said.cases == sha256(packed).hexdigest()
        and said.root == root(packed).hex()
    )


def seal_hash(signed: str) -> bytes:
    """Return the hash of a signed statement, which the next seal and the external anchor hold."""
    return sha256(signed.encode()).digest()


@lru_cache(maxsize=32)
def _levels(packed: bytes) -> list[list[bytes]]:
    """Return the levels of the tree over the heads of packed cases, leaves first.

    A node without a sibling moves up unchanged; this gives the same tree as RFC 9162's recursive definition.
    """
    level = [sha256(b"\0" + leaf.head).digest() for leaf in unpack(packed)]
    levels = [level]
    while len(level) > 1:
        above = [sha256(b"\1" + level[at] + level[at + 1]).digest() for at in range(0, len(level) - 1, 2)]
        if len(level) % 2:
            above.append(level[-1])
        level = above
        levels.append(level)
    return levels


def root(packed: bytes) -> bytes:
    """Return the root of the tree over the heads of packed cases; of none, the hash of the empty string."""
    return _levels(packed)[-1][0] if packed else sha256().digest()


def decode_statement(signed: str) -> Statement | None:
    """Decode a seal (a JWS in compact form) without checking its signature; None where it does not decode."""
    try:
        middle = signed.split(".")[1]
        return msgspec.json.decode(urlsafe_b64decode(middle + "=" * (-len(middle) % 4)), type=Statement)
    except (IndexError, ValueError):  # binascii.Error and msgspec's errors are ValueErrors
        return None


def index_of(packed: bytes, leaf: Leaf) -> int | None:
    """Return the index of a leaf among packed ones; None where it is not among them."""
    wanted, at = pack([leaf]), packed.find(pack([leaf]))
    while at >= 0 and at % LEAF_BYTES:
        at = packed.find(wanted, at + 1)
    return at // LEAF_BYTES if at >= 0 else None


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


class Side(StrEnum):
    """On which side of the hash computed so far a path step's hash is joined."""

    LEFT = "left"
    RIGHT = "right"


class PathStep(msgspec.Struct, frozen=True):
    """One step from a leaf to the root: the sibling's hash (hexadecimal), and its side."""

    side: Side
    hash: str


def path(packed: bytes, index: int) -> list[PathStep]:
    """Return the Merkle inclusion path of leaf `index` (0 first)."""
    steps: list[PathStep] = []
    for level in _levels(packed)[:-1]:
        sibling = index ^ 1
        if sibling < len(level):
            steps.append(PathStep(Side.RIGHT if sibling > index else Side.LEFT, level[sibling].hex()))
        index //= 2
    return steps
