"""Participants across the network: Try, Confirm, Cancel and look as signed HTTP with a JSON batch.

docs/remote-participants.md is the protocol. Whatever is not a whole, signed, believable answer is silence: the saga
asks again, and the fence at the other end makes asking twice harmless.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec
from prometheus_client import Counter as Metric

from jiebang.model.errors import JiebangError
from jiebang.remote import wire
from jiebang.remote.client import RemoteError, SignedClient
from jiebang.saga.coordinator import Reply
from jiebang.saga.fence import FenceRow, Op

if TYPE_CHECKING:
    from jiebang.model.plan import PlannedOperation
    from jiebang.remote.signing import Link
    from jiebang.saga.orders import Order

IGNORED_TOTAL = Metric(
    "jiebang_results_ignored_total", "Results of remote participants that were not believed", ["participant", "reason"]
)


class HttpParticipant:
    """A `Participant` reached over HTTP. It owns no facts of ours.

    `ignored` counts the results that were not believed, by reason: it should stay empty; IGNORED_TOTAL is its metric.
    """

    def __init__(self, link: Link, *, limit: float = 2.0) -> None:
        """`limit`: seconds a request may take before it counts as silence."""
        self.name = link.name
        self.ignored = Counter[wire.Ignored]()
        self._client = SignedClient(link, limit=limit)

    async def facts(self, accounts: Sequence[int]) -> None:
        """Answer nothing: clearing networks own no facts (domain.md §2)."""

    async def apply(self, op: Op, orders: Sequence[Order], planned: PlannedOperation) -> Sequence[Reply]:
        """Carry out `op` for a batch, one request for each 1,024 cases, all at once.

        Raises RemoteError or TimeoutError where no request was answered. Where only some were, their replies are
        returned and the other cases are unknown: they come again, fewer, and then stand or fall alone.
        """
        once = list({(order.account_id, order.case_no): order for order in orders}.values())
        answers = await asyncio.gather(
            *(self._apply(op, chunk, planned) for chunk in _chunks(once)), return_exceptions=True
        )
        failures = [answer for answer in answers if isinstance(answer, BaseException)]
        for failure in failures:
            if len(failures) == len(answers) or not isinstance(failure, OSError):
                raise failure
        return [reply for answer in answers if isinstance(answer, list) for reply in answer]

    async def _apply(self, op: Op, orders: Sequence[Order], planned: PlannedOperation) -> list[Reply]:
        cases = [wire.CaseOrder(str(order.account_id), order.case_no, order.version) for order in orders]
        batch = wire.Batch(cases, dict(planned.effects) if op is Op.CONFIRM else {}, planned.operation)
        answer = await self._client.send("POST", f"/{op}", msgspec.json.encode(batch))
        try:
            replies, ignored = wire.replies(self.name, op, orders, answer)
        except JiebangError as error:
            raise RemoteError(self.name, "an answer not of the protocol", HTTPStatus.OK, error.code) from error
        self.ignored.update(ignored)
        for reason in ignored:
            IGNORED_TOTAL.labels(self.name, reason.value).inc()
        return replies

    async def look(self, accounts: Sequence[int]) -> Mapping[int, FenceRow]:
        """Read the fence rows of `accounts`, changing nothing. An account without a row is absent.

        Raises RemoteError or TimeoutError unless every request is answered: half a look would make rows seem absent.
        """
        answers = await asyncio.gather(
            *(self._look(chunk) for chunk in _chunks(sorted(set(accounts)))), return_exceptions=True
        )
        found = dict[int, FenceRow]()
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            found |= answer
        return found

    async def _look(self, accounts: Sequence[int]) -> dict[int, FenceRow]:
        body = msgspec.json.encode(wire.LookBatch([str(account) for account in accounts]))
        answer = await self._client.send("POST", "/look", body)
        try:
            return wire.looked(answer, accounts)
        except JiebangError as error:
            raise RemoteError(self.name, "an answer not of the protocol", HTTPStatus.OK, error.code) from error

    async def marks(self, after: int, upto: int, limit: int) -> Mapping[int, FenceRow]:
        """Read the fence rows above `after` up to `upto`, the first `limit`, 1,024 a request.

        Raises RemoteError or TimeoutError unless every request is answered.
        """
        found = dict[int, FenceRow]()
        full = True
        while full and len(found) < limit and after < upto:
            page = await self._marks(after, upto)
            full = len(page) == wire.MAX_BATCH
            found |= page
            after = max(page, default=after)
        return dict(list(found.items())[:limit])

    async def _marks(self, after: int, upto: int) -> dict[int, FenceRow]:
        body = msgspec.json.encode(wire.MarksRange(str(after), str(upto)))
        answer = await self._client.send("POST", "/marks", body)
        try:
            return wire.marked(answer, after, upto)
        except JiebangError as error:
            raise RemoteError(self.name, "an answer not of the protocol", HTTPStatus.OK, error.code) from error

    async def aclose(self) -> None:
        """Let go of connections."""
        await self._client.aclose()


def _chunks(items: Sequence[Any]) -> list[Sequence[Any]]:
    return [items[at : at + wire.MAX_BATCH] for at in range(0, len(items), wire.MAX_BATCH)]
