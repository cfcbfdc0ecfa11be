"""A participant of a team's own as an HTTP service: signed requests in, its `Holder` and its fence file behind."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from jiebang.model.plan import PlannedOperation
from jiebang.participants.core.statements import EFFECT_UNFIT
from jiebang.participants.serving.fence_file import FenceFile
from jiebang.participants.serving.holder import Holder
from jiebang.participants.serving.messages import SINGLE_STATUS, ReceivedBatch, read_batch, read_single_case
from jiebang.remote import wire
from jiebang.remote.link_keys import create_keys, read_other_end
from jiebang.remote.service import HttpAnswer, HttpCall, Service, ok, serve
from jiebang.remote.signing import RequestParameters, Responder
from jiebang.saga.fence import CaseOp, Op

T = TypeVar("T")
_UNNAMED: Final = ""


class ServedParticipant:
    """A `Holder` behind the protocol."""

    def __init__(self, holder: Holder, file: FenceFile) -> None:
        self._holder, self._file = holder, file
        self._thread = ThreadPoolExecutor(1, "fence")

    def service(self, name: str, responder: Responder) -> Service:
        """Return it as an ASGI application, which answers at the protocol's six resources and at /health."""

        async def health(call: HttpCall) -> HttpAnswer:
            del call
            return ok({"name": name, "pid": os.getpid()})

        signed = {
            ("POST", "/try"): self.batch,
            ("POST", "/confirm"): self.batch,
            ("POST", "/cancel"): self.batch,
            ("POST", "/look"): self.look,
            ("POST", "/marks"): self.marks,
            ("POST", "/branch"): self.branch,
        }
        return Service(responder, signed, {("GET", "/health"): health}, self._file.nonces())

    async def batch(self, call: HttpCall) -> HttpAnswer:
        """Answer a Try, Confirm or Cancel."""
        received = read_batch(call.body, self._holder.operations)
        op = Op(call.path.removeprefix("/"))
        return ok(wire.Results(await self._run(self.carry_out, op, received, call.verified)))

    async def branch(self, call: HttpCall) -> HttpAnswer:
        """Answer the single-case form."""
        op, case = read_single_case(call.query)
        (result,) = await self._run(self.carry_out, op, ReceivedBatch([case], _UNNAMED, {}), call.verified)
        return msgspec.structs.replace(ok(result), status=SINGLE_STATUS[result.outcome])

    async def look(self, call: HttpCall) -> HttpAnswer:
        """Answer a look."""
        accounts = [int(account) for account in wire.parse(call.body, wire.LookBatch).accounts]
        return ok(wire.LookResults(await self._run(self._file.look, accounts)))

    async def marks(self, call: HttpCall) -> HttpAnswer:
        """Answer a read of marks."""
        asked = wire.parse(call.body, wire.MarksRange)
        rows = await self._run(self._file.marks, int(asked.after), int(asked.upto), wire.MAX_BATCH)
        return ok(wire.LookResults(rows))

    def carry_out(self, op: Op, received: ReceivedBatch, request: RequestParameters) -> list[wire.Result]:
        """Carry out an op with all that the holder does, in one transaction."""
        holder, db = self._holder, self._file.db
        planned = self._plan(received)

        def refuse(accounts: Sequence[int]) -> Mapping[int, str]:
            if holder.operations[planned.operation].find_fault(planned.effects) is not None:
                return dict.fromkeys(accounts, EFFECT_UNFIT)
            return holder.refuse(db, accounts, planned)

        def write(written: Mapping[CaseOp, Sequence[int]]) -> None:
            if written[CaseOp.TRIED]:
                holder.reserve(db, written[CaseOp.TRIED], planned)
            if written[CaseOp.CONFIRMED]:
                holder.apply(db, written[CaseOp.CONFIRMED], planned)
            if written[CaseOp.CANCELLED]:
                holder.release(db, written[CaseOp.CANCELLED])

        return self._file.carry_out(op, received.cases, request, refuse, write)

    def _plan(self, received: ReceivedBatch) -> PlannedOperation:
        """Return the operation asked for; where none is named, the first, which a party with a single one has."""
        return PlannedOperation(received.operation or next(iter(self._holder.operations)), dict(received.effects))

    async def _run(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)


def run_service(name: str, holder: Holder, served: type[ServedParticipant] = ServedParticipant) -> None:
    """Run a participant as a process until it is stopped: its options are on the command line.

    `--data FILE`: where its state lies; `--keys FOLDER`: NAME-reply.pem and NAME-request.pub.pem; `--new-keys` makes
    both key pairs of the link there, to try it out; `--port`: 0 for any. It listens on this machine alone, for a proxy
    that speaks TLS; the port is printed as one line of JSON.
    """
    arguments = argparse.ArgumentParser(description=f"{name}: 解绑的远程参与方 / a remote participant of Jiebang")
    arguments.add_argument("--port", type=int, default=0, help="端口,0 为任选 / port, 0 for any free one")
    arguments.add_argument("--data", type=Path, required=True, help="数据文件 / file to keep its data in")
    arguments.add_argument("--keys", type=Path, required=True, help="密钥目录 / folder of the keys")
    arguments.add_argument(
        "--new-keys", action="store_true", help="试用:生成链路两端的密钥 / to try it out: make the keys of both ends"
    )
    arguments.add_argument(
        "--with-parent",
        action="store_true",
        help="标准输入关闭时退出 / end when standard input closes, however the parent died",
    )
    given = arguments.parse_args()
    if given.new_keys:
        create_keys(given.keys, name)
    try:
        responder = Responder(read_other_end(given.keys, name, ""))
    except OSError as error:
        arguments.error(f"无法读取密钥文件 / a key file cannot be read: {error.filename}")
    given.data.parent.mkdir(parents=True, exist_ok=True)
    participant = served(holder, FenceFile(given.data, holder.schema))
    serve(nullcontext(participant.service(name, responder)), given.port, with_parent=given.with_parent)
