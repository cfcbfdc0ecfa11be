"""What a few hold beside a private life (as developers, in enterprises, as merchants), and grants, which most have."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from jiebang.policy.companies import make_credit_code
from jiebang.sandbox.population import lexicon, names
from jiebang.sandbox.population.chance import WeightedChoice
from jiebang.sandbox.population.format import (
    ApiCredentialRecord,
    AppRecord,
    ApprovalRecord,
    EnterpriseRecord,
    MembershipRecord,
    MerchantNumberRecord,
    MerchantRecord,
    MiniProgramRecord,
    OfficialAccountRecord,
    QuotaRecord,
    RetainedRecord,
    ReviewRecord,
)
from jiebang.sandbox.population.people import RESERVED
from jiebang.sandbox.population.render import DAY, Pool, digits, json_of, objects, rarely, stamp

if TYPE_CHECKING:
    from jiebang.sandbox.population.chance import Flags
    from jiebang.sandbox.population.people import Chunk
    from jiebang.sandbox.population.render import Canvas

_PEOPLE, _GRANTS, _TOKENS, _TENDS, _MEMBERS, _MERCHANTS, _BINDINGS = range(70, 77)

_GRANT: Final = objects(
    ({"app_id": app, "app_name": name, "scopes": scopes, "revoked_at": None} for app, name, scopes in lexicon.APPS),
    after=b"}",
)
_TOKEN: Final = objects(({"kind": kind, "revoked_at": None} for kind in ("access", "refresh")), after=b"}")
_GRANT_COUNT: Final = WeightedChoice((10, 25, 30, 20, 15))
_LEVELS: Final = Pool([b'"none"', b'"standard"'])
_TENDED: Final = b',"mini_programs":%b,"official_accounts":%b,"reviews":%b,"quotas":%b}'
_NO_ENTERPRISE: Final = b',"enterprise":' + json_of(EnterpriseRecord())
_NO_MERCHANT: Final = b',"merchant":' + json_of(MerchantRecord())
_DEVELOPERS: Final = 120  # of 10,000: they publish mini programs; half of them lead an app technically
_OPERATORS: Final = 100  # of 10,000: they tend an official account without administering it
_MEMBERSHIPS: Final = 1800  # of 10,000: plain members of an enterprise
_CLOSED_MERCHANTS: Final = 80  # of 10,000: their merchant number is closed, its records are still kept
_COMPANIES: Final = 400


def _is_adult(chunk: Chunk) -> Flags:
    return ~chunk.meets["MINOR-EVIDENCE"] & (chunk.accounts > RESERVED)


def write_openplatform(canvas: Canvas, chunk: Chunk) -> None:
    """Write the section `openplatform`."""
    dice = chunk.dice(_PEOPLE)
    developer = dice.chance(_DEVELOPERS) & _is_adult(chunk)
    leads = developer & dice.chance(5000)
    apps = {
        at: b',"apps":%b'
        % json_of(
            [AppRecord(_app_id(chunk, at), f"应用 {int(chunk.accounts[at]) % 97}", True, chunk.ago(at, 300 * DAY))]
        )
        for at in np.flatnonzero(leads).tolist()
    }
    canvas.write(b',"openplatform":{"api_quota_level":', _LEVELS[developer.astype(np.int64)])
    canvas.write(b"", rarely(chunk.count, b',"apps":[]', apps))
    grants = chunk.rows(_GRANTS, dice.choose(_GRANT_COUNT))
    which = (dice.below(len(lexicon.APPS))[grants.person] + grants.ordinal) % len(lexicon.APPS)
    head = b'"grant_id":', digits(grants.ordinal + 1, 1), b',"granted_at":"', stamp(grants.past(390 * DAY)), b'",'
    canvas.list(b',"oauth_grants":', grants, *head, _GRANT[which])
    tokens = chunk.rows(_TOKENS, grants.counts * 2)
    refresh = tokens.ordinal % 2 == 1
    issued = chunk.now - 3600 - tokens.dice.below(3600)
    expires = issued + np.where(refresh, 30 * DAY, 2 * 3600)
    under = b'"token_id":', digits(tokens.ordinal + 1, 1), b',"grant_id":', digits(tokens.ordinal // 2 + 1, 1)
    times = b',"issued_at":"', stamp(issued), b'","expires_at":"', stamp(expires), b'",'
    canvas.list(b',"oauth_tokens":', tokens, *under, *times, _TOKEN[refresh.astype(np.int64)])
    canvas.write(b"", rarely(chunk.count, _TENDED % ((b"[]",) * 4), _render_developers(chunk, developer, leads)))


def _app_id(chunk: Chunk, at: int) -> str:
    return f"wxapp{int(chunk.accounts[at]):016d}"


def _render_developers(chunk: Chunk, developer: Flags, leads: Flags) -> dict[int, bytes]:
    """Return what developers and keepers of official accounts tend."""
    dice = chunk.dice(_TENDS)
    admin = chunk.meets["OA-ADMIN"]
    operator = dice.chance(_OPERATORS) & (chunk.accounts > RESERVED)
    which, days = dice.below(1 << 16), 100 + dice.below(290)
    tended = dict[int, bytes]()
    for at in np.flatnonzero(developer | admin | operator).tolist():
        number, since = int(which[at]), chunk.ago(at, int(days[at]) * DAY)
        program = f"wxmp{int(chunk.accounts[at]):016d}"
        title = lexicon.PROGRAMS[number % len(lexicon.PROGRAMS)]
        gh = f"gh_{int(chunk.accounts[at]):016d}"
        name = lexicon.OFFICIALS[number % len(lexicon.OFFICIALS)]
        role: Literal["administrator", "operator"] = "administrator" if admin[at] else "operator"
        is_dev, has_app, keeps = bool(developer[at]), bool(leads[at]), bool(admin[at] or operator[at])
        tended[at] = _TENDED % (
            json_of([MiniProgramRecord(program, title, "published", since)] * is_dev),
            json_of([OfficialAccountRecord(gh, name, role, since)] * keeps),
            json_of([ReviewRecord(1, program, "qualification", "accepted", since, since)] * is_dev),
            json_of([QuotaRecord(_app_id(chunk, at), "getUserInfo", 100_000)] * has_app),
        )
    return tended


@cache
def _companies() -> tuple[tuple[str, str], ...]:
    """Return names and credit codes of the companies that people belong to."""
    made = list[tuple[str, str]]()
    for number in range(_COMPANIES):
        region, city = names.REGIONS[number % len(names.REGIONS)]
        word, kind = lexicon.COMPANY_WORDS[number % 12], lexicon.COMPANIES[number % len(lexicon.COMPANIES)]
        made.append((f"{city}{word}{kind}", make_credit_code("91", region, f"MA{number * 2357 % 10**6:06d}")))
    return tuple(made)


def write_enterprise(canvas: Canvas, chunk: Chunk) -> None:
    """Write the section `enterprise`: administrators and members, their approvals and credentials."""
    dice = chunk.dice(_MEMBERS)
    admin = chunk.meets["ORG-ADMIN"]
    member = admin | (dice.chance(_MEMBERSHIPS) & _is_adult(chunk))
    which, draw, days = dice.below(_COMPANIES), dice.lane(), 100 + dice.below(290)
    sections = dict[int, bytes]()
    for at in np.flatnonzero(member).tolist():
        company, chance, since = int(which[at]) + 1, int(draw[at]), chunk.ago(at, int(days[at]) * DAY)
        name, code = _companies()[company - 1]
        leads = bool(admin[at])
        started = chunk.ago(at, (1 + chance % 60) * DAY)
        ended = chunk.ago(at, (1 + chance % 60) * DAY - 3000) if chance % 4 else None
        approval = ApprovalRecord(
            1, company, lexicon.APPROVALS[chance % 5], "approved" if ended else "in_flight", started, ended
        )
        section = EnterpriseRecord(
            api_rights=leads and chance % 2 == 0,
            memberships=[
                MembershipRecord(
                    company, name, code, "administrator" if leads else "member", leads and chance % 3 == 0, since
                )
            ],
            approvals=[approval] * (chance % 3 > 0),
            api_credentials=[ApiCredentialRecord(1, company, "corp-secret", since)] * (leads and chance % 2 == 0),
        )
        sections[at] = b',"enterprise":' + json_of(section)
    canvas.write(b"", rarely(chunk.count, _NO_ENTERPRISE, sections))


def write_merchant(canvas: Canvas, chunk: Chunk) -> None:
    """Write the section `merchant`: open numbers, and closed ones whose records are still kept."""
    dice = chunk.dice(_MERCHANTS)
    is_open = chunk.meets["MERCHANT-OPEN"]
    closed = dice.chance(_CLOSED_MERCHANTS) & _is_adult(chunk)
    which, days = dice.below(len(lexicon.SHOPS)), 200 + dice.below(190)
    sections = dict[int, bytes]()
    for at in np.flatnonzero(is_open | closed).tolist():
        name, category = lexicon.SHOPS[which[at]]
        since = chunk.ago(at, int(days[at]) * DAY)
        number = f"{1_400_000_000 + int(chunk.accounts[at]) % 100_000_000}"
        until = None if is_open[at] else chunk.ago(at, int(days[at]) * DAY // 2)
        section = MerchantRecord(
            [MerchantNumberRecord(number, name, category, since, until)],
            [RetainedRecord(1, number, "real_name", since)],
        )
        sections[at] = b',"merchant":' + json_of(section)
    canvas.write(b"", rarely(chunk.count, _NO_MERCHANT, sections))


def write_bindings(canvas: Canvas, chunk: Chunk) -> None:
    """Write what the clearing networks know: everybody's payment account at NetsUnion, a card at UnionPay."""
    owner, tail = digits(chunk.accounts, 16), digits(chunk.dice(_BINDINGS).below(10_000), 4)
    account = b',"bindings":[{"network":"netsunion","binding":"acct-', owner
    card = '","kind":"account","title":"支付账户"},{"network":"unionpay","binding":"card-'.encode(), owner
    canvas.write(*account, *card, b'","kind":"card","title":"**** ', tail, b'"}]')
