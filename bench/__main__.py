"""`python -m bench NAME` runs one comparison. It prints figures and exits 0 whatever they are."""

from __future__ import annotations

import argparse
import ast
import importlib
import os
import pkgutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import msgspec

from bench.measure import SMOKING, Result, machine

if TYPE_CHECKING:
    from types import ModuleType

_OFFERED = ("only", "profile", "picture", "accounts", "full")
"""Options of some benches alone: those whose `run` takes them."""


class Bench(msgspec.Struct, frozen=True):
    """A comparison, read without importing its module: its docstring, and the options of its `run`."""

    about: str
    offers: list[str]


def _benches() -> dict[str, Bench]:
    """Return every comparison by name. A bench is a module with `run`."""
    found = {}
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        tree = ast.parse((Path(__file__).parent / f"{module.name}.py").read_text("utf-8"))
        for run in (one for one in tree.body if isinstance(one, ast.FunctionDef) and one.name == "run"):
            names = [argument.arg for argument in run.args.kwonlyargs]
            found[module.name] = Bench(ast.get_docstring(tree) or "", [name for name in _OFFERED if name in names])
    return found


def _parser(benches: dict[str, Bench], asked: str | None) -> argparse.ArgumentParser:
    """Return the parser; its help describes the comparison `asked`, or lists all with their options."""
    listed = []
    for name, bench in sorted(benches.items()):
        offers = " ".join(f"--{option}" for option in bench.offers)
        listed.append(f"  {name:12} {bench.about.partition(chr(10))[0]}{f' [{offers}]' if offers else ''}")
    told = "Measure one comparison: what is compared takes turns in rounds, and medians are quoted."
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=benches[asked].about if asked else f"{told}\n`python -m bench NAME --help` tells all about one.",
        epilog="\n".join(["comparisons, and which of the options above each offers:", *listed]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", choices=sorted(benches), metavar="NAME", help="which comparison")
    parser.add_argument("--all", action="store_true", help="every comparison, one after the other")
    parser.add_argument("--json", action="store_true", help='print {"machine", "rows", "bars"} and nothing else')
    parser.add_argument("--rounds", type=int, default=5, help="how many rounds (default 5)")
    parser.add_argument("--size", type=int, default=None, help="how much work a round does (default: the bench's own)")
    parser.add_argument("--only", default=None, help="some ways alone, a comma between")
    parser.add_argument("--profile", action="store_true", help="a profile of our side on stderr")
    parser.add_argument("--picture", metavar="FILE", help="draw the figures as SVG")
    parser.add_argument("--accounts", type=int, nargs="+", metavar="N", help="sizes to measure at")
    parser.add_argument("--smoke", action="store_true", help="one round, as small as can be: shows that it runs")
    parser.add_argument("--full", action="store_true", help="the longest form")
    return parser


@contextmanager
def _all_else_to_stderr() -> Iterator[TextIO]:
    """Give standard output to the block alone: what libraries, logs and child processes print goes to standard error.

    By the file descriptor, which child processes inherit, so that no bench needs to think of it.
    """
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answer:
        os.dup2(2, 1)
        yield answer


def _print(name: str, where: dict[str, object], result: Result, answer: TextIO) -> None:
    print(f"{name} on {where['cpu']}, {where['cores']} cores, Python {where['python']}", file=answer)
    wide = max(len(name) for name in [one.name for one in result.rows] + [one.name for one in result.bars])
    for one in result.rows:
        print(f"  {one.name:{wide}} {one.median:>14,.3f} {one.unit:10} {one.note}", file=answer)
    for bar in result.bars:
        limit = f"at least {bar.at_least}" if bar.at_least is not None else f"at most {bar.at_most}"
        print(f"  {bar.name:{wide}} {bar.value:>14,.3f} {limit:14} {'holds' if bar.held else 'MISSED'}", file=answer)


def main() -> None:
    """Run one comparison."""
    benches = _benches()
    parser = _parser(benches, next((one for one in sys.argv[1:] if one in benches), None))
    options = parser.parse_args()
    if options.rounds < 1 or (options.size is not None and options.size < 1):
        parser.error("--rounds and --size are at least 1")
    if options.picture and not Path(options.picture).absolute().parent.is_dir():
        parser.error(f"no such folder: {Path(options.picture).parent}")
    if (options.name is None) != options.all:
        parser.error("give the name of one comparison, or --all")
    if options.smoke and (options.size is not None or options.full or options.accounts or options.only):
        parser.error("--smoke says itself how small")
    if options.smoke:
        os.environ[SMOKING] = "1"
    with _all_else_to_stderr() as answer:
        for name in sorted(benches) if options.all else [options.name]:
            asked = {name: getattr(options, name) for name in _OFFERED if getattr(options, name)}
            if missing := asked.keys() - set(benches[name].offers):
                parser.error(f"{name} offers no --{' --'.join(sorted(missing))}")
            before = machine()
            module: ModuleType = importlib.import_module(f"bench.{name}")
            given = {"rounds": options.rounds, "size": options.size} | asked
            result: Result = module.run(**given | ({"rounds": 1} | module.SMOKE if options.smoke else {}))
            if options.json:
                told = {"machine": before, "rows": result.rows, "bars": result.bars}
                answer.write(msgspec.json.format(msgspec.json.encode(told), indent=2).decode() + "\n")
            else:
                _print(name, before, result, answer)
            answer.flush()


if __name__ == "__main__":
    main()
