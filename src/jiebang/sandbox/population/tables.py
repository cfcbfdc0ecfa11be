"""From people to what COPY takes: for each table of each database, its columns and rows as text.

Rows are encoded as JSON arrays a line and copied as CSV with a backslash as escape: the same text but for control
characters, which CSV wants raw. So a row is written by the same encoder that reads it, without a Python object a value.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from jiebang.model.facts import PLATFORM
from jiebang.policy.documents import DocumentType, document_key
from jiebang.sandbox.population import format as f
from jiebang.store import sealing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

QUOTE: Final = '"'
ESCAPE: Final = "\\"
NULL: Final = "null"
"""The options of COPY for these rows, beside the format csv."""

EPOCH: Final = 1
"""The epoch of a newly loaded account, which its children carry by default."""


class Table(NamedTuple):
    """Where rows go, and in which columns. `database` is its name among the DSNs."""

    database: str
    schema: str
    name: str
    columns: tuple[str, ...]


class Sealing(msgspec.Struct, frozen=True):
    """The installation's keys that loading needs, 32 bytes each (store/sealing.py)."""

    master: bytes
    documents: bytes
    passwords: bytes

    def __repr__(self) -> str:
        """Tell nothing."""
        return "Sealing(…)"


Rows = list[tuple[Any, ...]]
_CONTROLS: Final = ((b"\\n", b"\n"), (b"\\t", b"\t"), (b"\\r", b"\r"), (b"\\b", b"\b"), (b"\\f", b"\f"))
_UNICODE: Final = re.compile(rb"\\u00([0-9a-f]{2})")  # the other control characters; NUL is refused before
_ENCODER: Final = msgspec.json.Encoder()


def encoded(rows: Rows) -> bytes:
    """Return rows as lines of JSON arrays, of which `csv_of` makes CSV."""
    return _ENCODER.encode_lines(rows)


def csv_of(lines: Sequence[bytes]) -> bytes:
    """Return encoded rows, joined, as CSV: no raw newline or NUL stands inside JSON text, so both can mark places."""
    text = b"".join(lines)[1:-2].replace(b"]\n[", b"\n") + b"\n"
    if b"\\" not in text:
        return text
    text = text.replace(b"\\\\", b"\0")  # every backslash left begins an escape; those of quotation marks are CSV's too
    for escape, control in _CONTROLS:
        text = text.replace(escape, control)
    if b"\\u" in text:
        text = _UNICODE.sub(lambda found: bytes((int(found[1], 16),)), text)
    return text.replace(b"\0", b"\\\\")


def _reader(section: str, rows: str, kind: type[msgspec.Struct]) -> Callable[[Sequence[f.Person]], Rows]:
    """Return a function that lists a table's rows: one expression over all of them, half the cost of a generic walk."""
    values = ", ".join(f"row.{field}" for field in kind.__struct_fields__)
    code = f"lambda people: [(one.account_id, {values}) for one in people for row in one.{section}.{rows}]"
    reader: Callable[[Sequence[f.Person]], Rows] = eval(code)  # noqa: S307 - made of the format's own names alone
    return reader


