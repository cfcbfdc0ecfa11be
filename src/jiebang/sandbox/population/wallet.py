"""The wallets: a ledger that adds up to the balance, red packets, cards, contracts, credit, arrears, freezes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from jiebang.sandbox.population import lexicon
from jiebang.sandbox.population.chance import WeightedChoice
from jiebang.sandbox.population.format import ArrearsRecord, CreditProductRecord, FreezeRecord
from jiebang.sandbox.population.people import PAYMENT_PASSWORD, RESERVED
from jiebang.sandbox.population.render import (
    DAY,
    Either,
    Loose,
    beside,
    codes,
    digits,
    json_of,
    objects,
    rarely,
    stamp,
    uuids,
)

if TYPE_CHECKING:
    from jiebang.sandbox.population.chance import Dice, Ints
    from jiebang.sandbox.population.people import Chunk, Rows
    from jiebang.sandbox.population.render import Canvas, Fixed, Part

_PEOPLE, _ENTRIES, _PENDINGS, _OPENING, _SURPLUS, _PACKETS, _CARDS, _CONTRACTS = range(10, 18)

_MOVES: Final = [
    ("payment", title, -fen) for title, amounts in lexicon.PAYMENTS for fen in amounts for _ in range(5)
] + [(kind, title, fen) for kind, title, amounts in lexicon.INCOME for fen in amounts for _ in range(4)]
_MOVE: Final = objects({"kind": kind, "title": title, "amount_fen": fen} for kind, title, fen in _MOVES)
_MOVE_FEN: Final = np.array([fen for _, _, fen in _MOVES])
_PENDING: Final = (
    ("payment", "担保交易:待确认收货", -12_900),
    ("cash_out", "提现到银行卡", -30_000),
    ("payment", "酒店预订:待入住", -45_800),
    ("refund", "退款处理中", 8_800),
)
_PENDING_ROW: Final = objects({"kind": kind, "title": title, "amount_fen": fen} for kind, title, fen in _PENDING)
_PENDING_FEN: Final = np.array(
    [min(fen, 0) for _, _, fen in _PENDING]
)  # what is to come in has not reached the balance
_PACKET_FEN: Final = np.array(lexicon.PACKET_FEN)
_SENDERS: Final = tuple(lexicon.REMARKS) + tuple(lexicon.NICKNAMES)
_PACKET: Final = objects({"sender": sender, "amount_fen": fen} for sender in _SENDERS for fen in lexicon.PACKET_FEN)
_PACKET_ENTRY: Final = objects(
    {"kind": "red_packet", "title": "微信红包", "amount_fen": fen} for fen in lexicon.PACKET_FEN
)
_CARD: Final = objects(
    ({"bank": bank, "kind": kind} for bank, _, _ in lexicon.BANKS for kind in ("credit", "debit")), after=b',"number":"'
)
_CARD_TAIL: Final = b'","unbound_at":null}'
_BINS: Final = np.array([[int(debit), int(credit)] for _, debit, credit in lexicon.BANKS])
_CONTRACT: Final = objects(
    {"merchant": merchant, "service": service, "amount_fen": fen} for merchant, service, fen in lexicon.CONTRACTS
)
_DEBTS: Final = b',"credit_products":%b,"arrears":%b,"freezes":%b}'
_BALANCES: Final = WeightedChoice((30, 25, 20, 15, 7, 3))
_BALANCE_SPANS: Final = np.array([100, 1_000, 10_000, 60_000, 500_000, 3_000_000])
_ACTIVE_CONTRACTS: Final = WeightedChoice((45, 30, 15, 8, 2))
_ENDED_CONTRACTS: Final = WeightedChoice((50, 30, 15, 5))
_OPENING_ROW: Final = '"kind":"opening","title":"期初余额","amount_fen":%d'.encode()
_SURPLUS_ROW: Final = '"kind":"cash_out","title":"提现到银行卡","amount_fen":%d'.encode()
_ENTRY_TAIL: Final = b'","expected_at":null,"counterparty_id":null}'


class _Packets:
    """The red packets of a chunk: the claimed ones first, each with its entry in the ledger."""

    def __init__(self, chunk: Chunk, dice: Dice) -> None:
        self.claimed = np.where(chunk.accounts <= RESERVED, 1, dice.below(3))
        self.rows = chunk.rows(_PACKETS, self.claimed + chunk.meets["PAY-RED-PACKET"])
        self.fen = self.rows.dice.below(len(_PACKET_FEN))
        self.entry = uuids(self.rows.dice.word(), self.rows.dice.word())
        self.is_claimed = self.rows.ordinal < self.claimed[self.rows.person]
        sent = chunk.now - self.rows.dice.below(3600)
        self.at = np.where(self.is_claimed, self.rows.past(300 * DAY), sent)


def write_wallet(canvas: Canvas, chunk: Chunk) -> None:
    """Write the section `wallet`."""
    dice = chunk.dice(_PEOPLE)
    spans = _BALANCE_SPANS[dice.choose(_BALANCES)]
    balance = np.where(chunk.meets["PAY-BALANCE"], 1 + ((dice.lane() * spans) >> 16), 0)
    for at, person in chunk.reserved:
        balance[at] = person.balance_fen
    packets = _Packets(chunk, dice)
    password = PAYMENT_PASSWORD.encode()
    canvas.write(b',"wallet":{"balance_fen":', _numbers(balance))
    canvas.write(b',"payment_password":"' + password + b'","receive_limit_fen":5000000,"entries":')
    _entries(canvas, chunk, dice, balance, packets)
    _packets(canvas, packets)
    _cards(canvas, chunk, dice)
    _contracts(canvas, chunk, dice)
    _debts(canvas, chunk, dice)


def _numbers(values: Ints) -> Loose:
    return Loose(b"%d" % value for value in values.tolist())


def _sums(rows: Rows, values: Ints) -> Ints:
    """Add up the rows' values for each person. Exact: far below 2**53."""
    return np.bincount(rows.person, values, minlength=len(rows.counts)).astype(np.int64)


