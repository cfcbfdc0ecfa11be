"""Processes that end with the one that started them, however that ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_PR_SET_PDEATHSIG: Final = 1
_libc: Final = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with_parent() -> None:
    """End when the parent does, however it does: its end of our standard input closes; Linux also sends a signal."""
    _ask_for_signal(signal.SIGKILL)

    def watch() -> None:
        while os.read(0, 1024):
            pass
        os._exit(0)

    threading.Thread(target=watch, daemon=True, name="parent").start()


def signalled_with_us(signum: int) -> Callable[[], None]:
    """Return what a child runs before it becomes another program: the kernel is to send it `signum` when we die."""
    parent = os.getpid()

    def before_exec() -> None:
        _ask_for_signal(signum)
        if os.getppid() != parent:  # died in between
            os._exit(1)

    return before_exec


def _ask_for_signal(signum: int) -> None:
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0)
