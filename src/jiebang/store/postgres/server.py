"""One embedded PostgreSQL server, as its guardian manages it: created, started, watched, stopped.

The server is a direct child of the guardian, with its own port on the loopback interface and no Unix socket (paths of
checkouts may be too long). On Linux the kernel signals it to stop when the guardian dies (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from jiebang.files import write
from jiebang.model.check import Text
from jiebang.model.errors import (
    DatabaseDamagedError,
    DatabaseStartError,
    DiskFullError,
    JiebangError,
    SharedMemoryFullError,
)
from jiebang.parent import tie_child
from jiebang.store.postgres.data_directory import ROLE, Home

MAJOR: Final = "18"
_READY_LINE: Final = 8  # of postmaster.pid; pg_ctl waits for the same
_PORTS: Final = range(20_000, 32_000)  # below the ports that systems give to outgoing connections
_LOG_LIMIT: Final = 16 << 20
STEP: Final = 0.02
"""Seconds between two polls of a program that starts or stops."""
STOPPING: Final = ((signal.SIGINT, 60.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))
"""Signals to stop a postmaster, fast, immediate and kill, with the seconds to wait after each."""

_SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "160MB",
    "max_wal_size": "2GB",
    "min_wal_size": "256MB",
    "checkpoint_timeout": "15min",
    "wal_level": "minimal",  # nobody replicates an embedded server; loads into new tables skip the WAL
    "max_wal_senders": "0",
    "io_method": "sync",  # three processes fewer per server; a laptop's data fits in memory
    "max_parallel_workers_per_gather": "0",  # two servers share two cores
    "jit": "off",
    "random_page_cost": "1.1",
    "autovacuum_naptime": "20s",
    "log_line_prefix": "%m [%p] %d ",
    "log_checkpoints": "off",
    "log_min_messages": "log",  # the server's own failures; a failed statement's values may be personal
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "max_logical_replication_workers": "0",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
_NOT_DURABLE: Final = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "autovacuum": "off"}
"""For tests only: a crash of the machine may lose data."""

_DISK_FULL: Final = re.compile(r"No space left on device|Disk quota exceeded")
_SHARED_MEMORY_FULL: Final = re.compile(rf"shared memory segment .*({_DISK_FULL.pattern})")
"""As the server says for a small /dev/shm, in the words that it has for a disk too."""
SHARED_MEMORY: Final = "/dev/shm"  # noqa: S108 - where the system keeps it; nothing is written there by us
_DAMAGED: Final = re.compile(
    r"database files are incompatible|could not locate a valid checkpoint record|invalid checkpoint|is not a valid "
    r"data directory|has wrong ownership|has invalid permissions|incorrect checksum in control file|could not find the "
    r"database system|could not open (file|directory) .*(No such file|Permission)|could not read file|could not find "
    r"redo location|invalid magic number"
)
_AGAIN: Final = re.compile(
    r"could not bind|could not create any TCP/IP|pre-existing shared memory|lock file .* already"
)


class StartAgainError(Exception):
    """The server did not start but may on a retry: its port is taken, or processes of a killed one still run."""


def is_free(port: int) -> bool:
    """Return whether nothing listens on a loopback port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def find_free_port() -> int:
    """Return a random free loopback port; two checkouts seldom choose the same."""
    for port in random.SystemRandom().sample(_PORTS, 200):
        if is_free(port):
            return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """One server of a home. Only the guardian calls its methods, on its main thread."""

    def __init__(self, home: Home, name: str, programs: Path, *, durable: bool) -> None:
        """Name a server of `home`; `programs` is the folder of PostgreSQL's programs."""
        self.home, self.name, self.port = home, name, 0
        self._programs, self._durable = programs, durable
        self._data, self._log = home.data(name), home.log(name)
        self._making: subprocess.Popen[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._log_from = 0

    @property
    def pid(self) -> int | None:
        """The postmaster's process id while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def begin_making(self) -> None:
        """Start initdb unless there is a data directory, in a draft folder: an interrupted one is never used."""
        if self._data.exists():
            return
        draft, secret = self._draft, self.home.folder / f"{self.name}.secret"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        descriptor = self.home.open(secret.name, os.O_RDWR | os.O_TRUNC)
        os.write(descriptor, self.home.password.encode("ascii"))
        if self.home.uid is not None and self.home.gid is not None:
            os.chown(draft, self.home.uid, self.home.gid)
            os.fchown(descriptor, self.home.uid, self.home.gid)
        os.close(descriptor)
        argv: list[str | Path] = [
            self._programs / "initdb",
            "--pgdata",
            draft,
            "--username",
            ROLE,
            "--auth",
            "scram-sha-256",
        ]
        argv += ["--pwfile", secret, "--encoding", "UTF8", "--locale-provider", "builtin", "--locale", "C.UTF-8"]
        argv += ["--no-instructions", *([] if self._durable else ["--no-sync"])]
        # The password is 256 random bits: iterations would only slow every new connection down.
        argv += ["--set", "scram_iterations=1"]
        self._making = self._spawn(argv, signal.SIGTERM)

    def finish_making(self) -> None:
        """Wait for initdb and move the data directory into place. Raises DiskFullError or DatabaseStartError."""
        if self._making is None:
            return
        code = self._making.wait()
        self._making = None
        (self.home.folder / f"{self.name}.secret").unlink()
        if code != 0:
            shutil.rmtree(self._draft, ignore_errors=True)
            raise self.trouble()
        self._draft.rename(self._data)

    @property
    def _draft(self) -> Path:
        return self.home.folder / f"{self.name}.draft"

    def start(self) -> None:
        """Start the postmaster. Raises DatabaseDamagedError for a data directory of another version."""
        self._check_version()
        self._disown_stale_pid()
        settings = _SETTINGS | ({} if self._durable else _NOT_DURABLE) | {"port": str(self.port)}
        pairs = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        self._process = self._spawn([self._programs / "postgres", "-D", self._data, *pairs], signal.SIGINT)

    def is_ready(self) -> bool:
        """Return whether the server accepts connections. If it has ended, raises StartAgainError or `trouble`."""
        if self.pid is None:
            logged = self._read_log()
            if _AGAIN.search(logged):
                raise StartAgainError
            raise self.trouble()
        lines = self._read_pid_file()
        return (
            len(lines) >= _READY_LINE
            and lines[0].strip() == str(self.pid)
            and lines[_READY_LINE - 1].strip() == "ready"
        )

    def ask_to_stop(self, signum: int) -> None:
        """Send the postmaster a signal of `STOPPING`."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signum)

    def _spawn(self, argv: list[str | Path], death_signal: int) -> subprocess.Popen[bytes]:
        log = self.home.open(self._log.name, os.O_WRONLY | os.O_APPEND)
        try:
            if os.fstat(log).st_size > _LOG_LIMIT:
                shutil.copyfile(self._log, self._log.with_suffix(".old.log"))
                os.ftruncate(log, 0)
            self._log_from = os.fstat(log).st_size
            return subprocess.Popen(  # noqa: S603 - our own programs and paths
                argv,
                stdout=log,
                stderr=log,
                preexec_fn=tie_child(death_signal),  # noqa: PLW1509 - the guardian has one thread
                **self.home.popen_options(),
            )
        finally:
            os.close(log)

    def _check_version(self) -> None:
        try:
            version = (self._data / "PG_VERSION").read_text("ascii").strip()
        except (OSError, UnicodeDecodeError):
            version = ""
        if version != MAJOR:
            reason = Text(
                f"数据目录版本为“{version}”,应为 {MAJOR}", f'the data directory has version "{version}", not {MAJOR}'
            )
            raise DatabaseDamagedError(server=self.name, path=str(self._data), log=str(self._log), reason=reason)

    def _read_pid_file(self) -> list[str]:
        return _read_pid_file(self._data)

    def _disown_stale_pid(self) -> None:
        """Make PostgreSQL treat its lock file as stale where the process id in it now belongs to another program.

        PostgreSQL considers its parent's id in the file stale, but still checks the shared memory that the file names;
        removing the file would skip that check. A file without an id, as a power cut or a full disk leaves it, names no
        memory: PostgreSQL refuses it for ever, so it is removed once no process works in the data directory.
        """
        path, lines = self._data / "postmaster.pid", self._read_pid_file()
        if lines and lines[0].strip().isdecimal():
            if find_postmaster(self._data) is None:
                write(path, ("\n".join([str(os.getpid()), *lines[1:]]) + "\n").encode(), as_folder=True)
        elif path.exists() and not _is_worked_in(self._data):
            path.unlink()

    def stop_orphan(self) -> None:
        """Stop a postmaster that still runs although its guardian was killed."""
        for signum, limit in STOPPING:
            pid, until = find_postmaster(self._data), time.monotonic() + limit
            if pid is None:
                return
            with suppress(ProcessLookupError):
                os.kill(pid, signum)
            while find_postmaster(self._data) == pid and time.monotonic() < until:
                time.sleep(STEP)

    def _read_log(self) -> str:
        with self._log.open(encoding="utf-8", errors="replace") as file:
            file.seek(self._log_from)
            return file.read()

    def trouble(self) -> JiebangError:
        """Return the error that says why the server's last program ended, from what it logged."""
        logged, path, log = self._read_log(), str(self._data), str(self._log)
        full = explain_no_space(logged, path, self.name)
        if full is not None:
            return full
        errors = [line for line in logged.splitlines() if re.search(r"FATAL|PANIC|error:|could not", line)]
        last = "\n".join((errors or logged.splitlines())[-3:]) or "-"
        if self._data.exists() and _DAMAGED.search(logged):
            return DatabaseDamagedError(server=self.name, path=path, log=log, reason=Text(last, last))
        return DatabaseStartError(server=self.name, log=log, reason=Text(last, last))


def explain_no_space(said: str, path: str, server: str) -> JiebangError | None:
    """Return what has no space left by what a server says: shared memory, or the disk that holds `path`."""
    if _SHARED_MEMORY_FULL.search(said):
        return SharedMemoryFullError(path=SHARED_MEMORY, server=server)
    return DiskFullError(path=path) if _DISK_FULL.search(said) else None


def _read_pid_file(data: Path) -> list[str]:
    try:
        return (data / "postmaster.pid").read_text("utf-8", "replace").splitlines()
    except OSError:
        return []


def _is_worked_in(data: Path) -> bool:
    """Return whether a process works in a data directory: a server and all its children do."""
    processes = Path("/proc")
    if not (processes / "self" / "cwd").exists():
        argv = ["/bin/ps", "-A", "-o", "command="]
        return os.fsencode(data) in subprocess.run(argv, capture_output=True, check=False).stdout  # noqa: S603 - fixed
    inside = data.resolve()
    for one in processes.glob("[0-9]*/cwd"):
        with suppress(OSError):  # it has ended, or is another user's
            if one.readlink() == inside:
                return True
    return False


def find_postmaster(data: Path) -> int | None:
    """Return the process id of the server that runs on a data directory, None where none does (or it is unknown)."""
    lines = _read_pid_file(data)
    if not lines or not lines[0].strip().isdecimal():
        return None
    pid = int(lines[0])
    try:
        if Path("/proc/self/cmdline").exists():
            runs = os.fsencode(data) in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        else:
            argv = ["/bin/ps", "-p", str(pid), "-o", "command="]
            runs = os.fsencode(data) in subprocess.run(argv, capture_output=True, check=False).stdout  # noqa: S603 - a number
    except OSError:
        return None
    return pid if runs else None
