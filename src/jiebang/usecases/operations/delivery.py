"""Deliver the outbox: queue what others are told of a done case, word what is due, and hand it to a gateway.

The gateway is given (`remote/gateway.py`): nothing here crosses the network. Whom a case concerns beside its person is
asked of the participants whose Confirms ended it (`EndedReader`), after the case is done: a case that was not carried
out has ended nothing, and what is asked twice is answered alike.
"""

from __future__ import annotations

import hmac
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid5

import structlog
from prometheus_client import Counter

from jiebang.model.case import Kind
from jiebang.model.check import Text
from jiebang.model.notice import MAX_NOTICES, AddresseeKind, Channel, Notice, Organisation
from jiebang.model.plain import make_plain
from jiebang.participants.base import UNANSWERED
from jiebang.policy.pack import MESSAGE_VALUES, NOTICE_VALUES, fill_notice
from jiebang.policy.pack import fill_message as pack_message
from jiebang.policy.remedies import cleared_by
from jiebang.policy.wording import render
from jiebang.remote.gateway import NOT_TAKEN
from jiebang.saga.backoff import exponential_wait
from jiebang.store.cases import cases as store
from jiebang.store.operations import outbox
from jiebang.store.operations.outbox import OutboxMessage, Settlement
from jiebang.usecases.cases.codes import NO_CASE, derive_code, find_proof_rules

if TYPE_CHECKING:
    from jiebang.model.case import Case, Key
    from jiebang.model.ids import CaseIds
    from jiebang.model.notice import Refusals
    from jiebang.participants.core.database import EndedItem
    from jiebang.policy.pack import Pack
    from jiebang.remote.gateway import Gateway
    from jiebang.store.postgres.pool import Database

EndedReader = Callable[[str, Sequence[tuple[int, int]]], Awaitable[Sequence["EndedItem"]]]
"""Reads what cases ended at one participant: (name of the ending, keys of the cases) -> a row a thing."""

UNWORDED_TOTAL = Counter("jiebang_messages_unworded_total", "Messages that could not be worded", ["template"])
DEAD_TOTAL = Counter("jiebang_messages_dead_total", "Messages given up, by kind of addressee", ["addressee"])
DELIVERED_TOTAL = Counter("jiebang_messages_delivered_total", "Messages delivered, by kind of addressee", ["addressee"])

DONE: Final = "case_done"
"""The message after which others are told, too: its case is done."""
UNWORDED: Final = "UNWORDED"
"""Why a message was given up that no text of the policy can be made of."""

_FIRST_PAUSE: Final = timedelta(seconds=1)
_LONGEST_PAUSE: Final = timedelta(minutes=5)
_PATIENCE: Final = timedelta(days=3)
"""How long an addressee that cannot be reached is tried before a message to it is given up."""
_TRIES: Final = 8
"""How often a message that the gateway refuses without a word of its own is sent: for about four minutes."""
_AT_ONCE: Final = MAX_NOTICES // 2
"""Most messages to one addressee in a turn: their notices, two each for a person, go in one request, in order."""

_log = structlog.get_logger(__name__)


