"""What the commands do on a person's behalf, through the same use cases as the API."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import msgspec
import typer

from jiebang.api.shapes import case_shape
from jiebang.app import App
from jiebang.cli.arguments import case_key
from jiebang.cli.language import say
from jiebang.cli.runner import console, print_error
from jiebang.cli.show import TimelineView
from jiebang.model.case import ENDED, Key, Kind, State
from jiebang.model.errors import IdentityRefusedError, InvalidInputError, JiebangError, ProofRefusedError
from jiebang.model.origin import SERVICE, Origin
from jiebang.model.proof import Method
from jiebang.remote.gateway import GATEWAY
from jiebang.usecases.cases import unrepeated
from jiebang.usecases.cases.bring_identity import BroughtIdentity, bring_identity
from jiebang.usecases.cases.context import CaseDetails
from jiebang.usecases.cases.find import find, read_timelines
from jiebang.usecases.cases.prove import Attempt, prove
from jiebang.usecases.cases.submit import Submission, submit

if TYPE_CHECKING:
    from jiebang.store.cases.idempotency import Claim, KeptAnswer

_CALLER = "cli"


def claim(app: App, route: str) -> Claim:
    """Return a claim with a new key: the terminal never repeats a request."""
    return unrepeated.make_claim(_CALLER, route, app.clock(), uuid4(), secrets.token_bytes(32))


def _render(app: App, outcome: CaseDetails | JiebangError) -> KeptAnswer:
    """Encode a case as JSON, or the fields of a refusal, which `_decode_or_raise` raises again."""
    if isinstance(outcome, JiebangError):
        return unrepeated.make_answer(msgspec.json.encode(outcome.fields, enc_hook=str), refused=True)
    return unrepeated.make_answer(msgspec.json.encode(case_shape(outcome, app.case_ids, app.clock())))


def _decode_or_raise(kept: KeptAnswer) -> dict[str, Any]:
    result: dict[str, Any] = msgspec.json.decode(kept.answer)
    if kept.status:
        raise ProofRefusedError(**result)
    return result


def origin_at(device: str | None) -> Origin:
    """Return who asks at the terminal: a person at the device named, else the platform's own staff."""
    return SERVICE if device is None else Origin(device)


async def submit_case(app: App, account: int, kind: Kind, device: str | None) -> dict[str, Any]:
    """Submit a case; return it as the API shows it. Raises BlockedError with the whole check."""
    asked = Submission(account_id=account, kind=kind, origin=origin_at(device))
    answered = await submit(app.context, asked, claim(app, "submit"), partial(_render, app))
    return _decode_or_raise(answered.kept)


async def prove_case(
    app: App, case_id: str, password: str | None, code: str | None, *, device: str | None = None, quiet: bool
) -> dict[str, Any]:
    """Offer the proofs that a case still requires, prompting for those not given. Returns the case."""
    by = origin_at(device)
    key = case_key(app.case_ids, case_id)
    given = {Method.PAYMENT_PASSWORD: password, Method.SMS_CODE: code}
    asks = {
        Method.PAYMENT_PASSWORD: say("支付密码", "Payment password"),
        Method.SMS_CODE: say("短信验证码", "SMS code"),
    }
    found = await find(app.context, key)
    while (method := _next_method(found)) is not None:
        if method is Method.DOCUMENT:
            if quiet:
                return _case_to_json(app, found)
            found = await _bring(app, key, by)
            continue
        secret = given.pop(method, None)
        if secret is None and quiet:
            return _case_to_json(app, found)
        if secret is None:
            hidden = method is Method.PAYMENT_PASSWORD
            if not hidden:
                _tell_where_the_code_is(app, key[0])
            secret = str(await asyncio.to_thread(typer.prompt, asks[method], hide_input=hidden))
        attempt = Attempt(method=method, secret=secret.encode(errors="replace").decode())  # arguments may be any bytes
        try:
            _decode_or_raise(
                (await prove(app.context, key, by, attempt, claim(app, "prove"), partial(_render, app))).kept
            )
        except ProofRefusedError as error:
            if quiet or not error.fields.get("tries_left"):
                raise
            print_error(error, as_json=False)
        found = await find(app.context, key)
    if not quiet and found.case.state is not State.OPEN:
        console.print(say("验证通过。", "Proven."))
    return _case_to_json(app, found)


async def _bring(app: App, key: Key, by: Origin) -> CaseDetails:
    """Ask for the identity that the case brings, and bring it. Not as arguments: others on the host can read those."""
    asked = (
        say("证件类型(resident_id 或 residence_permit)", "Document (resident_id or residence_permit)"),
        say("证件上的姓名", "Name on the document"),
        say("证件号码", "Number of the document"),
    )
    kind, name, number = [str(await asyncio.to_thread(typer.prompt, text)) for text in asked]
    brought = BroughtIdentity(name=name, document_type=kind, number=number)
    try:
        done = await bring_identity(app.context, key, by, brought, claim(app, "identity"), partial(_render, app))
        _decode_or_raise(done.kept)
    except (InvalidInputError, IdentityRefusedError) as error:
        print_error(error, as_json=False)
    except ProofRefusedError as error:
        if not error.fields.get("tries_left"):
            raise
        print_error(error, as_json=False)
    return await find(app.context, key)


def _tell_where_the_code_is(app: App, account_id: int) -> None:
    """Say where the sandbox's phone shows the code, where a sandbox stands in for the gateway."""
    if app.settings.gateway_url is None and GATEWAY in app.links:
        phone = f"{app.links[GATEWAY].base_url}/phones/{account_id}"
        told = say(f"验证码在沙箱的手机上:{phone}", f"The sandbox's phone shows the code: {phone}")
        console.print(told, markup=False, highlight=False, soft_wrap=True)


def _next_method(found: CaseDetails) -> Method | None:
    """Return the next proof that an open case asks for."""
    if found.case.state is not State.OPEN:
        return None
    return next((method for method, proof in found.proofs.items() if proof.proven_at is None), None)


def _case_to_json(app: App, found: CaseDetails) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(case_shape(found, app.case_ids, app.clock()))
    return shown


async def follow(
    app: App, case_id: str, *, until_ended: bool, beat: float = 0.05
) -> AsyncIterator[tuple[TimelineView, dict[str, Any]]]:
    """Yield the view of a case and each row of its timeline; with `until_ended`, as they come.

    Raises UnknownCaseError.
    """
    key = case_key(app.case_ids, case_id)
    found = await find(app.context, key)
    view, seen = TimelineView(case_id, found.plan.participants), 0
    while True:
        for row in await read_timelines(app.context, {key: seen}):
            view.add(row.entries)
            seen = row.revision
            yield view, {"revision": row.revision, "at": row.at, "entries": row.entries}
        if not until_ended or view.state in ENDED:
            return
        await asyncio.sleep(beat)
