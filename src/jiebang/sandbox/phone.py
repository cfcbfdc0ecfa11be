"""The message gateway, all phones and the mailboxes of organisations, as a process of its own.

`python -m jiebang.sandbox.phone --data FILE --keys FOLDER`. The platform posts signed batches of notices;
a phone shows them at `/phones/{account}`, as JSON or, in a browser, as a page, an organisation's mailbox at
`/mailboxes?kind=merchant&id=NAME`. Listens on this machine only.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

import msgspec

from jiebang.model.check import Text
from jiebang.model.notice import AddresseeKind, Channel, NoticeRefusal, Notices, NoticesTaken
from jiebang.remote.bodies import parse_account
from jiebang.remote.gateway import GATEWAY
from jiebang.remote.link_keys import read_other_end
from jiebang.remote.signing import Responder
from jiebang.remote.wire import parse
from jiebang.sandbox.service import Arguments, HttpAnswer, HttpCall, Service, ok, serve

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SHOWN: Final = 200
"""The newest messages of an account that its phone shows."""
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS message (
    received INTEGER PRIMARY KEY,
    message_id TEXT NOT NULL UNIQUE,
    account_id INTEGER NOT NULL,
    channel TEXT NOT NULL CHECK (channel IN ('sms', 'email')),
    zh TEXT NOT NULL,
    en TEXT NOT NULL,
    received_at TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS message_account ON message (account_id, received);
CREATE TABLE IF NOT EXISTS letter (
    received INTEGER PRIMARY KEY,
    message_id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    addressee TEXT NOT NULL,
    name TEXT NOT NULL,
    zh TEXT NOT NULL,
    en TEXT NOT NULL,
    received_at TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS letter_addressee ON letter (kind, addressee, received);
CREATE TABLE IF NOT EXISTS refusal (
    kind TEXT NOT NULL,
    addressee TEXT NOT NULL,
    code TEXT NOT NULL,
    final INTEGER NOT NULL,
    PRIMARY KEY (kind, addressee)
);
"""
_PHONES: Final = "/phones/"


class PhoneMessage(msgspec.Struct, frozen=True):
    """A message on a phone."""

    message_id: str
    channel: Channel
    text: Text
    received_at: datetime


class Letter(msgspec.Struct, frozen=True):
    """A message in an organisation's mailbox."""

    message_id: str
    kind: AddresseeKind
    id: str
    name: str
    text: Text
    received_at: datetime


class AddresseeRefusal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the gateway is told to do wrong: to refuse what is sent to an addressee (of a person, `id` is the account).

    `final`: for good, as for an addressee that does not exist; else for now, as for one whose mailbox is down.
    """

    kind: AddresseeKind
    id: str
    code: str = "NO-SUCH-ADDRESSEE"
    final: bool = True


class AddresseeRefusals(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `PUT /sandbox/refusals`: all that there are from now on."""

    refusals: list[AddresseeRefusal]


