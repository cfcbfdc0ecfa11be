"""The worlds that `python -m sim explore` walks. Together they hold everything named in docs/protocol.md, "Checking".

In each of them, at no cost of a fault: any message and any reply is lost, delayed, repeated or overtaken; a worker
forgets what it learnt; another worker stands still and acts on an old copy; the person withdraws at any moment; a case
expires unproven. A fault is: a worker dies between save and some of its sends; a Try is refused; a Confirm or Cancel
is answered with an error; silence lasts until the deadline; the re-check finds a blocker; a fact changes.
"""

from __future__ import annotations

from typing import Final

from sim.states import Bounds, Shape

FOUR: Final = ("identity", "social", "unionpay", "wallet")
"""Two databases, a network that owns no facts, and the wallet."""

_FOUR: Final = Shape(parties=FOUR, waves=(0, 0, 0, 1), cases=1)
_FOUR_TWICE: Final = Shape(parties=FOUR, waves=(0, 0, 0, 1), cases=2)
_THREE_TWICE: Final = Shape(parties=("identity", "unionpay", "wallet"), waves=(0, 0, 1), cases=2)
_TWO: Final = Shape(parties=("identity", "wallet"), waves=(0, 1), cases=1)
_TWO_TWICE: Final = Shape(parties=("identity", "wallet"), waves=(0, 1), cases=2)
_WALLET: Final = Shape(parties=("wallet",), waves=(0,), cases=1, withdrawals=False)
_WAVES: Final = Shape(parties=FOUR, waves=(0, 0, 1, 2), cases=1)
_REVIEWED: Final = Shape(parties=("identity", "wallet"), waves=(0, 1), cases=2, reviews=True)

WORLDS: Final = (
    Bounds(name="everything", accounts=(_FOUR_TWICE, _WALLET), faults=1),
    Bounds(name="three-faults", accounts=(_THREE_TWICE,), faults=3),
    Bounds(name="pair", accounts=(_TWO_TWICE, _TWO), faults=1),
    Bounds(name="two-faults", accounts=(_FOUR,), faults=2),
    Bounds(name="three-waves", accounts=(_WAVES,), faults=2),
    Bounds(name="wide", accounts=(_FOUR_TWICE,), faults=1),
    Bounds(name="reviewed", accounts=(_REVIEWED,), faults=3, transfers=2),
)
"""The longest first, so that two processes end together."""
SMALL: Final = Bounds(name="small", accounts=(_TWO_TWICE,), faults=2)
"""The world that the test suite walks, and in which every planted mistake shows."""
