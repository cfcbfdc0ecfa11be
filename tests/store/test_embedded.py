"""The embedded servers: kept data, kills of every kind, neighbours, odd paths, and errors that a person can act on."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from jiebang.model.errors import DatabaseDamagedError, DiskFullError, HomeUnusableError, SharedMemoryFullError
from jiebang.participants import PARTICIPANTS
from jiebang.store.postgres.data_directory import SERVERS, find, remove
from jiebang.store.postgres.embedded import (
    embedded,
    ensure_databases,
    find_postmaster_pid,
    placement,
    wait_until_stopped,
)
from jiebang.store.postgres.server import Server, explain_no_space, find_postmaster
from jiebang.store.postgres.supervisor import parse_error, read_state

LIMIT = 30.0

USER = """
import asyncio, sys
from pathlib import Path
from jiebang.store.postgres.embedded import (embedded)
async def main():
    async with embedded(Path(sys.argv[1]), durable=False):
        print("up", flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""


@pytest.fixture
def folder(new_folder: Callable[[str], Path]) -> Iterator[Path]:
    """A folder whose path holds a space and Chinese characters."""
    path = new_folder("解绑 test ")
    yield path
    for home in path.iterdir():
        if home.is_dir():
            remove(home)
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
async def home(folder: Path) -> AsyncIterator[Path]:
    """A home not yet made; whatever ran in it has ended before it is deleted."""
    path = folder / "家 home"
    yield path
    await wait_until_stopped(path)


def user_of(home: Path) -> subprocess.Popen[str]:
    """Start another process that uses the home, and wait until its servers are up."""
    argv = [sys.executable, "-c", USER, str(home)]
    user = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own program
    assert user.stdout is not None
    assert user.stdout.readline() == "up\n"
    return user


def processes_of(home: Path) -> list[int]:
    """Return every living process whose command line names the home: guardian and postmasters."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.fsencode(home) in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]


async def gone(home: Path) -> bool:
    """Wait, within limits, until no process of the home is left."""
    until = time.monotonic() + LIMIT
    while processes_of(home):
        if time.monotonic() > until:
            return False
        await asyncio.sleep(0.05)
    return True


async def answer(dsn: str, sql: str) -> object:
    """Ask a server, waiting within limits until it is up."""
    until = time.monotonic() + LIMIT
    while True:
        try:
            connection = await asyncpg.connect(dsn)
        except (OSError, asyncpg.PostgresError):
            if time.monotonic() > until:
                raise
            await asyncio.sleep(0.05)
            continue
        try:
            return await connection.fetchval(sql)
        finally:
            await connection.close()


async def test_data_survive_a_restart_on_the_same_ports(home: Path) -> None:
    """Breaks whoever stops the demo in the evening and goes on in the morning."""
    async with embedded(home) as servers:
        databases = await ensure_databases(servers, placement(PARTICIPANTS))
        assert set(databases) == set(placement(PARTICIPANTS))
        await answer(databases["wallet"], "CREATE TABLE kept AS SELECT 7 AS n")
        before = dict(servers)
    async with embedded(home) as servers:
        assert dict(servers) == before
        assert (
            await answer((await ensure_databases(servers, placement(PARTICIPANTS)))["wallet"], "SELECT n FROM kept")
            == 7
        )
        assert await answer(servers["guiyang"], "SHOW fsync") == "on"
    await wait_until_stopped(home)
    assert processes_of(home) == []


async def test_a_killed_user_leaves_nothing_behind(home: Path) -> None:
    """Breaks everybody's machine: servers nobody knows of, and ports that stay taken."""
    user = user_of(home)
    assert len(processes_of(home)) == 4, "the user, the guardian and two postmasters"
    user.kill()
    user.wait()
    assert await gone(home)


async def test_killed_user_and_guardian_leave_nothing_behind(home: Path) -> None:
    """Breaks the same when everything of ours is killed at once."""
    user = user_of(home)
    place = find(home)
    assert place is not None
    state = read_state(place)
    assert state is not None
    os.kill(state.guardian, signal.SIGKILL)
    user.kill()
    user.wait()
    assert await gone(home)


async def test_servers_outlive_their_starter_while_another_uses_them(home: Path) -> None:
    """Breaks a second terminal when the first is closed."""
    user = user_of(home)
    async with embedded(home, durable=False) as servers:
        pid = find_postmaster_pid(home, "shenzhen")
        user.kill()
        user.wait()
        await asyncio.sleep(1)
        assert find_postmaster_pid(home, "shenzhen") == pid
        assert await answer(servers["shenzhen"], "SELECT 1") == 1
    assert await gone(home)


async def test_a_killed_postmaster_comes_back_with_its_data(home: Path) -> None:
    """Breaks every case in flight when one data centre's server dies."""
    async with embedded(home) as servers:
        await answer(servers["guiyang"], "CREATE TABLE kept AS SELECT 7 AS n")
        for _ in range(2):
            pid = find_postmaster_pid(home, "guiyang")
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            assert await answer(servers["guiyang"], "SELECT n FROM kept") == 7
            assert find_postmaster_pid(home, "guiyang") not in (pid, None)


async def test_a_killed_guardian_is_replaced_while_users_remain(home: Path) -> None:
    """Breaks a running demo for good if its guardian falls to the out-of-memory killer."""
    async with embedded(home, durable=False) as servers:
        await answer(servers["shenzhen"], "CREATE TABLE kept AS SELECT 7 AS n")
        place = find(home)
        assert place is not None
        state = read_state(place)
        assert state is not None
        os.kill(state.guardian, signal.SIGKILL)
        until = time.monotonic() + LIMIT
        while (now := read_state(place)) is None or now.guardian == state.guardian:
            assert time.monotonic() < until
            await asyncio.sleep(0.05)
        assert await answer(servers["shenzhen"], "SELECT n FROM kept") == 7
    assert await gone(home)


async def test_a_stale_pid_file_that_names_a_living_stranger_is_seen_through(home: Path) -> None:
    """Breaks the start after a power cut, when the old process id belongs to another program by then."""
    async with embedded(home, durable=False):
        pass
    await wait_until_stopped(home)
    place = find(home)
    assert place is not None
    stranger = sleeper()
    try:
        data = place.data("shenzhen")
        stale = data / "postmaster.pid"
        stale.write_text(f"{stranger.pid}\n{data}\n1700000000\n20000\n\n127.0.0.1\n  1234567 99999999\nready   \n")
        owner = data.stat()
        os.chown(stale, owner.st_uid, owner.st_gid)
        assert find_postmaster(data) is None
        async with embedded(home, durable=False) as servers:
            assert await answer(servers["shenzhen"], "SELECT 1") == 1
        assert stranger.poll() is None, "the stranger was left alone"
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("left", [b"", b"\n", b"not a number\n"])
async def test_a_pid_file_that_says_nothing_blocks_no_home(home: Path, left: bytes) -> None:
    """A full disk or a power cut leaves it empty; PostgreSQL then refuses to start for ever."""
    async with embedded(home, durable=False) as servers:
        await answer(servers["shenzhen"], "CREATE TABLE kept AS SELECT 7 AS n")
    await wait_until_stopped(home)
    place = find(home)
    assert place is not None
    data = place.data("shenzhen")
    stale = data / "postmaster.pid"
    stale.write_bytes(left)
    owner = data.stat()
    os.chown(stale, owner.st_uid, owner.st_gid)
    async with embedded(home, durable=False) as servers:
        assert await answer(servers["shenzhen"], "SELECT n FROM kept") == 7
    await wait_until_stopped(home)


async def test_a_pid_file_is_left_where_a_process_works(home: Path) -> None:
    """Two servers on one data directory would destroy it: what says nothing is removed only where nobody works."""
    async with embedded(home, durable=False):
        place = find(home)
        assert place is not None
        server = Server(place, "shenzhen", Path(), durable=False)
        path = place.data("shenzhen") / "postmaster.pid"
        kept = path.read_bytes()
        path.write_bytes(b"")
        server._disown_stale_pid()
        assert path.read_bytes() == b""
        path.write_bytes(kept)
    await wait_until_stopped(home)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
@pytest.mark.parametrize("size", ["4k", "600k"])
def test_little_shared_memory_is_no_full_disk(size: str) -> None:
    """A container has 64 MB, or less, of /dev/shm; its operator would look for space on a disk that has plenty."""
    outside = Path(tempfile.mkdtemp(prefix="jiebang-shm-", dir=tempfile.gettempdir()))  # not in /dev/shm itself
    outside.chmod(0o711)
    home = outside / "home"
    mounted = 'mount -t tmpfs -o size="$0" tmpfs /dev/shm && exec "$@"'
    program = [sys.executable, "-m", "jiebang.store.postgres.supervisor", str(home), "--not-durable"]
    argv = ["unshare", "--mount", "sh", "-c", mounted, size, *program]
    try:
        run = subprocess.run(argv, capture_output=True, check=False, timeout=LIMIT)  # noqa: S603 - our own program
    finally:
        remove(home)
        shutil.rmtree(outside, ignore_errors=True)
    if run.stderr.startswith((b"unshare", b"mount")):
        pytest.skip("this root may not mount")
    error = parse_error(run.stdout, home)
    assert isinstance(error, SharedMemoryFullError), (run.stdout, run.stderr)
    assert error.fields["path"] == "/dev/shm"  # noqa: S108 - what is said, not a place to write


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (
            'FATAL:  could not resize shared memory segment "/PostgreSQL.1" to 11176 bytes: No space left on device',
            SharedMemoryFullError,
        ),
        ("FATAL:  could not write lock file: No space left on device", DiskFullError),
        ("PANIC:  could not write to file: Disk quota exceeded\nshared memory segment is gone", DiskFullError),
        ("FATAL:  the database system is shutting down", type(None)),
    ],
)
def test_what_has_no_space_left(said: str, kind: type) -> None:
    """Each has a remedy of its own: /dev/shm, or the disk."""
    assert type(explain_no_space(said, "p", "s")) is kind


