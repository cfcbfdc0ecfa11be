"""The format of a population file (docs/population-format.md): one JSON object a person, one list of rows a table.

A row's fields stand in the order of its table's columns, without account_id, epoch and what the platform keeps for
itself, so that a decoded row is the tuple that COPY writes. Ids of rows are numbers that need be unique only within the
person and the list. Fields with a default may be left out by whoever writes a file by hand.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Final, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

MAX_ID: Final = (1 << 53) - 1
"""The largest id: JSON readers that count in doubles keep it exact."""

Id = Annotated[int, Meta(ge=1, le=MAX_ID)]
Fen = Annotated[int, Meta(ge=0, le=MAX_ID)]
Owed = Annotated[int, Meta(ge=1, le=MAX_ID)]
Moved = Annotated[int, Meta(ge=-MAX_ID, le=MAX_ID)]
Time = Annotated[datetime, Meta(tz=True)]
Line = Annotated[str, Meta(min_length=1, max_length=200)]
Note = Annotated[str, Meta(max_length=200)]
Prose = Annotated[str, Meta(max_length=20_000)]
Key = Annotated[str, Meta(min_length=1, max_length=64)]
DocumentKind = Literal[
    "resident_id",
    "residence_permit",
    "hk_macao_permit",
    "taiwan_permit",
    "foreign_permanent_residence",
    "passport",
]


class Row(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One row of a list. Unknown fields are refused: a misspelt one would be lost in silence."""


class Change(Row):
    """A binding of a document in the past: the first ever, a new name, a renewed or another document."""

    change_id: Id
    at: Time
    kind: Literal["bound", "renamed", "document_renewed", "document_swapped"]
    document_type: DocumentKind
    document_number: Line


class Identity(Row):
    """The real name. `region`: six digits of a resident, ISO 3166 alpha-3 of anybody else."""

    name: Line
    document_type: DocumentKind
    document_number: Line
    birth_date: date
    region: Annotated[str, Meta(min_length=3, max_length=6)]
    level: Annotated[int, Meta(ge=1, le=3)]
    changed_at: Time
    changes: list[Change] = []


class Entry(Row):
    """A movement of money, signed. The pending and completed ones add up to the balance as wallet.entry says."""

    entry_id: UUID
    made_at: Time
    kind: Literal["opening", "transfer", "payment", "refund", "red_packet", "cash_in", "cash_out"]
    title: Line
    amount_fen: Moved
    state: Literal["pending", "completed", "returned"]
    ended_at: Time | None = None
    expected_at: Time | None = None
    counterparty_id: Id | None = None


class RedPacket(Row):
    """A red packet sent to the person; `entry_id` is the entry that claimed it."""

    packet_id: Id
    sender: Line
    amount_fen: Owed
    state: Literal["unclaimed", "claimed", "returned"]
    sent_at: Time
    expires_at: Time
    entry_id: UUID | None = None
    ended_at: Time | None = None


class BankCard(Row):
    """A bank card. Of `number` (12 to 19 digits, Luhn) only the last four are stored."""

    card_id: Id
    bound_at: Time
    bank: Line
    kind: Literal["debit", "credit"]
    number: Annotated[str, Meta(min_length=12, max_length=19)]
    unbound_at: Time | None = None


class Contract(Row):
    """An auto-debit contract; without `ended_at` it is active. `amount_fen` null: varies."""

    contract_id: Id
    signed_at: Time
    merchant: Line
    service: Line
    amount_fen: Owed | None
    next_charge_at: Time | None = None
    ended_at: Time | None = None


class CreditProduct(Row):
    """A credit product; open until `closed_at`, and then nothing is owed."""

    product_id: Id
    product: Line
    owed_fen: Fen
    opened_at: Time
    closed_at: Time | None = None


class Arrears(Row):
    """Something owed outside credit products."""

    arrears_id: Id
    title: Line
    owed_fen: Owed
    due_at: Time
    repaid_at: Time | None = None


class Freeze(Row):
    """Frozen funds."""

    freeze_id: Id
    authority: Line
    contact: Line
    amount_fen: Owed
    frozen_at: Time
    lifted_at: Time | None = None


