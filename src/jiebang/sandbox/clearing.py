"""A clearing network (银联 or 网联) as a process of its own: the other end of the remote-participant protocol.

`python -m jiebang.sandbox.clearing unionpay --data FILE --keys FOLDER`. It keeps card and account bindings: a Try
reserves those of an account, Confirm releases them, Cancel restores them. The fence is the product's own function.
Faults can be switched on while it runs (`PUT /sandbox/faults`, see faults.py).
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

from jiebang.model.errors import OurFaultError
from jiebang.participants import PARTICIPANTS
from jiebang.participants.serving.messages import SINGLE_STATUS, read_batch, read_single_case
from jiebang.remote import wire
from jiebang.remote.link_keys import read_other_end
from jiebang.remote.signing import Responder
from jiebang.saga.fence import Op
from jiebang.sandbox.faults import FaultKind, FaultOp, NetworkFault, Phase, Strike, strike
from jiebang.sandbox.ledger import MAX_BINDINGS, Binding, Ledger
from jiebang.sandbox.lies import FickleMemory, apply_lie, deny_all
from jiebang.sandbox.service import Arguments, HttpAnswer, HttpCall, Service, ok, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

T = TypeVar("T")
DIED: Final = 86
"""Exit status of a process that the fault `die` ended."""


class BindingsBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `PUT /sandbox/bindings`."""

    bindings: Annotated[list[Binding], Meta(min_length=1, max_length=MAX_BINDINGS)]


