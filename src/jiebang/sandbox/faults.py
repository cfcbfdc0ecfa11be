"""Faults that a clearing network can be given, and their effect on one request. Pure."""

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
    STRANGE = "strange"  # does the work, and answers for cases that were not in the request (lies.py, as all below)
    FICKLE = "fickle"  # refuses the Trys that it reserves; grants them on repeats, and in answers to other requests
    TWO_VOICES = "two_voices"  # does the work, and answers every case twice, granted and refused
    DENY = "deny"  # does nothing, and refuses Confirms and Cancels, which the protocol forbids
    BREAK = "break"  # does nothing, and answers 500 to the whole request, as where one row breaks a statement
    STALE = "stale"  # does the work, and repeats its last signed answer to another request


LIES: Final = frozenset({FaultKind.STRANGE, FaultKind.FICKLE, FaultKind.TWO_VOICES, FaultKind.DENY, FaultKind.STALE})
"""Faults by which a network answers untruly."""


class Phase(StrEnum):
    """When the fault happens: before the work, before its commit, or after it."""

    BEFORE = "before"
    DURING = "during"
    AFTER = "after"


class FaultOp(StrEnum):
    """The messages a fault can hit."""

    TRY = "try"
    CONFIRM = "confirm"
    CANCEL = "cancel"
    LOOK = "look"


class NetworkFault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One fault. It hits the `ops` named (none: all) where the request holds an account in its scope.

    `accounts`: those in scope (none: all); `share`: the part of them in scope, chosen by a hash of the account, so
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
        """Raise ValueError for a combination without effect."""
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
    """The combined effect of faults on one request."""

    slow_ms: int = 0
    silent: Phase | None = None
    refusals: dict[int, str] = {}
    twice: bool = False
    breaks: bool = False
    die: Phase | None = None
    lie: FaultKind | None = None


_HASHES: Final = 1 << 32


def strike(
    faults: Sequence[NetworkFault], op: FaultOp, accounts: Sequence[int]
) -> tuple[Strike, tuple[NetworkFault, ...]]:
    """Return the effect on a request of `op` for `accounts`, and the faults left after it.

    Of several lies only the first applies; the others stay for later requests.
    """
    suffered, left = Strike(), list[NetworkFault]()
    for fault in faults:
        hit = () if fault.kind in LIES and suffered.lie else _accounts_hit(fault, op, accounts)
        if fault.count is None or not hit:
            left.append(fault)
        elif (rest := fault.count - len(hit)) > 0:
            left.append(msgspec.structs.replace(fault, count=rest))
        if hit:
            _apply_faults(suffered, fault, hit)
    return suffered, tuple(left)


def _accounts_hit(fault: NetworkFault, op: FaultOp, accounts: Sequence[int]) -> Sequence[int]:
    """Return the accounts of a request that `fault` hits; for kinds other than `refuse`, at most one."""
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


def _apply_faults(suffered: Strike, fault: NetworkFault, hit: Sequence[int]) -> None:
    match fault.kind:
        case FaultKind.SLOW:
            suffered.slow_ms += fault.ms
        case FaultKind.SILENT:
            suffered.silent = suffered.silent or fault.phase
        case FaultKind.REFUSE:
            suffered.refusals = {**dict.fromkeys(hit, fault.code), **suffered.refusals}
        case FaultKind.TWICE:
            suffered.twice = True
        case FaultKind.BREAK:
            suffered.breaks = True
        case FaultKind.DIE:
            suffered.die = suffered.die or fault.phase
        case _:
            suffered.lie = fault.kind