_DIRECT: Final = tuple(
    (Table(section, section, name, ("account_id", *kind.__struct_fields__)), _reader(section, rows, kind))
    for section, name, rows, kind in (
        ("wallet", "entry", "entries", f.Entry),
        ("wallet", "red_packet", "red_packets", f.RedPacket),
        ("wallet", "autodebit_contract", "autodebit_contracts", f.Contract),
        ("wallet", "credit_product", "credit_products", f.CreditProduct),
        ("wallet", "arrears", "arrears", f.Arrears),
        ("wallet", "freeze", "freezes", f.Freeze),
        ("security", "device", "devices", f.Device),
        ("security", "login", "logins", f.Login),
        ("security", "hold", "holds", f.Hold),
        ("social", "contact", "contacts", f.Contact),
        ("social", "chat_group", "chat_groups", f.Group),
        ("social", "group_member", "group_members", f.Member),
        ("social", "message", "messages", f.Message),
        ("social", "moment", "moments", f.Moment),
        ("social", "friend_request", "friend_requests", f.FriendRequest),
        ("openplatform", "app", "apps", f.App),
        ("openplatform", "oauth_token", "oauth_tokens", f.Token),
        ("openplatform", "mini_program", "mini_programs", f.MiniProgram),
        ("openplatform", "official_account", "official_accounts", f.OfficialAccount),
        ("openplatform", "review", "reviews", f.Review),
        ("openplatform", "quota", "quotas", f.Quota),
        ("enterprise", "membership", "memberships", f.Membership),
        ("enterprise", "approval", "approvals", f.Approval),
        ("enterprise", "api_credential", "api_credentials", f.ApiCredential),
        ("merchant", "merchant_number", "merchant_numbers", f.MerchantNumber),
        ("merchant", "retained_record", "retained_records", f.RetainedRecord),
        ("gaming", "access", "access", f.Access),
        ("gaming", "play_session", "play_sessions", f.PlaySession),
    )
)
"""Lists whose rows are the tables' rows as they stand."""


def _table(database: str, name: str, *columns: str) -> Table:
    schema = "identity" if database.startswith("identity_") else database
    return Table(database, schema, name, ("account_id", *columns))


_SEALED: Final = ("state", "level", "document_type", "sealed", "document_index", "birth_date", "region", "changed_at")
_CHANGED: Final = ("change_id", "at", "kind", "document_type", "document_index")
_IDENTITIES: Final = tuple(_table(name, "account", *_SEALED) for name in ("identity_shenzhen", "identity_guiyang"))
_CHANGES: Final = tuple(_table(name, "change", *_CHANGED) for name in ("identity_shenzhen", "identity_guiyang"))
_DATA_KEY: Final = _table("keys", "data_key", "wrapped", "made_at")
_WALLET: Final = _table(
    "wallet", "account", "balance_fen", "open_entries", "receive_limit_fen", "password_salt", "password_hash"
)
_CARD: Final = _table("wallet", "bank_card", "card_id", "bound_at", "bank", "kind", "tail", "unbound_at")
_SECURITY: Final = _table(
    "security", "account", "level", "primary_device_id", "primary_device_since", "login_needs_sms"
)
_FACTOR: Final = _table("security", "second_factor", "factor_id", "enrolled_at", "kind", "label", "revoked_at")
_SOCIAL: Final = _table("social", "account", "nickname", "email")
_DEVELOPER: Final = _table("openplatform", "account", "api_quota_level")
_GRANT: Final = _table(
    "openplatform", "oauth_grant", "grant_id", "granted_at", "app_id", "app_name", "scopes", "revoked_at"
)
_ENTERPRISE: Final = _table("enterprise", "account", "api_rights")
_MERCHANT: Final = _table("merchant", "account")
_GAMING: Final = _table("gaming", "account", "game_guard")
ACCOUNT: Final = _table(PLATFORM, "account", "created_at")
"""The platform's own row, which is written first and by itself: it tells which accounts are there already."""


