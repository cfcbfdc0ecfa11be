"""Clearing networks and phones for tests: real processes, one sandbox a module."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jiebang.participants.http import HttpParticipant
from jiebang.sandbox.control import Control
from jiebang.sandbox.processes import Sandbox, sandbox


@pytest.fixture(scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sandbox]:
    """A running sandbox of the module's own, in a path with spaces and Chinese."""
    home: Path = tmp_path_factory.mktemp("sand box 沙箱")
    async with sandbox(home) as running:
        yield running


@pytest.fixture
async def unionpay(world: Sandbox) -> AsyncIterator[HttpParticipant]:
    """The platform's client of UnionPay."""
    participant = HttpParticipant(world.link("unionpay"))
    yield participant
    await participant.aclose()


@pytest.fixture
async def control(world: Sandbox) -> AsyncIterator[Control]:
    """The handle on UnionPay's faults and bindings; faults are off again afterwards."""
    handle = Control(world.link("unionpay"))
    yield handle
    await handle.set_faults([])
    await handle.aclose()


@pytest.fixture(scope="session")
def numbers() -> itertools.count[int]:
    """Account numbers nobody used before."""
    return itertools.count(7_000_001)


@pytest.fixture
def account(numbers: itertools.count[int]) -> int:
    """An account number nobody used before."""
    return next(numbers)
