"""The guardian of a home: `python -m jiebang.store.postgres.supervisor HOME` returns when its two servers are up.

Every process that uses a home holds a *shared* lock on `users.lock` as long as it lives. The guardian, one detached
process per home, starts both servers, restarts one that died, and tries five times a second to take that lock
*exclusively*. Once it succeeds no user is left: it stops the servers and ends, still holding the lock, so that a new
user waits until everything has stopped. The kernel releases a lock however its holder dies, so nothing is left behind.
When a guardian is killed its servers stop too (`parent.tie_child`), and a remaining user replaces it.

Exit status: 0 the servers are up; 1 they are not, and standard output holds the error as one JSON object.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from jiebang.model.check import Text
from jiebang.model.decoding import decode
from jiebang.model.errors import (
    DatabaseDamagedError,
    DatabaseStartError,
    DiskFullError,
    HomeUnusableError,
    InvalidInputError,
    JiebangError,
    SharedMemoryFullError,
)
from jiebang.saga.backoff import exponential_wait
from jiebang.store.postgres.data_directory import SERVERS, Home, find_binaries, prepare, translate_os_errors
from jiebang.store.postgres.server import STEP, STOPPING, Server, StartAgainError, find_free_port, is_free

_POLL: Final = 0.2
_START_LIMIT: Final = 300.0  # a crash recovery of much WAL takes its time
_AGAIN_LIMIT: Final = 15.0
_FIRST_PAUSE: Final = timedelta(seconds=_POLL)
_LONGEST_PAUSE: Final = timedelta(seconds=5)
_ERRORS: Final = {
    kind.code: kind
    for kind in (
        DatabaseDamagedError,
        DatabaseStartError,
        DiskFullError,
        HomeUnusableError,
        SharedMemoryFullError,
    )
}


class GuardianState(msgspec.Struct, frozen=True):
    """The guardian's `state.json`: its process id, whether fsync is on, and each server's port."""

    guardian: int
    durable: bool
    ports: Mapping[str, int]


class _PrintedError(msgspec.Struct):
    code: str
    fields: dict[str, Any]


def read_state(home: Home) -> GuardianState | None:
    """Return the guardian's state, None where there is none (yet)."""
    try:
        return decode(home.state.read_bytes(), GuardianState)
    except (OSError, InvalidInputError):
        return None


def parse_error(printed: bytes, log: Path) -> JiebangError:
    """Rebuild the error that a guardian printed before it ended; `log`: the file that may say more."""
    try:
        error = decode(printed, _PrintedError)
    except InvalidInputError:
        last = printed.decode("utf-8", "replace")[-500:] or "-"
        return DatabaseStartError(server=",".join(SERVERS), log=str(log), reason=Text(last, last))
    reason = error.fields.get("reason")
    fields = error.fields | ({"reason": Text(**reason)} if isinstance(reason, dict) else {})
    return _ERRORS.get(error.code, DatabaseStartError)(**fields)


