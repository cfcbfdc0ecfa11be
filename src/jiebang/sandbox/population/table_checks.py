"""What the tables themselves refuse: duplicate keys, and rows that violate their CHECK constraints.

The databases apply these rules while they copy. Lines are checked here only after one of them has refused some, or
when nothing is copied any more, to name line and field.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Final

from jiebang.model.check import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jiebang.sandbox.population import format as f

_TWICE: Final = Text("编号在本列表中重复", "stands twice in its list")
_ENDED: Final = Text("状态与结束时间不符", "does not fit the state: an ended row has its time, an open one has none")
_ORDER: Final = Text("结束早于开始", "ends before it starts")
_SIGN: Final = Text("金额与类型不符", "does not fit the kind of the entry")
_OTHER: Final = Text("转账须有对方账户,其他类型不得有", "a transfer names another account, nothing else does")
_CLAIM: Final = Text("已领取的红包须有入账编号,其他不得有", "a claimed packet names its entry, no other does")
_CLOSED: Final = Text("已结清的产品不应有欠款", "a closed product owes nothing")
_BOTH: Final = Text("须与主设备同时给出", "goes with primary_device_id: both or neither")
_CALM: Final = Text("只有异常登录才需确认", "only an anomaly is confirmed")
_SELF: Final = Text("不能是本人", "is the person's own account")
_CHAT: Final = Text("须属于一个会话", "belongs to one chat: a peer or a group")
_KIND: Final = Text("与消息类型不符", "does not fit the kind of message")
_DIGITS: Final = Text("应为 8 至 10 位数字", "must be 8 to 10 digits")

_SIGNS: Final[Mapping[str, Callable[[int], bool]]] = {
    "opening": (0).__le__,
    "transfer": (0).__ne__,
    "payment": (0).__gt__,
    "cash_out": (0).__gt__,
    "refund": (0).__lt__,
    "red_packet": (0).__lt__,
    "cash_in": (0).__lt__,
}
"""Whether an amount has the sign of its kind of entry, as wallet.entry says."""
_MEDIA: Final = frozenset(("sticker", "image", "voice", "video", "file"))
_Problems = list[tuple[str, Text]]

_KEYS: Final = tuple(
    (path, attrgetter(path), attrgetter(*field.split(",")), field.partition(".")[0].rpartition(",")[2])
    for path, field in (
        ("identity.changes", "change_id"),
        ("wallet.entries", "entry_id.int"),  # hashing the UUID itself takes five times as long
        ("wallet.red_packets", "packet_id"),
        ("wallet.bank_cards", "card_id"),
        ("wallet.autodebit_contracts", "contract_id"),
        ("wallet.credit_products", "product_id"),
        ("wallet.arrears", "arrears_id"),
        ("wallet.freezes", "freeze_id"),
        ("security.devices", "device_id"),
        ("security.logins", "login_id"),
        ("security.second_factors", "factor_id"),
        ("security.holds", "hold_id"),
        ("social.contacts", "contact_id"),
        ("social.chat_groups", "group_id"),
        ("social.group_members", "group_id,member_id"),
        ("social.messages", "message_id"),
        ("social.moments", "moment_id"),
        ("social.friend_requests", "request_id"),
        ("openplatform.apps", "app_id"),
        ("openplatform.oauth_grants", "grant_id"),
        ("openplatform.oauth_tokens", "token_id"),
        ("openplatform.mini_programs", "program_id"),
        ("openplatform.official_accounts", "official_id"),
        ("openplatform.reviews", "review_id"),
        ("openplatform.quotas", "app_id,api"),
        ("enterprise.memberships", "enterprise_id"),
        ("enterprise.approvals", "approval_id"),
        ("enterprise.api_credentials", "credential_id"),
        ("merchant.merchant_numbers", "merchant_no"),
        ("merchant.retained_records", "record_id"),
        ("gaming.access", "game_id"),
        ("gaming.play_sessions", "session_id"),
    )
)
"""Lists, and the fields that no two rows of one may share."""

_STATES: Final = tuple(
    (path, field, state, attrgetter(path), attrgetter("state", field))
    for path, field, state in (
        ("wallet.entries", "ended_at", "pending"),
        ("wallet.red_packets", "ended_at", "unclaimed"),
        ("social.friend_requests", "ended_at", "waiting"),
        ("openplatform.reviews", "decided_at", "waiting"),
        ("enterprise.approvals", "ended_at", "in_flight"),
    )
)
"""Times that a row has exactly when its state is not the one named."""


def find_table_faults(person: f.Person) -> Sequence[tuple[str, Text]]:
    """Return what the tables refuse of a person: field paths and reasons."""
    problems: _Problems = []
    _lists(person, problems)
    _wallet(person.wallet, person.account_id, problems)
    _others(person, problems)
    return problems


def _lists(person: f.Person, problems: _Problems) -> None:
    for path, rows_of, key_of, field in _KEYS if person.identity is not None else _KEYS[1:]:
        keys = list(map(key_of, rows_of(person)))
        problems.extend((f"{path}[{at}].{field}", _TWICE) for at, key in enumerate(keys) if key in keys[:at])
    for path, field, state, rows_of, pair_of in _STATES:
        for at, (current, ended) in enumerate(map(pair_of, rows_of(person))):
            if (current == state) != (ended is None):
                problems.append((f"{path}[{at}].{field}", _ENDED))


def _wallet(wallet: f.WalletRecord, account: int, problems: _Problems) -> None:
    for at, entry in enumerate(wallet.entries):
        if not _SIGNS[entry.kind](entry.amount_fen) or (entry.kind == "opening" and entry.state != "completed"):
            problems.append((f"wallet.entries[{at}].amount_fen", _SIGN))
        if (entry.kind == "transfer") != (entry.counterparty_id is not None) or entry.counterparty_id == account:
            problems.append((f"wallet.entries[{at}].counterparty_id", _OTHER))
    for at, packet in enumerate(wallet.red_packets):
        if (packet.state == "claimed") != (packet.entry_id is not None):
            problems.append((f"wallet.red_packets[{at}].entry_id", _CLAIM))
        if packet.expires_at <= packet.sent_at:
            problems.append((f"wallet.red_packets[{at}].expires_at", _ORDER))
    for at, product in enumerate(wallet.credit_products):
        if product.closed_at is not None and product.owed_fen:
            problems.append((f"wallet.credit_products[{at}].owed_fen", _CLOSED))


def _others(person: f.Person, problems: _Problems) -> None:
    security = person.security
    if (security.primary_device_id is None) != (security.primary_device_since is None):
        problems.append(("security.primary_device_since", _BOTH))
    faults = (
        ("security.logins", "confirmed_at", _CALM, lambda one: one.confirmed_at is not None and one.anomaly is None),
        ("social.contacts", "contact_id", _SELF, lambda one: one.contact_id == person.account_id),
        ("social.messages", "group_id", _CHAT, lambda one: (one.peer_id is None) == (one.group_id is None)),
        ("social.messages", "media", _KIND, lambda one: (one.media is None) == (one.kind in _MEDIA)),
        ("social.messages", "recalled_at", _ORDER, lambda one: one.recalled_at and one.recalled_at < one.sent_at),
        ("openplatform.oauth_tokens", "expires_at", _ORDER, lambda one: one.expires_at <= one.issued_at),
        ("merchant.merchant_numbers", "merchant_no", _DIGITS, lambda one: not _is_digits(one.merchant_no)),
        ("gaming.play_sessions", "ended_at", _ORDER, lambda one: one.ended_at and one.ended_at < one.started_at),
    )
    for path, field, reason, is_wrong in faults:
        rows = attrgetter(path)(person)
        problems.extend((f"{path}[{at}].{field}", reason) for at, row in enumerate(rows) if is_wrong(row))


def _is_digits(text: str) -> bool:
    return text.isascii() and text.isdigit()
