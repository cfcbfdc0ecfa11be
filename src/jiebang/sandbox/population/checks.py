"""What a type cannot say of a person: that documents are well-formed, lists agree with each other, and money adds up.

Every CHECK, key and rule of the tables has its counterpart here, so that a bad line is told by its number and field before
any database sees it.
"""

from __future__ import annotations

import re
from datetime import datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from jiebang.model.check import Text
from jiebang.model.errors import InvalidInputError
from jiebang.policy.documents import DocumentType, is_card_number, read_credit_code, read_document

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import date

    from jiebang.sandbox.population import format as f

_SHANGHAI: Final = ZoneInfo("Asia/Shanghai")

_REGION: Final = re.compile(r"[0-9]{6}|[A-Z]{3}")
_PHONE: Final = re.compile(r"\+?[0-9]{8,15}")
_MAIL: Final = re.compile(r"[^@\s]+@[^@\s]+")
_MERCHANT: Final = re.compile(r"[0-9]{8,10}")
_BINDING: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_SCOPE: Final = re.compile(r"[!#-\[\]-~]+")  # RFC 6749, section 3.3
_ADDRESSES: Final = {"sms": _PHONE, "email": _MAIL}
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

_TWICE: Final = Text("编号在本列表中重复", "stands twice in its list")
_ABSENT: Final = Text("所指的行不存在", "names a row that is not there")
_FUTURE: Final = Text("时间在将来", "lies in the future")
_ENDED: Final = Text("状态与结束时间不符", "does not fit the state: an ended row has its time, an open one has none")
_ORDER: Final = Text("结束早于开始", "ends before it starts")


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
        ("bindings", "network,binding"),
    )
)
"""Lists, and the fields that no two rows of one may share."""

_REFERENCES: Final = tuple(
    (path, field, attrgetter(path), attrgetter(field), attrgetter(target), attrgetter(key))
    for path, field, target, key in (
        ("social.group_members", "group_id", "social.chat_groups", "group_id"),
        ("openplatform.oauth_tokens", "grant_id", "openplatform.oauth_grants", "grant_id"),
        ("openplatform.quotas", "app_id", "openplatform.apps", "app_id"),
        ("enterprise.approvals", "enterprise_id", "enterprise.memberships", "enterprise_id"),
        ("enterprise.api_credentials", "enterprise_id", "enterprise.memberships", "enterprise_id"),
        ("merchant.retained_records", "merchant_no", "merchant.merchant_numbers", "merchant_no"),
        ("gaming.play_sessions", "game_id", "gaming.access", "game_id"),
    )
)
"""Fields that name a row of another list of the same person."""

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


def today_of(now: datetime) -> date:
    """Return the Shanghai calendar day of a time."""
    return now.astimezone(_SHANGHAI).date()


def check(person: f.Person, now: datetime, today: date) -> Sequence[tuple[str, Text]]:
    """Return everything wrong with a person: field paths and reasons; nothing, for a good one."""
    problems: _Problems = []
    if person.identity is not None:
        _identity(person.identity, now, today, problems)
    _lists(person, problems)
    _wallet(person.wallet, person.account_id, problems)
    _security(person.security, problems)
    _social(person.social, person.account_id, problems)
    _openplatform(person.openplatform, problems)
    _rest(person, problems)
    return problems


def _lists(person: f.Person, problems: _Problems) -> None:
    """Check what the tables above say."""
    for path, rows_of, key_of, field in _KEYS if person.identity is not None else _KEYS[1:]:
        rows = rows_of(person)
        if len(rows) > 1 and len(set(map(key_of, rows))) != len(rows):
            keys = list(map(key_of, rows))
            problems.extend((f"{path}[{at}].{field}", _TWICE) for at, key in enumerate(keys) if key in keys[:at])
    for path, field, rows_of, key_of, targets_of, target_of in _REFERENCES:
        rows = rows_of(person)
        if rows and not (there := set(map(target_of, targets_of(person)))).issuperset(map(key_of, rows)):
            for at, key in enumerate(map(key_of, rows)):
                if key not in there:
                    problems.append((f"{path}[{at}].{field}", _ABSENT))
    for path, field, state, rows_of, pair_of in _STATES:
        for at, (current, ended) in enumerate(map(pair_of, rows_of(person))):
            if (current == state) != (ended is None):
                problems.append((f"{path}[{at}].{field}", _ENDED))


