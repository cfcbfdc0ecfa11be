"""The demo's stage: a demo may never empty what is not its own, and gives way to programs that were there before it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jiebang.model.errors import ProcessStartError
from jiebang.remote.link_keys import create_keys
from jiebang.sandbox import stage
from jiebang.sandbox.processes import SandboxProcess
from jiebang.sandbox.stage import DemoRunningError, NotOursToClearError, clear, only_demo
from tests.rows import AT, insert_accounts

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

ANCHOR = "timeline-anchor.jsonl"
_HOLDER = """
import sys, time
from pathlib import Path
from jiebang.sandbox.stage import (only_demo)
with only_demo(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
async def filled(pools: Mapping[str, Pool]) -> Mapping[str, Pool]:
    """Databases with an account."""
    await pools["platform"].execute(
        "INSERT INTO platform.account (account_id, created_at) VALUES (1, $1) ON CONFLICT DO NOTHING", AT
    )
    return pools


async def accounts(pools: Mapping[str, Pool]) -> int:
    found: int = await pools["platform"].fetchval("SELECT count(*) FROM platform.account")
    return found


async def test_a_second_demo_in_a_home_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    """It would empty all databases under the first; and one killed with -9 must not lock the home for ever."""
    first = subprocess.Popen([sys.executable, "-c", _HOLDER, str(tmp_path)], stdout=subprocess.PIPE)  # noqa: S603, ASYNC220 - waits for one line
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == b"held\n"
        with pytest.raises(DemoRunningError), only_demo(tmp_path):
            pass
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.communicate()
    with only_demo(tmp_path):
        pass


async def test_only_what_the_demo_made_is_cleared(filled: Mapping[str, Pool], tmp_path: Path) -> None:
    """Somebody's own test data would be gone without a word."""
    with pytest.raises(NotOursToClearError):
        await clear(filled, tmp_path, [tmp_path / ANCHOR], outside=False)
    assert await accounts(filled) == 1
    (tmp_path / "demo").touch()
    await clear(filled, tmp_path, [tmp_path / ANCHOR], outside=False)
    assert await accounts(filled) == 0


async def test_what_a_killed_demo_left_is_cleared(filled: Mapping[str, Pool], tmp_path: Path) -> None:
    """Killed between two commits, it leaves some databases filled, the platform's empty: no demo could load again."""
    await insert_accounts(filled["wallet"], "wallet", [1])
    await filled["platform"].execute("TRUNCATE platform.account")
    (tmp_path / "demo").touch()
    await clear(filled, tmp_path, [tmp_path / ANCHOR], outside=False)
    assert await filled["wallet"].fetchval("SELECT count(*) FROM wallet.account") == 0


async def test_a_demo_on_outside_databases_does_not_claim_the_homes_own(
    filled: Mapping[str, Pool], tmp_path: Path
) -> None:
    """Else the next demo, without them, would empty what somebody loaded into the home."""
    await filled["platform"].execute("TRUNCATE platform.account")
    await clear(filled, tmp_path, [tmp_path / ANCHOR], outside=True)
    await filled["platform"].execute("INSERT INTO platform.account (account_id, created_at) VALUES (1, $1)", AT)
    with pytest.raises(NotOursToClearError):
        await clear(filled, tmp_path, [tmp_path / ANCHOR], outside=False)


async def test_outside_databases_are_never_cleared(filled: Mapping[str, Pool], tmp_path: Path) -> None:
    """A home's mark says nothing of databases elsewhere: one demo at home, and the next would empty production."""
    (tmp_path / "demo").touch()
    with pytest.raises(NotOursToClearError):
        await clear(filled, tmp_path, [tmp_path / ANCHOR], outside=True)
    assert await accounts(filled) == 1


@pytest.mark.parametrize("left", [ANCHOR, "sandbox/unionpay.sqlite", "sandbox/superapp.sqlite-wal"])
async def test_what_speaks_of_cleared_data_goes_with_it(filled: Mapping[str, Pool], tmp_path: Path, left: str) -> None:
    """The second demo in a home reported that its history had been cut off: the anchor was the first one's."""
    (tmp_path / "sandbox").mkdir()
    (tmp_path / left).write_text("of the first demo")
    (tmp_path / "demo").touch()
    await clear(filled, tmp_path, [tmp_path / ANCHOR], outside=False)
    assert not os.path.exists(tmp_path / left)  # noqa: PTH110, ASYNC240 - a file of the test
    assert os.path.exists(tmp_path / "demo")  # noqa: PTH110, ASYNC240 - a file of the test


@pytest.mark.parametrize("outside", [False, True])
async def test_an_anchor_that_no_demo_made_is_kept_aside(
    filled: Mapping[str, Pool], tmp_path: Path, outside: bool
) -> None:
    """It may be all that still proves what somebody's databases held; but of these empty ones it says nothing."""
    await filled["platform"].execute("TRUNCATE platform.account")
    (tmp_path / ANCHOR).write_text("somebody's")
    await clear(filled, tmp_path, [tmp_path / ANCHOR], outside=outside)
    assert not (tmp_path / ANCHOR).exists()
    [kept] = [name for name in os.listdir(tmp_path) if name.startswith(f"{ANCHOR}.before-")]  # noqa: PTH208
    assert (tmp_path / kept).read_text() == "somebody's"


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[SandboxProcess]:
    """A real process that listens where it is told."""
    create_keys(tmp_path, "phone")
    command = ["jiebang.sandbox.phone", "--data", str(tmp_path / "phone.sqlite"), "--keys", str(tmp_path)]
    process = SandboxProcess("phone", command, tmp_path / "phone.log")
    yield process
    await process.stop()


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """Another program that listens, until the test ends."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.mark.parametrize("seen", [True, False])
async def test_a_taken_port_is_given_way_to(
    process: SandboxProcess, listening: socket.socket, seen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two demos side by side, started at any moment: also where the port goes between the look and the listening."""
    taken = listening.getsockname()[1]
    if not seen:
        looks = iter([True])
        real = stage._is_free
        monkeypatch.setattr(stage, "_is_free", lambda port: next(looks, None) or real(port))
    await stage._start_at(process, taken)
    assert process.port not in (0, taken)


async def test_a_free_port_is_used(process: SandboxProcess, listening: socket.socket) -> None:
    """The address that the demo tells is the configured one wherever that is possible."""
    free = listening.getsockname()[1]
    listening.close()
    await stage._start_at(process, free)
    assert process.port == free


async def test_a_process_that_fails_for_another_reason_is_told(tmp_path: Path) -> None:
    """Another port would not help; the error names the log."""
    broken = SandboxProcess("api", ["jiebang.no_such_module"], tmp_path / "api.log")
    with pytest.raises(ProcessStartError) as caught:
        await stage._start_at(broken, 0)
    assert caught.value.fields == {"process": "api", "log": str(tmp_path / "api.log")}
