"""The sandbox's processes live and die as they should, and the phone gets each message once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import uuid
from pathlib import Path

import httpx
import msgspec
import pytest

from jiebang.model.check import Text
from jiebang.model.errors import ProcessStartError
from jiebang.model.notice import Channel, Notice
from jiebang.model.plan import UNNAMED
from jiebang.participants.http import HttpParticipant
from jiebang.remote.gateway import HttpGateway
from jiebang.saga.fence import CaseOp, FenceRow, Op
from jiebang.saga.orders import Order
from jiebang.sandbox.control import Control
from jiebang.sandbox.faults import FaultKind, NetworkFault
from jiebang.sandbox.processes import Sandbox, sandbox
from tests.patience import PATIENCE_S

_PARENT = """
import asyncio, json, signal, sys
from pathlib import Path
from jiebang.sandbox.processes import (sandbox)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and so would we
async def main():
    async with sandbox(Path(sys.argv[1])) as world:
        print(json.dumps([process.pid for process in world.processes.values()]), flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not Path("/proc/self").exists()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_no_process_is_left_however_the_parent_dies(tmp_path: Path, how: signal.Signals) -> None:
    """Processes left behind would hold ports and files, and answer the next demo with the last one's data."""
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _PARENT, str(tmp_path), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert parent.stdout
    pids = json.loads(await parent.stdout.readline())
    assert len(pids) == 4
    assert all(alive(pid) for pid in pids)
    parent.send_signal(how)
    await parent.wait()
    async with asyncio.timeout(PATIENCE_S):
        while any(alive(pid) for pid in pids):  # noqa: ASYNC110 - other processes have no Event
            await asyncio.sleep(0.02)


async def test_a_new_run_keeps_the_data_and_drops_the_faults(tmp_path: Path) -> None:
    """A demo started again must know its fences, and must not inherit yesterday's silence."""
    async with sandbox(tmp_path, names=["unionpay"]) as world:
        participant, control = HttpParticipant(world.link("unionpay")), Control(world.link("unionpay"))
        await participant.apply(Op.TRY, [Order(1, 1)], UNNAMED)
        await control.set_faults([NetworkFault(FaultKind.SILENT)])
        await participant.aclose()
        await control.aclose()
        pid = world.processes["unionpay"].pid
    assert pid is not None
    assert not alive(pid)
    async with sandbox(tmp_path, names=["unionpay"]) as world:
        participant = HttpParticipant(world.link("unionpay"))
        assert await participant.look([1]) == {1: FenceRow(1, CaseOp.TRIED)}
        await participant.aclose()


async def test_two_sandboxes_run_side_by_side(world: Sandbox, tmp_path: Path) -> None:
    """Two checkouts on one machine must neither meet nor disturb each other."""
    async with sandbox(tmp_path, names=["unionpay"]) as other:
        assert other.addresses["unionpay"] != world.addresses["unionpay"]
        participant = HttpParticipant(other.link("unionpay"))
        await participant.apply(Op.TRY, [Order(6_999_999, 1)], UNNAMED)
        here = HttpParticipant(world.link("unionpay"))
        assert await here.look([6_999_999]) == {}
        await participant.aclose()
        await here.aclose()


async def test_a_process_that_cannot_start_is_an_error_not_a_wait(tmp_path: Path) -> None:
    """`jiebang demo` would otherwise hang without a word."""
    (tmp_path / "sandbox" / "unionpay.sqlite").mkdir(parents=True)
    with pytest.raises(ProcessStartError, match="unionpay"):
        async with sandbox(tmp_path, names=["unionpay"]):
            pass


def notice(account: int, text: str) -> Notice:
    return Notice(uuid.uuid4(), str(account), Channel.SMS, Text(f"【解绑】{text}", text))


async def messages(world: Sandbox, account: int) -> list[str]:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"{world.addresses['phone']}/phones/{account}")
    return [message["text"]["en"] for message in answer.json()["messages"]]


async def test_a_phone_shows_each_message_once_and_the_newest_last(world: Sandbox, account: int) -> None:
    """The outbox delivers at least once; the person must read it once, and find the newest code where they look."""
    gateway = HttpGateway(world.link("phone"))
    first, second = notice(account, "first"), notice(account, "second")
    await gateway.send([first])
    await gateway.send([first, second, notice(account + 1, "another person's")])
    await gateway.send([])
    assert await messages(world, account) == ["first", "second"]
    pid = world.processes["phone"].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await gateway.send([second])
                break
            except OSError:
                await asyncio.sleep(0.05)
    assert await messages(world, account) == ["first", "second"], "also after the gateway's death"
    await gateway.aclose()


async def test_many_notices_go_in_several_requests_and_arrive_whole(world: Sandbox, account: int) -> None:
    """A round of the outbox may be larger than a request; nobody may be left untold."""
    gateway = HttpGateway(world.link("phone"))
    await gateway.send([notice(account, str(at)) for at in range(1201)])
    await gateway.aclose()
    assert len(await messages(world, account)) == 200, "a phone shows its newest 200"


async def test_a_gateway_that_is_down_raises_so_that_the_outbox_keeps_the_message(world: Sandbox, account: int) -> None:
    """A message marked as delivered that was not would leave a thief's request unnoticed."""
    gateway = HttpGateway(msgspec.structs.replace(world.link("phone"), base_url="http://127.0.0.1:9"))
    with pytest.raises(OSError, match="phone"):
        await gateway.send([notice(account, "lost?")])
    await gateway.aclose()


async def test_strangers_cannot_write_to_a_phone(world: Sandbox, account: int) -> None:
    """A forged message with a forged link is how people lose accounts."""
    async with httpx.AsyncClient(base_url=world.addresses["phone"], trust_env=False) as client:
        refused = await client.post("/messages", json={"messages": []})
        missing = await client.get("/phones/none")
    assert (refused.status_code, missing.status_code) == (401, 422)
    assert await messages(world, account) == []


async def test_the_phones_page_is_in_both_languages_and_shows_text_as_text(world: Sandbox, account: int) -> None:
    """A message that holds markup must not become a page of its own."""
    gateway = HttpGateway(world.link("phone"))
    await gateway.send([notice(account, "<script>alert(1)</script>")])
    await gateway.aclose()
    async with httpx.AsyncClient(trust_env=False) as client:
        page = await client.get(f"{world.addresses['phone']}/phones/{account}", headers={"accept": "text/html"})
    assert page.headers["content-type"].startswith("text/html")
    assert "<script>" not in page.text
    assert "&lt;script&gt;" in page.text
    assert "手机" in page.text
    assert "Phone of account" in page.text
