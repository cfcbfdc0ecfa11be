"""Faults a clearing network can be told to have, and what they do to one request. Pure."""

from __future__ import annotations

import zlib
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from msgspec import Meta

from jiebang.remote.wire import AccountText, Code

if TYPE_CHECKING:
    from collections.abc import Sequence


class FaultKind(StrEnum):
    """What goes wrong."""

    SLOW = "slow"  # answers after `ms`
    SILENT = "silent"  # takes the request and never answers
    REFUSE = "refuse"  # refuses Trys with `code`
    TWICE = "twice"  # does the work twice and answers every case twice
    DIE = "die"  # the process ends at once, as by kill -9
    STRANGE = "strange"  # does the work, and answers for cases nobody asked about (lies.py, as all below)
    FICKLE = "fickle"  # refuses the Trys that it reserves, grants them when they come again, and unasked ever after
    TWO_VOICES = "two_voices"  # does the work, and says of every case both that it is and that it is not
    DENY = "deny"  # does nothing, and refuses Confirms and Cancels, which nobody may
    STALE = "stale"  # does the work, and gives the last answer it gave to another request, signature and all


LIES: Final = frozenset({FaultKind.STRANGE, FaultKind.FICKLE, FaultKind.TWO_VOICES, FaultKind.DENY, FaultKind.STALE})
"""The faults of a network that answers, and not the truth."""


class Phase(StrEnum):
    """When it goes wrong: before the work, with it done but not committed, or with it committed."""

    BEFORE = "before"
    DURING = "during"
    AFTER = "after"


class FaultOp(StrEnum):
    """The messages a fault can hit."""

    TRY = "try"
    CONFIRM = "confirm"
    CANCEL = "cancel"
    LOOK = "look"


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One fault. It hits the `ops` named (none: all) where the request holds an account it is meant for.

    `accounts`: those meant (none: all); `share`: the part of them that is meant, chosen by a hash of the account, so
    always the same. `refuse` hits single cases; the others hit the whole request. `phase` is for `die`, and for
    `silent` (not `during`). `count`: how many requests (`refuse`: cases) it still hits; none: until switched off.
    """

    kind: FaultKind
    ops: tuple[FaultOp, ...] = ()
    accounts: Annotated[tuple[AccountText, ...], Meta(max_length=1024)] = ()
    share: Annotated[float, Meta(ge=0, le=1)] = 1.0
    ms: Annotated[int, Meta(ge=0, le=600_000)] = 0
    code: Code = "NETWORK-REFUSED"
    phase: Phase = Phase.BEFORE
    count: Annotated[int, Meta(ge=1)] | None = None

    def __post_init__(self) -> None:
        """Refuse what would do nothing."""
        if self.kind is FaultKind.SLOW and self.ms == 0:
            message = "slow needs ms"
            raise ValueError(message)
        if self.kind is FaultKind.SILENT and self.phase is Phase.DURING:
            message = "silent is before or after"
            raise ValueError(message)
        if self.kind is FaultKind.REFUSE and self.ops not in ((), (FaultOp.TRY,)):
            message = "only a Try may be refused"
            raise ValueError(message)
        if self.kind is FaultKind.DENY and not {FaultOp.TRY, FaultOp.LOOK}.isdisjoint(self.ops):
            message = "only Confirm and Cancel are denied"
            raise ValueError(message)


class Strike(msgspec.Struct):
    """What one request suffers."""

    slow_ms: int = 0
    silent: Phase | None = None
    refusals: dict[int, str] = {}
    twice: bool = False
    die: Phase | None = None
    lie: FaultKind | None = None


_HASHES: Final = 1 << 32


def strike(faults: Sequence[Fault], op: FaultOp, accounts: Sequence[int]) -> tuple[Strike, tuple[Fault, ...]]:
    """Return what a request of `op` for `accounts` suffers, and the faults that are left after it.

    Of several lies the first is told; the others wait for requests of their own.
    """
    suffered, left = Strike(), list[Fault]()
    for fault in faults:
        hit = () if fault.kind in LIES and suffered.lie else _hit(fault, op, accounts)
        if fault.count is None or not hit:
            left.append(fault)
        elif (rest := fault.count - len(hit)) > 0:
            left.append(msgspec.structs.replace(fault, count=rest))
        if hit:
            _suffer(suffered, fault, hit)
    return suffered, tuple(left)


def _hit(fault: Fault, op: FaultOp, accounts: Sequence[int]) -> Sequence[int]:
    """The accounts of a request that `fault` hits: all of them for `refuse`, one standing for the request otherwise."""
    if fault.ops and op not in fault.ops:
        return ()
    if fault.kind is FaultKind.REFUSE and op is not FaultOp.TRY:
        return ()
    if fault.kind in LIES and op is FaultOp.LOOK and fault.kind is not FaultKind.STALE:
        return ()
    if fault.kind is FaultKind.DENY and op is FaultOp.TRY:
        return ()
    meant = {int(account) for account in fault.accounts}
    hit = [account for account in accounts if (not meant or account in meant) and _in_share(account, fault.share)]
    if fault.kind is not FaultKind.REFUSE:
        return hit[:1]
    return hit if fault.count is None else hit[: fault.count]


def _in_share(account: int, share: float) -> bool:
    return zlib.crc32(account.to_bytes(8, "big")) < share * _HASHES


def _suffer(suffered: Strike, fault: Fault, hit: Sequence[int]) -> None:
    match fault.kind:
        case FaultKind.SLOW:
            suffered.slow_ms += fault.ms
        case FaultKind.SILENT:
            suffered.silent = suffered.silent or fault.phase
        case FaultKind.REFUSE:
            suffered.refusals = {**dict.fromkeys(hit, fault.code), **suffered.refusals}
        case FaultKind.TWICE:
            suffered.twice = True
        case FaultKind.DIE:
            suffered.die = suffered.die or fault.phase
        case _:
            suffered.lie = fault.kind
