"""The clearing networks 银联 and 网联: participants across the network, which own no facts and no database of ours."""

from __future__ import annotations

from typing import Final

from jiebang.model.participants import Declaration, Operation

_OPERATIONS: Final = {"release": Operation(effects=None)}
"""A network releases the account's bindings; further effects of the plan are sent unchanged."""

DECLARATIONS: Final = tuple(
    Declaration(owner=name, package=__name__, operations=_OPERATIONS, formerly="release")
    for name in ("unionpay", "netsunion")
)