def _add(problems: _Problems, path: str, zh: str, en: str) -> None:
    problems.append((path, Text(zh, en)))


def _document(path: str, kind: str, number: str, today: date, problems: _Problems) -> date | None:
    try:
        return read_document(DocumentType(kind), number, today).birth_date
    except InvalidInputError as error:
        problems.append((f"{path}document_number", error.fields["reason"]))
        return None


def _identity(identity: f.Identity, now: datetime, today: date, problems: _Problems) -> None:
    born = _document("identity.", identity.document_type, identity.document_number, today, problems)
    if born is not None and born != identity.birth_date:
        _add(problems, "identity.birth_date", "与证件上的出生日期不符", "is not the birth date on the document")
    if identity.birth_date > today:
        problems.append(("identity.birth_date", _FUTURE))
    if not _REGION.fullmatch(identity.region):
        _add(
            problems,
            "identity.region",
            "应为六位行政区划代码或三位国家代码",
            "must be six digits or three capital letters",
        )
    if identity.changed_at > now:
        problems.append(("identity.changed_at", _FUTURE))
    for at, change in enumerate(identity.changes):
        if change.at > now:
            problems.append((f"identity.changes[{at}].at", _FUTURE))
        if change.document_number != identity.document_number or change.document_type != identity.document_type:
            path = f"identity.changes[{at}]."
            _document(path, change.document_type, change.document_number, today, problems)


def _wallet(wallet: f.Wallet, account: int, problems: _Problems) -> None:
    password = wallet.payment_password
    if password is not None and not (password.isascii() and password.isdigit()):
        _add(problems, "wallet.payment_password", "应为六位数字", "must be six digits")
    balance = 0
    for at, entry in enumerate(wallet.entries):
        amount, kind = entry.amount_fen, entry.kind
        if entry.state == "completed" or (amount < 0 and entry.state == "pending"):
            balance += amount
        if not _SIGNS[kind](amount) or (kind == "opening" and entry.state != "completed"):
            _add(problems, f"wallet.entries[{at}].amount_fen", "金额与类型不符", "does not fit the kind of the entry")
        other = entry.counterparty_id
        if (kind == "transfer") != (other is not None) or other == account:
            what = "转账须有对方账户,其他类型不得有", "a transfer names another account, nothing else does"
            _add(problems, f"wallet.entries[{at}].counterparty_id", *what)
    if balance != wallet.balance_fen:
        _add(problems, "wallet.balance_fen", "与账目合计不符", "is not what the entries add up to")
    for at, packet in enumerate(wallet.red_packets):
        path = f"wallet.red_packets[{at}]"
        claim = packet.entry_id
        if (packet.state == "claimed") != (claim is not None) or (
            claim is not None and claim not in [entry.entry_id for entry in wallet.entries]
        ):
            problems.append((f"{path}.entry_id", _ABSENT))
        if packet.expires_at <= packet.sent_at:
            problems.append((f"{path}.expires_at", _ORDER))
    for at, card in enumerate(wallet.bank_cards):
        if not is_card_number(card.number):
            _add(problems, f"wallet.bank_cards[{at}].number", "卡号校验不符", "is not a card number (Luhn)")
    for at, product in enumerate(wallet.credit_products):
        if product.closed_at is not None and product.owed_fen:
            path = f"wallet.credit_products[{at}].owed_fen"
            _add(problems, path, "已结清的产品不应有欠款", "a closed product owes nothing")


