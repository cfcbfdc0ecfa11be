"""Participants across the network: Try, Confirm, Cancel and look as signed HTTP with a JSON batch.

docs/remote-participants.md is the protocol. Anything but a complete, signed, valid answer counts as silence: the saga
sends again, and the fence at the other end makes repeats harmless.
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

    `ignored` counts the results that were ignored, by reason: it should stay empty; IGNORED_TOTAL is its metric.
    """

    def __init__(self, link: Link, *, limit: float = 2.0, client: SignedClient | None = None) -> None:
        """`limit`: seconds a request may take before it counts as silence. `client`: one to use, with its own limit."""
        self.name = link.name
        self.ignored = Counter[wire.IgnoreReason]()
        self._client = client or SignedClient(link, limit=limit)

    async def facts(self, accounts: Sequence[int]) -> None:
        """Return None: clearing networks own no facts (domain.md §2)."""

    async def apply(self, op: Op, orders: Sequence[Order], planned: PlannedOperation) -> Sequence[Reply]:
        """Carry out `op` for a batch, in concurrent requests of up to 1,024 cases.

        Raises RemoteError or TimeoutError where no request was answered. Where only some were, returns their replies;
        the outcome of the other cases is unknown, and the caller sends them again in a smaller batch.
        """
        unique = list({(order.account_id, order.case_no): order for order in orders}.values())
        answers = await asyncio.gather(
            *(self._apply(op, chunk, planned) for chunk in _split(unique)), return_exceptions=True
        )
        failures = [answer for answer in answers if isinstance(answer, BaseException)]
        for failure in failures:
            if len(failures) == len(answers) or not isinstance(failure, OSError):
                raise failure
        return [reply for answer in answers if isinstance(answer, list) for reply in answer]

    async def _apply(self, op: Op, orders: Sequence[Order], planned: PlannedOperation) -> list[Reply]:
        cases = [wire.CaseOrder(str(order.account_id), order.case_no, order.version) for order in orders]
        batch = wire.CaseBatch(cases, {} if op is Op.CANCEL else dict(planned.effects), planned.operation)
        answer = await self._client.send("POST", f"/{op}", msgspec.json.encode(batch))
        try:
            replies, ignored = wire.read_replies(self.name, op, orders, answer)
        except JiebangError as error:
            raise RemoteError(self.name, "an answer not of the protocol", HTTPStatus.OK, error.code) from error
        self.ignored.update(ignored)
        for reason in ignored:
            IGNORED_TOTAL.labels(self.name, reason.value).inc()
        return replies

    async def look(self, accounts: Sequence[int]) -> Mapping[int, FenceRow]:
        """Read the fence rows of `accounts`, changing nothing. An account without a row is absent.

        Raises RemoteError or TimeoutError unless every request is answered: in a partial result rows would seem absent.
        """
        answers = await asyncio.gather(
            *(self._look(chunk) for chunk in _split(sorted(set(accounts)))), return_exceptions=True
        )
        fence_rows = dict[int, FenceRow]()
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            fence_rows |= answer
        return fence_rows

    async def _look(self, accounts: Sequence[int]) -> dict[int, FenceRow]:
        body = msgspec.json.encode(wire.LookBatch([str(account) for account in accounts]))
        answer = await self._client.send("POST", "/look", body)
        try:
            return wire.read_look(answer, accounts)
        except JiebangError as error:
            raise RemoteError(self.name, "an answer not of the protocol", HTTPStatus.OK, error.code) from error

    async def marks(self, after: int, upto: int, limit: int) -> Mapping[int, FenceRow]:
        """Read the fence rows above `after` up to `upto`, the first `limit`, 1,024 per request.

        Raises RemoteError or TimeoutError unless every request is answered.
        """
        fence_rows = dict[int, FenceRow]()
        full = True
        while full and len(fence_rows) < limit and after < upto:
            page = await self._marks(after, upto)
            full = len(page) == wire.MAX_BATCH
            fence_rows |= page
            after = max(page, default=after)
        return dict(list(fence_rows.items())[:limit])

    async def _marks(self, after: int, upto: int) -> dict[int, FenceRow]:
        body = msgspec.json.encode(wire.MarksRange(str(after), str(upto)))
        answer = await self._client.send("POST", "/marks", body)
        try:
            return wire.read_marks(answer, after, upto)
        except JiebangError as error:
            raise RemoteError(self.name, "an answer not of the protocol", HTTPStatus.OK, error.code) from error

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _split(items: Sequence[Any]) -> list[Sequence[Any]]:
    return [items[at : at + wire.MAX_BATCH] for at in range(0, len(items), wire.MAX_BATCH)]
