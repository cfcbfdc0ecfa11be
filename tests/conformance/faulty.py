"""Faulty services, derived from the example in Python: what teams get wrong, each caught by a named property.

Run as a process: `python tests/conformance/faulty.py FAULT --data FILE --keys FOLDER`. Each fault is a change of the
code that a sound service runs, made before it starts.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from importlib import util
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import msgspec

from jiebang.model.check import Text
from jiebang.model.errors import BadSignatureError, InvalidInputError
from jiebang.participants.serving import ServedParticipant, fence_file, run_service
from jiebang.participants.serving import service as served
from jiebang.participants.serving.messages import ReceivedBatch, read_batch
from jiebang.remote import signing, wire
from jiebang.remote.service import HttpAnswer, HttpCall, Service, ok
from jiebang.remote.signing import RequestParameters, Responder, SignedRequest
from jiebang.saga.fence import Answer, CaseOp, FenceRow, Op, Verdict, fence

EXAMPLE: Final = Path(__file__).parents[2] / "examples" / "points_python" / "points.py"
_SOME: Final = 100
_BODIES: Final = ("/try", "/confirm", "/cancel", "/look")


def load_example() -> ModuleType:
    """Load the example's module from its file."""
    found = util.spec_from_file_location("points", EXAMPLE)
    assert found is not None
    assert found.loader is not None
    module = util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


Judge = Callable[[FenceRow, int, Op, str | None, Verdict], Verdict]


def judge_by(wrong: Judge) -> Callable[[], None]:
    """Return a fault: the fence's verdict is replaced by what `wrong` makes of it."""

    def plant() -> None:
        def judge(row: FenceRow, case_no: int, op: Op, refusal: str | None = None) -> Verdict:
            return wrong(row, case_no, op, refusal, fence(row, case_no, op, refusal))

        fence_file.fence = judge  # type: ignore[attr-defined]

    return plant


def _forget_refusals(row: FenceRow, n: int, op: Op, refusal: str | None, verdict: Verdict) -> Verdict:
    del row, n, op
    return msgspec.structs.replace(verdict, write=None) if refusal and verdict.write else verdict


def _forget_early_cancels(row: FenceRow, n: int, op: Op, refusal: str | None, verdict: Verdict) -> Verdict:
    del refusal
    return Verdict(Answer.DONE) if op is Op.CANCEL and row.case_no < n and verdict.write else verdict


def _grant_after_cancel(row: FenceRow, n: int, op: Op, refusal: str | None, verdict: Verdict) -> Verdict:
    del refusal
    again = op is Op.TRY and row == FenceRow(n, CaseOp.CANCELLED)
    return Verdict(Answer.GRANTED, FenceRow(n, CaseOp.TRIED)) if again else verdict


def _confirm_untried(row: FenceRow, n: int, op: Op, refusal: str | None, verdict: Verdict) -> Verdict:
    del refusal
    untried = op is Op.CONFIRM and row.case_no < n and verdict.answer is Answer.ERROR
    return Verdict(Answer.DONE, FenceRow(n, CaseOp.CONFIRMED)) if untried else verdict


def _take_older_cases(row: FenceRow, n: int, op: Op, refusal: str | None, verdict: Verdict) -> Verdict:
    older = row.case_no > n
    return fence(FenceRow(0, CaseOp.CANCELLED), n, op, refusal) if older else verdict


def _undo_confirmed(row: FenceRow, n: int, op: Op, refusal: str | None, verdict: Verdict) -> Verdict:
    del refusal
    late = op is Op.CANCEL and row == FenceRow(n, CaseOp.CONFIRMED)
    return Verdict(Answer.DONE, FenceRow(n, CaseOp.CANCELLED)) if late else verdict


def _confirm_not_twice(row: FenceRow, n: int, op: Op, refusal: str | None, verdict: Verdict) -> Verdict:
    del refusal
    again = op is Op.CONFIRM and row == FenceRow(n, CaseOp.CONFIRMED)
    return Verdict(Answer.ERROR, code="ALREADY-DONE") if again else verdict