def _entries(canvas: Canvas, chunk: Chunk, dice: Dice, balance: Ints, packets: _Packets) -> None:
    """Write the ledger. What makes it add up comes first: an opening balance, or a cash-out of what is too much."""
    rows = chunk.rows(_ENTRIES, 5 + dice.below(7))
    pending = chunk.rows(_PENDINGS, chunk.meets["PAY-PENDING"].astype(np.int64))
    move, wait = rows.dice.below(len(_MOVE_FEN)), pending.dice.below(len(_PENDING_FEN))
    received = np.bincount(
        packets.rows.person, _PACKET_FEN[packets.fen] * packets.is_claimed, minlength=chunk.count
    ).astype(np.int64)
    opening = balance - received - _sums(rows, _MOVE_FEN[move]) - _sums(pending, _PENDING_FEN[wait])
    _entry_rows(canvas, chunk.rows(_OPENING, np.ones_like(balance)), chunk.created, _opening(opening), b"[")
    surplus = chunk.rows(_SURPLUS, (opening < 0).astype(np.int64))
    _entry_rows(
        canvas, surplus, surplus.past(30 * DAY), Loose(_SURPLUS_ROW % fen for fen in opening[opening < 0].tolist())
    )
    _completed(
        canvas,
        packets.claimed,
        packets.entry[packets.is_claimed],
        packets.at[packets.is_claimed],
        _PACKET_ENTRY[packets.fen[packets.is_claimed]],
    )
    _entry_rows(canvas, rows, rows.past(400 * DAY), _MOVE[move])
    waiting = uuids(pending.dice.word(), pending.dice.word()), b'","made_at":"', stamp(pending.past(2 * DAY)), b'",'
    ends = stamp(chunk.now + DAY + pending.dice.below(5) * DAY)
    state = b',"state":"pending","ended_at":null,"expected_at":"', ends, b'","counterparty_id":null}'
    canvas.rows(pending.counts, (b',{"entry_id":"', *waiting, _PENDING_ROW[wait], *state))
    canvas.write(b"]")


def _opening(fen: Ints) -> Loose:
    return Loose(_OPENING_ROW % max(one, 0) for one in fen.tolist())


def _entry_rows(canvas: Canvas, rows: Rows, at: Ints, fields: Part, lead: bytes = b",") -> None:
    _completed(canvas, rows.counts, uuids(rows.dice.word(), rows.dice.word()), at, fields, lead)


def _completed(canvas: Canvas, counts: Ints, entry: Fixed, at: Ints, fields: Part, lead: bytes = b",") -> None:
    when = stamp(at)
    head = lead + b'{"entry_id":"', entry, b'","made_at":"', when, b'",'
    canvas.rows(counts, (*head, fields, b',"state":"completed","ended_at":"', when, _ENTRY_TAIL))


def _packets(canvas: Canvas, packets: _Packets) -> None:
    """Write the red packets."""
    rows = packets.rows
    sent = packets.at - 600
    claimed = b',"state":"claimed","sent_at":"', stamp(sent), b'","expires_at":"', stamp(sent + DAY), b'","entry_id":"'
    waiting = b',"state":"unclaimed","sent_at":"', stamp(sent), b'","expires_at":"', stamp(sent + DAY)
    canvas.list(
        b',"red_packets":',
        rows,
        b'"packet_id":',
        digits(rows.ordinal + 1, 1),
        b",",
        _PACKET[rows.dice.below(len(_SENDERS)) * len(_PACKET_FEN) + packets.fen],
        Either(
            packets.is_claimed,
            (*claimed, packets.entry, b'","ended_at":"', stamp(packets.at), b'"}'),
            (*waiting, b'","entry_id":null,"ended_at":null}'),
        ),
    )


