"""Turns people into the input of COPY: for each table of each database, its columns and rows as text.

Rows are encoded as JSON arrays a line and copied as CSV with a backslash as escape: the same text but for control
characters, which CSV wants raw, and the brackets around a line. Those become blanks, which a number or a time may have
around it: so every row begins with its account_id and ends with another number or time. A row is thus written by the
same encoder that reads it, without a Python object a value.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple, get_type_hints

import msgspec
import numpy as np

from jiebang.model.facts import PLATFORM
from jiebang.participants import PARTICIPANTS
from jiebang.policy.cards import doubt_card_number
from jiebang.policy.coarse import coarsen_birth_date, find_country
from jiebang.policy.companies import doubt_credit_code, read_credit_code
from jiebang.policy.documents import document_key, doubt_document, latest_birth, read_document
from jiebang.sandbox.population import format as f
from jiebang.sandbox.population.checks import today_of
from jiebang.store import encryption
from jiebang.store.retention.key_wrapping import KeyLocks, OwnedKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import date

QUOTE: Final = '"'
ESCAPE: Final = "\\"
NULL: Final = "null"
"""The options of COPY for these rows, beside the format csv."""

EPOCH: Final = 1
"""The epoch of a newly loaded account, which its children carry by default."""


class Table(NamedTuple):
    """Where rows go, and in which columns. `databases`: names among the DSNs, one for each copy."""

    databases: tuple[str, ...]
    schema: str
    name: str
    columns: tuple[str, ...]


class LoadKeys(msgspec.Struct, frozen=True):
    """What loading seals with: both locks on data keys, and two keys of 32 bytes (store/encryption.py)."""

    locks: KeyLocks
    documents: bytes
    passwords: bytes

    def __repr__(self) -> str:
        """Hide the keys."""
        return "Sealing(…)"


Rows = list[tuple[Any, ...]]
_CONTROLLED: Final = re.compile(rb"\\[nrtbfu]")
_ESCAPED: Final = re.compile(rb'\\(?:["\\]|([nrtbf])|u00([0-9a-f]{2}))')  # NUL is refused before
_CONTROLS: Final = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"f": b"\f"}
_ENCODER: Final = msgspec.json.Encoder()


def encode_rows(rows: Rows) -> bytes:
    """Return rows as lines of JSON arrays, of which `csv_of` makes CSV."""
    return _ENCODER.encode_lines(rows)


def csv_of(lines: Sequence[bytes]) -> bytearray | bytes:
    """Return encoded rows, joined, as CSV. Raw newlines stand in JSON text only between its lines."""
    text = bytearray().join(lines)
    characters = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero(characters == ord("\n"))
    characters[0] = characters[ends - 1] = characters[ends[:-1] + 1] = ord(" ")
    if _CONTROLLED.search(text):
        return _ESCAPED.sub(_unescape_control, text)
    return text


def _unescape_control(found: re.Match[bytes]) -> bytes:
    if found[1]:
        return _CONTROLS[found[1]]
    return bytes((int(found[2], 16),)) if found[2] else found[0]


def _columns(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    """Return a list's columns, a number or time that is always there moved to the end."""
    last = next(field for field, of in get_type_hints(kind).items() if of in (int, datetime))
    return (*(field for field in kind.__struct_fields__ if field != last), last)


def _reader(section: str, rows: str, columns: Iterable[str]) -> Callable[[Sequence[f.Person]], Rows]:
    """Return a function that lists a table's rows: one expression over all of them, half the cost of a generic walk."""
    values = ", ".join(f"row.{column}" for column in columns)
    code = f"lambda people: [(one.account_id, {values}) for one in people for row in one.{section}.{rows}]"
    reader: Callable[[Sequence[f.Person]], Rows] = eval(code)  # noqa: S307 - made of the format's own names alone
    return reader


_DIRECT: Final = tuple(
    (
        Table(PARTICIPANTS.copies(section), section, name, ("account_id", *_columns(kind))),
        _reader(section, rows, _columns(kind)),
    )
    for section, name, rows, kind in (
        ("wallet", "entry", "entries", f.EntryRecord),
        ("wallet", "red_packet", "red_packets", f.RedPacketRecord),
        ("wallet", "autodebit_contract", "autodebit_contracts", f.ContractRecord),
        ("wallet", "credit_product", "credit_products", f.CreditProductRecord),
        ("wallet", "arrears", "arrears", f.ArrearsRecord),
        ("wallet", "freeze", "freezes", f.FreezeRecord),
        ("security", "device", "devices", f.DeviceRecord),
        ("security", "login", "logins", f.LoginRecord),
        ("security", "hold", "holds", f.HoldRecord),
        ("social", "contact", "contacts", f.ContactRecord),
        ("social", "chat_group", "chat_groups", f.GroupRecord),
        ("social", "group_member", "group_members", f.MemberRecord),
        ("social", "message", "messages", f.MessageRecord),
        ("social", "moment", "moments", f.MomentRecord),
        ("social", "friend_request", "friend_requests", f.FriendRequestRecord),
        ("openplatform", "app", "apps", f.AppRecord),
        ("openplatform", "oauth_token", "oauth_tokens", f.TokenRecord),
        ("openplatform", "mini_program", "mini_programs", f.MiniProgramRecord),
        ("openplatform", "official_account", "official_accounts", f.OfficialAccountRecord),
        ("openplatform", "review", "reviews", f.ReviewRecord),
        ("openplatform", "quota", "quotas", f.QuotaRecord),
        ("enterprise", "approval", "approvals", f.ApprovalRecord),
        ("enterprise", "api_credential", "api_credentials", f.ApiCredentialRecord),
        ("merchant", "merchant_number", "merchant_numbers", f.MerchantNumberRecord),
        ("merchant", "retained_record", "retained_records", f.RetainedRecord),
        ("gaming", "access", "access", f.AccessRecord),
        ("gaming", "play_session", "play_sessions", f.PlaySessionRecord),
    )
)
"""Lists whose rows are the tables' rows as they stand."""


