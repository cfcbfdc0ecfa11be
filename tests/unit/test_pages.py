"""The pages that people read: whole in both languages, with links that lead somewhere and commands that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from jiebang.cli.commands import cli
from jiebang.model.case import Kind
from jiebang.participants import PARTICIPANTS
from jiebang.policy import packs
from jiebang.policy.load import load_pack

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
BOTH = {
    "README.md": "README.zh-CN.md",
    **{
        f"docs/{name}.md": f"docs/zh/{name}.md"
        for name in (
            "operations",
            "overload",
            "participants-sdk",
            "policy-packs",
            "privacy-report",
            "receipts",
            "remote-participants",
        )
    },
}
"""The pages of operators, officers and teams that take part. The others are for engineers, in English."""
CHINESE = re.compile("[\u4e00-\u9fff]")
PAGES = [ROOT / "README.md", ROOT / "README.zh-CN.md", *sorted(DOCS.rglob("*.md"))]


def prose(page: Path) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def headings(page: Path) -> list[tuple[int, str]]:
    return [(len(marks), text) for marks, text in re.findall(r"^(#+) (.+)$", prose(page), flags=re.MULTILINE)]


def blocks(page: Path) -> list[str]:
    """Return the blocks of code of a page without their comments."""
    found = re.findall(r"^```\w*\n(.*?)^```", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [re.sub(r" *#.*", "", block) for block in found]


def tables(page: Path) -> list[int]:
    """Return how many rows each table of a page has."""
    return [table.count("\n") for table in re.findall(r"(?:^\|.*\n)+", prose(page), flags=re.MULTILINE)]


def anchor(heading: str) -> str:
    """Return what a link calls a heading, as GitHub does."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def named(page: Path) -> set[str]:
    """Return the commands, settings, metrics, endpoints and codes that a page names."""
    text = page.read_text("utf-8")
    commands = {found.strip() for found in re.findall(r"`jiebang ([a-z-]+(?: [a-z-]+)?)", text)}
    names = re.findall(r"JIEBANG_[A-Z_]+|jiebang_[a-z_]+|/v1/[\w/{}-]+|`[A-Z]+(?:-[A-Z]+)+`|--[a-z][a-z-]+", text)
    return commands | set(names)


@pytest.mark.parametrize("english", BOTH)
def test_a_page_of_operators_and_officers_is_whole_in_both_languages(english: str) -> None:
    """Else whoever reads Chinese alone does at night what half a page says."""
    first, second = ROOT / english, ROOT / BOTH[english]
    assert [level for level, _ in headings(first)] == [level for level, _ in headings(second)]
    assert [text for _, text in headings(second)[1:] if not CHINESE.search(text)] == []
    assert [text for _, text in headings(first)[1:] if CHINESE.search(text)] == []
    for each, other in ((first, second), (second, first)):
        assert f"({_way(each, other)})" in each.read_text("utf-8")
    assert blocks(first) == blocks(second)
    assert tables(first) == tables(second)
    assert named(first) == named(second), "the same commands, settings, options and codes"


def _way(page: Path, other: Path) -> str:
    """Return the link from a page to another."""
    if page.parent == other.parent:
        return other.name
    return f"zh/{other.name}" if other.parent.name == "zh" else f"../{other.name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    """A page, and a part of it, that exist."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("http:", "https:")):
            continue
        path, _, part = target.partition("#")
        found = page if not path else (page.parent / path).resolve()
        assert found.exists(), target
        if part:
            assert part in {anchor(text) for _, text in headings(found)}, target


def _known() -> set[str]:
    """Return every command, with the group before it."""
    commands = getattr(typer.main.get_command(cli), "commands", {})
    found = set(commands)
    for name, command in commands.items():
        found |= {f"{name} {sub}" for sub in getattr(command, "commands", {})}
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_of_a_page_exists(page: Path) -> None:
    """An operator copies it at the worst moment."""
    known = _known()
    groups = {each.split()[0] for each in known if " " in each}
    for found in re.findall(r"`jiebang ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?[^`]*`", page.read_text("utf-8")):
        command = " ".join(found).strip() if found[0] in groups and found[1] else found[0]
        assert command in known, f"jiebang {command}"


@pytest.mark.parametrize("name", packs.NAMES)
@pytest.mark.parametrize("page", ["我的申请", "My cases"])
def test_no_text_of_a_pack_sends_people_to_a_page_that_nobody_has(name: str, page: str) -> None:
    """Whose name is being taken back by a thief looks for it, and finds nothing."""
    text, _ = packs.text(name)
    assert page not in text


@pytest.mark.parametrize("name", packs.NAMES)
def test_what_a_case_will_do_is_told_as_it_is_today(name: str) -> None:
    """Nobody is told of a case but the person: no text may say otherwise. A key is destroyed, and when is told."""
    pack = load_pack(*packs.text(name), PARTICIPANTS)
    words = [one.explanation for one in pack.consequences if Kind.REVOKE in one.kinds]
    words += [one.words.explanation for one in pack.rules if Kind.REVOKE in one.kinds]
    said = [text for each in words for text in each.zh + each.en]
    untrue = re.compile("收到通知|并通知|尚不自动销毁|(?:is|are) told|does not by itself")
    assert [text for text in said if untrue.search(text)] == []
    assert any("分钟内销毁" in text for text in said)
    assert any("destroyed within" in text for text in said)
    assert pack.retentions is not None
    assert pack.retentions[Kind.REVOKE].years, "what law keeps of it is said, and until when"


def test_the_map_names_every_room_and_what_is_in_it() -> None:
    """A newcomer looks for things where the map says, and for the meaning of a folder that it leaves out."""
    page = (DOCS / "architecture.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `([\w/]+)` \| (.+?) \|", page, flags=re.MULTILINE))
    package = ROOT / "src" / "jiebang"
    rooms = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert rooms - {"__init__", "__main__"} == rows.keys()
    within = {
        (room, path.name)
        for room in rows
        for path in (package / room).glob("*/")
        if (path / "__init__.py").is_file() and room not in ("participants", "model")
    }
    assert [f"{room}/{name}" for room, name in within if f"`{name}`" not in rows[room]] == []
    named = {(room, name) for room, row in rows.items() for name in re.findall(r"`(\w+\.py)`", row)}
    assert [f"{room}/{name}" for room, name in named if not list((package / room).rglob(name))] == []