class Delivery:
    """A chore: reads due messages from the outbox, words them and hands them to the gateway. Delivers at least once.

    The messages to one addressee go in order: one that cannot be delivered now keeps its addressee's later ones back,
    and nobody else's. One that never can is given up and waits for an operator, and the next one goes.
    """

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
        ended: Mapping[str, EndedReader] | None = None,
        batch: int = 256,
    ) -> None:
        """`codes_key`: the key from which one-time codes are derived when they are worded.

        `pack`: the version in force; `pack_named`: the one a case follows, loaded by `know` before. `ended`: what reads
        an ending, by its name; every ending of a policy's notices is among them.
        """
        self._pool, self._gateway, self._pack = pool, gateway, pack
        self._pack_named, self._know, self._ended = pack_named, know, ended or {}
        self._case_ids, self._codes_key, self._batch = case_ids, codes_key, batch

    async def __call__(self, buckets: frozenset[int], now: datetime) -> int:
        """Deliver what is due in `buckets`; return how many messages were delivered, or, of none, how many were queued.

        A message that cannot be worded (its template or its case is gone) is given up alone, one that the gateway does
        not take is postponed or given up with nobody else's. If the gateway does not answer, all are postponed, each
        for longer than before, and its OSError is raised.
        """
        due = _take_turns(await outbox.load_due(self._pool, sorted(buckets), now, self._batch))
        if not due:
            return 0
        cases = await store.load_many(self._pool, {(message.account_id, message.case_no) for message in due})
        await self._know(cases.values())
        queued, untold = await self._spread(due, cases, now)
        turn = _DeliveryTurn(due, untold, now)
        notices: list[Notice] = []
        for message in turn.unsent:
            try:
                notices += self._word(message, cases)
            except Exception:  # noqa: BLE001 - one message must not hold up the others
                UNWORDED_TOTAL.labels(message.template).inc()
                _log.exception("message_not_worded", template=message.template, attempt=message.attempt)
                turn.dead[message.message_id] = UNWORDED
        try:
            refused = await self._gateway.send(notices) if notices else {}
        except OSError:
            await outbox.settle(self._pool, turn.settle_unanswered(), now)
            raise
        settlements, held = turn.settle(refused)
        await outbox.settle(self._pool, settlements, now)
        if held:
            await outbox.hold(self._pool, held, now - _PATIENCE)
        return sum(one.delivered for one in settlements) or queued

    async def _spread(
        self, due: Sequence[OutboxMessage], cases: Mapping[Key, Case], now: datetime
    ) -> tuple[int, frozenset[UUID]]:
        """Queue what others are told of the cases that are done; return how many, and for which messages it failed.

        One call an ending and one statement for all: a repeat adds nothing.
        """
        wanted = defaultdict[str, dict["Key", OutboxMessage]](dict)
        for message in due:
            case = cases.get((message.account_id, message.case_no))
            if message.template != DONE or message.spread or case is None:
                continue
            for ending, notice in self._pack_named(case.plan).notices.items():
                if case.kind in notice.kinds:
                    wanted[ending][case.key] = message
        queued: list[OutboxMessage] = []
        failed = set[UUID]()
        for ending, causes in wanted.items():
            found = await self._read_ended(ending, sorted(causes))
            if found is None:
                failed.update(message.message_id for message in causes.values())
                continue
            kind = self._pack().registry.endings[ending].endings[ending].kind
            queued += [self._make_notice_message(ending, kind, each, causes) for each in found]
        if queued:
            await outbox.insert(self._pool, queued, now)
        return len(queued), frozenset(failed)

    async def _read_ended(self, ending: str, keys: Sequence[Key]) -> Sequence[EndedItem] | None:
        """Read what cases ended; None where that cannot be known now, which keeps nobody else's messages back."""
        if ending not in self._ended:
            _log.error("ending_without_reader", ending=ending, cases=len(keys))
            return None
        try:
            return await self._ended[ending](ending, keys)
        except UNANSWERED as error:
            _log.warning("others_not_told_yet", ending=ending, cases=len(keys), error=type(error).__name__)
            return None

    def _make_notice_message(
        self, ending: str, kind: AddresseeKind, item: EndedItem, causes: Mapping[Key, OutboxMessage]
    ) -> OutboxMessage:
        """Make the message about one thing that ended. Its id tells nobody the account: it is keyed."""
        key = (item.account_id, item.case_no)
        name = f"{ending}\n{key[0]}\n{key[1]}\n{item.item}"
        return OutboxMessage(
            account_id=item.account_id,
            message_id=UUID(bytes=hmac.digest(self._codes_key, b"notice\n" + name.encode(), "sha256")[:16], version=5),
            case_no=item.case_no,
            template=ending,
            params={"item": item.item, "name": item.name},
            created_at=causes[key].created_at,
            addressee_kind=kind,
            addressee=item.addressee,
        )

    def _word(self, message: OutboxMessage, cases: Mapping[Key, Case]) -> list[Notice]:
        """Word one message. The same message always makes the same notices."""
        if message.addressee_kind is AddresseeKind.PERSON:
            return self._word_for_person(message, cases)
        pack = self._pack_named(cases[message.account_id, message.case_no].plan)
        given = {"item": message.params["item"], "addressee": message.params["name"], "at": message.created_at}
        values = {name: render(given[name], kind, zone=pack.zone) for name, kind in NOTICE_VALUES.items()}
        subject, body = fill_notice(pack, message.template, values)
        text = Text(_compose(subject.zh, body.zh), _compose(subject.en, body.en))
        to = Organisation(message.addressee_kind, message.addressee, values["addressee"].zh)
        return [Notice(message.message_id, Channel.MAILBOX, text, to=to)]

    def _word_for_person(self, message: OutboxMessage, cases: Mapping[Key, Case]) -> list[Notice]:
        """Word one message for phone and mailbox."""
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
            Notice(message.message_id, Channel.SMS, sms, account),
            Notice(uuid5(message.message_id, Channel.EMAIL), Channel.EMAIL, mail, account),
        ]


