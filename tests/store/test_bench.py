"""The bench frame: its output is read by people and programs, now and for every later comparison."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.filling import Hot
from bench.measure import Bar, ratio, row, take_turns
from bench.picture import Axis, Line, chart

ROOT = Path(__file__).parents[2]
BENCHES = [path for path in (ROOT / "bench").glob("*.py") if "\ndef run(" in path.read_text(encoding="utf-8")]


def bench(*arguments: str, limit: float = 120) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit, check=False)  # noqa: S603 - our own module


def test_what_is_compared_takes_turns_and_the_first_round_does_not_count() -> None:
    """A machine that slows down half-way must slow both; a cold start must slow neither."""
    order = list[str]()
    between = list[int]()
    figures = take_turns(
        3,
        {name: lambda name=name: float(order.append(name) or len(order)) for name in "ab"},  # type: ignore[misc, func-returns-value]
        lambda: between.append(len(order)),
    )
    assert "".join(order) == "baabbaab"
    assert figures == {"a": [3.0, 6.0, 7.0], "b": [4.0, 5.0, 8.0]}
    assert between == list(range(8))


def test_medians_and_bars() -> None:
    assert row("x", "s", [3.0, 1.0, 50.0]).median == 3.0
    assert ratio([2.0, 9.0, 1.0], [1.0, 3.0, 1.0]) == 2.0
    assert Bar("x", 0.3, at_least=0.3).held
    assert not Bar("x", 31.0, at_most=30.0).held


@pytest.mark.parametrize(
    "arguments", [(), ("nonsense",), ("load", "--rounds", "0"), ("load", "--all"), ("load", "--smoke", "--size", "9")]
)
def test_wrong_arguments_are_told(arguments: tuple[str, ...]) -> None:
    told = bench(*arguments)
    assert told.returncode == 2
    assert "usage" in told.stderr


def test_help_lists_every_comparison() -> None:
    told = bench("--help")
    assert told.returncode == 0
    assert len(BENCHES) > 1
    assert all(f"\n  {path.stem} " in told.stdout for path in BENCHES)


@given(first=st.integers(1, 10**6), pairs=st.integers(3, 200), room=st.integers(6, 400))
def test_hot_accounts_are_enough_and_none_is_in_two_pairs(first: int, pairs: int, room: int) -> None:
    """Too few of them, or one of the accounts that had its case already, and the growth bench would measure less."""
    hot = Hot(first, first + pairs * room - 1, pairs)
    found = [*hot.block(), *hot.strewn()[:pairs]]
    assert len(found) == 2 * pairs
    accounts = sorted(account for pair in found for account in pair)
    assert len(set(accounts)) == len(accounts)
    assert (hot.first <= accounts[0], accounts[-1] <= hot.last) == (True, True)
    block, strewn = re.fullmatch(r"\((.*) OR (.*)\)", hot.sql).groups()  # type: ignore[union-attr]
    low, high, stride = map(int, re.findall(r"\d+", f"{block} {strewn}")[:3])
    assert all(low <= account <= high or account % stride < 2 for account in accounts)


def test_a_legend_of_many_names_stays_in_the_frame() -> None:
    """Whoever reads a picture must see whose line is whose, however many there are."""
    lines = [Line(("触及的块(单独办理)", f"blocks touched, alone, {number}"), [(0.0, 1.0)]) for number in range(6)]
    across = Axis(("横", "across"), [(0.0, ("here", ""))])
    picture = chart(("图", "picture"), across, Axis(("纵", "up")), lines)
    names = [one for one in ET.fromstring(picture).iter() if one.get("class") == "name"]  # noqa: S314 - our own
    assert [one.text for one in names] == [" ".join(line.name) for line in lines]
    ends = [float(one.get("x", "")) + 7 * len(one.text or "") + 7 * 10 for one in names]  # full-width signs count twice
    assert max(ends) < 900
    assert len({one.get("y") for one in names}) > 1


def smoked(name: str) -> dict[str, Any]:
    """Run a comparison small; return its answer, which must be all that it prints, and whole."""
    told = bench(name, "--json", "--smoke", limit=570)
    assert told.returncode == 0, told.stderr[-3_000:]
    answer: dict[str, Any] = msgspec.json.decode(told.stdout)
    assert list(answer) == ["machine", "rows", "bars"]
    assert answer["rows"]
    steps = 2 if name == "growth" else 1  # its small store is measured beside each step of the one that grows
    assert all(len(one["rounds"]) <= steps for one in answer["rows"])
    assert all(("at_least" in bar) != ("at_most" in bar) for bar in answer["bars"])
    return answer


@pytest.mark.parametrize("name", sorted({path.stem for path in BENCHES} - {"load", "saga"}))
def test_every_bench_runs_and_prints_its_json_alone(name: str) -> None:
    """A bar that nobody can measure holds nothing: the gate refused one for weeks, and logs spoilt its answer."""
    smoked(name)


def test_what_a_bench_and_its_processes_print_is_not_in_its_answer() -> None:
    """Logs of libraries and of child processes go elsewhere, whatever a bench forgets."""
    noisy = """
import os, subprocess, sys
from bench.__main__ import _all_else_to_stderr
with _all_else_to_stderr() as answer:
    print("a log line", flush=True)
    os.system("echo a child")
    answer.write("{}")
"""
    told = subprocess.run([sys.executable, "-c", noisy], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603 - our own
    assert told.stdout == "{}"
    assert told.stderr.split("\n")[:2] == ["a log line", "a child"]


def test_bench_load_gives_the_one_form_and_exits_0() -> None:
    answer = smoked("load")
    assert {one["name"] for one in answer["rows"]} >= {"generate", "load", "raw_copy"}
    assert {bar["name"].partition(" ")[0]: bar["at_least"] for bar in answer["bars"]} == {"generate": 0.3, "load": 0.6}
    assert all(one["median"] > 0 for one in answer["rows"])


def test_bench_saga_drives_every_case_to_its_end_whoever_drives() -> None:
    """Each turn looks its cases up at the store and all six, and an audit ends the run: who cheats fails it."""
    names = "ours,ceiling,dbos_1024"
    found = smoked("saga")
    rates = {one["name"]: one["median"] for one in found["rows"] if one["name"].endswith(": rate")}
    assert rates.keys() == {f"{name}: rate" for name in names.split(",")}
    assert min(rates.values()) > 0
    assert {one["name"] for one in found["bars"]} == {"ours / ceiling", "ours / dbos per batch"}