class _Guardian:
    """Manages both servers of a home for as long as a process uses it."""

    def __init__(self, home: Home, *, durable: bool) -> None:
        programs = find_binaries(home)
        self._home, self._durable, self._ended = home, durable, False
        self._servers = [Server(home, name, programs, durable=durable) for name in SERVERS]
        self._failures = dict.fromkeys(SERVERS, 0)
        self._retry_at = dict.fromkeys(SERVERS, 0.0)
        self._users = home.open("users.lock")
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)

    def _end(self, *_: object) -> None:
        self._ended = True

    def start(self) -> None:
        """Create and start both servers in parallel. Raises JiebangError."""
        try:
            with translate_os_errors(self._home.folder):
                for server in self._servers:
                    server.begin_making()
                for server in self._servers:
                    server.finish_making()
                ports = self._read_ports()
                for server in self._servers:
                    last_port = ports.get(server.name, 0)
                    server.port = last_port if last_port and is_free(last_port) else find_free_port()
                    server.stop_orphan()
                    server.start()
                for server in self._servers:
                    self._await_ready(server)
                self._write_state()
        except BaseException:
            self.stop()
            raise

    def _await_ready(self, server: Server) -> None:
        again_until, until = time.monotonic() + _AGAIN_LIMIT, time.monotonic() + _START_LIMIT
        while not self._ended and time.monotonic() < until:
            try:
                if server.is_ready():
                    return
            except StartAgainError:
                if time.monotonic() > again_until:
                    break
                time.sleep(_POLL)
                server.port = server.port if is_free(server.port) else find_free_port()
                server.start()
            time.sleep(STEP)
        raise server.trouble()

    def _read_ports(self) -> Mapping[str, int]:
        try:
            return decode((self._home.folder / "ports.json").read_bytes(), dict[str, int])
        except (OSError, InvalidInputError):
            return {}

    def _write_state(self) -> None:
        """Write the state for the users, and the ports for the next start."""
        ports = {server.name: server.port for server in self._servers}
        self._home.write("ports.json", msgspec.json.encode(ports))
        self._home.write("state.json", msgspec.json.encode(GuardianState(os.getpid(), self._durable, ports)))

    def watch(self) -> None:
        """Keep the servers up until nobody uses the home, a signal tells us to end, or the home is gone."""
        while not self._ended and not self._is_unused():
            for server in self._servers:
                try:
                    self._revive(server)
                except (OSError, JiebangError, StartAgainError) as error:
                    _note(f"{server.name}: {error!r}")
            time.sleep(_POLL)

    def _is_unused(self) -> bool:
        try:
            if not os.path.samestat(os.fstat(self._users), (self._home.folder / "users.lock").stat()):
                return True
            fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # the home was deleted
            return True
        return True

    def _revive(self, server: Server) -> None:
        """Restart a server that died, on the same port, with growing pauses while that fails."""
        failures = self._failures[server.name]
        if server.pid is not None:
            if failures and server.is_ready():
                self._failures[server.name] = 0
            return
        if time.monotonic() < self._retry_at[server.name]:
            return
        _note(f"{server.name} has died (times in a row: {failures + 1}); starting it again")
        self._failures[server.name] = failures + 1
        pause = exponential_wait(_FIRST_PAUSE, failures, _LONGEST_PAUSE)
        self._retry_at[server.name] = time.monotonic() + pause.total_seconds()
        server.start()

    def stop(self) -> None:
        """Stop both servers with the signals of `STOPPING`."""
        with suppress(OSError):
            self._home.state.unlink(missing_ok=True)
        for signum, limit in STOPPING:
            for server in self._servers:
                server.ask_to_stop(signum)
            until = time.monotonic() + limit
            while any(server.pid for server in self._servers) and time.monotonic() < until:
                time.sleep(STEP)


def _note(line: str) -> None:
    """Write a line to the guardian's log, which is standard error."""
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    print(f"{moment} UTC [{os.getpid()}] {line}", file=sys.stderr, flush=True)  # noqa: T201 - the log itself


def _detach(run: Callable[[int], None]) -> bytes:
    """Run `run` in a detached process; return what it writes to its descriptor until it closes it."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.close(reading)
        code = 1
        try:
            os.setsid()
            run(writing)
            code = 0
        except BaseException:  # noqa: BLE001 - the last frame of a process: log, then end without the parent's cleanups
            traceback.print_exc()
        os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        return pipe.read()


def _guard(home: Home, lock: int, report: int, *, durable: bool) -> None:
    """Be the guardian, holding its lock (descriptor `lock`); write "ready" or an error to `report`, then close it."""
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):
        os.dup2(null, standard)
    os.dup2(home.open("guardian.log", os.O_WRONLY | os.O_APPEND), 2)
    home.state.unlink(missing_ok=True)
    try:
        guardian = _Guardian(home, durable=durable)
        guardian.start()
    except JiebangError as error:
        os.write(report, msgspec.json.encode({"code": error.code, "fields": error.fields}))
        return
    os.write(report, b"ready")
    os.close(report)
    try:
        guardian.watch()
    finally:
        guardian.stop()
        os.close(lock)


def _ensure(home: Home, *, durable: bool) -> bytes:
    """Start the home's guardian in a detached process, or wait until the existing one is ready."""
    until = time.monotonic() + _START_LIMIT
    while (lock := home.lock("guard", fcntl.LOCK_EX)) is None:
        if read_state(home) is not None:
            return b"ready"
        if time.monotonic() > until:
            return b"another guardian holds the lock but does not become ready"
        time.sleep(STEP)
    return _detach(partial(_guard, home, lock, durable=durable))


def main(arguments: list[str]) -> int:
    """Run `HOME [--not-durable]`; see the module for what it prints and returns."""
    try:
        printed = _ensure(prepare(Path(arguments[0])), durable="--not-durable" not in arguments)
    except JiebangError as error:
        printed = msgspec.json.encode({"code": error.code, "fields": error.fields})
    if printed == b"ready":
        return 0
    sys.stdout.buffer.write(printed)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
