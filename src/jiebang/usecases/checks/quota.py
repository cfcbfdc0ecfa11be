"""Quota: how often a document was used for identity changes, and the slot a case claims before its first Try.

Both data centres must agree which document is bound to an account; if they differ, or one is silent, the quota is
unknown and nothing passes. Documents are given by their blind index, which no answer shows and no log holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import msgspec

from jiebang.model.check import Text
from jiebang.model.errors import InvalidInputError, ParticipantUnavailableError
from jiebang.model.facts import QUOTA, FactBatch
from jiebang.participants.base import SILENCE, Participant
from jiebang.participants.identity.documents import DocumentReader
from jiebang.policy.calendar import local_date, start_of
from jiebang.policy.frame import OwnerFacts, line_up, mark_unread
from jiebang.saga.coordinator import Rechecked
from jiebang.store.checks import quota as store
from jiebang.store.checks.quota import DocumentUse, QuotaUsage

if TYPE_CHECKING:
    from jiebang.model.case import Case, Key
    from jiebang.model.participants import ParticipantRegistry
    from jiebang.policy.pack import Pack, QuotaRule
    from jiebang.store.postgres.pool import Database, Pool

_IDENTITY: Final = "identity"
"""The owner that knows documents."""
_NEVER: Final = QuotaUsage(0, None)
_NO_DOCUMENT: Final = Text("该账户未曾绑定证件", "no document was ever bound to this account")
_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")


class QuotaRequest(Protocol):
    """Whose quota is asked about: that of `document`, None: of the one bound to the account."""

    @property
    def account_id(self) -> int:
        """The account."""

    @property
    def own_case(self) -> int | None:
        """The number of the case that is being checked: its own slot does not count."""

    @property
    def document(self) -> bytes | None:
        """The blind index of the case's own document."""


class Quotas:
    """Reads and claims the quota of documents, for batches."""

    def __init__(
        self,
        registry: ParticipantRegistry,
        participants: Mapping[str, Participant],
        platform: Database,
        clock: Callable[[], datetime],
    ) -> None:
        """`participants` must hold every identity database of `registry`."""
        self._registry = registry
        self._identities = [one for one in participants.values() if isinstance(one, DocumentReader)]
        self._platform, self._clock = platform, clock

    async def documents(self, accounts: Collection[int]) -> dict[int, bytes | None]:
        """Return the document bound (or last bound) to each account, None if there never was one.

        Accounts on which the data centres differ are absent. Raises one of SILENCE.
        """
        return await self._ask_both(accounts, lambda one: one.bound(accounts), None)

    async def brought_in(self, documents: Collection[bytes], year: int) -> dict[bytes, int]:
        """Count the changes of `year` that each document had before it came here; absent: the data centres differ.

        Raises one of SILENCE.
        """
        since, until = start_of(date(year, 1, 1)), start_of(date(year + 1, 1, 1))
        return await self._ask_both(documents, lambda one: one.brought_in(documents, since, until), 0)

    async def _ask_both(
        self,
        questions: Collection[_Item],
        ask: Callable[[DocumentReader], Awaitable[Mapping[_Item, _Answer]]],
        nothing: _Answer,
    ) -> dict[_Item, _Answer]:
        if len(self._identities) != len(self._registry.copies(_IDENTITY)):
            raise OSError("both identity databases are needed to tell a document")
        if not questions:
            return {}
        here, there = await asyncio.gather(*(ask(one) for one in self._identities))
        answers = {one: here.get(one, nothing) for one in questions}
        return {one: answer for one, answer in answers.items() if there.get(one, nothing) == answer}

    async def facts(self, requests: Sequence[QuotaRequest], askable: Collection[int]) -> OwnerFacts:
        """Read the facts of QUOTA, one row a request, in their order; accounts not `askable` are not looked up.

        Raises one of SILENCE.
        """
        wanted = {one.account_id for one in requests if one.document is None and one.account_id in askable}
        bound = await self.documents(wanted)
        uses = [
            DocumentUse(document, one.account_id, one.own_case or 0)
            if (document := one.document or bound.get(one.account_id)) is not None
            else None
            for one in requests
        ]
        used, brought = await self._read_uses([use for use in uses if use is not None])
        found = iter(used)
        answers = [_NEVER if use is None else next(found) for use in uses]
        history = [0 if use is None else brought.get(use.document_index) for use in uses]
        read = [
            past is not None and (use is not None or one.account_id in bound or one.account_id not in wanted)
            for one, use, past in zip(requests, uses, history, strict=True)
        ]
        columns: dict[str, Sequence[Any]] = {
            "document_changes_this_year": [one.slots + (past or 0) for one, past in zip(answers, history, strict=True)],
            "quota_refused_at": [one.refused_at for one in answers],
        }
        rows = range(len(requests))
        part = line_up(FactBatch(QUOTA, rows, [1] * len(requests), columns), QUOTA, rows, self._registry)
        return mark_unread(part, QUOTA, read)

    async def _read_uses(self, uses: Sequence[DocumentUse]) -> tuple[list[QuotaUsage], dict[bytes, int]]:
        if not uses:
            return [], {}
        year = local_date(self._clock()).year
        return await asyncio.gather(
            store.read_usage(self._platform, uses, year), self.brought_in({use.document_index for use in uses}, year)
        )

    async def find_document(self, account_id: int) -> bytes:
        """Return the document whose quota a case of the account uses.

        Raises ParticipantUnavailableError if it cannot be told now, and InvalidInputError if there never was one.
        """
        try:
            bound = await self.documents([account_id])
        except SILENCE:
            bound = {}
        if account_id not in bound:
            raise ParticipantUnavailableError(participant=_IDENTITY)
        document = bound[account_id]
        if document is None:
            raise InvalidInputError(field="account", reason=_NO_DOCUMENT)
        return document

    async def refuse_document(self, document: bytes, account_id: int) -> None:
        """Record that a document was brought beyond its quota: its cooling-off begins."""
        await store.refuse(self._platform, [DocumentUse(document, account_id)], self._clock())

    async def refuse(self, account_id: int) -> None:
        """Record that a submission of the account was refused: the cooling-off of its document begins.

        Raises what `find_document` raises, and what the platform's database raises.
        """
        use = DocumentUse(await self.find_document(account_id), account_id)
        await store.refuse(self._platform, [use], self._clock())


