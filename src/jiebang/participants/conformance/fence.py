"""Properties of every participant: each op against each row, refusals, batches, looks and marks."""

from __future__ import annotations

from itertools import product
from typing import Final

from jiebang.model.check import Text
from jiebang.model.plan import UNNAMED
from jiebang.participants.conformance.property import Property
from jiebang.participants.conformance.subject import DeviationError, Expected, NotApplicableError, Subject, show_rows
from jiebang.remote.wire import MAX_BATCH
from jiebang.saga.fence import CANCELLED_BEFORE, NEVER_TRIED, NO_ROW, Answer, CaseOp, FenceRow, Op, fence
from jiebang.saga.orders import Order

CASE: Final = 5
"""The number of the case that is sent against rows above, below and at it."""
NUMBERS: Final = {"above": CASE + 2, "below": CASE - 1, "same": CASE}
_MORE_THAN_A_REQUEST: Final = MAX_BATCH + 3
_EVERYTHING: Final = 1 << 20
_DONE: Final = Expected((Answer.DONE,))
_GRANTED: Final = Expected((Answer.GRANTED,))


async def _answer_by_the_fence(subject: Subject) -> None:
    cells = list(product(NUMBERS, CaseOp, Op))
    cases = dict(zip(cells, await subject.accounts(len(cells)), strict=True))
    for where, case_op in product(NUMBERS, CaseOp):
        accounts = [account for cell, account in cases.items() if cell[:2] == (where, case_op)]
        await subject.put(FenceRow(NUMBERS[where], case_op), accounts)
    why = Text("见围栏表", "see the table of the fence")
    for op in Op:
        batch = dict[Order, Expected]()
        for (where, case_op, of), account in cases.items():
            if of is op:
                before = FenceRow(NUMBERS[where], case_op)
                spent = subject.spent if case_op is CaseOp.CONFIRMED else None
                batch[Order(account, CASE)] = Expected.of(fence(before, CASE, op, spent), before)
        await subject.expect(op, batch, why)
        rows = {order.account_id: each.row for order, each in batch.items() if each.row is not None}
        await subject.expect_rows(list(rows), rows, Text(f"{op} 之后", f"after the {op}"))


async def _mark_unseen_accounts(subject: Subject) -> None:
    account, other = await subject.accounts(2)
    unseen = Text("该账户从未见过:相当于第 0 号案,已结束", "an account never seen counts as case 0, finished")
    await subject.expect(Op.CONFIRM, {Order(account, 1): Expected((Answer.ERROR,), NEVER_TRIED)}, unseen)
    row = FenceRow(1, CaseOp.CANCELLED)
    await subject.expect(Op.CANCEL, {Order(account, 1): Expected((Answer.DONE,), row=row)}, unseen)
    marked = Text("Cancel 须留下记号", "the Cancel must leave its mark")
    await subject.expect_rows([account], {account: row}, marked)
    await subject.expect(Op.TRY, {Order(account, 1): Expected((Answer.REFUSED,), CANCELLED_BEFORE, row)}, marked)
    await subject.expect(Op.TRY, {Order(other, 1): _GRANTED}, unseen)


async def _mark_refused_tries(subject: Subject) -> None:
    orders, code = await _find_refused(subject, 2)
    row = FenceRow(1, CaseOp.CANCELLED)
    why = Text("该账户的 Try 因自身原因被拒绝", "a Try of this account is refused for a reason of the party's own")
    await subject.expect(Op.TRY, dict.fromkeys(orders, Expected((Answer.REFUSED,), code, row)), why)
    keys = [Order(order.account_id, order.case_no) for order in orders]
    marked = Text("此 Try 先前已被拒绝", "this Try was refused before")
    await subject.expect(Op.TRY, dict.fromkeys(keys, Expected((Answer.REFUSED,), any_code=True)), marked)
    await subject.expect(Op.CANCEL, dict.fromkeys(keys, _DONE), marked)
    await subject.expect(Op.CONFIRM, dict.fromkeys(keys, Expected((Answer.ERROR,), CANCELLED_BEFORE)), marked)


