"""What a few hold beside a private life: grants of apps (most people), developers, enterprises, merchants; networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from jiebang.policy.documents import make_credit_code
from jiebang.sandbox.population import lexicon, names
from jiebang.sandbox.population.chance import Weighted
from jiebang.sandbox.population.people import RESERVED
from jiebang.sandbox.population.render import DAY, digits, either, json_of, objects, pool, stamp, texts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jiebang.sandbox.population.chance import Flags, Ints
    from jiebang.sandbox.population.people import Chunk
    from jiebang.sandbox.population.render import Canvas, Fragments, Part

(_PEOPLE, _GRANTS, _TOKENS, _APPS, _PROGRAMS, _OFFICIALS, _REVIEWS, _QUOTAS, _MEMBERSHIPS, _APPROVALS, _CREDENTIALS,
 _MERCHANTS, _RECORDS, _BINDINGS) = range(70, 84)  # fmt: skip

_GRANT: Final = objects(
    ({"app_id": app, "app_name": name, "scopes": scopes} for app, name, scopes in lexicon.APPS),
    after=b',"granted_at":"',
)
_GRANT_COUNT: Final = Weighted((10, 25, 30, 20, 15))
_PROGRAM: Final = texts(lexicon.PROGRAMS, before=b',"name":')
_OFFICIAL: Final = texts(lexicon.OFFICIALS, before=b',"name":')
_APPROVAL: Final = texts(lexicon.APPROVALS, before=b',"title":')
_SHOP: Final = objects({"name": name, "category": kind} for name, kind in lexicon.SHOPS)
_OFFICIAL_ROLE: Final = pool([b',"role":"operator","joined_at":"', b',"role":"administrator","joined_at":"'])
_LEVELS: Final = pool([b'"none"', b'"standard"'])
_BOOLS: Final = pool([b"false", b"true"])
_DEVELOPERS: Final = 120  # of 10,000: they publish mini programs; half of them lead an app technically


def write_openplatform(canvas: Canvas, chunk: Chunk) -> None:
    """Write the section `openplatform`."""
    dice = chunk.dice(_PEOPLE)
    developer = dice.chance(_DEVELOPERS) & ~chunk.meets["MINOR-EVIDENCE"] & (chunk.accounts > RESERVED)
    apps, programs = (developer & dice.chance(5000)).astype(np.int64), developer.astype(np.int64)
    canvas.write(b',"openplatform":{"api_quota_level":', _LEVELS[developer.astype(np.int64)])
    owner = digits(chunk.accounts, 16)
    _one(canvas, chunk, _APPS, b',"apps":', apps, b'"app_id":"wxapp', owner, b'","name":"', digits(chunk.accounts, 16),
         b' App","technical_lead":true,"created_at":"', stamp(chunk.now - 300 * DAY - dice.below(DAY)), b'","closed_at":null}')  # fmt: skip
    grants = chunk.rows(_GRANTS, dice.choose(_GRANT_COUNT))
    which = (dice.below(len(lexicon.APPS))[grants.person] + grants.ordinal) % len(lexicon.APPS)
    head = b'"grant_id":', digits(grants.ordinal + 1, 1), b","
    canvas.list(b',"oauth_grants":', grants, *head, _GRANT[which], stamp(grants.past(390 * DAY)), b'","revoked_at":null}')
    tokens = chunk.rows(_TOKENS, grants.counts * 2)
    refresh = tokens.ordinal % 2 == 1
    issued = chunk.now - 3600 - tokens.dice.below(3600)
    expires = stamp(issued + np.where(refresh, 30 * DAY, 2 * 3600 + DAY))
    kind = pool([b',"kind":"access","issued_at":"', b',"kind":"refresh","issued_at":"'])[refresh.astype(np.int64)]
    under = b'"token_id":', digits(tokens.ordinal + 1, 1), b',"grant_id":', digits(tokens.ordinal // 2 + 1, 1)
    times = stamp(issued), b'","expires_at":"', expires, b'","revoked_at":null}'
    canvas.list(b',"oauth_tokens":', tokens, *under, kind, *times)
    _developer(canvas, chunk, apps, programs, owner)
    canvas.write(b"}")


def _one(canvas: Canvas, chunk: Chunk, tag: int, text: bytes, counts: Ints, *parts: Part) -> None:
    """Write a list of at most one row, whose parts are given for everybody."""
    rows = chunk.rows(tag, counts)
    canvas.list(text, rows, *(part if isinstance(part, bytes) else part[rows.person] for part in parts))


def _developer(canvas: Canvas, chunk: Chunk, apps: Ints, programs: Ints, owner: Part) -> None:
    """Write what a developer tends: mini programs, official accounts, reviews, quotas."""
    dice = chunk.dice(_PROGRAMS)
    made = stamp(chunk.now - 200 * DAY - dice.below_wide(150 * DAY))
    program = b'"program_id":"wxmp', owner, b'"', _PROGRAM[dice.below(len(_PROGRAM))]
    state = b',"state":"published","created_at":"', made, b'"}'
    _one(canvas, chunk, _PROGRAMS, b',"mini_programs":', programs, *program, *state)
    admin = chunk.meets["OA-ADMIN"]
    tends = (admin | (dice.chance(100) & (chunk.accounts > RESERVED))).astype(np.int64)
    role = _OFFICIAL_ROLE[admin.astype(np.int64)]
    official = b'"official_id":"gh_', owner, b'"', _OFFICIAL[dice.below(len(_OFFICIAL))], role
    _one(canvas, chunk, _OFFICIALS, b',"official_accounts":', tends, *official, made, b'","left_at":null}')
    review = b'"review_id":1,"subject_id":"wxmp', owner, b'","kind":"qualification","state":"accepted","submitted_at":"'
    decided = b'","decided_at":"', made, b'"}'
    _one(canvas, chunk, _REVIEWS, b',"reviews":', programs, *review, made, *decided)
    quota = b'"app_id":"wxapp', owner, b'","api":"getUserInfo","calls_per_day":100000}'
    _one(canvas, chunk, _QUOTAS, b',"quotas":', apps, *quota)


def write_enterprise(canvas: Canvas, chunk: Chunk) -> None:
    """Write the section `enterprise`: administrators, members, their approvals and credentials."""
    dice = chunk.dice(_MEMBERSHIPS)
    admin = chunk.meets["ORG-ADMIN"]
    member = (admin | (dice.chance(1800) & ~chunk.meets["MINOR-EVIDENCE"] & (chunk.accounts > RESERVED))).astype(np.int64)
    approval = member * dice.below(3)
    credential = (admin & dice.chance(5000)).astype(np.int64)
    rights = _BOOLS[credential]
    company = _companies(chunk, member > 0, dice.below(1 << 16))
    since = stamp(chunk.now - 380 * DAY + dice.below(80) * DAY)
    canvas.write(b',"enterprise":{"api_rights":', rights)
    rank = pool([b',"role":"member","legal_person":false', b',"role":"administrator","legal_person":false',
                 b',"role":"administrator","legal_person":true'])[admin * (1 + dice.chance(3000))]  # fmt: skip
    joined = b',"joined_at":"', since, b'","left_at":null}'
    _one(canvas, chunk, _MEMBERSHIPS, b',"memberships":', member, b'"enterprise_id":1,', company, rank, *joined)
    rows = chunk.rows(_APPROVALS, approval)
    at = rows.past(100 * DAY)
    state = either(
        rows.dice.chance(2500),
        (b',"state":"in_flight","submitted_at":"', stamp(at), b'","ended_at":null}'),
        (b',"state":"approved","submitted_at":"', stamp(at), b'","ended_at":"', stamp(at + 3000), b'"}'),
    )
    title = _APPROVAL[rows.dice.below(len(_APPROVAL))]
    head = b'"approval_id":', digits(rows.ordinal + 1, 1), b',"enterprise_id":1'
    canvas.list(b',"approvals":', rows, *head, title, state)
    key = b'"credential_id":1,"enterprise_id":1,"name":"corp-secret","issued_at":"', since, b'","revoked_at":null}'
    _one(canvas, chunk, _CREDENTIALS, b',"api_credentials":', credential, *key)
    canvas.write(b"}")


def _companies(chunk: Chunk, wanted: Flags, draw: Ints) -> Fragments:
    """Return name and credit code of the companies of those who have one, as fields."""
    company = pool([b""])[np.zeros(chunk.count, np.int64)]
    for at in np.flatnonzero(wanted).tolist():
        number = int(draw[at])
        region, city = names.REGIONS[number % len(names.REGIONS)]
        word = lexicon.COMPANY_WORDS[number % len(lexicon.COMPANY_WORDS)]
        name = f"{city}{word}{lexicon.COMPANIES[number % len(lexicon.COMPANIES)]}"
        code = make_credit_code("91", region, f"MA{(int(chunk.accounts[at]) * 7919 + number) % 10**6:06d}")
        company[at] = json_of({"name": name, "credit_code": code})[1:-1]
    return company


def write_merchant(canvas: Canvas, chunk: Chunk) -> None:
    """Write the section `merchant`: open numbers, and closed ones whose records are still kept."""
    dice = chunk.dice(_MERCHANTS)
    is_open = chunk.meets["MERCHANT-OPEN"]
    holds = (is_open | (dice.chance(80) & (chunk.accounts > RESERVED))).astype(np.int64)
    number = digits(1_400_000_000 + chunk.accounts % 100_000_000, 10)
    opened = chunk.now - 390 * DAY + dice.below(60) * DAY
    closed = either(is_open, (b"null}",), (b'"', stamp(opened + 200 * DAY), b'"}'))
    shop = _SHOP[dice.below(len(_SHOP))]
    canvas.write(b',"merchant":{')
    head = b'"merchant_no":"', number, b'",', shop, b',"opened_at":"', stamp(opened), b'","closed_at":', closed
    _one(canvas, chunk, _MERCHANTS, b'"merchant_numbers":', holds, *head)
    kept = b'"record_id":1,"merchant_no":"', number, b'","kind":"real_name","recorded_at":"', stamp(opened), b'"}'
    _one(canvas, chunk, _RECORDS, b',"retained_records":', holds, *kept)
    canvas.write(b"}")


def write_bindings(canvas: Canvas, chunk: Chunk) -> None:
    """Write what the clearing networks know: the payment account at NetsUnion, a card at UnionPay."""
    rows = chunk.rows(_BINDINGS, np.full(chunk.count, 2))
    owner = digits(chunk.accounts, 16)[rows.person]
    tail = digits(rows.dice.below(10_000), 4)
    account: Sequence[Part] = b'"netsunion","binding":"acct-', owner, b'","kind":"account","title":"', "支付账户".encode()
    card: Sequence[Part] = b'"unionpay","binding":"card-', owner, b'","kind":"card","title":"**** ', tail
    canvas.list(b',"bindings":', rows, b'"network":', either(rows.ordinal == 0, account, card), b'"}')