def _table(schema: str, name: str, *columns: str) -> Table:
    return Table(PARTICIPANTS.copies(schema), schema, name, ("account_id", *columns))


_SEALED: Final = ("document_type", "sealed", "document_index", "birth_date", "region", "document_doubt", "changed_at")
_IDENTITY: Final = _table("identity", "account", "state", *_SEALED, "level")
_CHANGE: Final = _table("identity", "change", "change_id", "kind", "document_type", "document_index", "at")
_DATA_KEY: Final = _table("keys", "data_key", "wrapped", "wrapped_by", "retained", "retained_by", "made_at")
_WALLET: Final = _table(
    "wallet", "account", "receive_limit_fen", "password_salt", "password_hash", "balance_fen", "open_entries"
)
_CARD: Final = _table("wallet", "bank_card", "card_id", "bank", "kind", "tail", "doubt", "unbound_at", "bound_at")
_SECURITY: Final = _table(
    "security", "account", "primary_device_id", "primary_device_since", "login_needs_sms", "level"
)
_FACTOR: Final = _table("security", "second_factor", "factor_id", "kind", "label", "revoked_at", "enrolled_at")
_SOCIAL: Final = _table("social", "account", "nickname", "email", "epoch")
_DEVELOPER: Final = _table("openplatform", "account", "api_quota_level", "epoch")
_GRANT: Final = _table(
    "openplatform", "oauth_grant", "grant_id", "app_id", "app_name", "scopes", "revoked_at", "granted_at"
)
_MEMBER_OF: Final = ("name", "credit_code", "credit_code_doubt", "role", "legal_person", "joined_at", "left_at")
_MEMBERSHIP: Final = _table("enterprise", "membership", *_MEMBER_OF, "enterprise_id")
_ENTERPRISE: Final = _table("enterprise", "account", "api_rights", "epoch")
_MERCHANT: Final = _table("merchant", "account")
_GAMING: Final = _table("gaming", "account", "game_guard", "epoch")
ACCOUNT: Final = _table(PLATFORM, "account", "created_at")
"""The platform's own row, which is written first and by itself: it tells which accounts are there already."""

_DOUBTS: Final = (
    ("identity.document_number", _IDENTITY, _IDENTITY.columns.index("document_doubt")),
    ("wallet.bank_cards.number", _CARD, _CARD.columns.index("doubt")),
    ("enterprise.memberships.credit_code", _MEMBERSHIP, _MEMBERSHIP.columns.index("credit_code_doubt")),
)


def count_doubts(made: Mapping[Table, Rows]) -> Mapping[str, int]:
    """Return how many rows hold a number that departs from its standard, by the number's field in the file."""
    found = {field: sum(row[at] is not None for row in made[table]) for field, table, at in _DOUBTS}
    return {field: count for field, count in found.items() if count}