def _overtake_unfinished(row: FenceRow, n: int, op: Op, refusal: str | None, verdict: Verdict) -> Verdict:
    waits = row.case_op is CaseOp.TRIED and row.case_no < n
    return fence(FenceRow(row.case_no, CaseOp.CANCELLED), n, op, refusal) if waits else verdict


def refuse_whole_batch() -> None:
    points = load_example().Points

    def refuse(_: Any, db: Any, accounts: Sequence[int], planned: Any) -> Mapping[int, str]:
        barred = points().refuse(db, accounts, planned)
        return dict.fromkeys(accounts, next(iter(barred.values()))) if barred else {}

    _HOLDER["refuse"] = refuse


_HOLDER: Final[dict[str, Any]] = {}
"""Methods that replace those of the example's holder."""


def cut_marks() -> None:
    right = fence_file.FenceFile.marks
    fence_file.FenceFile.marks = lambda self, after, upto, limit: right(self, after, upto, min(limit, _SOME))  # type: ignore[method-assign]


def shuffle_marks() -> None:
    right = fence_file.FenceFile.marks
    fence_file.FenceFile.marks = lambda self, *asked: right(self, *asked)[::-1]  # type: ignore[method-assign]


def take_few_cases() -> None:
    def read(body: bytes, operations: Any) -> ReceivedBatch:
        batch = _READ(body, operations)
        if len(batch.cases) > _SOME:
            raise InvalidInputError(field="$.cases", reason=Text("过多", "too many"))
        return batch

    served.read_batch = read  # type: ignore[attr-defined]


_READ: Final = read_batch


def know_no_effects() -> None:
    def read(body: bytes, operations: Any) -> ReceivedBatch:
        batch = _READ(body, operations)
        if batch.effects:
            raise InvalidInputError(field="$.effects", reason=Text("不认识", "unknown"))
        return batch

    served.read_batch = read  # type: ignore[attr-defined]


def need_an_operation() -> None:
    def read(body: bytes, operations: Any) -> ReceivedBatch:
        batch = _READ(body, operations)
        if not batch.operation:
            raise InvalidInputError(field="$.operation", reason=Text("缺少", "is missing"))
        return batch

    served.read_batch = read  # type: ignore[attr-defined]


def take_any_operation() -> None:
    served.read_batch = lambda body, operations: _READ(  # type: ignore[attr-defined]
        msgspec.json.encode(msgspec.json.decode(body) | {"operation": "close"}), operations
    )


def read_leniently() -> None:
    def read(body: bytes, operations: Any) -> ReceivedBatch:
        del operations
        try:
            told = json.loads(body)  # the last of two names, unknown fields, numbers for texts
            cases = {(int(one["account"]), int(one["case_no"])): None for one in told["cases"]}
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidInputError(field="$", reason=Text("无法读取", "cannot be read")) from error
        return ReceivedBatch(list(cases), told.get("operation", ""), told.get("effects", {}))

    served.read_batch = read  # type: ignore[attr-defined]


def do_half_a_batch() -> None:
    async def batch(self: ServedParticipant, call: HttpCall) -> HttpAnswer:
        try:
            return await _BATCH(self, call)
        except InvalidInputError:
            for one in json.loads(call.body or "{}").get("cases", []):
                received = ReceivedBatch([(int(one["account"]), int(one["case_no"]))], "close", {})
                await self._run(self.carry_out, Op(call.path.removeprefix("/")), received, call.verified)
            raise

    ServedParticipant.batch = batch  # type: ignore[method-assign]


_BATCH: Final = ServedParticipant.batch


def grant_unfit_effects() -> None:
    points = load_example().Points
    _HOLDER["operations"] = {
        name: msgspec.structs.replace(one, effects=None) for name, one in points.operations.items()
    }
    _HOLDER["apply"] = lambda *_: None