class Inbox:
    """All messages, in one SQLite file. Methods block; the gateway calls them from one thread of their own."""

    def __init__(self, path: Path) -> None:
        """Open the file, making it where it is missing. Raises sqlite3.Error."""
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "fullfsync = ON", "busy_timeout = 5000"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.executescript(_SCHEMA)

    def take(self, notices: Notices, now: datetime) -> NoticesTaken:
        """Save new messages, all or none, except those that are refused; known ids are skipped."""
        before = self._db.total_changes
        rules = {row[:2]: row[2:] for row in self._db.execute("SELECT kind, addressee, code, final FROM refusal")}
        refused = [
            NoticeRefusal(one.message_id, rules[one.lane][0], bool(rules[one.lane][1]))
            for one in notices.messages
            if one.lane in rules
        ]
        taken, at = [one for one in notices.messages if one.lane not in rules], now.isoformat()
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany(
                "INSERT INTO message (message_id, account_id, channel, zh, en, received_at) VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (message_id) DO NOTHING",
                [
                    (str(one.message_id), int(one.account), one.channel, one.text.zh, one.text.en, at)
                    for one in taken
                    if one.account is not None
                ],
            )
            self._db.executemany(
                "INSERT INTO letter (message_id, kind, addressee, name, zh, en, received_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (message_id) DO NOTHING",
                [
                    (str(one.message_id), one.to.kind, one.to.id, one.to.name, one.text.zh, one.text.en, at)
                    for one in taken
                    if one.to is not None
                ],
            )
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        return NoticesTaken(self._db.total_changes - before, refused)

    def refuse(self, refusals: Sequence[AddresseeRefusal]) -> None:
        """Refuse what is sent to these addressees from now on, and to no others."""
        self._db.execute("BEGIN IMMEDIATE")
        self._db.execute("DELETE FROM refusal")
        self._db.executemany(
            "INSERT OR REPLACE INTO refusal (kind, addressee, code, final) VALUES (?, ?, ?, ?)",
            [(one.kind.value, one.id, one.code, one.final) for one in refusals],
        )
        self._db.execute("COMMIT")

    def read_mailbox(self, kind: str | None, addressee: str | None) -> list[Letter]:
        """Return the newest messages of an organisation, the newest last; of all those of a kind, or of all (None)."""
        query = """SELECT message_id, kind, addressee, name, zh, en, received_at FROM letter
            WHERE kind = coalesce(?, kind) AND addressee = coalesce(?, addressee) ORDER BY received DESC LIMIT ?"""
        rows = self._db.execute(query, (kind, addressee, SHOWN)).fetchall()
        return [
            Letter(message_id, AddresseeKind(kind_), id_, name, Text(zh, en), datetime.fromisoformat(at))
            for message_id, kind_, id_, name, zh, en, at in reversed(rows)
        ]

    def read(self, account_id: int) -> list[PhoneMessage]:
        """Return an account's newest messages, the newest last."""
        query = """SELECT message_id, channel, zh, en, received_at FROM message
            WHERE account_id = ? ORDER BY received DESC LIMIT ?"""
        rows = self._db.execute(query, (account_id, SHOWN)).fetchall()
        return [
            PhoneMessage(message_id, Channel(channel), Text(zh, en), datetime.fromisoformat(at))
            for message_id, channel, zh, en, at in reversed(rows)
        ]


class Phone:
    """The gateway's routes."""

    def __init__(self, inbox: Inbox) -> None:
        """Serve `inbox`."""
        self._inbox = inbox
        self._thread = ThreadPoolExecutor(1, "inbox")

    def service(self, responder: Responder) -> Service:
        """Return the gateway as an ASGI application."""
        return Service(
            responder,
            {("POST", "/messages"): self.take, ("PUT", "/sandbox/refusals"): self.refuse},
            {
                ("GET", "/phones/*"): self.show,
                ("GET", "/mailboxes"): self.show_mailbox,
                ("GET", "/health"): self.health,
            },
        )

    async def health(self, call: HttpCall) -> HttpAnswer:
        """Answer that the process is alive."""
        del call
        return ok({"name": GATEWAY, "pid": os.getpid()})

    async def take(self, call: HttpCall) -> HttpAnswer:
        """Take a batch of notices; those that came before are left as they are."""
        notices = parse(call.body, Notices)
        loop = asyncio.get_running_loop()
        return ok(await loop.run_in_executor(self._thread, self._inbox.take, notices, datetime.now(UTC)))

    async def refuse(self, call: HttpCall) -> HttpAnswer:
        """Set whose notices are refused from now on."""
        refusals = parse(call.body, AddresseeRefusals).refusals
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._inbox.refuse, refusals)
        return ok({"refusals": refusals})

    async def show(self, call: HttpCall) -> HttpAnswer:
        """Answer an account's messages, the newest last: a page for a browser, else JSON."""
        account_id = parse_account(call.path.removeprefix(_PHONES))
        loop = asyncio.get_running_loop()
        messages = await loop.run_in_executor(self._thread, self._inbox.read, account_id)
        if "text/html" in call.sent.headers.get("accept", ""):
            return HttpAnswer(_page(str(account_id), messages).encode(), content_type="text/html; charset=utf-8")
        return ok({"account": str(account_id), "messages": messages})

    async def show_mailbox(self, call: HttpCall) -> HttpAnswer:
        """Answer an organisation's messages (`kind`, `id`), the newest last: a page for a browser, else JSON."""
        kind, addressee = (call.query.get(name, [None])[0] for name in ("kind", "id"))
        loop = asyncio.get_running_loop()
        letters = await loop.run_in_executor(self._thread, self._inbox.read_mailbox, kind, addressee)
        if "text/html" in call.sent.headers.get("accept", ""):
            return HttpAnswer(_mailbox_page(letters).encode(), content_type="text/html; charset=utf-8")
        return ok({"messages": letters})