def tables_of(
    people: Sequence[f.Person], keys: Sealing, now: datetime, chance: Callable[[int], bytes]
) -> Mapping[Table, Rows]:
    """Return the rows of every table but ACCOUNT. `chance` gives so many random bytes; checked people only."""
    made = {table: rows_of(people) for table, rows_of in _DIRECT}
    _identities(people, keys, now, chance, made)
    salts = chance(sealing.SALT_BYTES * len(people))
    made[_WALLET] = [
        (
            person.account_id,
            person.wallet.balance_fen,
            sum(entry.state == "pending" for entry in person.wallet.entries),
            person.wallet.receive_limit_fen,
            *_password(person.wallet.payment_password, salts[at * 16 : at * 16 + 16], keys.passwords),
        )
        for at, person in enumerate(people)
    ]
    made[_CARD] = [
        (person.account_id, card.card_id, card.bound_at, card.bank, card.kind, card.number[-4:], card.unbound_at)
        for person in people
        for card in person.wallet.bank_cards
    ]
    made[_FACTOR] = [
        (person.account_id, one.factor_id, one.enrolled_at, one.kind, _masked(one.kind, one.address), one.revoked_at)
        for person in people
        for one in person.security.second_factors
    ]
    made[_GRANT] = [
        (person.account_id, one.grant_id, one.granted_at, one.app_id, one.app_name, _array(one.scopes), one.revoked_at)
        for person in people
        for one in person.openplatform.oauth_grants
    ]
    made[_SECURITY] = [
        (person.account_id, one.level, one.primary_device_id, one.primary_device_since, one.login_needs_sms)
        for person in people
        for one in (person.security,)
    ]
    made[_SOCIAL] = [(person.account_id, person.social.nickname, person.social.email) for person in people]
    made[_DEVELOPER] = [(person.account_id, person.openplatform.api_quota_level) for person in people]
    made[_ENTERPRISE] = [(person.account_id, person.enterprise.api_rights) for person in people]
    made[_MERCHANT] = [(person.account_id,) for person in people]
    made[_GAMING] = [(person.account_id, person.gaming.game_guard) for person in people]
    return made


def _identities(
    people: Sequence[f.Person], keys: Sealing, now: datetime, chance: Callable[[int], bytes], made: dict[Table, Rows]
) -> None:
    """Seal each identity under a data key of its own; both data centres hold the same bytes."""
    accounts, changes, data_keys = Rows(), Rows(), Rows()
    size = sealing.KEY_BYTES + 2 * sealing.NONCE_BYTES
    secrets = chance(size * len(people))
    for at, person in enumerate(people):
        account, identity = person.account_id, person.identity
        if identity is None:
            accounts.append((account, "none", 0, None, None, None, None, None, None))
            continue
        secret = secrets[at * size : at * size + size]
        data_key, first, second = secret[:32], secret[32:44], secret[44:]
        index = _index(keys.documents, identity.document_type, identity.document_number)
        name = sealing.SealedIdentity(identity.name, identity.document_number)
        sealed = sealing.seal(data_key, name, account, EPOCH, first)
        data_keys.append((account, _bytea(sealing.wrap(keys.master, data_key, account, EPOCH, second)), now))
        known = identity.level, identity.document_type, _bytea(sealed), index, identity.birth_date
        accounts.append((account, "active", *known, identity.region, identity.changed_at))
        for change in identity.changes:
            same = change.document_number == identity.document_number and change.document_type == identity.document_type
            of = index if same else _index(keys.documents, change.document_type, change.document_number)
            changes.append((account, change.change_id, change.at, change.kind, change.document_type, of))
    made[_DATA_KEY] = data_keys
    for place, history in zip(_IDENTITIES, _CHANGES, strict=True):
        made[place], made[history] = accounts, changes


def _index(key: bytes, kind: str, number: str) -> str:
    return _bytea(sealing.document_index(key, kind, document_key(DocumentType(kind), number)))


def _password(password: str | None, salt: bytes, pepper: bytes) -> tuple[str | None, str | None]:
    if password is None:
        return None, None
    return _bytea(salt), _bytea(sealing.password_hash(pepper, salt, password))


def _bytea(value: bytes) -> str:
    return f"\\x{value.hex()}"


def _array(words: Iterable[str]) -> str:
    """Return a text[] literal; the words hold no quotation mark or backslash."""
    return '{"' + '","'.join(words) + '"}'


def _masked(kind: str, address: str) -> str:
    """Return what of an address the person is shown."""
    if kind == "sms":
        return f"{address[:-8]}****{address[-4:]}"
    if kind == "email":
        local, _, domain = address.partition("@")
        return f"{local[0]}***@{domain}"
    return address
