"""Walk every course of one small batch: `explore`'s part for groups, which its worlds do not have.

The worlds of `sim.explore` step one case at a time. Here the product's batch driver drives three cases together, and
every request is answered in every way, up to a number of departures from the plain answer: a re-check finds a blocker,
or cannot be made; a save refuses a case, loses one or meets a wish; a participant refuses, is pending, does not answer,
is halved, or answers one case a round late. The witness (`sim.witness`) compares the batch with what each case would
have done alone, and that is what the worlds of `sim.explore` walk: so together they cover groups.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jiebang.model.case import Case, Key, Kind, State
from jiebang.model.plan import Plan
from jiebang.saga.batch import SaveOutcome
from jiebang.saga.coordinator import Rechecked, Reply, Timing, condition
from jiebang.saga.driver import drive
from jiebang.saga.fence import Answer, Op
from jiebang.saga.needs import (
    CaseLoad,
    FactsRecheck,
    GroupSave,
    PlanLookup,
    Postponement,
    Round,
    RoundAnswers,
    SaveRefusal,
)
from jiebang.saga.orders import collect_answers
from sim.batch import PoisonedError, WitnessedError
from sim.evidence import ViolationError
from sim.world import Parts

if TYPE_CHECKING:
    from jiebang.saga.needs import DriverCourse, Need, ParticipantCall

START: Final = datetime(2026, 1, 1, tzinfo=UTC)
MS: Final = timedelta(milliseconds=1)
PLAN: Final = Plan(name="plan/0", participants=("identity", "unionpay", "wallet"), waves=(0, 0, 1))
NO_ANSWER, LATER = "no answer", "a round late"
KEPT, LOST, LOST_TO_A_WISH = "kept", "lost", "lost to a wish"


class BatchOptions(msgspec.Struct, frozen=True):
    """The part of a world's options that a batch reads."""

    timing: Timing = Timing()


class BatchWalk(msgspec.Struct, kw_only=True):
    """The counts of a walk. `story`: the answers on the way to `violation`."""

    lives: int = 0
    needs: int = 0
    seconds: float = 0.0
    seen: Counter[str] = msgspec.field(default_factory=Counter)
    group_moves: Counter[str] = msgspec.field(default_factory=Counter)
    violation: str | None = None
    story: list[str] = msgspec.field(default_factory=list)


def beginnings() -> dict[str, tuple[list[Case], list[Reply]]]:
    """Return the batches that are walked, by name: due cases, and late replies to them."""
    ready = [_case(account) for account in (1, 2, 3)]
    trying = [_case(account, State.TRYING, "ttt") for account in (1, 2, 3)]
    confirming = [_case(account, State.CONFIRMING, "cec") for account in (1, 2, 3)]
    late = [Reply(1, 1, "identity", Op.TRY, Answer.GRANTED)]
    return {
        "ready": (ready, []),
        "trying": (trying, []),
        "trying, late": (trying, late),
        "confirming": (confirming, []),
        "cancelling": ([_case(account, State.CANCELLING, "xzx") for account in (1, 2, 3)], []),
        "mixed": ([ready[0], ready[1], _case(3, State.CONFIRMING, "cdc")], []),
    }


def _case(account: int, state: State = State.READY, marks: str = "...") -> Case:
    sent = state is not State.READY
    return Case(
        account_id=account,
        case_no=1,
        kind=Kind.REVOKE,
        state=state,
        plan=PLAN.name,
        marks=marks,
        revision=3,
        created_at=START,
        due_at=START,
        deadline=START + timedelta(seconds=3) if sent else None,
        versions=(10 + account, 0, 20 + account) if sent else (),
        wallet_version=20 + account,
    )


