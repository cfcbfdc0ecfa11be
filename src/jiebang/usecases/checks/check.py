"""Check: read the facts of a batch from all their owners concurrently, and return every blocker.

A participant that is down, slow, or answers nonsense makes its own facts unread and never fails the check. No batch
waits longer than one time limit. Where a read fails on what a row holds, it is halved until that row is alone
(`store.postgres.halving`): the facts of that account are unread, those of the others are not.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import structlog
from prometheus_client import Counter

from jiebang.model.case import Kind
from jiebang.model.check import CheckAnswer, Severity, Text
from jiebang.model.errors import KindNotOfferedError, UnknownAccountError
from jiebang.model.facts import PARTICIPANTS_OUT, PLATFORM, QUOTA, FactBatch
from jiebang.model.origin import SERVICE, UNKNOWN
from jiebang.policy.evaluate import evaluate
from jiebang.policy.frame import Facts, OwnerFacts, join_facts, join_rows, line_up, select_rows, unread_part
from jiebang.policy.pack import Pack
from jiebang.policy.record import Evidence
from jiebang.saga.coordinator import Rechecked
from jiebang.store.checks import platform_facts
from jiebang.store.postgres.halving import ask_in_halves
from jiebang.usecases.checks.coalesce import Coalescer
from jiebang.usecases.checks.quota import Quotas
from jiebang.usecases.checks.request import CheckRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jiebang.model.case import Case, Key
    from jiebang.model.ids import CaseIds
    from jiebang.model.origin import Origin
    from jiebang.model.participants import ParticipantRegistry
    from jiebang.participants.base import Participant
    from jiebang.store.postgres.pool import Database

UNREAD_TOTAL = Counter("jiebang_facts_unread_total", "Reads of facts that brought no answer", ["owner", "why"])

_ACCOUNT_LIMIT: Final = 1 << 53
_LARGE: Final = 64
"""More accounts than this are a large batch."""
_LARGE_AT_ONCE: Final = 3
"""Large batches under way at once. More would compete for the same databases and exceed their time limits."""
_BATCH_LIMIT: Final = 256
"""Most single checks in a batch: a larger one would not cost less per check."""

_UNKNOWN_ACCOUNT: Final = platform_facts.PlatformFacts(None)

_log = structlog.get_logger(__name__)


CheckObserver = Callable[[Pack, Facts, Kind, datetime], None]
"""Called with every live check: the pack that answered, the facts, the kind and the time."""


class Checker:
    """Checks batches under the pack in force, for the API and for the worker."""

    def __init__(
        self,
        *,
        registry: ParticipantRegistry,
        pack: Callable[[], Pack],
        participants: Mapping[str, Participant],
        platform: Database,
        case_ids: CaseIds,
        clock: Callable[[], datetime],
        limit: timedelta = timedelta(seconds=1),
        window: timedelta | None = timedelta(milliseconds=2),
        shadow: CheckObserver | None = None,
    ) -> None:
        """`registry`: the participants whose facts are read.

        `limit`: how long a check waits for facts; those not read by then are unread. `window`: how long a single check
        waits at most for others to share a batch; None: each is a batch of its own. `shadow`: called with every live
        check; it must return at once.
        """
        self._pack, self._participants, self._platform = pack, participants, platform
        self._case_ids, self._clock, self._limit = case_ids, clock, limit
        self._shadow = shadow
        self._registry = registry
        self._quotas = Quotas(registry, participants, platform, clock)
        self._cut_off: set[asyncio.Task[OwnerFacts | None]] = set()
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)
        self._singles: Coalescer[Kind, CheckRequest, Evidence | None] | None = None
        if window is not None:
            self._singles = Coalescer(self._answer_together, window=window, limit=_BATCH_LIMIT)

    async def __call__(
        self,
        accounts: Sequence[int],
        kind: Kind,
        origins: Mapping[int, Origin],
        agreed: Mapping[int, tuple[tuple[str, str | None], ...]] = MappingProxyType({}),
    ) -> list[CheckAnswer]:
        """Check `accounts` as `check` does; `origins` and `agreed`: by account, as in CheckRequest."""
        requests = [
            CheckRequest(account, origins.get(account, UNKNOWN), agreed=agreed.get(account, ())) for account in accounts
        ]
        return await self.check(requests, kind)

    async def check(self, requests: Sequence[CheckRequest], kind: Kind) -> list[CheckAnswer]:
        """Answer every request, in their order. Raises what `examine` raises."""
        return [evidence.answer for evidence in await self.examine(requests, kind)]

    async def examine(self, requests: Sequence[CheckRequest], kind: Kind) -> list[Evidence]:
        """Answer every request, in their order, with the facts that each answer rests on.

        Raises UnknownAccountError, naming all accounts unknown to the platform, and KindNotOfferedError.
        """
        pack = _require_offered(self._pack(), kind)
        if self._singles is not None and len(requests) == 1:
            answers = [await self._singles.ask(kind, requests[0])]
        elif len(requests) > _LARGE:
            async with self._large:  # before its time limit starts
                answers = await self._answer(pack, requests, kind)
        else:
            answers = await self._answer(pack, requests, kind)
        unknown = {request.account_id for request, answer in zip(requests, answers, strict=True) if answer is None}
        if unknown:
            raise UnknownAccountError(accounts=[str(account) for account in sorted(unknown)])
        return [answer for answer in answers if answer is not None]

    async def facts(self, accounts: Sequence[int]) -> Facts:
        """Read all facts of a batch of known accounts, as for requests of a service; nothing is evaluated."""
        requests = [CheckRequest(account, SERVICE) for account in accounts]
        parts = await self._read_parts(accounts, requests, {}, quota=True)
        return join_facts(accounts, parts, [SERVICE] * len(requests), self._registry)

    async def _answer_together(self, kind: Kind, requests: Sequence[CheckRequest]) -> list[Evidence | None]:
        """Answer single checks of different callers under the pack in force when the batch begins."""
        return await self._answer(_require_offered(self._pack(), kind), requests, kind)

    async def recheck(self, cases: Sequence[Case]) -> dict[Key, Rechecked]:
        """Re-check cases on fresh facts when the worker takes them, each for its own kind, origin and number."""
        pack = self._pack()
        by_kind: defaultdict[Kind, list[Case]] = defaultdict(list)
        for case in cases:
            by_kind[case.kind].append(case)
        found: dict[Key, Rechecked] = {}
        for kind, batch in by_kind.items():
            if kind not in pack.kinds:  # the pack in force has no rules for them: they must not pass
                found |= {case.key: Rechecked({}, (KindNotOfferedError.code,)) for case in batch}
                continue
            requests = [CheckRequest(case.account_id, case.origin, case.case_no, case.document_index) for case in batch]
            answers = await self._answer(pack, requests, kind, whole=False)
            for case, answer in zip(batch, answers, strict=True):
                found[case.key] = _make_event(answer, pack.unavailable.code)
        return found

    async def _answer(
        self, pack: Pack, requests: Sequence[CheckRequest], kind: Kind, *, whole: bool = True
    ) -> list[Evidence | None]:
        """Answer every request; None for an account unknown to the platform.

        Without `whole`, consequences and alternatives are left out: a re-check needs the blockers alone.
        """
        if not requests:
            return []
        accounts = [request.account_id for request in requests]
        parts = await self._read_parts(
            accounts, requests, _list_needed(pack, kind), quota=QUOTA in pack.facts_needed[kind]
        )
        known: Sequence[bool] = [True] * len(requests)
        if PLATFORM in parts:
            # Unread is not unknown: such an account gets FACT-UNAVAILABLE.
            known = [one is not False for one in parts[PLATFORM].frame["account_known"].to_list()]
        facts = join_facts(accounts, parts, [request.origin for request in requests], self._registry)
        now = self._clock()
        answers = _evaluate(pack, facts, kind, now, whole=whole)
        if self._shadow is not None:
            self._shadow(pack, facts, kind, now)
        return [answer if is_known else None for answer, is_known in zip(answers, known, strict=True)]

    async def _read_parts(
        self, accounts: Sequence[int], requests: Sequence[CheckRequest], needed: Mapping[str, Text], *, quota: bool
    ) -> dict[str, OwnerFacts]:
        """Read all owners concurrently, within the limit; return what was read, by owner.

        `needed`: the participants that a case would need, with their names for people: one out of service is a fact.
        `quota`: whether to read the uses of the document too: few kinds ask, and it takes two reads in a row.
        """
        tasks: dict[str, asyncio.Task[OwnerFacts | None]] = {
            name: asyncio.create_task(_read(participant, accounts, self._registry))
            for name, participant in self._participants.items()
        }
        size = len(requests)

        async def read_own(rows: Sequence[int]) -> OwnerFacts:
            part = [requests[row] for row in rows]
            return await _read_own(self._platform, self._case_ids, part, needed, self._registry)

        async def read_quota(rows: Sequence[int]) -> OwnerFacts:
            return await self._quotas.facts([requests[row] for row in rows], frozenset(_select_askable(accounts)))

        tasks[PLATFORM] = asyncio.create_task(_read_rows(PLATFORM, PLATFORM, size, read_own, self._registry))
        if quota:
            tasks[QUOTA] = asyncio.create_task(_read_rows(QUOTA, QUOTA, size, read_quota, self._registry))
        try:
            await asyncio.wait(tasks.values(), timeout=self._limit.total_seconds())
        finally:
            # Not awaited: a driver may need its own time to notice that a server is gone.
            for task in tasks.values():
                if not task.done():
                    self._cut_off.add(task)
                    task.add_done_callback(self._forget)
                    task.cancel()
        return {name: part for name, task in tasks.items() if (part := _take_result(name, task)) is not None}

    def _forget(self, task: asyncio.Task[OwnerFacts | None]) -> None:
        """Forget a read that was cut off, and what it raised then: the part is unread anyway."""
        self._cut_off.discard(task)
        if not task.cancelled():
            task.exception()


def _take_result(name: str, task: asyncio.Task[OwnerFacts | None]) -> OwnerFacts | None:
    """Return what a read brought, None for a slow or failed one, which is logged without anything personal."""
    failure = task.exception() if task.done() and not task.cancelled() else None
    why = "slow" if not task.done() or task.cancelled() else type(failure).__name__ if failure else None
    if why is None:
        return task.result()
    UNREAD_TOTAL.labels(name, why).inc()
    _log.warning("facts_unread", owner=name, why=why)
    return None


def _select_askable(accounts: Iterable[int]) -> list[int]:
    """Return the accounts that can exist, each once, in order."""
    return sorted({account for account in accounts if 0 < account < _ACCOUNT_LIMIT})


async def _read(participant: Participant, accounts: Sequence[int], registry: ParticipantRegistry) -> OwnerFacts | None:
    """Read one participant's facts; None for one that owns none."""
    owner = registry.owner_of(participant.name)

    async def ask(rows: Sequence[int]) -> OwnerFacts | None:
        asked = [accounts[row] for row in rows]
        batch = await participant.facts(_select_askable(asked))
        return None if batch is None else line_up(batch, owner, asked, registry)

    return await _read_rows(participant.name, owner, len(accounts), ask, registry)