class Wallet(Row):
    """The payment account. `payment_password`: six digits in clear, hashed on loading; null: none set."""

    balance_fen: Fen
    payment_password: Annotated[str, Meta(min_length=6, max_length=6)] | None = None
    receive_limit_fen: Fen | None = None
    entries: list[Entry] = []
    red_packets: list[RedPacket] = []
    bank_cards: list[BankCard] = []
    autodebit_contracts: list[Contract] = []
    credit_products: list[CreditProduct] = []
    arrears: list[Arrears] = []
    freezes: list[Freeze] = []


class Device(Row):
    """A device of the registry."""

    device_id: Key
    registered_at: Time
    last_seen_at: Time
    platform: Literal["ios", "harmonyos", "android", "windows", "macos", "other"]
    model: Line
    os_version: Line
    biometric: bool
    retired_at: Time | None = None


class Login(Row):
    """A login; `anomaly` null: nothing unusual. `confirmed_at`: when the person said that it was they."""

    login_id: Id
    device_id: Key
    at: Time
    place: Line
    anomaly: Literal["new_device", "far_place", "odd_hour", "many_failures"] | None = None
    confirmed_at: Time | None = None


class SecondFactor(Row):
    """A second factor. Of `address` (a phone, an e-mail, a key's name) a masked label is stored."""

    factor_id: Id
    enrolled_at: Time
    kind: Literal["sms", "email", "webauthn"]
    address: Line
    revoked_at: Time | None = None


class Hold(Row):
    """A hold of a court or authority, or of the risk engine."""

    hold_id: Id
    kind: Literal["legal", "risk"]
    authority: Line
    contact: Line
    placed_at: Time
    lifted_at: Time | None = None


class Security(Row):
    """Devices, logins, second factors, holds. The primary device is one of `devices`."""

    level: Annotated[int, Meta(ge=1, le=5)] = 1
    primary_device_id: Key | None = None
    primary_device_since: Time | None = None
    login_needs_sms: bool = False
    devices: list[Device] = []
    logins: list[Login] = []
    second_factors: list[SecondFactor] = []
    holds: list[Hold] = []


class Contact(Row):
    """Somebody the person knows, by account."""

    added_at: Time
    contact_id: Id
    remark: Note
    starred: bool


class Group(Row):
    """A chat group as the person sees it."""

    group_id: Id
    joined_at: Time
    name: Line
    role: Literal["owner", "admin", "member"]
    left_at: Time | None = None


class Member(Row):
    """A member of one of those groups."""

    group_id: Id
    member_id: Id
    nickname: Note


class Message(Row):
    """A message: of a chat with one person (`peer_id`) or in a group (`group_id`), never both."""

    message_id: Id
    sent_at: Time
    kind: Literal["text", "sticker", "image", "voice", "video", "file", "link", "location"]
    body: Prose
    media: Line | None
    peer_id: Id | None
    group_id: Id | None
    sender_id: Id
    recalled_at: Time | None = None


class Moment(Row):
    """A moment that the person posted."""

    moment_id: Id
    posted_at: Time
    body: Prose
    images: Annotated[int, Meta(ge=0, le=9)]
    visibility: Literal["all", "some", "self"]
    deleted_at: Time | None = None


class FriendRequest(Row):
    """A friend request that came in."""

    request_id: Id
    sent_at: Time
    sender_id: Id
    greeting: Note
    state: Literal["waiting", "accepted", "declined", "blocked"]
    ended_at: Time | None = None


class Social(Row):
    """Contacts, groups, messages, moments."""

    nickname: Note = ""
    email: Annotated[str, Meta(min_length=3, max_length=254)] | None = None
    contacts: list[Contact] = []
    chat_groups: list[Group] = []
    group_members: list[Member] = []
    messages: list[Message] = []
    moments: list[Moment] = []
    friend_requests: list[FriendRequest] = []


class App(Row):
    """A third-party app that the person develops."""

    app_id: Key
    name: Line
    technical_lead: bool
    created_at: Time
    closed_at: Time | None = None


class Grant(Row):
    """What the person allowed an app."""

    grant_id: Id
    granted_at: Time
    app_id: Key
    app_name: Line
    scopes: Annotated[list[Key], Meta(min_length=1, max_length=32)]
    revoked_at: Time | None = None