class Faults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `PUT /sandbox/faults`: all faults from now on; an empty list switches all off."""

    faults: Annotated[tuple[NetworkFault, ...], Meta(max_length=100)]


class ClearingNetwork:
    """The network: parses messages, applies faults, keeps its ledger."""

    def __init__(self, ledger: Ledger, operations: Collection[str], *, keep_faults: bool) -> None:
        """`operations`: names of the operations it carries out; each releases bindings.

        `keep_faults`: keep the faults that were on when the last process ended.
        """
        self._ledger, self._operations = ledger, operations
        self._thread = ThreadPoolExecutor(1, "ledger")
        if not keep_faults:
            ledger.save_faults(())
        self._faults = ledger.faults()
        self._memory = FickleMemory()

    def service(self, name: str, responder: Responder) -> Service:
        """Return the network as an ASGI application."""

        async def health(call: HttpCall) -> HttpAnswer:
            del call
            return ok({"name": name, "pid": os.getpid()})

        return Service(
            responder,
            {
                ("POST", "/try"): self.batch,
                ("POST", "/confirm"): self.batch,
                ("POST", "/cancel"): self.batch,
                ("POST", "/look"): self.look,
                ("POST", "/marks"): self.marks,
                ("POST", "/branch"): self.branch,
                ("PUT", "/sandbox/bindings"): self.bind,
                ("GET", "/sandbox/faults"): self.list_faults,
                ("PUT", "/sandbox/faults"): self.set_faults,
                ("GET", "/sandbox/state"): self.state,
                ("POST", "/sandbox/state"): self.state,
            },
            {("GET", "/health"): health},
            self._ledger.nonces(),
        )

    async def _run(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    async def batch(self, call: HttpCall) -> HttpAnswer | None:
        """Answer a Try, Confirm or Cancel of up to 1,024 cases."""
        cases = read_batch(call.body, self._operations).cases
        done = await self._saga(call, Op(call.path.removeprefix("/")), cases)
        return None if done is None else _answer(wire.Results(done[0]), done[1])

    async def branch(self, call: HttpCall) -> HttpAnswer | None:
        """Answer the single-case form by DTM's convention: 200 granted, 409 refused, 425 still working."""
        op, case = read_single_case(call.query)
        done = await self._saga(call, op, [case])
        if done is None:
            return None
        (first, *_), suffered = done
        return msgspec.structs.replace(_answer(first, suffered), status=SINGLE_STATUS[first.outcome])

    async def _saga(
        self, call: HttpCall, op: Op, cases: Sequence[tuple[int, int]]
    ) -> tuple[list[wire.Result], Strike] | None:
        """Apply the op, with the faults before and after it. None: the fault `silent` withholds the answer."""
        suffered = await self._apply_faults(FaultOp(op), [account for account, _ in cases])
        if suffered.silent is Phase.BEFORE:
            await call.hung_up()
            return None
        if suffered.breaks:
            raise OurFaultError

        def die_if_during() -> None:
            if suffered.die is Phase.DURING:
                os._exit(DIED)

        if suffered.lie is FaultKind.DENY:
            rows = await self._run(self._ledger.fence_rows, [account for account, _ in cases])
            results = deny_all(cases, rows)
        else:
            results = await self._run(self._ledger.apply, op, cases, suffered.refusals, call.verified, die_if_during)
        if suffered.twice:
            results += await self._run(self._ledger.apply, op, cases, suffered.refusals, call.verified, die_if_during)
        if await self._withholds_answer(suffered, call):
            return None
        return apply_lie(suffered.lie, op, results, self._memory), suffered

    async def look(self, call: HttpCall) -> HttpAnswer | None:
        """Answer the fence rows of up to 1,024 accounts."""
        accounts = [int(account) for account in wire.parse(call.body, wire.LookBatch).accounts]
        suffered = await self._apply_faults(FaultOp.LOOK, accounts)
        if suffered.silent is Phase.BEFORE:
            await call.hung_up()
            return None
        rows = await self._run(self._ledger.look, accounts)
        if await self._withholds_answer(suffered, call):
            return None
        return _answer(wire.LookResults(rows * 2 if suffered.twice else rows), suffered)

    async def marks(self, call: HttpCall) -> HttpAnswer | None:
        """Answer the next 1,024 fence rows of a range of accounts. Hit by the faults of a look."""
        asked = wire.parse(call.body, wire.MarksRange)
        upto = int(asked.upto)
        suffered = await self._apply_faults(FaultOp.LOOK, [upto])
        if suffered.silent is Phase.BEFORE:
            await call.hung_up()
            return None
        rows = await self._run(self._ledger.marks, int(asked.after), upto, wire.MAX_BATCH)
        return None if await self._withholds_answer(suffered, call) else ok(wire.LookResults(rows))

    async def _apply_faults(self, op: FaultOp, accounts: list[int]) -> Strike:
        """Find the faults that hit this request and save the counts left; be slow, or die, before the work."""
        suffered, left = strike(self._faults, op, accounts)
        if left != self._faults:
            self._faults = left
            await self._run(self._ledger.save_faults, left)
        if suffered.slow_ms:
            await asyncio.sleep(suffered.slow_ms / 1000)
        if suffered.die is Phase.BEFORE:
            os._exit(DIED)
        return suffered

    async def _withholds_answer(self, suffered: Strike, call: HttpCall) -> bool:
        if suffered.die is not None:  # after; or during, where there was no transaction to die in
            os._exit(DIED)
        if suffered.silent is Phase.AFTER:
            await call.hung_up()
            return True
        return False

    async def bind(self, call: HttpCall) -> HttpAnswer:
        """Bring bindings into force; accounts between Try and Confirm or Cancel are left unchanged and named."""
        bindings = wire.parse(call.body, BindingsBody).bindings
        busy = await self._run(self._ledger.bind, bindings, call.verified)
        return ok({"busy": busy})

    async def list_faults(self, call: HttpCall) -> HttpAnswer:
        """Answer the faults switched on, counted ones with what is left of them."""
        del call
        return ok(Faults(self._faults))

    async def set_faults(self, call: HttpCall) -> HttpAnswer:
        """Replace all faults."""
        faults = wire.parse(call.body, Faults).faults
        self._faults = faults
        await self._run(self._ledger.save_faults, faults, call.verified)
        return ok(Faults(faults))

    async def state(self, call: HttpCall) -> HttpAnswer:
        """Answer fence row and bindings of accounts: `?account=` once or more, or the body of a look."""
        batch = (
            wire.parse(call.body, wire.LookBatch)
            if call.sent.method == "POST"
            else wire.convert({"accounts": call.query.get("account", [])}, wire.LookBatch)
        )
        accounts = [int(account) for account in batch.accounts]
        return ok({"accounts": await self._run(self._ledger.state, accounts)})


def _answer(body: Any, suffered: Strike) -> HttpAnswer:
    return msgspec.structs.replace(ok(body), stale=suffered.lie is FaultKind.STALE)


def main() -> None:
    """Run one network until told to stop."""
    arguments = Arguments("模拟清算网络 / a clearing network of the sandbox")
    arguments.add_argument("name", help="名称 / its name")
    known = "操作,默认为产品所声明的 / an operation it has; default: those that the product declares"
    arguments.add_argument("--operation", action="append", default=[], help=known)
    arguments.add_argument("--keep-faults", action="store_true", help="沿用上次的故障 / go on with the last faults")
    given = arguments.parse_args()
    given.data.parent.mkdir(parents=True, exist_ok=True)
    operations = given.operation or PARTICIPANTS[given.name].operations
    clearing = ClearingNetwork(Ledger(given.data), operations, keep_faults=given.keep_faults)
    responder = Responder(read_other_end(given.keys, given.name, ""))
    serve(nullcontext(clearing.service(given.name, responder)), given.port, with_parent=given.with_parent)


if __name__ == "__main__":
    main()
