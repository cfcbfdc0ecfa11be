"""Devices, logins, second factors, holds; and the games, whose guard also looks at the person's age."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import numpy as np

from jiebang.sandbox.population import lexicon, names
from jiebang.sandbox.population.chance import WeightedChoice
from jiebang.sandbox.population.format import HoldRecord
from jiebang.sandbox.population.people import RESERVED
from jiebang.sandbox.population.render import DAY, Either, Pool, digits, json_of, objects, rarely, stamp, texts

if TYPE_CHECKING:
    from jiebang.sandbox.population.people import Chunk, Rows
    from jiebang.sandbox.population.render import Canvas, Fixed, Part

_PEOPLE, _DEVICES, _LOGINS, _FACTORS, _GAMES, _SESSIONS, _GAME_PEOPLE = range(30, 37)

_DEVICE_FIELDS: Final = ("platform", "model", "os_version", "biometric")
_DEVICE: Final = objects(
    (dict(zip(_DEVICE_FIELDS, row, strict=True)) for row in (*lexicon.DEVICES, *lexicon.OTHER_DEVICES)),
    after=b',"retired_at":null}',
)
_PHONES: Final = len(lexicon.DEVICES)
_EXTRA: Final = len(lexicon.OTHER_DEVICES)
_PLACE: Final = texts(
    (city for _, city in names.REGIONS), before=b'","place":', after=b',"anomaly":null,"confirmed_at":null}'
)
_ABROAD: Final = ("缅甸 内比都", "柬埔寨 金边", "菲律宾 马尼拉", "未知(代理)")
_ANOMALIES: Final = ("new_device", "far_place", "odd_hour", "many_failures")
_BOOLS: Final = Pool((b"false", b"true"))
_GAME: Final = texts(lexicon.GAMES, before=b'","name":', after=b',"withdrawn_at":null}')
_LOGIN_COUNT: Final = WeightedChoice((20, 30, 25, 15, 10))
_DEVICE_COUNT: Final = WeightedChoice((60, 30, 10))
_GAME_COUNT: Final = WeightedChoice((45, 25, 20, 10))


def write_security(canvas: Canvas, chunk: Chunk) -> None:
    """Write the section `security`."""
    dice = chunk.dice(_PEOPLE)
    recent = chunk.meets["SEC-DEVICE-RECENT"]
    long_ago = chunk.now - 8 * DAY - ((chunk.age_seconds - 30 * DAY) * dice.lane() >> 16)
    since = np.where(recent, chunk.now - 3600 - dice.below(6 * DAY // 2) * 2, long_ago)
    level = digits(2 + dice.below(3), 1)
    owner = digits(chunk.accounts, 16)
    canvas.write(b',"security":{"level":', level, b',"primary_device_id":"dev-', owner, b'-1","primary_device_since":"')
    canvas.write(b"", stamp(since), b'","login_needs_sms":false,"devices":')
    rows = chunk.rows(_DEVICES, 1 + dice.choose(_DEVICE_COUNT))
    main = rows.ordinal == 0
    model = np.where(main, rows.dice.below(_PHONES), _PHONES + rows.dice.below(_EXTRA))
    registered = np.where(main, since[rows.person], rows.past(800 * DAY))
    seen = chunk.now - 3600 + rows.dice.below(3600)
    canvas.list(
        b"",
        rows,
        b'"device_id":"dev-',
        owner[rows.person],
        b"-",
        digits(rows.ordinal + 1, 1),
        b'","registered_at":"',
        stamp(registered),
        b'","last_seen_at":"',
        stamp(seen),
        b'",',
        _DEVICE[model],
    )
    _logins(canvas, chunk, owner)
    _factors(canvas, chunk)
    held = np.flatnonzero(chunk.meets["LEGAL-HOLD"]).tolist()
    which, ago = dice.below(len(lexicon.HOLDS)), dice.below(200)
    holds = {at: HoldRecord(1, "legal", *lexicon.HOLDS[which[at]], chunk.ago(at, int(ago[at]) * DAY)) for at in held}
    fragments = {at: b',"holds":%b}' % json_of([hold]) for at, hold in holds.items()}
    canvas.write(b"", rarely(chunk.count, b',"holds":[]}', fragments))


def _logins(canvas: Canvas, chunk: Chunk, owner: Fixed) -> None:
    """Write the logins: first the abnormal ones (one in the last 30 days where met, else some that were confirmed)."""
    dice = chunk.dice(_LOGINS)
    abnormal = chunk.meets["SEC-ABNORMAL-LOGIN"]
    confirmed = ~abnormal & dice.chance(600) & (chunk.accounts > RESERVED)
    rows = chunk.rows(_LOGINS, 2 + dice.choose(_LOGIN_COUNT))
    first = rows.ordinal == 0
    odd, said = first & abnormal[rows.person], first & confirmed[rows.person]
    at = rows.past(np.where(odd, 28 * DAY, 120 * DAY))
    home = dice.below(len(names.REGIONS))[rows.person]
    travel = rows.dice.chance(1000)
    place = np.where(travel, rows.dice.below(len(names.REGIONS)), home)
    which = rows.dice.below(len(_ABROAD) * len(_ANOMALIES))
    strange = dict[int, bytes]()
    for row in np.flatnonzero(odd | said).tolist():
        city, kind = _ABROAD[which[row] % len(_ABROAD)], _ANOMALIES[which[row] // len(_ABROAD)]
        closed = json_of(datetime.fromtimestamp(int(at[row]) + 1800, UTC)) if said[row] else b"null"
        strange[row] = b'","place":%b,"anomaly":"%b","confirmed_at":%b}' % (json_of(city), kind.encode(), closed)
    head = b'"login_id":', digits(rows.ordinal + 1, 1), b',"device_id":"dev-', owner[rows.person], b'-1","at":"'
    where = Either(odd | said, (rarely(rows.total, b"", strange),), (_PLACE[place],))
    canvas.list(b',"logins":', rows, *head, stamp(at), where)


def _factors(canvas: Canvas, chunk: Chunk) -> None:
    """Write the second factors: the phone always, an e-mail or a key for some."""
    dice = chunk.dice(_FACTORS)
    rows = chunk.rows(_FACTORS, 1 + dice.chance(4000))
    phone = digits(chunk.phone[rows.person], 11)
    mail = digits(10_000 + rows.dice.below_wide(10**9), 9)
    sms: tuple[Part, ...] = b'"sms","address":"', phone, b'","revoked_at":null}'
    email: tuple[Part, ...] = b'"email","address":"', mail, b'@qq.com","revoked_at":null}'
    kind = Either(rows.ordinal == 0, sms, email)
    head = b'"factor_id":', digits(rows.ordinal + 1, 1), b',"enrolled_at":"', stamp(rows.past(900 * DAY)), b'","kind":'
    canvas.list(b',"second_factors":', rows, *head, kind)


def write_gaming(canvas: Canvas, chunk: Chunk) -> None:
    """Write the section `gaming`: minors have the guard on, and play at the times that it leaves them."""
    dice = chunk.dice(_GAME_PEOPLE)
    minor = chunk.meets["MINOR-EVIDENCE"]
    guard = _BOOLS[minor.astype(np.int64)]
    rows = chunk.rows(_GAMES, dice.choose(_GAME_COUNT))
    game = _first_game(chunk, rows)
    canvas.write(b',"gaming":{"game_guard":', guard)
    head = b'"game_id":', digits(game + 1, 1), b',"granted_at":"', stamp(rows.past(900 * DAY))
    canvas.list(b',"access":', rows, *head, _GAME[game])
    sessions = chunk.rows(_SESSIONS, np.where(rows.counts > 0, dice.below(3), 0))
    played = _first_game(chunk, sessions, same=True)
    week = sessions.dice.below(8) * 7
    friday = chunk.today_day - (chunk.today.weekday() - 4) % 7 - 7 - week  # minors: Fridays, 20:00 to 21:00 in Shanghai
    start = np.where(minor[sessions.person], friday * DAY + 12 * 3600, sessions.past(60 * DAY) - 7200)
    length = 600 + sessions.dice.below(3000)
    canvas.list(
        b',"play_sessions":',
        sessions,
        b'"session_id":',
        digits(sessions.ordinal + 1, 1),
        b',"game_id":',
        digits(played + 1, 1),
        b',"started_at":"',
        stamp(start),
        b'","ended_at":"',
        stamp(start + length),
        b'"}',
    )
    canvas.write(b"}")


def _first_game(chunk: Chunk, rows: Rows, *, same: bool = False) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return each row's game: a person's own first one, then those after it (or `same`: always the first)."""
    start = chunk.dice(_GAMES).below(len(_GAME))[rows.person]
    return start if same else (start + rows.ordinal) % len(_GAME)