class RecheckWithClaim:
    """Re-checks cases when a worker takes them, and claims a slot for those that pass.

    A case holds its slot before the save that starts trying. A claim that is not granted is a blocker like any other;
    if the history of a document cannot be read, the case waits, as it does for any fact.
    """

    def __init__(
        self,
        recheck: Callable[[Sequence[Case]], Awaitable[Mapping[Key, Rechecked]]],
        quotas: Quotas,
        *,
        pool: Pool,
        pack: Callable[[], Pack],
        clock: Callable[[], datetime],
    ) -> None:
        """`recheck`: what each case must pass before its slot is claimed."""
        self._recheck, self._quotas, self._pool, self._pack, self._clock = recheck, quotas, pool, pack, clock

    async def __call__(self, cases: Sequence[Case]) -> Mapping[Key, Rechecked]:
        """Re-check `cases` and claim; a case missing from the result could not be checked now, or has moved."""
        found = dict(await self._recheck(cases))
        quota = self._pack().quota
        passing = [case for case in cases if case.document_index is not None and _passes(found.get(case.key))]
        if quota is not None and passing:
            await self._claim(passing, quota, found)
        return found

    async def _claim(self, cases: Iterable[Case], quota: QuotaRule, found: dict[Key, Rechecked]) -> None:
        now = self._clock()
        year = local_date(now).year
        documents = {case.key: case.document_index for case in cases if case.document_index is not None}
        try:
            brought = await self._quotas.brought_in(set(documents.values()), year)
        except SILENCE:
            brought = {}
        questions = []
        for case in cases:
            history = brought.get(documents[case.key])
            if history is None:
                found[case.key] = Rechecked(dict.fromkeys(found[case.key].versions))
            else:
                questions.append((case, quota.per_year - history))
        held, full = await store.claim(self._pool, questions, year, now)
        for case, _ in questions:
            if case.key in full:
                found[case.key] = msgspec.structs.replace(found[case.key], blockers=(quota.used_up,))
            elif case.key not in held:
                del found[case.key]


def _passes(answers: Rechecked | None) -> bool:
    return answers is not None and not answers.blockers and None not in answers.versions.values()