def _security(security: f.Security, problems: _Problems) -> None:
    primary = security.primary_device_id
    if (primary is None) != (security.primary_device_since is None):
        path = "security.primary_device_since"
        _add(problems, path, "须与主设备同时给出", "goes with primary_device_id: both or neither")
    if primary is not None and all(device.device_id != primary for device in security.devices):
        problems.append(("security.primary_device_id", _ABSENT))
    for at, login in enumerate(security.logins):
        if login.confirmed_at is not None and login.anomaly is None:
            path = f"security.logins[{at}].confirmed_at"
            _add(problems, path, "只有异常登录才需确认", "only an anomaly is confirmed")
    for at, factor in enumerate(security.second_factors):
        form = _ADDRESSES.get(factor.kind)
        if form is not None and not form.fullmatch(factor.address):
            _add(problems, f"security.second_factors[{at}].address", "与类型不符", "does not fit the kind")


def _social(social: f.Social, account: int, problems: _Problems) -> None:
    if social.email is not None and not _MAIL.fullmatch(social.email):
        _add(problems, "social.email", "不是邮箱地址", "is not an e-mail address")
    for at, contact in enumerate(social.contacts):
        if contact.contact_id == account:
            _add(problems, f"social.contacts[{at}].contact_id", "不能是本人", "is the person's own account")
    groups = {group.group_id for group in social.chat_groups}
    for at, message in enumerate(social.messages):
        group = message.group_id
        if (message.peer_id is None) == (group is None) or (group is not None and group not in groups):
            path = f"social.messages[{at}].group_id"
            _add(problems, path, "须属于一个会话", "belongs to one chat: a peer, or one of the groups")
        if (message.media is None) == (message.kind in _MEDIA):
            _add(problems, f"social.messages[{at}].media", "与消息类型不符", "does not fit the kind of message")
        if message.recalled_at is not None and message.recalled_at < message.sent_at:
            problems.append((f"social.messages[{at}].recalled_at", _ORDER))


def _openplatform(section: f.OpenPlatform, problems: _Problems) -> None:
    for at, grant in enumerate(section.oauth_grants):
        if not all(map(_SCOPE.fullmatch, grant.scopes)):
            path = f"openplatform.oauth_grants[{at}].scopes"
            _add(problems, path, "含有不允许的字符", "has a character that no scope may have")
    for at, token in enumerate(section.oauth_tokens):
        if token.expires_at <= token.issued_at:
            problems.append((f"openplatform.oauth_tokens[{at}].expires_at", _ORDER))
    if section.reviews:
        subjects = {app.app_id for app in section.apps} | {program.program_id for program in section.mini_programs}
        for at, review in enumerate(section.reviews):
            if review.subject_id not in subjects:
                problems.append((f"openplatform.reviews[{at}].subject_id", _ABSENT))


def _rest(person: f.Person, problems: _Problems) -> None:
    for at, membership in enumerate(person.enterprise.memberships):
        try:
            read_credit_code(membership.credit_code)
        except InvalidInputError as error:
            problems.append((f"enterprise.memberships[{at}].credit_code", error.fields["reason"]))
    for at, number in enumerate(person.merchant.merchant_numbers):
        if not _MERCHANT.fullmatch(number.merchant_no):
            path = f"merchant.merchant_numbers[{at}].merchant_no"
            _add(problems, path, "应为 8 至 10 位数字", "must be 8 to 10 digits")
    for at, session in enumerate(person.gaming.play_sessions):
        if session.ended_at is not None and session.ended_at < session.started_at:
            problems.append((f"gaming.play_sessions[{at}].ended_at", _ORDER))
    for at, binding in enumerate(person.bindings):
        if not _BINDING.fullmatch(binding.binding):
            what = "含有不允许的字符", "has a character other than A-Z a-z 0-9 _ . -"
            _add(problems, f"bindings[{at}].binding", *what)