async def _read_rows(
    name: str,
    owner: str,
    size: int,
    ask: Callable[[Sequence[int]], Awaitable[OwnerFacts | None]],
    registry: ParticipantRegistry,
) -> OwnerFacts | None:
    """Read one owner's facts for the rows of a batch; rows on which the read fails because of their data are unread."""
    answers = await ask_in_halves(range(size), ask, what=f"facts of {name}")
    if not answers.failed and len(answers.parts) == 1:
        return answers.parts[0][1]
    UNREAD_TOTAL.labels(name, "data").inc(len(answers.failed))
    parts = [(rows, part) for rows, part in answers.parts if part is not None]
    if answers.failed:
        parts.append((answers.failed, unread_part(owner, len(answers.failed), registry)))
    return join_rows(parts, size)


async def _read_own(
    platform: Database,
    case_ids: CaseIds,
    requests: Sequence[CheckRequest],
    needed: Mapping[str, Text],
    registry: ParticipantRegistry,
) -> OwnerFacts:
    """Read the facts of our own store: which accounts exist, their live cases except the one being checked, consents.

    Also which of the participants `needed` are out of service.
    """
    known = await platform_facts.read(platform, _select_askable(request.account_id for request in requests))
    live: list[str | None] = []
    consents: list[list[dict[str, str | None]]] = []
    for request in requests:
        found = known.get(request.account_id, _UNKNOWN_ACCOUNT)
        other = found.case_no is not None and found.case_no != request.own_case
        live.append(case_ids.encode(request.account_id, found.case_no) if other and found.case_no else None)
        consents.append(
            found.agreed(request.own_case) + [{"code": code, "item": item} for code, item in request.agreed]
        )
    since = next(iter(known.values()), _UNKNOWN_ACCOUNT).out
    out = [
        {"participant": name, "name_zh": title.zh, "name_en": title.en, "since": since[name]}
        for name, title in needed.items()
        if name in since
    ]
    columns: dict[str, Sequence[Any]] = {
        "participants_out": [len(out)] * len(requests),
        PARTICIPANTS_OUT: [out] * len(requests),
        "live_case": live,
        "account_known": [request.account_id in known for request in requests],
        "consents": consents,
    }
    rows = range(len(requests))
    return line_up(FactBatch(PLATFORM, rows, [1] * len(requests), columns), PLATFORM, rows, registry)


