"""`make setup`: what every new user runs first, on machines that lack something and with fingers on Ctrl-C."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

_PYTHON = f"""#!/bin/sh
# A Python whose environments hold this same script, and whose pip writes down that it was called.
here="$(dirname "$0")"
case "$1 $2" in
"-c import ensurepip, venv") exit "${{NO_VENV:-0}}" ;;
"-c import jiebang"*) test -f "$here/../jiebang" ;;
"-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
"-m pip")
    echo "pip at $0" >> calls
    test "$PIP_FAILS" != "$(grep -c pip calls)" || exit 130
    case "$*" in *--editable*) touch "$here/../jiebang"; echo "#!$(pwd)/$here/python" > "$here/jiebang" ;; esac ;;
*) exec {sys.executable} "$@" ;;
esac
"""


class Folder:
    """A checkout of its own, whose setup installs nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for name in ("Makefile", "pyproject.toml", "requirements.lock"):
            shutil.copy(ROOT / name, path)
        self.python = path / "python3"
        self.python.write_text(_PYTHON)
        self.python.chmod(0o755)

    def setup(self, **environment: str) -> subprocess.CompletedProcess[str]:
        command = ["make", "setup", f"PYTHON={self.python}"]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        return subprocess.run(  # noqa: S603 - our own Makefile
            command, cwd=self.path, env=inherited | environment, capture_output=True, text=True, timeout=60, check=False
        )

    @property
    def calls(self) -> list[str]:
        """Each call of pip: by the Python of which environment."""
        found = self.path / "calls"
        return found.read_text().splitlines() if found.exists() else []

    @property
    def is_ready(self) -> bool:
        return (self.path / ".venv" / ".installed").exists() and (self.path / ".venv" / "jiebang").exists()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    path = tmp_path / "a folder"  # its name holds a space
    path.mkdir()
    return Folder(path)


def test_setup_is_built_beside_and_renamed(folder: Folder) -> None:
    """Else whoever breaks it off runs half an environment; and its scripts must name the place that it ends up in."""
    assert folder.setup().returncode == 0
    assert folder.is_ready
    assert folder.calls == ["pip at .venv.new/bin/python"] * 2
    assert (folder.path / ".venv/bin/jiebang").read_text() == f"#!{folder.path}/.venv/bin/python\n"
    assert not (folder.path / ".venv.new").exists()
    folder.setup()
    assert len(folder.calls) == 2, "nothing to do the second time"


def test_a_python_without_venv_is_told_what_is_missing(folder: Folder) -> None:
    """Debian's python3 comes without it: a new user read a traceback, and every later `make` failed in pip."""
    ran = folder.setup(NO_VENV="1")
    assert ran.returncode != 0
    assert "apt install python3-venv" in ran.stderr
    assert "虚拟环境" in ran.stderr
    assert not (folder.path / ".venv").exists()
    assert folder.setup().returncode == 0, "once it is there, setup mends itself"
    assert folder.is_ready


@pytest.mark.parametrize("call", [1, 2])
def test_a_setup_that_was_broken_off_is_done_again(folder: Folder, call: int) -> None:
    """Ctrl-C anywhere: the next command begins anew and does not trust what lies there."""
    assert folder.setup(PIP_FAILS=str(call)).returncode != 0
    assert not (folder.path / ".venv").exists()
    assert folder.setup().returncode == 0
    assert folder.is_ready


def test_a_half_made_environment_is_never_trusted(folder: Folder) -> None:
    """As an earlier version, or `python -m venv` alone, leaves it: a Python without pip, for ever."""
    half = folder.path / ".venv" / "bin"
    half.mkdir(parents=True)
    (half / "python").write_text("#!/bin/sh\necho 'No module named pip' >&2; exit 1\n")
    (half / "python").chmod(0o755)
    assert folder.setup().returncode == 0
    assert folder.is_ready


def test_an_environment_whose_python_is_gone_mends_itself(folder: Folder) -> None:
    """After an upgrade of the system, or a move of the folder, the stamp is there and nothing works."""
    folder.setup()
    (folder.path / ".venv/bin/python").unlink()
    assert folder.setup().returncode == 0
    assert folder.is_ready
    assert (folder.path / ".venv/bin/python").exists()


def test_a_sound_environment_is_brought_up_to_date_where_it_is(folder: Folder) -> None:
    """After a pull nobody waits for everything anew; and broken off there, it is no longer trusted."""
    folder.setup()
    os.utime(folder.path / ".venv/.installed", (1, 1))
    assert folder.setup(PIP_FAILS="3").returncode != 0
    assert folder.calls[2:] == ["pip at .venv/bin/python"]
    assert not folder.is_ready
    assert folder.setup().returncode == 0
    assert folder.calls[3:] == ["pip at .venv.new/bin/python"] * 2
    assert folder.is_ready