def sleeper() -> subprocess.Popen[bytes]:
    """A process of the servers' own user: the kind that PostgreSQL takes for a living server."""
    return subprocess.Popen(["/bin/sleep", "600"], user="nobody" if os.geteuid() == 0 else None)


async def test_two_homes_run_side_by_side_and_a_taken_port_is_no_trouble(folder: Path) -> None:
    """Breaks whoever works in two checkouts, or whose port another program took in between."""
    one, two = folder / "one", folder / "two"
    async with embedded(one, durable=False) as first:
        port = int(first["shenzhen"].rsplit(":", 1)[1].split("/")[0])
    await wait_until_stopped(one)
    with socket.create_server(("127.0.0.1", port)):
        async with embedded(one, durable=False) as first, embedded(two, durable=False) as second:
            assert len({*first.values(), *second.values()}) == 4
            assert str(port) not in first["shenzhen"].rsplit("@", 1)[1]
            for dsn in (*first.values(), *second.values()):
                assert await answer(dsn, "SELECT 1") == 1
    await wait_until_stopped(one)
    await wait_until_stopped(two)


async def test_many_users_at_once_share_one_pair_of_servers(home: Path) -> None:
    """Breaks `jiebang serve` and `jiebang worker` started at the same moment, on a home not yet made."""

    async def use() -> tuple[object, dict[str, str]]:
        async with embedded(home, durable=False) as servers:
            databases = await ensure_databases(servers, placement(PARTICIPANTS))
            return await answer(servers["shenzhen"], "SELECT pg_postmaster_start_time()"), databases

    async with embedded(home, durable=False):
        assert len({str(answered) for answered in await asyncio.gather(use(), use(), use())}) == 1
    # The last one leaves, the next ones come in that very moment.
    for _ in range(3):
        await asyncio.gather(use(), use())
    assert await gone(home)


