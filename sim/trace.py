"""A world that tells what happens in it, line by line, so that a failed seed can be read like a story."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sim.world import World

if TYPE_CHECKING:
    from collections.abc import Callable

    from sim.options import Options
    from sim.world import Parts


class TracedWorld(World):
    """A world whose every event is written to `write`; otherwise the same world, event by event."""

    traced = True

    def __init__(
        self, seed: int, parts: Parts | None, write: Callable[[str], None], options: Options | None = None
    ) -> None:
        """Draw the world of `seed`, and first of all write what it is made of."""
        self._write = write
        super().__init__(seed, parts, options=options)
        write(f"seed {seed}")
        for field, value in msgspec.structs.asdict(self.options).items():
            write(f"    {field}: {value:.3f}" if isinstance(value, float) else f"    {field}: {value}")

    def tell(self, who: str, what: str) -> None:
        """Write one line: when, who, what."""
        self._write(f"{self.now:>8} ms  {who:<12} {what}")


def story_end(world: World) -> list[str]:
    """How the world stands when the story stops: its cases, rows and balances."""
    lines = ["cases:"]
    lines += [
        f"    {case.account_id}/{case.case_no} {case.state} {case.marks} versions {case.versions}"
        f" wallet {case.wallet_version}{' withdrawn' if case.withdraw_at else ''} {case.reason or ''}"
        for case in world.store.cases.values()
    ]
    lines.append("rows:")
    lines += [
        f"    account {account} at {party.name}: case {row.fence.case_no} {row.fence.case_op}, {row.status}, "
        f"version {row.version}, {row.open_items} open"
        for party in world.parties.values()
        for account, row in sorted(party.rows.items())
    ]
    lines.append(f"balances: {world.wallet.balances}")
    return lines
