"""The example services, as processes of their own, and faulty ones derived from them, through the suite."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import httpx
import msgspec
import pytest

from jiebang.model.plan import PlannedOperation
from jiebang.participants.conformance.suite import FindingResult, select
from jiebang.participants.conformance.trial import Trial, run_trial
from jiebang.participants.http import HttpParticipant
from jiebang.participants.serving import FenceFile
from jiebang.remote.link_keys import create_keys, read_our_end
from jiebang.remote.signing import Link, Requester
from jiebang.saga.fence import Answer, CaseOp, FenceRow, Op
from jiebang.saga.orders import Order
from tests.conformance.faulty import EXAMPLE, FAULTS, load_example
from tests.conformance.suite import RemoteSuite, Subject
from tests.patience import PATIENCE_S

NODE_EXAMPLE: Final = EXAMPLE.parents[1] / "points_node" / "points.mjs"
NODE: Final = shutil.which("node")
LEAST_NODE: Final = 20
HELD: Final = range(8_100_001, 8_100_065)
"""Accounts that stand at a till: their Try is refused."""
POINTS: Final = 8_100_100
"""A member with 12 points."""
_ids: Iterator[int] = itertools.count(8_300_001)


def find_lack_of_node() -> str | None:
    """Return why the example in JavaScript cannot run here; None if it can."""
    if NODE is None:
        return "node is not on this machine: the example in JavaScript needs Node 20 or later"
    told = subprocess.run([NODE, "--version"], capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603 - found above
    major = told.removeprefix("v").partition(".")[0]
    if not major.isdecimal() or int(major) < LEAST_NODE:
        return f"node is {told or 'of no version'}: the example in JavaScript needs Node 20 or later"
    return None


def seed_sqlite(data: Path) -> None:
    file = FenceFile(data, load_example().Points.schema)
    with file.transaction():
        file.db.executemany("INSERT INTO member (account_id, redeeming) VALUES (?, 1)", [(one,) for one in HELD])
        file.db.execute("INSERT INTO member (account_id, points) VALUES (?, 12)", (POINTS,))
    file.close()


def seed_journal(data: Path) -> None:
    member = {"points": 0, "redeeming": True, "frozen": False, "told": False}
    members = [[str(one), member] for one in HELD]
    members.append([str(POINTS), {**member, "points": 12, "redeeming": False}])
    data.write_text(json.dumps({"members": members}) + "\n" + '{"rows": [["1", {"case', "utf-8")


def points_in_sqlite(data: Path) -> tuple[int, bool, bool]:
    with sqlite3.connect(data) as db:
        found = db.execute("SELECT points, frozen, told FROM member WHERE account_id = ?", (POINTS,)).fetchone()
    return found[0], bool(found[1]), bool(found[2])


def points_in_journal(data: Path) -> tuple[int, bool, bool]:
    entries = [json.loads(line) for line in data.read_text("utf-8").splitlines()]
    member = dict(pair for entry in entries for pair in entry.get("members", []))[str(POINTS)]
    return member["points"], member["frozen"], member["told"]


class Example(msgspec.Struct, frozen=True):
    """An example: how it is started, how its state is made and read."""

    command: Sequence[str]
    seed: Callable[[Path], None]
    points: Callable[[Path], tuple[int, bool, bool]]


PYTHON: Final = Example([sys.executable, str(EXAMPLE)], seed_sqlite, points_in_sqlite)
JAVASCRIPT: Final = Example([NODE or "node", str(NODE_EXAMPLE)], seed_journal, points_in_journal)
needs_node = pytest.mark.skipif(find_lack_of_node() is not None, reason=find_lack_of_node() or "")
both = pytest.mark.parametrize(
    "example", [pytest.param(PYTHON, id="python"), pytest.param(JAVASCRIPT, id="node", marks=needs_node)]
)


class Running(msgspec.Struct, frozen=True):
    """A service that runs: our end of its link, and its process."""

    link: Link
    process: asyncio.subprocess.Process


@asynccontextmanager
async def running(command: Sequence[str], folder: Path, name: str = "points") -> AsyncIterator[Running]:
    """Run a service on the data and keys in `folder` until the block ends."""
    create_keys(folder / "keys", name)
    process = await asyncio.create_subprocess_exec(
        *command,
        "--data",
        str(folder / "data"),
        "--keys",
        str(folder / "keys"),
        "--with-parent",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(EXAMPLE.parents[2] / "src"), str(EXAMPLE.parents[2])])},
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            port = json.loads(await process.stdout.readline())["port"]
        yield Running(read_our_end(folder / "keys", name, f"http://127.0.0.1:{port}"), process)
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


@pytest.fixture(scope="class")
async def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Link]:
    """The example of a class: it runs once for all properties."""
    example: Example = request.cls.example
    folder = tmp_path_factory.mktemp("points 积分")
    example.seed(folder / "data")
    async with running(example.command, folder) as found:
        yield found.link


@pytest.fixture(scope="class")
def held() -> Iterator[int]:
    return iter(HELD)


class _ExampleSuite(RemoteSuite):
    """The suite over an example."""

    example: Example

    @pytest.fixture
    async def subject(self, service: Link, held: Iterator[int]) -> AsyncIterator[Subject]:
        participant = HttpParticipant(service)

        async def accounts(count: int) -> list[int]:
            return list(itertools.islice(_ids, count))

        async def refused(count: int) -> tuple[list[Order], str]:
            return [Order(account, 1) for account in itertools.islice(held, count)], "POINTS-REDEEMING"

        planned = PlannedOperation("close", {"points_kept": 5, "notify": True})
        unfit = PlannedOperation("close", {"points_kept": -1})
        yield Subject(participant, accounts, refused, planned, unfit=unfit, link=service)
        assert not participant.ignored, "it said something that could not be believed"
        await participant.aclose()


class TestPythonExample(_ExampleSuite):
    example = PYTHON


@needs_node
class TestNodeExample(_ExampleSuite):
    example = JAVASCRIPT


@both
async def test_its_own_business_goes_with_the_fence(example: Example, tmp_path: Path) -> None:
    """A team copies the example: a fence that is right and points that are not would be copied too."""
    example.seed(tmp_path / "data")
    async with running(example.command, tmp_path) as service:
        participant = HttpParticipant(service.link)
        planned = PlannedOperation("close", {"points_kept": 5, "notify": True})
        seen = []
        for case_no, op in ((1, Op.TRY), (1, Op.CANCEL), (2, Op.TRY), (2, Op.CONFIRM), (2, Op.CONFIRM)):
            (reply,) = await participant.apply(op, [Order(POINTS, case_no)], planned)
            assert reply.answer in (Answer.GRANTED, Answer.DONE)
            seen.append(example.points(tmp_path / "data"))
        assert seen == [(12, True, False), (12, False, False), (12, True, False), (5, False, True), (5, False, True)]
        await participant.aclose()


@both
async def test_what_was_answered_is_there_after_kill_9(example: Example, tmp_path: Path) -> None:
    """A Confirm that was answered and lost leaves a person half unbound; a request taken twice does it again."""
    body = b'{"cases":[{"account":"77","case_no":1}]}'
    async with running(example.command, tmp_path) as service:
        requester = Requester(service.link)
        url = f"{service.link.base_url}/cancel"
        sent = requester.sign("POST", url, body, now=datetime.now(UTC), nonce="n" * 24)
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.post(url, headers=sent.headers, content=body)).status_code == 200
        service.process.send_signal(signal.SIGKILL)
        await service.process.wait()
    port = service.link.base_url.rpartition(":")[2]
    async with running([*example.command, "--port", port], tmp_path) as again:
        participant = HttpParticipant(again.link)
        assert await participant.look([77]) == {77: FenceRow(1, CaseOp.CANCELLED)}
        async with httpx.AsyncClient(trust_env=False) as client:
            repeated = await client.post(url, headers=sent.headers, content=body)
        assert repeated.status_code == 401
        await participant.aclose()


@pytest.mark.parametrize("fault", FAULTS)
async def test_the_suite_catches_a_planted_fault(fault: str, tmp_path: Path) -> None:
    """A fault that the suite lets pass is one that a team brings into people's cases."""
    name, _ = FAULTS[fault]
    seed_sqlite(tmp_path / "data")
    command = [sys.executable, str(Path(__file__).with_name("faulty.py")), fault]
    async with running(command, tmp_path) as service:
        trial = Trial(
            name="points",
            url=service.link.base_url,
            keys=tmp_path / "keys",
            operation="close",
            effects={"points_kept": 5},
            unfit={"points_kept": "many"},
            refused=[(account, "POINTS-REDEEMING") for account in HELD],
            first_account=next(_ids) + (1 << 40),
            seed=7,
        )
        report = await run_trial(trial, select([name]), lambda _: None)
    [finding] = report.findings
    assert finding.result is FindingResult.FAILED, f"{fault} is not caught by {name}"
    for text in (finding.answered, finding.wanted):
        assert text is not None
        assert text.zh
        assert text.en
    assert not report.conforms