def answer_for_others() -> None:
    def answer(self: ServedParticipant, op: Op, received: ReceivedBatch, request: RequestParameters) -> Any:
        results = _CARRY_OUT(self, op, received, request)
        return [*results, msgspec.structs.replace(results[0], account="9007199254740991")]

    ServedParticipant.carry_out = answer  # type: ignore[method-assign]


def answer_twice() -> None:
    def answer(self: ServedParticipant, op: Op, received: ReceivedBatch, request: RequestParameters) -> Any:
        return _CARRY_OUT(self, op, received, request) * 2

    ServedParticipant.carry_out = answer  # type: ignore[method-assign]


def forget_some() -> None:
    def answer(self: ServedParticipant, op: Op, received: ReceivedBatch, request: RequestParameters) -> Any:
        return _CARRY_OUT(self, op, received, request)[1:]

    ServedParticipant.carry_out = answer  # type: ignore[method-assign]


_CARRY_OUT: Final = ServedParticipant.carry_out


def judge_then_write() -> None:
    """Read and judge in one transaction, write in another: two messages at once see the same row."""

    async def batch(self: ServedParticipant, call: HttpCall) -> HttpAnswer:
        received, op = served.read_batch(call.body, ("close",)), Op(call.path.removeprefix("/"))  # type: ignore[attr-defined]
        rows = self._file.fence_rows([account for account, _ in received.cases])
        await asyncio.sleep(0.05)
        results = []
        for account, case_no in received.cases:
            row = rows.get(account, FenceRow(0, CaseOp.CANCELLED))
            verdict = fence(row, case_no, op)
            results.append(wire.build_result(account, case_no, verdict, row))
            if verdict.write is not None:
                self._file.db.execute(
                    "INSERT OR REPLACE INTO account VALUES (?, ?, ?)",
                    (account, verdict.write.case_no, verdict.write.case_op),
                )
        return ok(wire.Results(results))

    ServedParticipant.batch = batch  # type: ignore[method-assign]


def look_and_touch() -> None:
    right = fence_file.FenceFile.look

    def look(self: Any, accounts: Sequence[int]) -> Any:
        for account in accounts:
            self.db.execute("INSERT OR IGNORE INTO account VALUES (?, 1, 'cancelled')", (account,))
        return right(self, accounts)

    fence_file.FenceFile.look = look  # type: ignore[method-assign]


# --- Signatures -------------------------------------------------------------------------------------------------------

_VERIFY: Final = Responder.verify
_TAKEN: Final = RequestParameters("taken-without-a-look", 0)


def accept_unsigned() -> None:
    def verify(self: Responder, sent: SignedRequest, body: bytes) -> RequestParameters:
        return _VERIFY(self, sent, body) if "signature" in sent.headers else _TAKEN

    Responder.verify = verify  # type: ignore[method-assign]


def accept_any_signature() -> None:
    """It looks whether there is a signature, and not whose."""

    def verify(self: Responder, sent: SignedRequest, body: bytes) -> RequestParameters:
        try:
            return _VERIFY(self, sent, body)
        except BadSignatureError:
            if "signature" not in sent.headers:
                raise
            return _TAKEN

    Responder.verify = verify  # type: ignore[method-assign]


def ignore_the_body() -> None:
    """It verifies what the headers say, digest included, and never reads the digest against the body."""

    def verify(self: Responder, sent: SignedRequest, body: bytes) -> RequestParameters:
        try:
            return _VERIFY(self, sent, body)
        except BadSignatureError as error:
            if "igest" not in error.fields["reason"].en:
                raise
            return _TAKEN

    Responder.verify = verify  # type: ignore[method-assign]


