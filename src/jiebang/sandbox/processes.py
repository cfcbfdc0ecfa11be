"""Starts and watches the sandbox's processes: both clearing networks, the phone, the verifier, and the super-app.

They end with their parent however it ends, come back on the same port when one dies, and log into the home folder.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import msgspec

from jiebang.model.decoding import decode
from jiebang.model.errors import InvalidInputError, ProcessStartError
from jiebang.participants import PARTICIPANTS
from jiebang.remote.gateway import GATEWAY
from jiebang.remote.link_keys import create_keys, read_our_end
from jiebang.remote.signing import Link
from jiebang.remote.stand_ins import ADDRESSES, JWKS, KEYS, write_addresses
from jiebang.remote.verifier import VERIFIER
from jiebang.saga.backoff import exponential_wait
from jiebang.sandbox.issuer import SandboxIssuer
from jiebang.sandbox.superapp import CALLED, DATABASES_VARIABLE
from jiebang.sandbox.superapp import NAME as SUPERAPP

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

START_SECONDS: Final = 30.0
"""Longest wait for a process to print its port; under one second on an idle machine."""
REBIRTH: Final = timedelta(seconds=0.2)
"""Wait before a dead process is started again; grows to REBIRTH_LIMIT for one that does not start."""
REBIRTH_LIMIT: Final = timedelta(seconds=5)
_MODULES: Final = {GATEWAY: ["jiebang.sandbox.phone"], VERIFIER: ["jiebang.sandbox.verifier"]}
"""The processes that are no clearing networks."""


class _Ready(msgspec.Struct):
    port: int


class SandboxProcess:
    """One process, and the task that starts it again when it dies."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        again: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`command`: a Python module and its arguments, without the port; `log`: where its standard error goes.

        `again`: further arguments when it is restarted after it died. `environment`: by default ours without the
        platform's settings, which are not for the outside world.
        """
        self.name = name
        self._again = again
        self._given = environment
        self.port = 0
        self.restarts = 0
        self._command = command
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process's id while it runs."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if running and self._process is not None else None

    @property
    def url(self) -> str:
        """Where it answers; the same after a restart."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start it and wait until it listens. Raises ProcessStartError where it does not."""
        await self._spawn(*(("--port", str(self.port)) if self.port else ()))
        self._watch = asyncio.create_task(self._keep_alive(), name=f"sandbox-{self.name}")

    async def _spawn(self, *extra: str) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                *self._command,
                "--with-parent",
                *extra,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=_environment() if self._given is None else dict(self._given),
                start_new_session=True,  # an interrupt from the keyboard is for the parent, which then stops them
            )
        try:
            async with asyncio.timeout(START_SECONDS):
                line = await self._process.stdout.readline() if self._process.stdout else b""
            self.port = decode(line, _Ready).port
        except (TimeoutError, InvalidInputError) as error:
            await self._end()
            raise ProcessStartError(process=self.name, log=str(self._log)) from error

    async def _keep_alive(self) -> None:
        failures, again = 0, ("--port", str(self.port), *self._again)
        while self._process is not None:
            await self._process.wait()
            await asyncio.sleep(exponential_wait(REBIRTH, failures, REBIRTH_LIMIT).total_seconds())
            self.restarts += 1
            try:
                await self._spawn(*again)
                failures = 0
            except (OSError, ProcessStartError):  # the port is taken for the moment, or the disk is full
                failures += 1

    async def stop(self) -> None:
        """End it and wait until it has."""
        if self._watch is not None:
            self._watch.cancel()
            with suppress(asyncio.CancelledError):
                await self._watch
        await self._end()

    async def _end(self) -> None:
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()


class Sandbox:
    """The running sandbox. `issuer`: of access tokens; trusted by a platform that has no other configured."""

    def __init__(self, processes: Mapping[str, SandboxProcess], home: Path) -> None:
        """`processes` by name, all started; `home`: where their keys, data and logs are."""
        self.processes = processes
        self.home = home
        self.issuer = SandboxIssuer(home)

    def link(self, name: str) -> Link:
        """Return the platform's end of the link to "unionpay", "netsunion", "phone" or "verifier"."""
        return read_our_end(self.home / KEYS, name, self.processes[name].url)

    @property
    def addresses(self) -> dict[str, str]:
        """Where each answers, by name."""
        return {name: process.url for name, process in self.processes.items()}


@asynccontextmanager
async def sandbox(
    home: Path,
    *,
    names: Sequence[str] = (*PARTICIPANTS.networks, GATEWAY, VERIFIER),
    ports: Mapping[str, int] | None = None,
    databases: Mapping[str, str] | None = None,
    others: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> AsyncIterator[Sandbox]:
    """Run the sandbox's processes, their data, keys and logs under `home`, until the block is left.

    `ports`: fixed ones by name, any free one for the others. `databases`: the participants' DSNs by name, with which
    the super-app runs too. `others`: further remote participants by name, with their operations. Raises
    ProcessStartError where a process does not start. Faults of an earlier run are off.
    """
    for folder in (KEYS, "sandbox", "logs"):
        (home / folder).mkdir(parents=True, exist_ok=True, mode=0o700)
    processes = {name: _process(home, name) for name in names}
    processes |= {name: _process(home, name, operations) for name, operations in others.items()}
    if databases is not None:
        processes[SUPERAPP] = _super_app(home, databases)
    for name, port in (ports or {}).items():
        processes[name].port = port
    for name in (*names, *others):
        create_keys(home / KEYS, name)
    async with AsyncExitStack() as stack:
        for process in processes.values():
            stack.push_async_callback(process.stop)
        started = await asyncio.gather(*(process.start() for process in processes.values()), return_exceptions=True)
        for failure in filter(None, started):
            raise failure
        running = Sandbox(processes, home)
        write_addresses(home, running.addresses)
        stack.callback((home / ADDRESSES).unlink, missing_ok=True)
        yield running


def _environment() -> dict[str, str]:
    """Return our environment without the platform's settings, which hold passwords of databases."""
    return {name: value for name, value in os.environ.items() if not name.startswith("JIEBANG_")}


def _super_app(home: Path, databases: Mapping[str, str]) -> SandboxProcess:
    arguments = [
        "--data",
        str(home / "sandbox" / f"{SUPERAPP}.sqlite"),
        "--jwks",
        str(home / JWKS),
        "--home",
        str(home),
    ]
    called = {name: databases[name] for name in CALLED}
    environment = _environment() | {DATABASES_VARIABLE: msgspec.json.encode(called).decode()}
    command = ["jiebang.sandbox.superapp", *arguments]
    return SandboxProcess(SUPERAPP, command, home / "logs" / f"{SUPERAPP}.log", environment=environment)


def _process(home: Path, name: str, operations: Sequence[str] = ()) -> SandboxProcess:
    module = _MODULES.get(name) or ["jiebang.sandbox.clearing", name]
    command = [*module, "--data", str(home / "sandbox" / f"{name}.sqlite"), "--keys", str(home / KEYS)]
    command += [f"--operation={operation}" for operation in operations]
    again = () if name in _MODULES else ("--keep-faults",)
    return SandboxProcess(name, command, home / "logs" / f"{name}.log", again=again)