def _evaluate(pack: Pack, facts: Facts, kind: Kind, now: datetime, *, whole: bool) -> list[Evidence]:
    """Evaluate a batch. One account on whose facts that fails is answered alone: as if none of them had been read."""
    try:
        answers = evaluate(pack, facts, kind, now, whole=whole)
    except Exception as error:  # noqa: BLE001 - whatever one account's facts cause, the others are answered
        size = len(facts.accounts)
        if size > 1:
            halves = (select_rows(facts, part) for part in (slice(size // 2), slice(size // 2, None)))
            return [one for half in halves for one in _evaluate(pack, half, kind, now, whole=whole)]
        UNREAD_TOTAL.labels("all", "unusable").inc()
        _log.error("facts_unusable", error=type(error).__name__)  # its message may quote them
        facts = join_facts(facts.accounts, {}, facts.frame["request_device_id"].to_list(), facts.registry)
        answers = evaluate(pack, facts, kind, now, whole=whole)
    return [Evidence(answer, facts, row, whole) for row, answer in enumerate(answers)]


def _list_needed(pack: Pack, kind: Kind) -> dict[str, Text]:
    """Return the participants of a kind's plan, each with its name for people."""
    names = pack.plans[kind].participants if kind in pack.plans else ()
    return {name: pack.owners.get(pack.registry.owner_of(name), Text(name, name)) for name in names}


def _require_offered(pack: Pack, kind: Kind) -> Pack:
    """Return `pack` if it has rules for `kind`; else raise KindNotOfferedError: without rules nothing would block."""
    if kind not in pack.kinds:
        raise KindNotOfferedError(kind=kind.value, offered=pack.offered)
    return pack


def list_out_of_service(evidence: Evidence) -> Sequence[Mapping[str, Any]]:
    """Return which participants that a case of this kind needs were out of service at this check."""
    return evidence.facts.items.get(PARTICIPANTS_OUT, [()] * (evidence.row + 1))[evidence.row]


def _make_event(evidence: Evidence | None, unavailable: str) -> Rechecked:
    """Turn a check into the coordinator's event.

    Unread facts become versions that are None instead of blockers: the case waits and is checked again. If what could
    not be read has no version of its own (our own store), all versions are None.
    """
    if evidence is None:
        return Rechecked({}, (UnknownAccountError.code,))
    answer = evidence.answer
    if out := list_out_of_service(evidence):
        # Such a case is not rejected: it waits until all are back in service, and is then checked again.
        return Rechecked({item["participant"]: None for item in out}, (), evidence)
    codes = [blocker.code for blocker in answer.blockers if blocker.severity is not Severity.INFORMS]
    versions = answer.versions
    if unavailable in codes and None not in versions.values():
        versions = dict.fromkeys(versions)
    return Rechecked(versions, tuple(dict.fromkeys(code for code in codes if code != unavailable)), evidence)
