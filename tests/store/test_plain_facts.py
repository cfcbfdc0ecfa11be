"""What participants answer is made plain where it comes in: people typed it anywhere, and it is shown everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from jiebang.participants import PARTICIPANTS
from jiebang.participants.opening import open_participants
from tests.rows import AT, insert, insert_accounts

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

HOSTILE = "红包\u202e包红\x1b[2J\x9b\x7f"
PLAIN = "红包\N{REPLACEMENT CHARACTER}包红␛[2J\N{REPLACEMENT CHARACTER}␡"


async def test_facts_are_plain_text(pools: Mapping[str, Pool]) -> None:
    """The sender of a red packet chooses the name that an operator's terminal and a person's phone will show."""
    for name in ("wallet", "security"):
        await insert_accounts(pools[name], name, [1, 2])
    await insert(
        pools["wallet"],
        "wallet.red_packet",
        [
            {
                "account_id": account,
                "packet_id": 1,
                "sender": sender,
                "amount_fen": 1,
                "state": "unclaimed",
                "sent_at": AT,
                "expires_at": datetime(2027, 1, 1, tzinfo=UTC),
            }
            for account, sender in ((1, HOSTILE), (2, "张三 👨‍👩‍👧"))
        ],
    )
    await insert(
        pools["security"],
        "security.hold",
        [
            {"account_id": 1, "hold_id": 1, "kind": "legal", "authority": HOSTILE, "contact": "a\nb", "placed_at": AT},
        ],
    )
    found = open_participants(PARTICIPANTS, pools, lambda: AT, pepper=bytes(32))
    wallet, security = await found["wallet"].facts([1, 2]), await found["security"].facts([1])
    assert wallet is not None
    assert security is not None
    packets = wallet.columns["unclaimed_red_packet_items"]
    assert [one[0]["sender"] for one in packets] == [PLAIN, "张三 👨‍👩‍👧"]
    assert list(security.columns["legal_hold_authority"]) == [f"{PLAIN} a␊b"]
    assert HOSTILE not in msgspec.json.encode(wallet.columns, enc_hook=str).decode()
