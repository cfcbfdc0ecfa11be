"""The command line: commands and drawing, nothing that decides."""

from jiebang.cli.commands import main

__all__ = ["main"]
