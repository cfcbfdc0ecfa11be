"""The example that docs/remote-participants.md gives other teams is what we send and accept."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from jiebang.remote.signing import Link, Requester, Responder, SignedRequest

PAGE = (Path(__file__).parents[2] / "docs" / "remote-participants.md").read_text(encoding="utf-8")
PRIVATE = b"""-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF
-----END PRIVATE KEY-----
"""
PUBLIC = b"""-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=
-----END PUBLIC KEY-----
"""
LINK = Link(name="unionpay", base_url="https://clearing.example/jiebang", private_key=PRIVATE, peer_key=PUBLIC)
NOW = datetime(2026, 4, 1, 12, 0, tzinfo=UTC)


def block(title: str) -> str:
    found = re.search(rf"^{title}[^\n]*:\n```\n(.*?)\n```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def headers(title: str) -> dict[str, str]:
    return {name.lower(): value for name, value in (line.split(": ", 1) for line in block(title).splitlines())}


def test_the_printed_request_is_the_one_we_send() -> None:
    """A team that reproduces the page must be understood by us, to the byte."""
    sent = Requester(LINK).sign(
        "POST", f"{LINK.base_url}/try", block("Body").encode(), now=NOW, nonce="kq3mVw0cT9nYb2eR7sLx"
    )
    assert {name.lower(): value for name, value in sent.headers.items()} == headers("Headers")
    base = block("Request to")
    assert base.splitlines()[-1].removeprefix('"@signature-params": ') == headers("Headers")["signature-input"][8:]


def test_the_printed_reply_is_the_one_our_networks_give() -> None:
    """A team that checks its reply against the page must pass our check of replies."""
    sent = SignedRequest("POST", f"{LINK.base_url}/try", headers("Headers"))
    signed = Responder(LINK).sign(sent, 200, "application/json", block("Reply body").encode(), now=NOW)
    assert {name.lower(): value for name, value in signed.items()} == headers("Reply headers")