async def _refuse_unfit_effects(subject: Subject) -> None:
    if subject.unfit is None:
        raise NotApplicableError(
            Text("未告知哪些效果无法执行(--unfit)", "no effects were named that it cannot apply (--unfit)")
        )
    [account] = await subject.accounts(1)
    expected = Expected((Answer.REFUSED,), row=FenceRow(1, CaseOp.CANCELLED), any_code=True)
    why = Text("这些效果无法执行", "it cannot apply these effects")
    await subject.expect(Op.TRY, {Order(account, 1): expected}, why, subject.unfit)


async def _leave_the_others_alone(subject: Subject) -> None:
    (bad, *_), code = await _find_refused(subject, 1)
    first, *others = await subject.accounts(3)
    batch = {
        Order(first, 1): _GRANTED,
        bad: Expected((Answer.REFUSED,), code),
        **{Order(account, 1): _GRANTED for account in others},
    }
    await subject.expect(Op.TRY, batch, Text("每笔各自成败", "each case of a batch stands alone"))


async def _find_refused(subject: Subject, count: int) -> tuple[list[Order], str]:
    if subject.refused is None:
        raise NotApplicableError(
            Text("未告知哪些账户的 Try 会被拒绝(--refused)", "no accounts were named whose Try is refused (--refused)")
        )
    return await subject.refused(count)


async def _find_marks(subject: Subject) -> None:
    accounts = sorted(await subject.accounts(4))
    await subject.apply(Op.CANCEL, *((account, 3) for account in accounts))
    rows = dict.fromkeys(accounts, FenceRow(3, CaseOp.CANCELLED))
    below, top = accounts[0] - 1, accounts[-1]
    whole = dict(await subject.participant.marks(below, top, _EVERYTHING))
    _demand_marks(below, top, rows, {account: whole[account] for account in accounts if account in whole})
    seen = await subject.participant.marks(below, top, 3)
    _demand_marks(below, top, {account: whole[account] for account in list(whole)[:3]}, dict(seen))
    middle = {account: row for account, row in whole.items() if accounts[1] < account <= accounts[2]}
    seen = await subject.participant.marks(accounts[1], accounts[2], _EVERYTHING)
    _demand_marks(accounts[1], accounts[2], middle, dict(seen))
    _demand_marks(top, top, {}, dict(await subject.participant.marks(top, top, 9)))


def _demand_marks(after: int, upto: int, wanted: dict[int, FenceRow], seen: dict[int, FenceRow]) -> None:
    if list(seen.items()) != list(wanted.items()):
        told, right = (show_rows(rows, list(rows)[:4]) for rows in (seen, wanted))
        zh = f"{right}(账户递增;{len(wanted)} 行,实得 {len(seen)} 行)"
        en = f"{right} (in growing order of account; {len(wanted)} rows, got {len(seen)})"
        sent = f'POST /marks {{"after":"{after}","upto":"{upto}"}}'
        raise DeviationError(sent, Text(told, told), Text(zh, en))


async def _serve_whole_plans(subject: Subject) -> None:
    for planned in subject.planned:
        kept, undone = await subject.accounts(2)
        why = Text(
            f"策略会以这些效果要求操作 {planned.operation or '(未命名)'}",
            f"plans ask for operation {planned.operation or '(unnamed)'} with these effects",
        )
        await subject.expect(Op.TRY, dict.fromkeys((Order(kept, 1), Order(undone, 1)), _GRANTED), why, planned)
        for op, account in ((Op.CONFIRM, kept), (Op.CANCEL, undone)):
            for _ in range(2):
                await subject.expect(op, {Order(account, 1): _DONE}, why, planned)


async def _cancel_without_operation(subject: Subject) -> None:
    tried, unseen = await subject.accounts(2)
    await subject.apply(Op.TRY, (tried, 1))
    why = Text(
        "恢复时可能已失去方案,故 Cancel 不带操作名", "a recovery that lost the plan cancels without an operation"
    )
    await subject.expect(Op.CANCEL, dict.fromkeys((Order(tried, 1), Order(unseen, 1)), _DONE), why, UNNAMED)
    rows = dict.fromkeys((tried, unseen), FenceRow(1, CaseOp.CANCELLED))
    await subject.expect_rows([tried, unseen], rows, why)


