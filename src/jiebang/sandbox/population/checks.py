"""Checks that neither types nor tables make: documents, cards, codes, references between rows, sums of money.

Keys and the rules of single rows are in table_checks.py.
"""

from __future__ import annotations

import re
from datetime import datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from jiebang.model.check import Text
from jiebang.model.errors import InvalidInputError
from jiebang.policy.cards import is_card_number
from jiebang.policy.companies import read_credit_code
from jiebang.policy.documents import latest_birth, may_be_born, read_document

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from jiebang.policy.documents import IdentityDocument
    from jiebang.sandbox.population import format as f

_SHANGHAI: Final = ZoneInfo("Asia/Shanghai")
_REGION: Final = re.compile(r"[0-9]{6}|[A-Z]{3}")
_PHONE: Final = re.compile(r"\+?[0-9]{8,15}")
_MAIL: Final = re.compile(r"[^@\s]+@[^@\s]+")
_BINDING: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_SCOPE: Final = re.compile(r"[!#-\[\]-~]+")  # RFC 6749, section 3.3
_ADDRESSES: Final = {"sms": _PHONE, "email": _MAIL}
_Problems = list[tuple[str, Text]]

_ABSENT: Final = Text("所指的行不存在", "names a row that is not there")
_FUTURE: Final = Text("时间在将来", "lies in the future")

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


def today_of(now: datetime) -> date:
    """Return the Shanghai calendar day of a time."""
    return now.astimezone(_SHANGHAI).date()


def check(person: f.Person, now: datetime, today: date) -> Sequence[tuple[str, Text]]:
    """Return everything wrong with a person: field paths and reasons; nothing, for a good one."""
    problems: _Problems = []
    if person.identity is not None:
        _identity(person.identity, now, today, problems)
    _references(person, problems)
    _wallet(person.wallet, problems)
    _security(person.security, problems)
    _openplatform(person.openplatform, problems)
    _rest(person, problems)
    return problems


def _references(person: f.Person, problems: _Problems) -> None:
    for path, field, rows_of, key_of, targets_of, target_of in _REFERENCES:
        rows = rows_of(person)
        if rows and not (there := set(map(target_of, targets_of(person)))).issuperset(map(key_of, rows)):
            for at, key in enumerate(map(key_of, rows)):
                if key not in there:
                    problems.append((f"{path}[{at}].{field}", _ABSENT))
    groups: set[int | None] = {None, *(group.group_id for group in person.social.chat_groups)}
    if not groups.issuperset([message.group_id for message in person.social.messages]):
        for at, message in enumerate(person.social.messages):
            if message.group_id not in groups:
                problems.append((f"social.messages[{at}].group_id", _ABSENT))


def _add(problems: _Problems, path: str, zh: str, en: str) -> None:
    problems.append((path, Text(zh, en)))


def _document(
    path: str, kind: str, number: str, today: date, born: date | None, problems: _Problems
) -> IdentityDocument | None:
    try:
        return read_document(kind, number, today, born)
    except InvalidInputError as error:
        problems.append((f"{path}document_number", error.fields["reason"]))
        return None


def _identity(identity: f.IdentityRecord, now: datetime, today: date, problems: _Problems) -> None:
    born = identity.birth_date
    document = _document("identity.", identity.document_type, identity.document_number, today, born, problems)
    if born is None:
        if document is not None and latest_birth(document.born_in or "", today) is None:
            _add(
                problems,
                "identity.birth_date",
                "须给出:仅当证件载有出生年份而日期不全时可为 null",
                "is needed: null only where the document gives the year, and not the whole birth date",
            )
    elif document is not None and not may_be_born(document, born):
        _add(problems, "identity.birth_date", "与证件上的出生日期不符", "is not the birth date on the document")
    if born is not None and born > today:
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
            _document(path, change.document_type, change.document_number, today, born, problems)


def _wallet(wallet: f.WalletRecord, problems: _Problems) -> None:
    password = wallet.payment_password
    if password is not None and not (password.isascii() and password.isdigit()):
        _add(problems, "wallet.payment_password", "应为六位数字", "must be six digits")
    moved = [
        entry.amount_fen
        for entry in wallet.entries
        if entry.state == "completed" or (entry.state == "pending" and entry.amount_fen < 0)
    ]
    if sum(moved) != wallet.balance_fen:
        _add(problems, "wallet.balance_fen", "与账目合计不符", "is not what the entries add up to")
    claims = [packet.entry_id for packet in wallet.red_packets if packet.entry_id is not None]
    if claims and not {entry.entry_id.int for entry in wallet.entries}.issuperset([claim.int for claim in claims]):
        there = {entry.entry_id for entry in wallet.entries}
        for at, packet in enumerate(wallet.red_packets):
            if packet.entry_id is not None and packet.entry_id not in there:
                problems.append((f"wallet.red_packets[{at}].entry_id", _ABSENT))
    for at, card in enumerate(wallet.bank_cards):
        if not is_card_number(card.number):
            _add(problems, f"wallet.bank_cards[{at}].number", "应为 12 至 19 位数字", "must be 12 to 19 digits")


def _security(security: f.SecurityRecord, problems: _Problems) -> None:
    primary = security.primary_device_id
    if primary is not None and primary not in [device.device_id for device in security.devices]:
        problems.append(("security.primary_device_id", _ABSENT))
    for at, factor in enumerate(security.second_factors):
        form = _ADDRESSES.get(factor.kind)
        if form is not None and not form.fullmatch(factor.address):
            _add(problems, f"security.second_factors[{at}].address", "与类型不符", "does not fit the kind")


def _openplatform(section: f.OpenPlatformRecord, problems: _Problems) -> None:
    for at, grant in enumerate(section.oauth_grants):
        if not all(map(_SCOPE.fullmatch, grant.scopes)):
            path = f"openplatform.oauth_grants[{at}].scopes"
            _add(problems, path, "含有不允许的字符", "has a character that no scope may have")
    if section.reviews:
        subjects = {app.app_id for app in section.apps} | {program.program_id for program in section.mini_programs}
        for at, review in enumerate(section.reviews):
            if review.subject_id not in subjects:
                problems.append((f"openplatform.reviews[{at}].subject_id", _ABSENT))


def _rest(person: f.Person, problems: _Problems) -> None:
    email = person.social.email
    if email is not None and not _MAIL.fullmatch(email):
        _add(problems, "social.email", "不是邮箱地址", "is not an e-mail address")
    for at, membership in enumerate(person.enterprise.memberships):
        try:
            read_credit_code(membership.credit_code)
        except InvalidInputError as error:
            problems.append((f"enterprise.memberships[{at}].credit_code", error.fields["reason"]))
    for at, binding in enumerate(person.bindings):
        if not _BINDING.fullmatch(binding.binding):
            what = "含有不允许的字符", "has a character other than A-Z a-z 0-9 _ . -"
            _add(problems, f"bindings[{at}].binding", *what)
