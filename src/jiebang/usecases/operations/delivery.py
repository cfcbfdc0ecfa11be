"""Deliver the outbox: word due messages and hand them to a gateway, which reaches phones and mailboxes.

The gateway is given (`remote/gateway.py`): nothing here crosses the network.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import uuid5

import structlog
from prometheus_client import Counter

from jiebang.model.case import Kind
from jiebang.model.check import Text
from jiebang.model.notice import Channel, Notice
from jiebang.model.plain import make_plain
from jiebang.policy.pack import MESSAGE_VALUES
from jiebang.policy.pack import fill_message as pack_message
from jiebang.policy.remedies import cleared_by
from jiebang.policy.wording import render
from jiebang.saga.backoff import exponential_wait
from jiebang.store.cases import cases as store
from jiebang.store.operations import outbox
from jiebang.usecases.cases.codes import NO_CASE, derive_code, find_proof_rules

if TYPE_CHECKING:
    from jiebang.model.case import Case, Key
    from jiebang.model.ids import CaseIds
    from jiebang.policy.pack import Pack
    from jiebang.remote.gateway import Gateway
    from jiebang.store.operations.outbox import OutboxMessage
    from jiebang.store.postgres.pool import Database

UNWORDED_TOTAL = Counter("jiebang_messages_unworded_total", "Messages that could not be worded", ["template"])

_FIRST_PAUSE: Final = timedelta(seconds=1)
_LONGEST_PAUSE: Final = timedelta(minutes=5)

_log = structlog.get_logger(__name__)


class Delivery:
    """A chore: reads due messages from the outbox, words them and hands them to the gateway. Delivers at least once."""

    def __init__(
        self,
        *,
        pool: Database,
        gateway: Gateway,
        pack: Callable[[], Pack],
        pack_named: Callable[[str], Pack],
        know: Callable[[Iterable[Case]], Awaitable[None]],
        case_ids: CaseIds,
        codes_key: bytes,
        batch: int = 256,
    ) -> None:
        """`codes_key`: the key from which one-time codes are derived when they are worded.

        `pack`: the version in force; `pack_named`: the one a case follows, loaded by `know` before.
        """
        self._pool, self._gateway, self._pack = pool, gateway, pack
        self._pack_named, self._know = pack_named, know
        self._case_ids, self._codes_key, self._batch = case_ids, codes_key, batch

    async def __call__(self, buckets: frozenset[int], now: datetime) -> int:
        """Deliver what is due in `buckets`; return how many messages were delivered.

        A message that cannot be worded (its template or its case is gone) is postponed alone. If the gateway does not
        take them, all are postponed, each for longer than before, and its OSError is raised.
        """
        due = await outbox.load_due(self._pool, sorted(buckets), now, self._batch)
        if not due:
            return 0
        cases = await store.load_many(self._pool, {(message.account_id, message.case_no) for message in due})
        await self._know(cases.values())
        worded: list[OutboxMessage] = []
        notices: list[Notice] = []
        for message in due:
            try:
                notices += self._word(message, cases)
                worded.append(message)
            except Exception:  # noqa: BLE001 - one message must not hold up the others
                UNWORDED_TOTAL.labels(message.template).inc()
                _log.exception("message_not_worded", template=message.template, attempt=message.attempt)
        try:
            if notices:
                await self._gateway.send(notices)
        except OSError:
            await self._postpone(due, now)
            raise
        await self._postpone([message for message in due if message not in worded], now)
        await outbox.mark_delivered(self._pool, [message.key for message in worded], now)
        return len(worded)

    async def _postpone(self, messages: Sequence[OutboxMessage], now: datetime) -> None:
        if messages:
            again_at = {
                message.key: now + exponential_wait(_FIRST_PAUSE, message.attempt, _LONGEST_PAUSE)
                for message in messages
            }
            await outbox.postpone(self._pool, again_at)

    def _word(self, message: OutboxMessage, cases: Mapping[Key, Case]) -> list[Notice]:
        """Word one message for phone and mailbox. The same message always makes the same notices."""
        values = {name: render(None, kind) for name, kind in MESSAGE_VALUES.items()}
        if message.case_no == NO_CASE:
            pack, kind = self._pack(), Kind(message.params["kind"])
            if "remedy" in message.params:
                values["remedy"] = pack.reason(cleared_by(pack, message.params["remedy"]))
        else:
            case = cases[message.account_id, message.case_no]
            pack, kind = self._pack_named(case.plan), case.kind
            values["case"] = render(self._case_ids.encode(*case.key), MESSAGE_VALUES["case"])
            values["receipt"] = render(case.head.hex(), MESSAGE_VALUES["receipt"])
            if case.reason:
                # What ended it may be a rule of the version in force that its own does not have.
                values["reason"] = self._pack().reason(case.reason)
        values["kind"] = pack.kinds[kind]
        values["at"] = render(message.created_at, MESSAGE_VALUES["at"], zone=pack.zone)
        if "nonce" in message.params:
            nonce, digits = bytes.fromhex(message.params["nonce"]), find_proof_rules(pack, kind).code_digits
            code = derive_code(self._codes_key, message.account_id, message.case_no, nonce, digits)
            expires_at = datetime.fromisoformat(message.params["expires_at"])
            values["code"] = render(code, MESSAGE_VALUES["code"])
            values["expires_at"] = render(expires_at, MESSAGE_VALUES["expires_at"], zone=pack.zone)
        sms, subject, body = pack_message(pack, message.template, kind, values)
        account = str(message.account_id)
        sms = Text(make_plain(sms.zh), make_plain(sms.en))
        mail = Text(_compose(subject.zh, body.zh), _compose(subject.en, body.en))
        return [
            Notice(message.message_id, account, Channel.SMS, sms),
            Notice(uuid5(message.message_id, Channel.EMAIL), account, Channel.EMAIL, mail),
        ]


def _compose(subject: str, body: str) -> str:
    """Return a mail's text: the subject is its first line, and one line."""
    return f"{make_plain(subject, lines=False)}\n\n{make_plain(body)}"
