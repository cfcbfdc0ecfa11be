"""Contacts, groups, messages with stickers and recalls, moments, friend requests.

People know the accounts that follow theirs, and share a group with the fifteen around them; whoever of those is not in
the file is somebody outside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from jiebang.sandbox.population import lexicon
from jiebang.sandbox.population.chance import WeightedChoice, mix
from jiebang.sandbox.population.render import DAY, Either, Pool, digits, objects, stamp, texts

if TYPE_CHECKING:
    from jiebang.sandbox.population.chance import Ints
    from jiebang.sandbox.population.people import Chunk, Rows
    from jiebang.sandbox.population.render import Canvas

_PEOPLE, _CONTACTS, _GROUPS, _MEMBERS, _MESSAGES, _MOMENTS, _REQUESTS = range(50, 57)

_REACH: Final = 499  # how far from one's own account one's contacts lie: a prime, so that steps never meet
_STEP: Final = 37
_BLOCK: Final = 16
_REMARK: Final = objects(
    (
        {"remark": remark, "starred": starred}
        for starred, remarks in ((False, lexicon.REMARKS), (True, lexicon.REMARKS[:6]))
        for remark in remarks
    ),
    before=b",",
    after=b"}",
)
_GROUP: Final = objects(
    ({"name": name, "role": role, "left_at": None} for name in lexicon.GROUPS for role in ("member", "owner")),
    after=b"}",
)
_NICKNAME: Final = texts(lexicon.NICKNAMES, before=b',"nickname":', after=b"}")
_NICKNAMES: Final = texts(lexicon.NICKNAMES)


def _contents() -> list[dict[str, str | None]]:
    said: list[dict[str, str | None]] = [
        {"kind": "text", "body": text, "media": None} for text in lexicon.SAYINGS for _ in range(4)
    ]
    stickers: list[dict[str, str | None]] = [
        {"kind": "sticker", "body": f"[{name}]", "media": f"sticker/{name}"} for name in lexicon.STICKERS
    ]
    media: list[dict[str, str | None]] = [
        {"kind": kind, "body": f"{word} {number}", "media": f"{kind}/{number:08x}"}
        for kind, word in (("image", "图片"), ("voice", "语音"), ("video", "视频"), ("file", "文件"))
        for number in range(1, 5)
    ]
    links: list[dict[str, str | None]] = [{"kind": "link", "body": title, "media": None} for title in lexicon.LINKS]
    return [*said, *stickers, *stickers, *media, *links, {"kind": "location", "body": "深圳市南山区", "media": None}]


_CONTENT: Final = objects(_contents(), after=b',"peer_id":')
_MOMENT: Final = objects(
    (
        {"body": body, "images": images, "visibility": "some" if images == 1 else "all", "deleted_at": None}
        for body in lexicon.MOMENTS
        for images in (0, 1, 3, 9)
    ),
    after=b"}",
)
_GREETING: Final = texts(lexicon.GREETINGS, before=b',"greeting":')
_GROUP_COUNT: Final = WeightedChoice((25, 40, 25, 10))
_REQUEST_COUNT: Final = WeightedChoice((50, 35, 15))
_MOMENT_COUNT: Final = WeightedChoice((25, 25, 20, 15, 10, 5))


class _Ids:
    """Ids near the chunk's accounts as fragments, rendered once for the chunk."""

    def __init__(self, chunk: Chunk) -> None:
        first = int(chunk.accounts[0])
        self._low = max(1, first - _BLOCK)
        self.plain = Pool(b"%d" % one for one in range(self._low, first + chunk.count + _REACH + 1))

    def at(self, ids: Ints) -> Ints:
        return ids - self._low


