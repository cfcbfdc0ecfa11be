"""What must be true once everything has healed: what people were told is so, nothing is half done, no money lost."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid5

from jiebang.clock import utc_now
from jiebang.model.case import ENDED
from jiebang.model.notice import Channel
from jiebang.participants.base import UNANSWERED
from jiebang.sandbox.ledger import BindingState
from jiebang.store.operations import tasks
from jiebang.usecases.operations import stuck

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.chaos.people import Told
    from tests.chaos.storm import Stage

_ENDED: Final = sorted(state.value for state in ENDED)
_UNREST: Final = """
SELECT (SELECT count(*) FROM platform.cases WHERE state IN ('ready', 'trying') OR marks ~ '[cexy]')
     + (SELECT count(*) FROM platform.outbox WHERE due_at IS NOT NULL)
"""
"""What the platform still has to do by itself. A parked op ('C', 'X') is an operator's."""


async def quiet(stage: Stage, patience: float) -> bool:
    """Wait until the platform has nothing left to do by itself."""
    try:
        async with asyncio.timeout(patience):
            while True:
                try:
                    if not await stage.app.pools["platform"].fetchval(_UNREST) and not await stage.app.pools[
                        "wallet"
                    ].fetchval("SELECT count(*) FROM wallet.entry WHERE state = 'pending'"):
                        return True
                except UNANSWERED:
                    pass  # a server is still coming back
                await asyncio.sleep(0.2)
    except TimeoutError:
        return False


async def operated(stage: Stage, patience: float) -> tuple[int, list[str]]:
    """Do as an operator does: find what is parked by its tasks, and have it tried again now that the networks are well.

    Returns how many cases were parked, and what was wrong about that.
    """
    pool, wrong = stage.app.pools["platform"], list[str]()
    rows = await pool.fetch("SELECT account_id, case_no FROM platform.cases WHERE marks ~ '[CX]'")
    parked = {(row["account_id"], row["case_no"]) for row in rows}
    try:
        async with asyncio.timeout(patience):
            while True:
                missing = parked - {(task.account_id, task.case_no) for task in await tasks.load_open(pool, 100_000)}
                if not missing:
                    break
                await asyncio.sleep(0.2)
    except TimeoutError:
        wrong.append(f"parked, and no operator has a task: {len(missing)}, as {sorted(missing)[:5]}")
    now, timing = utc_now(), stage.app.settings.saga
    outcomes = await stuck.retry(pool, stage.app.registry, parked, "chaos", now, timing)
    if set(outcomes.values()) - {stuck.RetryOutcome.RETRIED}:
        wrong.append(f"parked, and not tried again: {Counter(outcomes.values())}")
    return len(parked), wrong


class Verdict:
    """What is wrong, and what there is to tell."""

    def __init__(self) -> None:
        self.wrong = list[str]()
        self.ends = Counter[str]()
        self.parked = 0
        self.untold = 0
        self.total_fen = 0

    def blame(self, what: str, found: Iterable[Any]) -> None:
        """Note what should not be, with a few examples."""
        several = sorted(map(str, found))
        if several:
            self.wrong.append(f"{what}: {len(several)}, as {several[:5]}")


async def judge(stage: Stage, told: Told, ids: Sequence[int]) -> Verdict:
    """Compare everything that people were told, and everything that must agree, with what is there."""
    verdict = Verdict()
    rows = await stage.app.pools["platform"].fetch("SELECT * FROM platform.cases")
    cases = {stage.app.case_ids.encode(row["account_id"], row["case_no"]): row for row in rows}
    _cases(verdict, cases, told)
    await _money(verdict, stage, told)
    await _messages(verdict, stage, rows)
    await _bindings(verdict, stage, rows, ids)
    report = await stage.app.verify()
    if not report.clean:
        verdict.wrong.append(f"verify: {report}")
    if report.cases != len(rows) or report.accounts != len(ids):
        verdict.wrong.append(f"verify saw {report.cases} cases of {len(rows)}, {report.accounts} accounts")
    return verdict


def _cases(verdict: Verdict, cases: dict[str, Any], told: Told) -> None:
    state = {case: row["state"] for case, row in cases.items()}
    for row in cases.values():
        verdict.ends[f"{row['state']} {row['reason'] or ''}".strip()] += 1
    verdict.untold = len(cases.keys() - told.submitted.keys())
    # Of a request sent twice, the first may come through a held-back path after the second was refused: a case is open
    # then that only its messages tell of. Nothing may come of it before its person proves anything.
    unproven = ("open", "withdrawn", "expired")
    unknown = [case for case in cases.keys() - told.submitted.keys() if state[case] not in unproven]
    verdict.blame("nobody was told of the case, and it went on", unknown)
    verdict.blame("told 201, and not there", told.submitted.keys() - cases.keys())
    verdict.blame(
        "of another account than told",
        [c for c, a in told.submitted.items() if state.get(c) and cases[c]["account_id"] != a],
    )
    verdict.blame(
        "told that it is proven, and it is not", [c for c in told.ready if state.get(c) in ("open", "expired")]
    )
    verdict.blame(
        "told 202 to a withdrawal, and done", [c for c in told.wished if state.get(c) in ("done", "confirming")]
    )
    verdict.blame("told too late, and not", [c for c in told.too_late if state.get(c) in ("open", "ready", "trying")])
    verdict.blame(
        "told an end that is not its end", [(c, s, state.get(c)) for c, s in told.ended.items() if state.get(c) != s]
    )
    verdict.blame("in the middle of something", [c for c, s in state.items() if s in ("ready", "trying")])
    verdict.blame("past its decision and not ended", [c for c, s in state.items() if s in ("confirming", "cancelling")])