async def test_the_password_is_needed_and_private(home: Path) -> None:
    """Breaks the privacy of a shared machine: anybody may connect to a loopback port."""
    async with embedded(home, durable=False) as servers:
        place = find(home)
        assert place is not None
        assert (place.folder / "password").stat().st_mode & 0o077 == 0
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(servers["shenzhen"].replace(place.password, "wrong"))


async def test_damaged_files_are_told_with_their_path_in_both_languages(home: Path) -> None:
    """Breaks the person with a broken disk, who must learn which folder to restore."""
    async with embedded(home, durable=False):
        pass
    await wait_until_stopped(home)
    place = find(home)
    assert place is not None
    control = place.data("guiyang") / "global" / "pg_control"
    content = control.read_bytes()
    control.write_bytes(b"\0" * len(content))
    with pytest.raises(DatabaseDamagedError) as caught:
        async with embedded(home, durable=False):
            pass
    assert caught.value.fields["server"] == "guiyang"
    assert caught.value.fields["path"] == str(place.data("guiyang"))
    assert caught.value.title.zh
    assert caught.value.title.en
    assert await gone(home)
    control.write_bytes(content)
    (place.data("shenzhen") / "PG_VERSION").write_text("16\n")
    with pytest.raises(DatabaseDamagedError, match="16"):
        async with embedded(home, durable=False):
            pass


async def test_a_home_that_cannot_be_made_is_told(folder: Path) -> None:
    """Breaks whoever sets JIEBANG_HOME to a file, or to a place that is not theirs."""
    (folder / "file").write_text("x")
    culprits = {
        folder / "file": folder / "file",
        folder / "file" / "below": folder / "file",
        Path("/proc/no"): "/proc/no",
    }
    for path, culprit in culprits.items():
        with pytest.raises(HomeUnusableError) as caught:
            async with embedded(path, durable=False):
                pass
        assert caught.value.fields["path"] == str(culprit)
        assert caught.value.fields["reason"].zh


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's servers run as another user")
async def test_root_in_a_private_folder_runs_elsewhere(folder: Path) -> None:
    """Breaks `make demo` for root in a checkout below /root, which nobody else may enter."""
    home = folder / "private" / "home"
    home.parent.mkdir(mode=0o700)
    try:
        async with embedded(home, durable=False) as servers:
            assert await answer(servers["shenzhen"], "SELECT 1") == 1
            elsewhere = (home / "postgres").resolve()
            assert (home / "postgres").is_symlink()
            assert elsewhere.stat().st_mode & 0o777 == 0o711
        await wait_until_stopped(home)
    finally:
        remove(home)
    assert not elsewhere.exists()
    assert set(SERVERS) == set(servers)