async def _answer_large_batches(subject: Subject) -> None:
    accounts = sorted(await subject.accounts(_MORE_THAN_A_REQUEST))
    why = Text(
        f"一次 {MAX_BATCH} 笔,其余另一请求", f"{MAX_BATCH} cases in one request, the rest in another, all answered"
    )
    await subject.expect(Op.CANCEL, {Order(account, 1): _DONE for account in accounts}, why)
    rows = dict.fromkeys(accounts, FenceRow(1, CaseOp.CANCELLED))
    await subject.expect_rows(accounts, rows, why)
    seen = await subject.participant.marks(accounts[0] - 1, accounts[-1], _EVERYTHING)
    _demand_marks(accounts[0] - 1, accounts[-1], rows, {one: row for one, row in seen.items() if one in rows})


async def _answer_empty_batches(subject: Subject) -> None:
    replies = await subject.participant.apply(Op.TRY, [], subject.operation)
    rows = await subject.participant.look([])
    if replies or rows:
        told = f"{list(replies)} {dict(rows)}"
        raise DeviationError("{}", Text(told, told), Text("无", "nothing"))


async def _take_a_case_once(subject: Subject) -> None:
    (account,) = await subject.accounts(1)
    why = Text("同一笔在一批中出现两次", "the case is named twice in the batch")
    for op, allowed in ((Op.TRY, Answer.GRANTED), (Op.CONFIRM, Answer.DONE)):
        batch = [Order(account, 1), Order(account, 1)]
        replies = await subject.participant.apply(op, batch, subject.operation)
        expected = Expected((allowed, Answer.PENDING))
        for answered in [[reply] for reply in replies] or [[]]:
            subject.demand(op, {Order(account, 1): expected}, answered, why)
    await subject.expect_rows([account], {account: FenceRow(1, CaseOp.CONFIRMED)}, why)


async def _keep_cases_of_an_account_apart(subject: Subject) -> None:
    (account,) = await subject.accounts(1)
    await subject.apply(Op.CANCEL, (account, 3))
    why = Text("同一账户的两笔案在一批中", "two cases of one account in one batch, the row at case 3, cancelled")
    batch = {
        Order(account, 4): Expected((Answer.GRANTED,), or_nothing=True),
        Order(account, 2): Expected((Answer.REFUSED,), any_code=True, or_nothing=True),
    }
    replies = await subject.expect(Op.TRY, batch, why)
    granted = any(reply.case_no == CASE - 1 for reply in replies)
    row = FenceRow(4, CaseOp.TRIED) if granted else FenceRow(3, CaseOp.CANCELLED)
    await subject.expect_rows([account], {account: row}, why)


async def _leave_out_unseen_accounts(subject: Subject) -> None:
    seen, unseen = await subject.accounts(2)
    await subject.apply(Op.CANCEL, (seen, 1))
    before = await subject.participant.look([unseen])
    why = Text("查看不得改动任何内容", "a look changes nothing")
    for _ in range(2):
        rows = {seen: FenceRow(1, CaseOp.CANCELLED), **({unseen: before[unseen]} if unseen in before else {})}
        await subject.expect_rows([seen, unseen], rows, why)
    if before.get(unseen, NO_ROW) != NO_ROW:
        told, wanted = show_rows(before, [unseen]), Text("没有行", "no row of that account")
        raise DeviationError("POST /look", Text(told, told), wanted)