class _DeliveryTurn:
    """What becomes of the messages of one turn."""

    def __init__(self, due: Sequence[OutboxMessage], untold: frozenset[UUID], now: datetime) -> None:
        """`untold`: the ids of those whose others could not be queued, which therefore stay due."""
        self._due, self._untold, self._now = due, untold, now
        self.unsent = [message for message in due if not (message.delivered or message.dead)]
        self.dead = dict[UUID, str]()

    def settle_unanswered(self) -> list[Settlement]:
        """Settle a turn in which the gateway did not answer: what is unsent is tried again, later than before."""
        return [
            self._settle(message, again=not (message.delivered or message.dead or message.message_id in self.dead))
            for message in self._due
        ]

    def settle(self, refused: Refusals) -> tuple[list[Settlement], dict[tuple[AddresseeKind, str], datetime]]:
        """Settle a turn by the gateway's refusals; also return until when organisations are left alone.

        Of an addressee that takes nothing now only the first message counts a try: the later ones wait for it.
        """
        settled: list[Settlement] = []
        waiting = dict[tuple[AddresseeKind, str], datetime]()
        for message in self._due:
            open_ = not (message.delivered or message.dead or message.message_id in self.dead)
            refusal = refused.get(message.message_id) or refused.get(uuid5(message.message_id, Channel.EMAIL))
            if not open_ or refusal is None:
                settled.append(self._settle(message, delivered=open_ and message.lane not in waiting))
                if open_:
                    DELIVERED_TOTAL.labels(message.addressee_kind.value).inc()
                continue
            if message.lane in waiting:
                continue
            tried_out = refusal.code == NOT_TAKEN and message.attempt + 1 >= _TRIES
            if refusal.final or tried_out or self._now - message.created_at > _PATIENCE:
                self.dead[message.message_id] = refusal.code
                settled.append(self._settle(message))
            else:
                settled.append(self._settle(message, again=True))
                waiting[message.lane] = self._again_at(message)
        organisations = {lane: at for lane, at in waiting.items() if lane[0] is not AddresseeKind.PERSON}
        return settled, organisations

    def _settle(self, message: OutboxMessage, *, delivered: bool = False, again: bool = False) -> Settlement:
        again = again or message.message_id in self._untold
        code = self.dead.get(message.message_id)
        if code is not None:
            DEAD_TOTAL.labels(message.addressee_kind.value).inc()
        return Settlement(
            key=message.key,
            delivered=delivered,
            spread=message.template == DONE and message.message_id not in self._untold,
            dead_code=code,
            again_at=self._again_at(message) if again else None,
        )

    def _again_at(self, message: OutboxMessage) -> datetime:
        return self._now + exponential_wait(_FIRST_PAUSE, message.attempt, _LONGEST_PAUSE)


def _take_turns(due: Sequence[OutboxMessage]) -> list[OutboxMessage]:
    """Return what goes in this turn: of each addressee the oldest, at most _AT_ONCE; the others stay due."""
    lanes = defaultdict[tuple[AddresseeKind, str], list[OutboxMessage]](list)
    for message in sorted(due, key=lambda one: (one.created_at, one.message_id)):
        lanes[message.lane].append(message)
    return [message for lane in lanes.values() for message in lane[:_AT_ONCE]]


def _compose(subject: str, body: str) -> str:
    """Return a mail's text: the subject is its first line, and one line."""
    return f"{make_plain(subject, lines=False)}\n\n{make_plain(body)}"
