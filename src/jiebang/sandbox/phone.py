"""The SMS and e-mail gateway and all phones, as a process of its own.

`python -m jiebang.sandbox.phone --data FILE --keys FOLDER`. The platform posts signed batches of notices;
a phone shows them at `/phones/{account}`, as JSON or, in a browser, as a page. Listens on this machine only.
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
from jiebang.model.notice import Channel, Notices
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
"""
_PHONES: Final = "/phones/"


class PhoneMessage(msgspec.Struct, frozen=True):
    """A message on a phone."""

    message_id: str
    channel: Channel
    text: Text
    received_at: datetime


class Inbox:
    """All messages, in one SQLite file. Methods block; the gateway calls them from one thread of their own."""

    def __init__(self, path: Path) -> None:
        """Open the file, making it where it is missing. Raises sqlite3.Error."""
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "fullfsync = ON", "busy_timeout = 5000"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.executescript(_SCHEMA)

    def take(self, notices: Notices, now: datetime) -> int:
        """Save new messages, all or none; known ids are skipped. Returns how many were new."""
        before = self._db.total_changes
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany(
                "INSERT INTO message (message_id, account_id, channel, zh, en, received_at) VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (message_id) DO NOTHING",
                [
                    (str(one.message_id), int(one.account), one.channel, one.text.zh, one.text.en, now.isoformat())
                    for one in notices.messages
                ],
            )
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        return self._db.total_changes - before

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
            {("POST", "/messages"): self.take},
            {("GET", "/phones/*"): self.show, ("GET", "/health"): self.health},
        )

    async def health(self, call: HttpCall) -> HttpAnswer:
        """Answer that the process is alive."""
        del call
        return ok({"name": GATEWAY, "pid": os.getpid()})

    async def take(self, call: HttpCall) -> HttpAnswer:
        """Take a batch of notices; those that came before are left as they are."""
        notices = parse(call.body, Notices)
        loop = asyncio.get_running_loop()
        return ok({"taken": await loop.run_in_executor(self._thread, self._inbox.take, notices, datetime.now(UTC))})

    async def show(self, call: HttpCall) -> HttpAnswer:
        """Answer an account's messages, the newest last: a page for a browser, else JSON."""
        account_id = parse_account(call.path.removeprefix(_PHONES))
        loop = asyncio.get_running_loop()
        messages = await loop.run_in_executor(self._thread, self._inbox.read, account_id)
        if "text/html" in call.sent.headers.get("accept", ""):
            return HttpAnswer(_page(str(account_id), messages).encode(), content_type="text/html; charset=utf-8")
        return ok({"account": str(account_id), "messages": messages})


_PAGE: Final = """<!doctype html>
<html lang="zh-CN">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>手机 {account} · Phone {account}</title>
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
<h1>账户 {account} 的手机 <span lang="en">Phone of account {account}</span></h1>
{messages}
</main>
</body>
</html>
"""
_MESSAGE: Final = """<li><p>{channel} · <time datetime="{at}">{shown}</time></p><p>{zh}</p><p lang="en">{en}</p></li>"""
_CHANNEL: Final = {Channel.SMS: "短信 SMS", Channel.EMAIL: "邮件 e-mail"}
_SHANGHAI: Final = ZoneInfo("Asia/Shanghai")


def _page(account: str, messages: Sequence[PhoneMessage]) -> str:
    shown = "\n".join(
        _MESSAGE.format(
            channel=_CHANNEL[one.channel],
            at=one.received_at.isoformat(),
            shown=f"{one.received_at.astimezone(_SHANGHAI):%Y-%m-%d %H:%M:%S}",
            zh=escape(one.text.zh),
            en=escape(one.text.en),
        )
        for one in messages
    )
    empty = '<p>还没有消息。<span lang="en">No messages yet.</span></p>'
    return _PAGE.format(account=account, messages=f"<ol>\n{shown}\n</ol>" if messages else empty)


def main() -> None:
    """Run the gateway until told to stop."""
    given = Arguments("模拟短信与邮件网关 / the sandbox's SMS and e-mail gateway").parse_args()
    given.data.parent.mkdir(parents=True, exist_ok=True)
    phone = Phone(Inbox(given.data))
    service = phone.service(Responder(read_other_end(given.keys, GATEWAY, "")))
    serve(nullcontext(service), given.port, with_parent=given.with_parent)


if __name__ == "__main__":
    main()
