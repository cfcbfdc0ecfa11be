"""The packs that this process has loaded, and which is in force: read from the store, replaced as a whole.

Every process reads one row several times a second. A version comes into force at a future time, by which every process
has loaded it, so that all switch together and none meets a case that follows a version it has not loaded.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import structlog
from prometheus_client import Counter, Gauge

from jiebang.model.errors import PackInvalidError, UnknownPackError
from jiebang.model.plan import EffectCorrection
from jiebang.participants.base import UNANSWERED
from jiebang.policy.load import load_pack
from jiebang.store.policy import corrections
from jiebang.store.policy import packs as store

if TYPE_CHECKING:
    from jiebang.model.case import Case, Kind
    from jiebang.model.participants import ParticipantRegistry
    from jiebang.model.plan import Plan
    from jiebang.policy.pack import Pack
    from jiebang.store.policy.corrections import Correction
    from jiebang.store.policy.packs import PolicyState
    from jiebang.store.postgres.pool import Database
    from jiebang.store.retention.ended_cases import EndedCase

_ALL: Final = 1_000_000
POLL: Final = timedelta(milliseconds=200)
LEAD: Final = timedelta(milliseconds=500)
"""From an activation until it comes into force: more than two polls, so that all processes have loaded it."""

UNLOADABLE_TOTAL: Final = Counter(
    "jiebang_packs_unloadable_total", "Stored versions of policy that did not load", ["pack"]
)
IN_FORCE: Final = Gauge("jiebang_policy_activation", "Number of the activation in force")

_log = structlog.get_logger(__name__)


class PackRegistry:
    """Holds every version in the store. A Pack never changes; a check takes the reference to one once."""

    def __init__(self, db: Database, declared: ParticipantRegistry, clock: Callable[[], datetime]) -> None:
        """Empty before the first `refresh`. `declared`: the participants that packs are loaded against."""
        self._db, self._clock = db, clock
        self.declared = declared
        self._packs: Mapping[str, Pack] = MappingProxyType({})
        self._corrected: Mapping[tuple[str, Kind], Plan] = MappingProxyType({})
        self._unloadable: set[str] = set()
        self._state: PolicyState | None = None
        self._refused = 0

    def in_force(self) -> Pack:
        """Return the version in force now. Raises UnknownPackError before the first refresh."""
        state = self._state
        if state is None:
            raise UnknownPackError(pack="", known=sorted(self._packs))
        return self.pack(state.at(self._clock()))

    def shadow(self) -> Pack | None:
        """Return the version that runs in shadow, if one does that is not in force itself."""
        state = self._state
        if state is None or state.shadow is None or state.shadow == state.at(self._clock()):
            return None
        return self._packs.get(state.shadow)

    def pack(self, name: str) -> Pack:
        """Return a version by name and version, `wechat/2`. Raises UnknownPackError."""
        found = self._packs.get(name)
        if found is None:
            raise UnknownPackError(pack=name, known=sorted(self._packs))
        return found

    def list_versions(self, name: str) -> list[Pack]:
        """Return the versions of a pack that this process has loaded, the newest first."""
        found = [pack for pack in self._packs.values() if pack.id.partition("/")[0] == name]
        return sorted(found, key=lambda pack: int(pack.id.partition("/")[2]), reverse=True)

    def plan_of(self, case: Case) -> Plan:
        """Return the plan that a case follows: always that of the version it was opened under, as corrected since."""
        return self.plan_named(case.plan, case.kind)

    def plan_named(self, pack: str, kind: Kind) -> Plan:
        """Return the plan of a version for a kind, with the effects that two operators set right."""
        return self._corrected.get((pack, kind)) or self.pack(pack).plans[kind]

    async def plans_ever_in_force(self) -> list[tuple[Kind, Plan]]:
        """Return every plan that a case may follow, with its kind, the newest last."""
        await self.refresh()
        names = [each.pack for each in await store.load_history(self._db, _ALL) if each.in_force_since is not None]
        packs = [self._packs[name] for name in dict.fromkeys(reversed(names)) if name in self._packs]
        return [(kind, self.plan_named(pack.id, kind)) for pack in packs for kind in pack.plans]

    async def know(self, cases: Iterable[Case | EndedCase]) -> None:
        """Load the versions that `cases` follow, if this process has not loaded them yet."""
        if not {case.plan for case in cases} <= self._packs.keys() | self._unloadable:
            await self.refresh()

    async def refresh(self) -> None:
        """Read the state, and load new versions. Raises what the platform's database raises; nothing changes then."""
        state = await store.load_state(self._db)
        if state is not None and self._state is not None and state.revision <= self._state.revision:
            return
        found: dict[str, Pack] = {}
        for stored in await store.load_others(self._db, self._packs.keys() | self._unloadable):
            try:
                found[stored.pack] = pack = await asyncio.to_thread(
                    load_pack, stored.text, f"{stored.pack}.yaml", self.declared, stored=True
                )
                if pack.shortfalls:
                    _log.warning("pack_falls_short", pack=stored.pack, problems=[each.en for each in pack.shortfalls])
            except PackInvalidError as error:
                # Admitted by an earlier jiebang with another pack language. Cases that follow it wait for an operator.
                self._unloadable.add(stored.pack)
                UNLOADABLE_TOTAL.labels(stored.pack).inc()
                _log.error("pack_unloadable", pack=stored.pack, problems=error.fields["problems"][:3])
        packs = MappingProxyType({**self._packs, **found})
        self._corrected = _apply_corrections(packs, await corrections.load_approved(self._db))
        if state is not None and state.pack not in packs:
            self._packs = packs
            if self._refused != state.revision:
                _log.error("pack_in_force_unloadable", pack=state.pack, kept=self._state and self._state.pack)
            self._refused = state.revision
            if self._state is None:
                self.pack(state.pack)  # raises: without any version in force the process does not start
            return
        self._packs = packs
        if state is not None and (self._state is None or state.activation_no != self._state.activation_no):
            IN_FORCE.set(state.activation_no)
            _log.info("policy_in_force", pack=state.pack, since=state.in_force_since.isoformat())
        self._state = state

    async def run(self) -> None:
        """Refresh until cancelled. While the database is silent, what was read last stays in force."""
        while True:
            await asyncio.sleep(POLL.total_seconds())
            try:
                await self.refresh()
            except UNANSWERED as error:
                _log.warning("policy_state_unread", error=type(error).__name__)
                await asyncio.sleep(1)
            except Exception:  # noqa: BLE001 - nothing in the store may end the process
                _log.exception("policy_not_refreshed")
                await asyncio.sleep(1)


def _apply_corrections(packs: Mapping[str, Pack], approved: Iterable[Correction]) -> Mapping[tuple[str, Kind], Plan]:
    """Return the plans that were corrected."""
    by_plan = defaultdict[tuple[str, "Kind"], list[EffectCorrection]](list)
    for each in approved:
        by_plan[each.pack, each.kind].append(EffectCorrection(each.participant, each.effect, each.value))
    return MappingProxyType(
        {
            (name, kind): packs[name].plans[kind].corrected(changes)
            for (name, kind), changes in by_plan.items()
            if name in packs and kind in packs[name].plans
        }
    )