def _cards(canvas: Canvas, chunk: Chunk, dice: Dice) -> None:
    """Write the bank cards: debit cards of 19 digits, credit cards of 16."""
    rows = chunk.rows(_CARDS, 1 + (dice.lane() >> 14) // 2)
    is_debit = rows.dice.chance(7500)
    bank = rows.dice.below(len(lexicon.BANKS))
    account = rows.dice.below_wide(10**9) * 1000 + rows.dice.below(1000)
    debit, credit = _BINS[bank, 0] * 10**12 + account, _BINS[bank, 1] * 10**9 + account // 1000
    bound = rows.past(1500 * DAY)
    canvas.list(
        b',"bank_cards":',
        rows,
        b'"card_id":',
        digits(rows.ordinal + 1, 1),
        b',"bound_at":"',
        stamp(bound),
        b'",',
        _CARD[bank * 2 + is_debit],
        Either(is_debit, (_luhn(digits(debit, 18)), _CARD_TAIL), (_luhn(digits(credit, 15)), _CARD_TAIL)),
    )


def _luhn(body: Fixed) -> Fixed:
    """Append the check digit to card numbers without it."""
    doubled = (codes(body).astype(np.int64) - ord("0"))[:, ::-1]
    doubled[:, ::2] *= 2
    check = -(doubled // 10 + doubled % 10).sum(axis=1) % 10
    return beside((body, digits(check, 1)))


def _contracts(canvas: Canvas, chunk: Chunk, dice: Dice) -> None:
    """Write the auto-debit contracts: the active ones first, then those that the person has ended."""
    active = np.where(chunk.meets["PAY-AUTODEBIT"], 1 + dice.choose(_ACTIVE_CONTRACTS), 0)
    rows = chunk.rows(_CONTRACTS, active + dice.choose(_ENDED_CONTRACTS))
    is_active = rows.ordinal < active[rows.person]
    which = (rows.dice.below(4) + 4 * rows.ordinal + active[rows.person] * 7) % len(_CONTRACT)
    signed = rows.past(700 * DAY)
    charge = chunk.now + DAY + rows.dice.below(30) * DAY + rows.dice.below(DAY // 2)
    ended = signed + ((chunk.now - signed) * rows.dice.lane() >> 16)
    canvas.list(
        b',"autodebit_contracts":',
        rows,
        b'"contract_id":',
        digits(rows.ordinal + 1, 1),
        b',"signed_at":"',
        stamp(signed),
        b'",',
        _CONTRACT[which],
        Either(
            is_active,
            (b',"next_charge_at":"', stamp(charge), b'","ended_at":null}'),
            (b',"next_charge_at":null,"ended_at":"', stamp(ended), b'"}'),
        ),
    )


def _debts(canvas: Canvas, chunk: Chunk, dice: Dice) -> None:
    """Write credit products, arrears and freezes: rare, so made one by one."""
    fen, which, ago = dice.below_wide(2_000_000), dice.below(60), dice.below(390)
    debts = dict[int, bytes]()
    credit, arrears, frozen = (chunk.meets[code] for code in ("CREDIT-OPEN", "PAY-ARREARS", "PAY-FROZEN"))
    for at in np.flatnonzero(credit | arrears | frozen).tolist():
        number, owed, since = int(which[at]), int(fen[at]), chunk.ago(at, int(ago[at]) * DAY)
        product = lexicon.CREDIT_PRODUCTS[number % len(lexicon.CREDIT_PRODUCTS)]
        authority, contact = lexicon.FREEZES[number % len(lexicon.FREEZES)]
        late = CreditProductRecord(1, product, owed if number % 3 else 0, since)  # a third is open and owes nothing
        debt = ArrearsRecord(1, lexicon.ARREARS[number % len(lexicon.ARREARS)], 100 + owed % 30_000, since)
        freeze = FreezeRecord(1, authority, contact, 1000 + owed, since)
        debts[at] = _DEBTS % (
            json_of([late] if credit[at] else []),
            json_of([debt] if arrears[at] else []),
            json_of([freeze] if frozen[at] else []),
        )
    canvas.write(b"", rarely(chunk.count, _DEBTS % (b"[]", b"[]", b"[]"), debts))