class Token(Row):
    """A token under one of those grants."""

    token_id: Id
    grant_id: Id
    issued_at: Time
    expires_at: Time
    kind: Literal["access", "refresh"]
    revoked_at: Time | None = None


class MiniProgram(Row):
    """A mini program."""

    program_id: Key
    name: Line
    state: Literal["draft", "published", "suspended", "closed"]
    created_at: Time


class OfficialAccount(Row):
    """An official account that the person tends."""

    official_id: Key
    name: Line
    role: Literal["administrator", "operator"]
    joined_at: Time
    left_at: Time | None = None


class Review(Row):
    """A qualification review of a mini program or a technical one of an app; `subject_id` names it."""

    review_id: Id
    subject_id: Key
    kind: Literal["qualification", "technical"]
    state: Literal["waiting", "accepted", "rejected"]
    submitted_at: Time
    decided_at: Time | None = None


class Quota(Row):
    """What an app may call a day."""

    app_id: Key
    api: Key
    calls_per_day: Annotated[int, Meta(ge=0, le=2_147_483_647)]


class OpenPlatform(Row):
    """Grants and tokens, and what a developer has."""

    api_quota_level: Literal["none", "test", "standard", "high"] = "none"
    apps: list[App] = []
    oauth_grants: list[Grant] = []
    oauth_tokens: list[Token] = []
    mini_programs: list[MiniProgram] = []
    official_accounts: list[OfficialAccount] = []
    reviews: list[Review] = []
    quotas: list[Quota] = []


class Membership(Row):
    """An enterprise that the person belongs to."""

    enterprise_id: Id
    name: Line
    credit_code: Line
    role: Literal["administrator", "member"]
    legal_person: bool
    joined_at: Time
    left_at: Time | None = None


class Approval(Row):
    """An approval process that the person started in one of those enterprises."""

    approval_id: Id
    enterprise_id: Id
    title: Line
    state: Literal["in_flight", "approved", "rejected", "recalled"]
    submitted_at: Time
    ended_at: Time | None = None


class ApiCredential(Row):
    """An API credential issued to the person for one of those enterprises."""

    credential_id: Id
    enterprise_id: Id
    name: Line
    issued_at: Time
    revoked_at: Time | None = None


class Enterprise(Row):
    """Memberships, approvals, credentials."""

    api_rights: bool = False
    memberships: list[Membership] = []
    approvals: list[Approval] = []
    api_credentials: list[ApiCredential] = []


class MerchantNumber(Row):
    """A merchant number, of 8 to 10 digits."""

    merchant_no: Annotated[str, Meta(min_length=8, max_length=10)]
    name: Line
    category: Line
    opened_at: Time
    closed_at: Time | None = None


class RetainedRecord(Row):
    """A record of one of those merchant numbers that commercial retention keeps."""

    record_id: Id
    merchant_no: Annotated[str, Meta(min_length=8, max_length=10)]
    kind: Literal["real_name", "settlement", "licence"]
    recorded_at: Time


class Merchant(Row):
    """Merchant numbers and their records."""

    merchant_numbers: list[MerchantNumber] = []
    retained_records: list[RetainedRecord] = []


class Access(Row):
    """A game that the person may play."""

    game_id: Id
    granted_at: Time
    name: Line
    withdrawn_at: Time | None = None


class PlaySession(Row):
    """A time of playing one of those games."""

    session_id: Id
    game_id: Id
    started_at: Time
    ended_at: Time | None = None


class Gaming(Row):
    """The playing-time guard and games."""

    game_guard: bool = False
    access: list[Access] = []
    play_sessions: list[PlaySession] = []


class NetworkBinding(Row):
    """A card or the payment account as a clearing network knows it. `title` is masked."""

    network: Literal["unionpay", "netsunion"]
    binding: Key
    kind: Literal["card", "account"]
    title: Annotated[str, Meta(max_length=64)] = ""


class Person(Row, kw_only=True):
    """One line: everything about one account. `identity` null: no real name bound."""

    account_id: Id
    created_at: Time
    identity: Identity | None
    wallet: Wallet
    security: Security
    social: Social
    openplatform: OpenPlatform
    enterprise: Enterprise
    merchant: Merchant
    gaming: Gaming
    bindings: list[NetworkBinding] = []