def tables_of(
    people: Sequence[f.Person], keys: LoadKeys, now: datetime, chance: Callable[[int], bytes]
) -> Mapping[Table, Rows]:
    """Return the rows of every table but ACCOUNT. `chance` gives so many random bytes; checked people only."""
    made = {table: rows_of(people) for table, rows_of in _DIRECT}
    _identities(people, keys, now, chance, made)
    salts = chance(encryption.SALT_BYTES * len(people))
    made[_WALLET] = [
        (
            person.account_id,
            person.wallet.receive_limit_fen,
            *_password(person.wallet.payment_password, salts[at * 16 : at * 16 + 16], keys.passwords),
            person.wallet.balance_fen,
            [entry.state for entry in person.wallet.entries].count("pending"),
        )
        for at, person in enumerate(people)
    ]
    made[_CARD] = [
        (
            person.account_id,
            card.card_id,
            card.bank,
            card.kind,
            card.number[-4:],
            doubt_card_number(card.number),
            card.unbound_at,
            card.bound_at,
        )
        for person in people
        for card in person.wallet.bank_cards
    ]
    made[_MEMBERSHIP] = [
        (
            person.account_id,
            one.name,
            code := read_credit_code(one.credit_code),
            doubt_credit_code(code),
            one.role,
            one.legal_person,
            one.joined_at,
            one.left_at,
            one.enterprise_id,
        )
        for person in people
        for one in person.enterprise.memberships
    ]
    made[_FACTOR] = [
        (
            person.account_id,
            one.factor_id,
            one.kind,
            _mask_address(one.kind, one.address),
            one.revoked_at,
            one.enrolled_at,
        )
        for person in people
        for one in person.security.second_factors
    ]
    made[_GRANT] = [
        (person.account_id, one.grant_id, one.app_id, one.app_name, _array(one.scopes), one.revoked_at, one.granted_at)
        for person in people
        for one in person.openplatform.oauth_grants
    ]
    made[_SECURITY] = [
        (person.account_id, one.primary_device_id, one.primary_device_since, one.login_needs_sms, one.level)
        for person in people
        for one in (person.security,)
    ]
    made[_SOCIAL] = [(person.account_id, person.social.nickname, person.social.email, EPOCH) for person in people]
    made[_DEVELOPER] = [(person.account_id, person.openplatform.api_quota_level, EPOCH) for person in people]
    made[_ENTERPRISE] = [(person.account_id, person.enterprise.api_rights, EPOCH) for person in people]
    made[_MERCHANT] = [(person.account_id,) for person in people]
    made[_GAMING] = [(person.account_id, person.gaming.game_guard, EPOCH) for person in people]
    return made


def _identities(
    people: Sequence[f.Person], keys: LoadKeys, now: datetime, chance: Callable[[int], bytes], made: dict[Table, Rows]
) -> None:
    """Seal each identity under a data key of its own; both data centres hold the same bytes."""
    accounts, changes, data_keys = Rows(), Rows(), list[OwnedKey]()
    key_size = keys.locks.cipher.key_bytes
    size = key_size + encryption.NONCE_BYTES
    secrets = chance(size * len(people))
    for at, person in enumerate(people):
        account, identity = person.account_id, person.identity
        if identity is None:
            accounts.append((account, "none", *(None,) * len(_SEALED), 0))
            continue
        secret = secrets[at * size : at * size + size]
        data_key, nonce = secret[:key_size], secret[key_size:]
        index = _index(keys.documents, identity.document_type, identity.document_number)
        name = encryption.SealedIdentity(identity.name, identity.document_number, identity.birth_date, identity.region)
        sealed = encryption.seal(data_key, name, account, EPOCH, nonce)
        data_keys.append(OwnedKey(account, EPOCH, data_key))
        open_part = _coarsen(_birth_date(identity, now), now), find_country(identity.region)
        known = identity.document_type, _bytea(sealed), index, *open_part
        doubt = doubt_document(identity.document_type, identity.document_number)
        accounts.append((account, "active", *known, doubt, identity.changed_at, identity.level))
        for change in identity.changes:
            same = change.document_number == identity.document_number and change.document_type == identity.document_type
            of = index if same else _index(keys.documents, change.document_type, change.document_number)
            changes.append((account, change.change_id, change.kind, change.document_type, of, change.at))
    made[_DATA_KEY] = [
        (
            locked.account_id,
            _bytea(locked.wrapped),
            _bytea(locked.wrapped_by),
            _bytea(locked.retained),
            _bytea(locked.retained_by),
            now,
        )
        for locked in keys.locks.lock(data_keys)
    ]
    made[_IDENTITY], made[_CHANGE] = accounts, changes


def _coarsen(born: date | None, now: datetime) -> date | None:
    return None if born is None else coarsen_birth_date(born, now)


def _birth_date(identity: f.IdentityRecord, now: datetime) -> date | None:
    """Return the birth date; where the file has none, the last day that the document leaves open."""
    if identity.birth_date is not None:
        return identity.birth_date
    today = today_of(now)
    return latest_birth(read_document(identity.document_type, identity.document_number, today).born_in or "", today)


def _index(key: bytes, kind: str, number: str) -> str:
    return _bytea(encryption.document_index(key, kind, document_key(kind, number)))


def _password(password: str | None, salt: bytes, pepper: bytes) -> tuple[str | None, str | None]:
    if password is None:
        return None, None
    return _bytea(salt), _bytea(encryption.password_hash(pepper, salt, password))


def _bytea(value: bytes) -> str:
    return f"\\x{value.hex()}"


def _array(words: Iterable[str]) -> str:
    """Return a text[] literal; the words hold no quotation mark or backslash."""
    return '{"' + '","'.join(words) + '"}'


def _mask_address(kind: str, address: str) -> str:
    """Return what of an address the person is shown."""
    if kind == "sms":
        return f"{address[:-8]}****{address[-4:]}"
    if kind == "email":
        local, _, domain = address.partition("@")
        return f"{local[0]}***@{domain}"
    return address