class ScriptedRunner:
    """Carries out one batch's requests by a script of choices; after its end, by the plain choice.

    It is also the batch driver's world (`sim.batch.BatchWorld`).
    """

    options, witnessed = BatchOptions(), True

    def __init__(self, parts: Parts, cases: Sequence[Case], script: Sequence[int]) -> None:
        """Answer by `script`."""
        self.parts, self.script = parts, script
        self.rows = {case.key: case for case in cases}
        self.options_met: list[int] = []
        self.told: list[str] = []
        self.bad: set[Key] = set()
        self.owed: list[Reply] = []
        self.seen, self.group_moves = Counter[str](), Counter[str]()
        self.now = START

    def plan_of(self, case: Case) -> Plan:
        """The only plan."""
        del case
        return PLAN

    def poisoned(self, key: Key, place: str) -> bool:
        """Whether this case breaks the batch here; here none does."""
        del key, place
        return False

    def choose(self, what: str, *options: str) -> str:
        """Choose one of the options: the script's, or the first."""
        at = len(self.options_met)
        self.options_met.append(len(options))
        chosen = options[self.script[at] if at < len(self.script) else 0]
        if chosen != options[0]:
            self.told.append(f"{what}: {chosen}")
        return chosen

    def run(self, life: DriverCourse[datetime]) -> int:
        """Answer until the life ends; return how many needs there were."""
        needs = 0
        try:
            need = next(life)
            while True:
                needs += 1
                result = self.answer(need)
                self.now += MS
                need = life.send((self.now, result))
        except StopIteration:
            return needs

    def answer(self, need: Need) -> Any:
        """Carry out one request."""
        match need:
            case PlanLookup():
                return dict.fromkeys(need.cases, PLAN)
            case CaseLoad():
                return {key: self.rows[key] for key in need.keys if key in self.rows}
            case FactsRecheck():
                return {case.key: found for case in need.cases if (found := self._recheck(case)) is not None}
            case GroupSave():
                return self._save(need)
            case Round():
                return self._round(need)
            case Postponement():
                if not isinstance(need.error, PoisonedError):
                    raise ViolationError(f"the batch broke: {need.error!r}") from need.error
                return None

    def _recheck(self, case: Case) -> Rechecked | None:
        versions: dict[str, int | None] = {"identity": 10 + case.account_id, "wallet": case.wallet_version}
        what = self.choose(f"re-check of {case.account_id}", "passes", "blocked", "unread", "left out", "money moved")
        if what == "left out":
            return None
        if what == "unread":
            versions["identity"] = None
        elif what == "money moved":
            versions["wallet"] = 99
        return Rechecked(versions, ("PAY-BALANCE",) if what == "blocked" else ())

    def _save(self, need: GroupSave) -> SaveOutcome | SaveRefusal:
        stepped = {case.key: (case, save.stepped) for save in need.saves for case in save.cases}
        told = {
            key: self.choose(
                f"save of {key[0]} as {after.state} {after.marks}", KEPT, "refused", LOST, "wish", LOST_TO_A_WISH
            )
            for key, (_, after) in stepped.items()
        }
        self.bad |= {key for key, what in told.items() if what == "refused"}
        if not self.bad.isdisjoint(stepped):
            return SaveRefusal(PoisonedError())
        for key, (case, after) in stepped.items():
            self.rows[key] = self._saved(told[key], case, after)
        wishes = {key: wish for key in stepped if (wish := self.rows[key].withdraw_at) is not None}
        lost = {key for key, what in told.items() if what in (LOST, LOST_TO_A_WISH)}
        return SaveOutcome(lost=lost, wishes={key: wish for key, wish in wishes.items() if key not in lost})

    def _saved(self, what: str, case: Case, stepped: Case) -> Case:
        """What stands in the store after a save."""
        row = self.rows[case.key]
        wish = row.withdraw_at or (None if what in (KEPT, LOST) else self.now)
        if what == LOST:
            return msgspec.structs.replace(row, revision=row.revision + 1)
        if what == LOST_TO_A_WISH:
            return msgspec.structs.replace(row, withdraw_at=wish)
        return msgspec.structs.replace(case, **condition(stepped), withdraw_at=wish)

    def _round(self, need: Round) -> RoundAnswers:
        late, self.owed = [reply for reply in self.owed if (reply.account_id, reply.case_no) in need.keys], []
        answers = [list(self._call(call)) for call in need.calls]
        whom = self.choose("a reply of before comes to", "nobody", *(str(account) for account, _ in sorted(need.keys)))
        if whom != "nobody":
            call = need.calls[0]
            yes = Answer.GRANTED if call.op is Op.TRY else Answer.DONE
            late.append(Reply(int(whom), 1, call.participant, call.op, yes))
        return RoundAnswers(answers, late)

    def _call(self, call: ParticipantCall) -> Iterator[Any]:
        what = self.choose(f"{call.op} at {call.participant}", "answers", "says nothing", "is halved")
        halves = call.halves()
        if what == "says nothing":
            return
        for part in halves if what == "is halved" and halves else (call,):
            replies = [reply for order in part.orders.one_by_one() if (reply := self._reply(part, order)) is not None]
            yes = Answer.GRANTED if call.op is Op.TRY else Answer.DONE
            answers = collect_answers(part.participant, part.op, part.orders, replies, self.now)
            if len(replies) == len(part.orders) and all(reply.answer is yes for reply in replies):
                answers = msgspec.structs.replace(answers, yes=part.orders.everybody)
            yield answers

    def _reply(self, call: ParticipantCall, order: Any) -> Reply | None:
        yes, no = (Answer.GRANTED, Answer.REFUSED) if call.op is Op.TRY else (Answer.DONE, Answer.ERROR)
        what = self.choose(
            f"{call.op} of {order.account_id} at {call.participant}", "yes", "no", "pending", NO_ANSWER, LATER
        )
        answer = {"no": no, "pending": Answer.PENDING}.get(what, yes)
        code = "BUSINESS" if what == "no" else None
        reply = Reply(order.account_id, order.case_no, call.participant, call.op, answer, code)
        if what == LATER:
            self.owed.append(reply)
        return None if what in (LATER, NO_ANSWER) else reply


def walk_batches(departures: int = 2, parts: Parts | None = None) -> BatchWalk:
    """Walk every course from every beginning with at most `departures` departures; stops at the first violation."""
    started, walk = perf_counter(), BatchWalk()
    for name, (cases, late) in beginnings().items():
        if not _walk(walk, parts or Parts(), name, cases, late, (), departures):
            break
    walk.seconds = perf_counter() - started
    return walk


def _walk(
    walk: BatchWalk,
    parts: Parts,
    name: str,
    cases: Sequence[Case],
    late: Sequence[Reply],
    script: tuple[int, ...],
    left: int,
) -> bool:
    """Run by `script`, then by each script with one more departure after its end; return whether no run failed."""
    around = ScriptedRunner(parts, cases, script)
    life = drive(cases, late, START, around.options.timing, lambda now, _: parts.batch(around, now))
    try:
        walk.needs += around.run(life)
    except (ViolationError, WitnessedError) as wrong:
        walk.violation, walk.story = str(wrong), [f"the batch begins: {name}", *around.told]
        return False
    walk.lives += 1
    walk.seen += around.seen
    walk.group_moves += around.group_moves
    if not left:
        return True
    met = around.options_met
    for at in range(len(script), len(met)):
        for option in range(1, met[at]):
            departed = (*script, *(0,) * (at - len(script)), option)
            if not _walk(walk, parts, name, cases, late, departed, left - 1):
                return False
    return True