def write_social(canvas: Canvas, chunk: Chunk) -> None:
    """Write the section `social`."""
    dice = chunk.dice(_PEOPLE)
    ids = _Ids(chunk)
    nickname = _NICKNAMES[dice.below(len(_NICKNAMES))]
    mail = digits(10_000 + dice.below_wide(10**9), 10)
    email = Either(dice.chance(4500), (b'"', mail, b'@qq.com"'), (b"null",))
    canvas.write(b',"social":{"nickname":', nickname, b',"email":', email)
    shift = dice.below(_REACH)
    contacts = chunk.rows(_CONTACTS, 4 + dice.below(6))
    known = _contact(chunk, contacts, shift, contacts.ordinal)
    canvas.list(
        b',"contacts":',
        contacts,
        b'"added_at":"',
        stamp(contacts.past(2500 * DAY)),
        b'","contact_id":',
        ids.plain[ids.at(known)],
        _REMARK[contacts.dice.below(len(_REMARK))],
    )
    groups = chunk.rows(_GROUPS, dice.choose(_GROUP_COUNT))
    group = _group(chunk, groups, groups.ordinal)
    canvas.list(
        b',"chat_groups":',
        groups,
        b'"group_id":',
        digits(group, 16),
        b',"joined_at":"',
        stamp(groups.past(1500 * DAY)),
        b'",',
        _GROUP[2 * (mix(group.astype(np.uint64)) >> np.uint64(60)).astype(np.int64) + groups.dice.chance(1200)],
    )
    _members(canvas, chunk, groups.counts, ids)
    _messages(canvas, chunk, contacts.counts, shift, ids)
    _moments(canvas, chunk)
    requests = chunk.rows(_REQUESTS, dice.choose(_REQUEST_COUNT))
    stranger = _contact(chunk, requests, shift, requests.ordinal + 100)
    sent = requests.past(200 * DAY)
    state = Either(
        requests.dice.chance(4000),
        (b',"state":"waiting","ended_at":null}',),
        (b',"state":"declined","ended_at":"', stamp(sent + 3000), b'"}'),
    )
    greeting = _GREETING[requests.dice.below(len(_GREETING))]
    sender = ids.plain[ids.at(stranger)]
    head = b'"request_id":', digits(requests.ordinal + 1, 1), b',"sent_at":"', stamp(sent), b'","sender_id":'
    canvas.list(b',"friend_requests":', requests, *head, sender, greeting, state)
    canvas.write(b"}")


def _contact(chunk: Chunk, rows: Rows, shift: Ints, number: Ints) -> Ints:
    """Return the account that contact `number` (below _REACH) of a row's person has."""
    return chunk.accounts[rows.person] + 1 + (shift[rows.person] + number * _STEP) % _REACH


def _group(chunk: Chunk, rows: Rows, number: Ints) -> Ints:
    """Return the id of group `number` (0 to 3) of a row's person: the same for the people around; 16 digits."""
    return 4 * 10**15 + (chunk.accounts[rows.person] - 1) // _BLOCK * 4 + number


def _members(canvas: Canvas, chunk: Chunk, groups: Ints, ids: _Ids) -> None:
    """Write four members of each group: oneself and three around."""
    rows = chunk.rows(_MEMBERS, groups * 4)
    group = _group(chunk, rows, rows.ordinal // 4)
    account = chunk.accounts[rows.person]
    base = (account - 1) // _BLOCK * _BLOCK + 1
    member = base + (account - base + rows.ordinal % 4 * 5) % _BLOCK
    name = _NICKNAME[rows.dice.below(len(_NICKNAME))]
    canvas.list(
        b',"group_members":',
        rows,
        b'"group_id":',
        digits(group, 16),
        b',"member_id":',
        ids.plain[ids.at(member)],
        name,
    )


def _messages(canvas: Canvas, chunk: Chunk, contacts: Ints, shift: Ints, ids: _Ids) -> None:
    """Write the messages: chats with the first contacts, one in fifty recalled."""
    dice = chunk.dice(_MESSAGES)
    rows = chunk.rows(_MESSAGES, 6 + dice.below(12))
    peer = ids.at(_contact(chunk, rows, shift, rows.dice.below(np.minimum(contacts, 4)[rows.person])))
    mine = rows.dice.chance(5000)
    sender = np.where(mine, ids.at(chunk.accounts)[rows.person], peer)
    at = rows.past(120 * DAY)
    whole = b',"group_id":null,"sender_id":', b',"recalled_at":null}'
    tail = Either(
        rows.dice.chance(200),
        (whole[0], ids.plain[sender], b',"recalled_at":"', stamp(at + 60), b'"}'),
        (Pool(ids.plain.values, *whole)[sender],),
    )
    canvas.list(
        b',"messages":',
        rows,
        b'"message_id":',
        digits(rows.ordinal + 101, 3),
        b',"sent_at":"',
        stamp(at),
        b'",',
        _CONTENT[rows.dice.below(len(_CONTENT))],
        ids.plain[peer],
        tail,
    )


def _moments(canvas: Canvas, chunk: Chunk) -> None:
    dice = chunk.dice(_MOMENTS)
    rows = chunk.rows(_MOMENTS, dice.choose(_MOMENT_COUNT))
    head = b'"moment_id":', digits(rows.ordinal + 1, 1), b',"posted_at":"', stamp(rows.past(500 * DAY)), b'",'
    canvas.list(b',"moments":', rows, *head, _MOMENT[rows.dice.below(len(_MOMENT))])
