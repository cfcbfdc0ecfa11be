"""What the sandbox's processes share: the signed service, and the options on their command lines."""

from __future__ import annotations

import argparse
from pathlib import Path

from jiebang.remote.service import KEEP_ALIVE_SECONDS, Handler, HttpAnswer, HttpCall, Service, ok, problem, serve

__all__ = [
    "KEEP_ALIVE_SECONDS",
    "Arguments",
    "Handler",
    "HttpAnswer",
    "HttpCall",
    "Service",
    "ok",
    "problem",
    "serve",
]


class Arguments(argparse.ArgumentParser):
    """The command line options that all processes share."""

    def __init__(self, description: str, *, signed: bool = True) -> None:
        """Declare the shared options. `signed`: requests come signed, so it has keys."""
        super().__init__(description=description)
        self.add_argument("--port", type=int, default=0, help="端口,0 为任选 / port, 0 for any free one")
        self.add_argument("--data", type=Path, required=True, help="数据文件 / file to keep its data in")
        if signed:
            self.add_argument("--keys", type=Path, required=True, help="密钥目录 / folder of the keys")
        self.add_argument(
            "--with-parent",
            action="store_true",
            help="标准输入关闭时退出 / end when standard input closes, however the parent died",
        )
