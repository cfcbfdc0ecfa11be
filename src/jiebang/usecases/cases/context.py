"""What the use cases of a case work with: objects built by `app`, passed as one argument."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

import msgspec

from jiebang.model.case import Case, Kind
from jiebang.model.check import CheckAnswer
from jiebang.model.errors import JiebangError
from jiebang.model.origin import Origin
from jiebang.model.plan import Plan
from jiebang.model.proof import Method
from jiebang.participants.base import Participant
from jiebang.participants.wallet.money import WalletParticipant
from jiebang.policy.pack import Pack
from jiebang.policy.record import Evidence
from jiebang.remote.verifier import DocumentVerifier
from jiebang.saga.coordinator import Timing
from jiebang.saga.seals import PathStep
from jiebang.store.cases.idempotency import KeptAnswer
from jiebang.store.cases.proofs import Proof
from jiebang.store.checks.records import CheckRecordStore
from jiebang.store.sealing import IdentitySealer
from jiebang.usecases.cases.address_use import AddressUse
from jiebang.usecases.checks.quota import Quotas
from jiebang.usecases.checks.request import CheckRequest

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool


class BatchCheck(Protocol):
    """Checks a batch of accounts for one kind."""

    def __call__(
        self,
        accounts: Sequence[int],
        kind: Kind,
        origins: Mapping[int, Origin],
        agreed: Mapping[int, tuple[tuple[str, str | None], ...]] = ...,
    ) -> Awaitable[Sequence[CheckAnswer]]:
        """Answer in the order of `accounts`.

        `origins`: by account, who asks for it. `agreed`: by account, what the person agrees to
        with this very request: (code of the rule, id of an item; None: the whole). Raises UnknownAccountError and
        KindNotOfferedError.
        """


class SealInclusion(msgspec.Struct, frozen=True, kw_only=True):
    """Where a case's head is in a seal: the signed statement, when it was signed, and the hash path to its root.

    `record`: the hash of what else was sealed of the case; empty in a seal of an earlier version.
    """

    seal_no: int
    at: datetime
    statement: str
    record: bytes
    path: Sequence[PathStep]


class CaseDetails(msgspec.Struct, frozen=True, kw_only=True):
    """A case with its proofs and the plan it follows; `sealed`: where its head was sealed after its end."""

    case: Case
    plan: Plan
    proofs: Mapping[Method, Proof]
    sealed: SealInclusion | None = None


Render = Callable[[CaseDetails | JiebangError], KeptAnswer]
"""Turns the result of a mutation into the answer that is kept for repeats."""


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """The objects. `codes_key`: 32 secret bytes from which one-time codes are derived."""

    platform: Pool
    participants: Mapping[str, Participant]
    wallet: WalletParticipant
    check: BatchCheck
    examine: Callable[[Sequence[CheckRequest], Kind], Awaitable[Sequence[Evidence]]]
    """As `check`, with the facts that each answer rests on, which are recorded with a case: `Checker.examine`."""
    pack: Callable[[], Pack]
    """The policy in force: which kinds are offered, and what each asks for as proof."""
    plan_of: Callable[[Case], Plan]
    """The plan a case follows, which may be an older pack's."""
    pack_named: Callable[[str], Pack]
    """A pack by name and version, `wechat/2`: a case follows the one it was opened under. Raises UnknownPackError."""
    know: Callable[[Iterable[Case]], Awaitable[None]]
    """Load the packs that these cases follow, if this process has not loaded them yet."""
    records: CheckRecordStore
    clock: Callable[[], datetime]
    new_id: Callable[[], UUID]
    new_nonce: Callable[[], bytes]
    codes_key: bytes
    timing: Timing
    verifier: DocumentVerifier | None = None
    """Who knows whether a document is a person's; None: none is configured, and no case can bring an identity."""
    identities: IdentitySealer | None = None
    """Seals the identities that cases bring; None only where no case can."""
    quotas: Quotas | None = None
    """The quota of documents that cases bring; None only where no case can."""
    addresses: AddressUse = msgspec.field(default_factory=AddressUse)
    """What this process was asked for from each network address of late."""