async def _money(verdict: Verdict, stage: Stage, told: Told) -> None:
    wallet = stage.app.pools["wallet"]
    entries = await wallet.fetch("SELECT * FROM wallet.entry WHERE kind = 'transfer' AND amount_fen < 0")
    there = {
        row["entry_id"]: (row["account_id"], row["counterparty_id"], -row["amount_fen"], row["state"])
        for row in entries
    }
    for movement, (*parties, state) in told.moved.items():
        found = there.get(movement)
        if found is None or list(found[:3]) != parties or (state != "pending" and found[3] != state):
            verdict.wrong.append(f"told of a transfer {state}, and it is {found}")
    verdict.blame("transfers that nobody was told of", there.keys() - told.moved.keys())
    verdict.blame("transfers that never ended", [one for one, row in there.items() if row[3] == "pending"])
    expected = defaultdict[int, int](int)
    for row in await wallet.fetch("SELECT account_id, amount_fen FROM wallet.entry WHERE kind = 'opening'"):
        expected[row["account_id"]] += row["amount_fen"]
    total = sum(expected.values())
    for sender, receiver, fen, state in there.values():
        if state == "completed":
            expected[sender] -= fen
            expected[receiver] += fen
    balances = {row["account_id"]: row["balance_fen"] for row in await wallet.fetch("SELECT * FROM wallet.account")}
    verdict.blame("balances that are not what moved", [a for a, fen in balances.items() if fen != expected[a]])
    verdict.total_fen = sum(balances.values())
    if verdict.total_fen != total:
        verdict.wrong.append(f"money: {total} fen became {verdict.total_fen}")


async def _messages(verdict: Verdict, stage: Stage, cases: Sequence[Any]) -> None:
    """Whatever was to be told was told once on the phone and once by mail, and every case has its messages."""
    everybody = await stage.app.pools["platform"].fetch("SELECT * FROM platform.outbox")
    rows = [row for row in everybody if row["addressee_kind"] == "person"]
    others = [row for row in everybody if row["addressee_kind"] != "person"]
    with sqlite3.connect(stage.home / "sandbox" / "phone.sqlite") as inbox:
        received = {UUID(row[0]) for row in inbox.execute("SELECT message_id FROM message")}
        letters = {UUID(row[0]) for row in inbox.execute("SELECT message_id FROM letter")}
    done = {(row["account_id"], row["case_no"]) for row in cases if row["state"] == "done"}
    verdict.blame("others told of a case not done", {(row["account_id"], row["case_no"]) for row in others} - done)
    verdict.blame("others not told, or told of nothing", {row["message_id"] for row in others} ^ letters)
    sent = {row["message_id"] for row in rows}
    verdict.blame("messages never delivered", [row["message_id"] for row in everybody if row["delivered_at"] is None])
    verdict.blame("messages that no phone shows", sent - received)
    verdict.blame(
        "messages that no mailbox holds", {each for each in sent if uuid5(each, Channel.EMAIL) not in received}
    )
    of_case = defaultdict[tuple[int, int], Counter[str]](Counter)
    for row in rows:
        of_case[row["account_id"], row["case_no"]][row["template"]] += 1
    for row in cases:
        key = (row["account_id"], row["case_no"])
        expected = {"case_requested": 1} | ({f"case_{row['state']}": 1} if row["state"] in _ENDED else {})
        found = {name: count for name, count in of_case[key].items() if name != "sms_code"}
        if found != expected or not of_case[key]["sms_code"]:
            verdict.wrong.append(f"messages of a case {row['state']}: {dict(of_case[key])}")


async def _bindings(verdict: Verdict, stage: Stage, cases: Sequence[Any], ids: Sequence[int]) -> None:
    """The cards of those whose case is done are released at both networks, and nobody else's."""
    done = {row["account_id"] for row in cases if row["state"] == "done"}
    open_ = {row["account_id"] for row in cases if row["state"] in ("confirming", "cancelling")}
    for name, control in stage.controls.items():
        wrong = list[int]()
        for account, held in (await control.state([each for each in ids if each not in open_])).items():
            [card] = held.bindings
            if card.state is not (BindingState.RELEASED if account in done else BindingState.BOUND):
                wrong.append(account)
        verdict.blame(f"cards at {name}", wrong)