_PAGE: Final = """<!doctype html>
<html lang="zh-CN">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title_zh} · {title_en}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 1rem/1.55 system-ui, sans-serif; max-width: 30rem; margin: 1.5rem auto; padding: 0 1rem;
  background: light-dark(#f3f4f6, #111318); color: light-dark(#1b1f24, #e8eaed); }}
h1 {{ font-size: 1.25rem; }}
h1 span {{ display: block; font-size: .95rem; font-weight: 400; }}
li {{ list-style: none; border-radius: .75rem; padding: .75rem 1rem; margin: .75rem 0;
  background: light-dark(#ffffff, #1e2229); }}
ol {{ padding: 0; }}
p {{ margin: .4rem 0; white-space: pre-line; overflow-wrap: anywhere; }}
p:first-child, [lang="en"] {{ color: light-dark(#4a525c, #b4bac2); }}
</style>
</head>
<body>
<main>
<h1>{title_zh} <span lang="en">{title_en}</span></h1>
{messages}
</main>
</body>
</html>
"""
_MESSAGE: Final = """<li><p>{channel} · <time datetime="{at}">{shown}</time></p><p>{zh}</p><p lang="en">{en}</p></li>"""
_CHANNEL: Final = {Channel.SMS: "短信 SMS", Channel.EMAIL: "邮件 e-mail"}
_SHANGHAI: Final = ZoneInfo("Asia/Shanghai")


def _page(account: str, messages: Sequence[PhoneMessage]) -> str:
    lines = [(_CHANNEL[one.channel], one.received_at, one.text) for one in messages]
    return _render(f"账户 {account} 的手机", f"Phone of account {account}", lines)


def _mailbox_page(letters: Sequence[Letter]) -> str:
    lines = [(f"{_ADDRESSEE[one.kind]} {one.name}", one.received_at, one.text) for one in letters]
    return _render("机构信箱", "Mailboxes of organisations", lines)


_ADDRESSEE: Final = {
    AddresseeKind.MERCHANT: "商户 merchant",
    AddresseeKind.ENTERPRISE: "企业 enterprise",
    AddresseeKind.PLATFORM: "第三方平台 platform",
    AddresseeKind.APP: "应用 app",
}


def _render(title_zh: str, title_en: str, lines: Sequence[tuple[str, datetime, Text]]) -> str:
    shown = "\n".join(
        _MESSAGE.format(
            channel=escape(by),
            at=at.isoformat(),
            shown=f"{at.astimezone(_SHANGHAI):%Y-%m-%d %H:%M:%S}",
            zh=escape(text.zh),
            en=escape(text.en),
        )
        for by, at, text in lines
    )
    empty = '<p>还没有消息。<span lang="en">No messages yet.</span></p>'
    return _PAGE.format(title_zh=title_zh, title_en=title_en, messages=f"<ol>\n{shown}\n</ol>" if lines else empty)


def main() -> None:
    """Run the gateway until told to stop."""
    given = Arguments("模拟短信与邮件网关 / the sandbox's SMS and e-mail gateway").parse_args()
    given.data.parent.mkdir(parents=True, exist_ok=True)
    phone = Phone(Inbox(given.data))
    service = phone.service(Responder(read_other_end(given.keys, GATEWAY, "")))
    serve(nullcontext(service), given.port, with_parent=given.with_parent)


if __name__ == "__main__":
    main()
