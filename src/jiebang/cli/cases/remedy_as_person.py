"""What `jiebang remedy` does, through the same use cases as the API."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
import typer

from jiebang.api.cases import remedy_shapes as shapes
from jiebang.cli.cases.as_person import claim
from jiebang.cli.language import say
from jiebang.cli.runner import console
from jiebang.cli.show import show_check
from jiebang.model.check import CheckAnswer, Text
from jiebang.model.errors import InvalidInputError, JiebangError, ProofRefusedError
from jiebang.policy.protection import PROOF_LOCK
from jiebang.policy.remedies import ABNORMAL_LOGIN, AUTODEBIT, BALANCE, RED_PACKET, clears
from jiebang.policy.wording import money
from jiebang.usecases.cases import codes, consent, remedy, remedy_request, step_up, unlock, unrepeated

if TYPE_CHECKING:
    from jiebang.app import App
    from jiebang.policy.pack import Pack
    from jiebang.store.cases.idempotency import KeptAnswer
    from jiebang.usecases.cases.consent import ConsentStatus
    from jiebang.usecases.cases.remedy import ClearedBlocker
    from jiebang.usecases.cases.step_up import PendingStepUp


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the person typed besides account and code."""

    give_back: bool = False
    agree: bool = False
    take_back: bool = False
    password: str | None = None
    sms: str | None = None
    approve: str | None = None
    proving: UUID | None = None
    quiet: bool = False


class RemedyResult(msgspec.Struct):
    """The answer of a remedy, as the API shows it, and the check that came with it."""

    currency: str
    shape: Any = None
    check: CheckAnswer | None = None

    def cleared(self, outcome: ClearedBlocker | ProofRefusedError) -> KeptAnswer:
        """Take the outcome of a remedy. A refused proof is raised by `refused`, after the mutation."""
        if isinstance(outcome, ProofRefusedError):
            self.shape = outcome
        else:
            self.shape, self.check = shapes.remedy_shape(outcome), outcome.check
        return unrepeated.make_answer(b"")

    def waiting(self, waiting: PendingStepUp) -> KeptAnswer:
        """Take a remedy that waits for its proof."""
        self.shape = shapes.pending_remedy_shape(waiting)
        return unrepeated.make_answer(b"")

    def standing(self, standing: ConsentStatus) -> KeptAnswer:
        """Take what is agreed to."""
        self.shape, self.check = shapes.consent_shape(standing), standing.check
        return unrepeated.make_answer(b"")

    def refused(self) -> None:
        """Raise ProofRefusedError where the proof was refused."""
        if isinstance(self.shape, JiebangError):
            raise self.shape


def _record_code(pack: Pack, code: str, options: Options) -> str:
    """Return what the remedy of rule `code` is recorded under. Raises InvalidInputError where nothing clears it."""
    found = code if options.agree or options.take_back or code == PROOF_LOCK else clears(pack, code)
    if found is None:
        named = ", ".join((*pack.remedies.values(), PROOF_LOCK))
        raise InvalidInputError(field="code", reason=Text(f"当场可处理:{named}", f"can be cleared here: {named}"))
    return found


async def carry_out(app: App, wanted: remedy_request.RemedyRequest, rule: str, options: Options) -> RemedyResult:
    """Carry out the remedy of rule `rule`, asking at the terminal for the proofs that it needs.

    Raises InvalidInputError for a rule that no remedy clears, and what the use cases raise.
    """
    context = app.context
    result = RemedyResult(currency=context.pack().currency)
    code = _record_code(context.pack(), rule.upper(), options)
    if options.agree:
        await consent.give(context, wanted, code, None, claim(app, "consent"), result.standing)
    elif options.take_back:
        await consent.take_back(context, wanted, code, claim(app, "consent"), result.standing)
    elif code == BALANCE:
        await remedy.cash_out(context, wanted, claim(app, code), result.cleared)
    elif code == RED_PACKET:
        await remedy.settle_red_packets(context, wanted, claim(app, code), result.cleared, give_back=options.give_back)
    elif code == AUTODEBIT:
        await remedy.end_autodebits(context, wanted, claim(app, code), result.cleared)
    elif code in (ABNORMAL_LOGIN, PROOF_LOCK):
        ask, judge = (
            (step_up.ask_logins, step_up.prove_logins)
            if code == ABNORMAL_LOGIN
            else (unlock.ask_unlock, unlock.prove_unlock)
        )
        if options.proving is None:
            await ask(context, wanted, claim(app, code), result.waiting)
            if options.quiet:
                return result
        remedy_id: UUID = options.proving or result.shape.id
        await judge(context, wanted, remedy_id, await _ask_secrets(options), claim(app, "proof"), result.cleared)
    elif options.approve is not None:
        await step_up.approve_hand_over(context, wanted, options.approve, claim(app, "approve"), result.cleared)
    else:
        await step_up.ask_hand_over(context, wanted, claim(app, code), result.waiting)
        shown = codes.derive_hand_over_code(context.codes_key, wanted.account_id, result.shape.id)
        result.shape = msgspec.structs.replace(result.shape, show=shown)
    result.refused()
    return result


async def _ask_secrets(options: Options) -> step_up.PasswordAndCode:
    password, sms = options.password, options.sms
    if password is None:
        password = await asyncio.to_thread(typer.prompt, say("支付密码", "Payment password"), hide_input=True)
    if sms is None:
        sms = await asyncio.to_thread(typer.prompt, say("短信验证码", "SMS code"))
    return step_up.PasswordAndCode(password=str(password), code=str(sms))


def show(result: RemedyResult) -> None:
    """Print what was done, and the new check."""
    shape = result.shape
    if isinstance(shape, shapes.Awaited):
        console.print(say(f"用主设备扫描:{shape.show}", f"Scan this with the primary device: {shape.show}"))
    elif isinstance(shape, shapes.ConsentAnswer):
        listed = "、".join(shape.agreed or ()) or say("整体" if shape.agreed is not None else "无", "the whole")
        nothing = say("不再同意任何事项。", "Nothing is agreed to any more.")
        console.print(nothing if shape.agreed is None else say(f"已同意终止:{listed}", f"Agreed to end: {listed}"))
    else:
        moved = "" if shape.amount_fen is None else f" {money(shape.amount_fen, result.currency)}"
        console.print(say(f"已处理 {shape.count} 项{moved}。", f"Cleared: {shape.count}{moved}."))
    if result.check is not None:
        show_check(console, result.check)
