"""The guardian of a home: `python -m jiebang.store.postgres.supervisor HOME` returns when its two servers are up.

Every process that uses a home holds a *shared* lock on `users.lock` as long as it lives. The guardian, one detached
process a home, starts both servers, starts one again that died, and tries five times a second to get that lock
*exclusively*: then nobody is left, and it stops the servers and ends, still holding the lock, so that a newcomer
waits until all is still. The kernel drops a lock however its holder dies, so nothing is ever left behind; and a
guardian that is killed takes its servers along (`parent.tie_child`) and is replaced by the users that remain.

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
from jiebang.model.errors import (
    DatabaseDamagedError,
    DatabaseStartError,
    DiskFullError,
    HomeUnusableError,
    JiebangError,
)
from jiebang.saga.backoff import doubled
from jiebang.store.postgres.data_directory import SERVERS, Home, binaries, explained, prepare
from jiebang.store.postgres.server import STEP, STOPPING, Server, StartAgainError, free_port, is_free

_POLL: Final = 0.2
_START_LIMIT: Final = 300.0  # a crash recovery of much WAL takes its time
_AGAIN_LIMIT: Final = 15.0
_FIRST_PAUSE: Final = timedelta(seconds=_POLL)
_LONGEST_PAUSE: Final = timedelta(seconds=5)
_TOLD: Final = {
    kind.code: kind for kind in (DatabaseDamagedError, DatabaseStartError, DiskFullError, HomeUnusableError)
}


class Served(msgspec.Struct, frozen=True):
    """What the guardian says in `state.json`: its process, whether fsync is on, and each server's port."""

    guardian: int
    durable: bool
    ports: Mapping[str, int]


class _Told(msgspec.Struct):
    code: str
    fields: dict[str, Any]


def read_state(home: Home) -> Served | None:
    """Return what the guardian last said, None where nothing is said (yet)."""
    try:
        return msgspec.json.decode(home.state.read_bytes(), type=Served)
    except (OSError, msgspec.MsgspecError):
        return None


def error_from(told: bytes, log: Path) -> JiebangError:
    """Rebuild the error that a guardian printed on its way out; `log` is where it may have written more."""
    try:
        error = msgspec.json.decode(told, type=_Told)
    except msgspec.MsgspecError:
        last = told.decode("utf-8", "replace")[-500:] or "-"
        return DatabaseStartError(server=",".join(SERVERS), log=str(log), reason=Text(last, last))
    reason = error.fields.get("reason")
    fields = error.fields | ({"reason": Text(**reason)} if isinstance(reason, dict) else {})
    return _TOLD.get(error.code, DatabaseStartError)(**fields)


class _Guardian:
    """Both servers of a home, for as long as somebody uses it."""

    def __init__(self, home: Home, *, durable: bool) -> None:
        programs = binaries(home)
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
        """Make and start both servers, side by side. Raises JiebangError."""
        try:
            with explained(self._home.folder):
                for server in self._servers:
                    server.begin_making()
                for server in self._servers:
                    server.finish_making()
                ports = self._recorded_ports()
                for server in self._servers:
                    kept = ports.get(server.name, 0)
                    server.port = kept if kept and is_free(kept) else free_port()
                    server.stop_orphan()
                    server.start()
                for server in self._servers:
                    self._await_ready(server)
                self._say()
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
                server.port = server.port if is_free(server.port) else free_port()
                server.start()
            time.sleep(STEP)
        raise server.trouble()

    def _recorded_ports(self) -> Mapping[str, int]:
        try:
            return msgspec.json.decode((self._home.folder / "ports.json").read_bytes(), type=dict[str, int])
        except (OSError, msgspec.MsgspecError):
            return {}

    def _say(self) -> None:
        """Tell the users the state, and keep the ports for the next time."""
        ports = {server.name: server.port for server in self._servers}
        self._home.write("ports.json", msgspec.json.encode(ports))
        self._home.write("state.json", msgspec.json.encode(Served(os.getpid(), self._durable, ports)))

    def watch(self) -> None:
        """Keep the servers up until nobody uses the home, somebody tells us to end, or the home is gone."""
        while not self._ended and not self._alone():
            for server in self._servers:
                try:
                    self._revive(server)
                except (OSError, JiebangError, StartAgainError) as error:
                    _note(f"{server.name}: {error!r}")
            time.sleep(_POLL)

    def _alone(self) -> bool:
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
        """Start a server again that died, on the same port, with growing pauses while that fails."""
        failures = self._failures[server.name]
        if server.pid is not None:
            if failures and server.is_ready():
                self._failures[server.name] = 0
            return
        if time.monotonic() < self._retry_at[server.name]:
            return
        _note(f"{server.name} has died (times in a row: {failures + 1}); starting it again")
        self._failures[server.name] = failures + 1
        pause = doubled(_FIRST_PAUSE, failures, _LONGEST_PAUSE)
        self._retry_at[server.name] = time.monotonic() + pause.total_seconds()
        server.start()

    def stop(self) -> None:
        """Stop both servers: fast, then at once, then whatever happens."""
        with suppress(OSError):
            self._home.state.unlink(missing_ok=True)
        for signum, limit in STOPPING:
            for server in self._servers:
                server.ask_to_stop(signum)
            until = time.monotonic() + limit
            while any(server.pid for server in self._servers) and time.monotonic() < until:
                time.sleep(STEP)


def _note(line: str) -> None:
    """Write a line to the guardian's log, which standard error is."""
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    print(f"{moment} UTC [{os.getpid()}] {line}", file=sys.stderr, flush=True)  # noqa: T201 - the log itself


def _detach(run: Callable[[int], None]) -> bytes:
    """Run `run` in a detached process and return what it writes to its descriptor until it closes that."""
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
    with os.fdopen(reading, "rb") as told:
        return told.read()


def _guard(home: Home, held: int, told: int, *, durable: bool) -> None:
    """Be the guardian, holding its lock `held`; write "ready" or an error to `told`, then close it."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):
        os.dup2(nowhere, standard)
    os.dup2(home.open("guardian.log", os.O_WRONLY | os.O_APPEND), 2)
    home.state.unlink(missing_ok=True)
    try:
        guardian = _Guardian(home, durable=durable)
        guardian.start()
    except JiebangError as error:
        os.write(told, msgspec.json.encode({"code": error.code, "fields": error.fields}))
        return
    os.write(told, b"ready")
    os.close(told)
    try:
        guardian.watch()
    finally:
        guardian.stop()
        os.close(held)


def _ensure(home: Home, *, durable: bool) -> bytes:
    """Become the home's guardian in a detached process, or wait for the one there is to be ready."""
    until = time.monotonic() + _START_LIMIT
    while (held := home.lock("guard", fcntl.LOCK_EX)) is None:
        if read_state(home) is not None:
            return b"ready"
        if time.monotonic() > until:
            return b"another guardian holds the lock but does not become ready"
        time.sleep(STEP)
    return _detach(partial(_guard, home, held, durable=durable))


def main(arguments: list[str]) -> int:
    """Run `HOME [--not-durable]`; see the module for what it prints and returns."""
    try:
        told = _ensure(prepare(Path(arguments[0])), durable="--not-durable" not in arguments)
    except JiebangError as error:
        told = msgspec.json.encode({"code": error.code, "fields": error.fields})
    if told == b"ready":
        return 0
    sys.stdout.buffer.write(told)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