FENCE_PROPERTIES: Final = (
    Property(
        "answers_as_the_fence_says",
        Text(
            "每种围栏行与每种操作,应答与写入都与围栏表一致",
            "every row and op is answered and written as the fence says",
        ),
        Text(
            "差一格,一条迟到的消息就会让同一账户在各库之间分裂",
            "with one cell that differs, a late message tears an account apart between databases",
        ),
        _answer_by_the_fence,
    ),
    Property(
        "marks_accounts_never_seen",
        Text(
            "从未见过的账户相当于第 0 号案已结束;Cancel 也留下记号",
            "an account never seen is case 0, finished; a Cancel marks it",
        ),
        Text(
            "赶在 Try 之前的 Cancel 若不留记号,随后的 Try 会被准许,从此无人释放",
            "after a Cancel that overtook its Try and left no mark, the Try is granted and never released",
        ),
        _mark_unseen_accounts,
    ),
    Property(
        "marks_a_refused_try",
        Text("被拒绝的 Try 也留下记号", "a refused Try leaves its mark"),
        Text(
            "不留记号,同一 Try 迟到再来时可能被准许,而该案早已回滚",
            "without it the same Try, late, may be granted after the case was rolled back",
        ),
        _mark_refused_tries,
    ),
    Property(
        "refuses_effects_it_cannot_apply",
        Text("无法执行的效果在 Try 时就拒绝", "effects that it cannot apply are refused at the Try"),
        Text(
            "若准许,该案越过提交点,当事人便永远只解绑了一半",
            "granted, the case passes its commit point, and its person stays half unbound for ever",
        ),
        _refuse_unfit_effects,
    ),
    Property(
        "keeps_cases_of_a_batch_apart",
        Text("一笔被拒绝,同批其他各笔不受影响", "one refused case leaves the others of its batch alone"),
        Text("一批中的人彼此毫不相干", "a batch is a set of people who know nothing of each other"),
        _leave_the_others_alone,
    ),
    Property(
        "tells_every_mark",
        Text("不点名账户也能按范围读到全部记号,账户递增", "marks are read by range, without naming accounts, in order"),
        Text(
            "平台不知道的账户上的记号会永远留着,审计也看不到",
            "a mark of an account that the platform does not know would stay for ever, and no audit see it",
        ),
        _find_marks,
    ),
    Property(
        "serves_whole_plans",
        Text("策略所发送的操作与效果都能走到底", "whatever plans send, effects included, goes the whole way"),
        Text(
            "只试过空命令的一方,会对每一笔真实案件的 Confirm 回答 422",
            "a party that was asked with bare orders alone answers 422 to the Confirm of every real case",
        ),
        _serve_whole_plans,
    ),
    Property(
        "cancels_without_operation",
        Text("Cancel 可以不带操作名", "a Cancel needs no operation"),
        Text(
            "恢复时失去方案的案件会永远占用着",
            "what a restore lost the plan of would stay reserved for ever",
        ),
        _cancel_without_operation,
    ),
    Property(
        "answers_full_requests",
        Text(
            "一次 1,024 笔的请求完整应答,记号分页读全",
            "requests of 1,024 cases are answered whole, and all marks paged",
        ),
        Text(
            "工作进程的一轮不按协议上限切分,谁也不能漏在两次请求之间", "nobody may fall between two requests of a round"
        ),
        _answer_large_batches,
    ),
    Property(
        "answers_empty_batches",
        Text("空批的应答为空", "an empty batch is answered with nothing"),
        Text("最后一笔刚撤回的一轮不得成为错误", "a round whose last case went away must not be an error"),
        _answer_empty_batches,
    ),
    Property(
        "takes_a_case_once",
        Text("同一笔反复出现仍是一笔", "a case that comes twice is still one case"),
        Text("重复不得被当作另一笔", "a repeat must not be answered as if it were another case"),
        _take_a_case_once,
    ),
    Property(
        "keeps_cases_of_an_account_apart",
        Text("同一账户的两笔案互不混淆", "two cases of one account in a batch do not mix"),
        Text(
            "过期的一笔不得冒充或挤掉当前的一笔", "a stale op must neither be taken for a live one nor take its place"
        ),
        _keep_cases_of_an_account_apart,
    ),
    Property(
        "looks_without_touching",
        Text("查看只读,不产生行", "a look reads, and makes no rows"),
        Text("审计会把查看留下的行当作案件", "an audit would take the rows that a look made for cases"),
        _leave_out_unseen_accounts,
    ),
)