def ignore_the_path() -> None:
    def verify(self: Responder, sent: SignedRequest, body: bytes) -> RequestParameters:
        for path in _BODIES:
            try:
                moved = msgspec.structs.replace(sent, url=sent.url.rpartition("/")[0] + path)
                return _VERIFY(self, moved, body)
            except BadSignatureError:
                continue
        return _VERIFY(self, sent, body)

    Responder.verify = verify  # type: ignore[method-assign]


def ignore_the_time() -> None:
    signing.LIFETIME = signing.SKEW = timedelta(days=1)  # type: ignore[misc]


def take_repeats() -> None:
    def take(self: Service, verified: RequestParameters) -> RequestParameters:
        del self
        return verified

    Service._take = take  # type: ignore[method-assign]


def sign_nothing() -> None:
    def headers(self: Service, sent: SignedRequest, answer: HttpAnswer) -> dict[str, str]:
        del self, sent
        return {"content-type": answer.content_type, "content-length": str(len(answer.body))}

    Service._headers = headers  # type: ignore[method-assign]


FAULTS: Final[Mapping[str, tuple[str, Callable[[], None]]]] = {
    "forgets_refused_tries": ("marks_a_refused_try", judge_by(_forget_refusals)),
    "forgets_early_cancels": ("marks_accounts_never_seen", judge_by(_forget_early_cancels)),
    "grants_after_a_cancel": ("answers_as_the_fence_says", judge_by(_grant_after_cancel)),
    "confirms_what_was_never_tried": ("marks_accounts_never_seen", judge_by(_confirm_untried)),
    "takes_older_cases": ("answers_as_the_fence_says", judge_by(_take_older_cases)),
    "undoes_what_was_confirmed": ("answers_as_the_fence_says", judge_by(_undo_confirmed)),
    "overtakes_an_unfinished_case": ("answers_any_sequence_as_the_fence_says", judge_by(_overtake_unfinished)),
    "confirms_not_twice": ("confirms_once_whatever_crosses", judge_by(_confirm_not_twice)),
    "refuses_the_whole_batch": ("keeps_cases_of_a_batch_apart", refuse_whole_batch),
    "tells_marks_in_short_pages": ("answers_full_requests", cut_marks),
    "tells_marks_out_of_order": ("tells_every_mark", shuffle_marks),
    "takes_a_hundred_cases": ("answers_full_requests", take_few_cases),
    "knows_no_effects": ("serves_whole_plans", know_no_effects),
    "grants_effects_it_cannot_apply": ("refuses_effects_it_cannot_apply", grant_unfit_effects),
    "needs_an_operation_to_cancel": ("cancels_without_operation", need_an_operation),
    "takes_any_operation": ("refuses_unknown_operations", take_any_operation),
    "reads_leniently": ("refuses_malformed_batches_whole", read_leniently),
    "does_half_a_batch": ("refuses_malformed_batches_whole", do_half_a_batch),
    "answers_for_others": ("answers_what_was_asked", answer_for_others),
    "answers_twice": ("answers_what_was_asked", answer_twice),
    "forgets_some_answers": ("answers_what_was_asked", forget_some),
    "judges_then_writes": ("ends_cancelled_whatever_crosses", judge_then_write),
    "makes_rows_by_looking": ("looks_without_touching", look_and_touch),
    "accepts_unsigned_requests": ("refuses_unsigned_requests", accept_unsigned),
    "accepts_any_signature": ("refuses_other_keys", accept_any_signature),
    "ignores_the_body": ("refuses_changed_requests", ignore_the_body),
    "ignores_the_path": ("refuses_moved_requests", ignore_the_path),
    "ignores_the_time": ("refuses_stale_requests", ignore_the_time),
    "takes_repeats": ("takes_a_request_once", take_repeats),
    "signs_nothing": ("signs_its_answers", sign_nothing),
}
"""Each fault: the property that catches it, and how it is planted."""


if __name__ == "__main__":
    FAULTS[sys.argv.pop(1)][1]()
    holder = type("FaultyPoints", (load_example().Points,), _HOLDER)
    run_service("points", holder())
