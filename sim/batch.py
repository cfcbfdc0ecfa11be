"""The batch driver of a simulated world: the product's (`saga.driver.BatchDriver`), observed by a witness.

Nothing is implemented again here. This subclass passes in the parts that planted mistakes replace, makes poisoned cases
fail their batch, and counts what happened to groups of several cases, so that a run can list what it has not tried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from jiebang.saga.driver import BatchDriver
from jiebang.saga.needs import DriverCourse, GroupSave, Round, SaveRefusal
from sim.evidence import ViolationError
from sim.witness import Witness

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from jiebang.model.case import Case, Key
    from jiebang.model.plan import Plan
    from jiebang.saga.batch import GroupReplies, GroupStep
    from jiebang.saga.coordinator import Event, Rechecked, Reply
    from jiebang.saga.needs import CallKey, Need
    from jiebang.saga.orders import Answers
    from sim.world import Parts


class BatchWorld(Protocol):
    """What the batch driver needs of its world."""

    @property
    def options(self) -> Any:
        """The world's options; only `timing` is read."""

    @property
    def parts(self) -> Parts:
        """The parts that planted mistakes replace."""

    @property
    def witnessed(self) -> bool:
        """Whether every batch has a witness."""

    seen: Counter[str]
    group_moves: Counter[str]

    def plan_of(self, case: Case) -> Plan:
        """The plan that a case follows."""

    def poisoned(self, key: Key, place: str) -> bool:
        """Whether the case makes its batch fail at this place."""


class PoisonedError(Exception):
    """A poisoned case: its batch fails as a whole."""


class WitnessedError(BaseException):
    """A witness's violation. Not an Exception, which the driver takes for a fault of one case, and continues."""


class WorldBatch(BatchDriver):
    """Drives one batch of a world. Planted mistakes derive from it."""

    def __init__(self, world: BatchWorld, now: datetime) -> None:
        """Drive with the world's parts."""
        super().__init__(now, world.options.timing)
        self.world = world
        self.step = world.parts.step
        self.witness: Witness | None = None

    def run(self, taken: Sequence[Case], late: Sequence[Reply]) -> DriverCourse[None]:
        """Drive the batch, observed by a witness."""
        world = self.world
        if world.witnessed:
            self.witness = Witness(taken, late, world.plan_of, world.parts.step, self.timing)
        try:
            yield from super().run(taken, late)
            if self.witness is not None:
                self.witness.end(self.now)
        except ViolationError as wrong:
            raise WitnessedError(str(wrong)) from wrong

    def request(self, need: Need) -> DriverCourse[Any]:
        """Have the witness check the request, and learn its result."""
        if self.witness is not None:
            self.witness.check(need, self.now)
        result = yield from super().request(need)
        if self.witness is not None:
            self.witness.learn(need, result)
        self._count(need, result)
        return result

    def _count(self, need: Need, result: Any) -> None:
        seen = self.world.seen
        if isinstance(need, GroupSave):
            several = [save for save in need.saves if len(save.cases) > 1]
            if isinstance(result, SaveRefusal):
                seen["group: save refused for one of several"] += bool(several)
            else:
                seen["group: member's save lost"] += any(
                    case.key in result.lost for one in several for case in one.cases
                )
                seen["group: member wishes to withdraw"] += any(
                    case.key in result.wishes for one in several for case in one.cases
                )
        elif isinstance(need, Round):
            seen["group: call halved"] += any(len(answers) > 1 for answers in result.answers)

    def plan_of(self, case: Case) -> Plan:
        """Return the case's plan; raises PoisonedError for a case that is poisoned at its step."""
        if self.world.poisoned(case.key, "step"):
            self.world.seen["batch poisoned at a step"] += 1
            raise PoisonedError
        return super().plan_of(case)

    def start(self, together: list[tuple[Case, tuple[int, ...], Rechecked]]) -> GroupStep:
        """Count groups that start together."""
        step = super().start(together)
        self._moved(step)
        return step

    def step_group(self, each: GroupReplies) -> GroupStep:
        """Count steps of groups."""
        step = super().step_group(each)
        self._moved(step)
        return step

    def take_steps(self, events: Mapping[Key, Event], replies: Iterable[GroupReplies]) -> list[GroupStep]:
        """Count groups formed of cases that were in none."""
        steps = super().take_steps(events, replies)
        for step in steps:
            if len(step.group.keys) > 1 and step.before.state is step.after.state and not step.replies:
                self.world.seen["group: asked again together"] += 1
        return steps

    def _moved(self, step: GroupStep) -> None:
        if len(step.group.keys) > 1:
            before, after = step.before.state, step.after.state
            self.world.group_moves["learnt" if step.unsaved else f"{before} → {after}"] += 1

    def save_learnt(self) -> DriverCourse[None]:
        """Count entries that no other save included."""
        self.world.seen["learnt, then silence"] += len(self.learnt)
        yield from super().save_learnt()

    def dissolve(self, step: GroupStep) -> None:
        """Count groups that are dissolved for lack of replies."""
        self.world.seen["group: parted in silence"] += len(step.group.keys) > 1
        super().dissolve(step)

    def assign_replies(
        self, sending: Sequence[GroupStep], answered: Mapping[CallKey, Sequence[Answers]], replies: Sequence[Reply]
    ) -> tuple[list[GroupReplies], dict[Key, Event], list[GroupStep]]:
        """Count groups that are split by their replies."""
        heard, events, silent = super().assign_replies(sending, answered, replies)
        seen = self.world.seen
        of_several = [set(step.group.keys) for step in sending if len(step.group.keys) > 1]
        for keys in of_several:
            parts = sum(not keys.isdisjoint(each.group.keys) for each in heard)
            left = {key for step in silent for key in step.group.keys if key in keys}
            seen["group: parted by answers"] += parts > 1
            seen["group: some heard nothing"] += bool(left) and left != keys
            seen["group: late reply to one of several"] += len(keys & events.keys()) == 1
        return heard, events, silent
