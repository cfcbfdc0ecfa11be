"""The record of processing and the assessment: what is declared is told, what is not is open, nothing is made up."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jiebang.cli.commands import cli
from jiebang.cli.language import Language
from jiebang.cli.policy.document import write_html, write_markdown
from jiebang.cli.policy.processing_document import build_document
from jiebang.model.check import Text
from jiebang.model.participants import ParticipantRegistry
from jiebang.model.personal_data import DataHandler, HeldData
from jiebang.participants import PARTICIPANTS
from jiebang.participants.declarative.load import load_declaration
from jiebang.participants.personal_data import complete, read_declared
from jiebang.participants.starters import StarterLanguage, build_starter
from jiebang.policy import packs
from jiebang.store.postgres.columns import list_columns
from jiebang.store.postgres.migrate import list_owners, load_migrations
from jiebang.usecases.policy.describe_processing import ProcessingReport, describe_processing
from tests.packs import pack

NOW = datetime(2026, 4, 1, 12, 0, tzinfo=UTC)
PAGES = Path(__file__).parents[2] / "docs"


def describe(declared: list[HeldData], handler: DataHandler | None = None) -> ProcessingReport:
    return describe_processing(pack("wechat"), PARTICIPANTS, declared, handler or DataHandler(), NOW)


def test_every_column_is_in_an_entry_or_open() -> None:
    """A column that stood in neither would be processing that nobody answers for."""
    report = describe(read_declared(PARTICIPANTS))
    for party in (each for each in report.parties if not each.remote):
        tables = list_columns(load_migrations(party.owner, PARTICIPANTS))
        told = {(each.entry.table, column) for each in party.tables for column in each.columns}
        open_ones = {(table, column) for table, columns in party.undeclared.items() for column in columns}
        assert not told & open_ones
        assert told | open_ones == {(table, column) for table, columns in tables.items() for column in columns}
    assert {party.owner for party in report.parties} == {*list_owners(PARTICIPANTS), *PARTICIPANTS.networks}


def test_what_we_ship_names_columns_and_parameters_that_exist() -> None:
    """A declaration about a column that was renamed would be about nothing."""
    for name in packs.NAMES:
        for entry in read_declared(PARTICIPANTS):
            tables = list_columns(load_migrations(entry.owner, PARTICIPANTS))
            assert set(entry.columns) <= set(tables[entry.table]), entry
            if entry.retention_param is not None and name == "wechat":
                assert entry.retention_param in pack(name).params, entry


def test_without_declarations_all_is_open() -> None:
    """Nothing may be supposed of what nobody said."""
    report = describe([])
    assert [each for party in report.parties for each in party.tables] == []
    assert not report.sensitive
    assert {point.where for point in report.open_points} >= {"handler", "identity.account", "wallet.entry"}
    english = write_markdown(build_document(report, "en"), "en")
    assert "| sensitive personal information | **open** |" in english


def test_a_new_column_is_open_until_somebody_speaks_for_it() -> None:
    """Else a column that is added tomorrow would be in nobody's record."""
    declared = [HeldData(owner="gaming", table="access", columns=("name",), what=Text("游戏", "games"))]
    [party] = [each for each in describe(declared).parties if each.owner == "gaming"]
    assert party.undeclared["access"] == ["account_id", "game_id", "granted_at", "withdrawn_at"]
    [line] = party.tables
    assert line.columns == ["name"]
    wants = [point.what.en for point in describe(declared).open_points if point.where == "gaming.access (name)"]
    assert wants == ["purpose", "legal basis", "how long it is kept", "whether it is sensitive", "how it is protected"]


def test_a_handler_completes_what_is_declared() -> None:
    """The example of the page, held against what ships."""
    for page in ("privacy-report.md", "zh/privacy-report.md"):
        [text] = re.findall(r"```yaml\n(.*?)```", (PAGES / page).read_text("utf-8"), flags=re.DOTALL)
        declared = read_declared(PARTICIPANTS)
        handler, entries, problems = complete(declared, text, "pipl.yaml", [*PARTICIPANTS.owned])
        assert not problems
        assert handler is not None
        assert len(entries) == len(declared)
        [entry] = [each for each in entries if (each.owner, each.table) == ("social", "message")]
        assert entry.purpose is not None
        assert (entry.sensitive, entry.retention) == (False, Text("至本人删除", "until the person deletes it"))
        before, after = describe(declared), describe(entries, handler)
        assert len(after.open_points) == len(before.open_points) - 6


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("personal_data: [{table: entry}]\n", "1:17", "no participant ''"),
        ("personal_data:\n  - {participant: nobody, table: x}\n", "2:5", "no participant 'nobody'"),
        ("nome: x\n", "1:1", "unknown key"),
        ("personal_data:\n  - {participant: wallet, table: entry, sensitive: perhaps}\n", "2:52", "true or false"),
        ("", "1:1", "empty"),
    ],
)
def test_a_mistake_of_the_handler_is_told_with_its_place(text: str, place: str, words: str) -> None:
    handler, entries, problems = complete([], text, "pipl.yaml", ["wallet"])
    assert (handler, entries) == (None, [])
    assert any(words in each.en and f"{each.line}:{each.column}" == place for each in problems), problems


def test_a_declarative_participant_is_in_the_record() -> None:
    """Its tables hold people's data as much as ours."""
    text = build_starter("teahouse", StarterLanguage.YAML)["teahouse.yaml"]
    found, _ = load_declaration(text, "x.yaml", (), ())
    assert found is not None
    registry = ParticipantRegistry((*PARTICIPANTS.declarations, found))
    report = describe_processing(pack("wechat"), registry, read_declared(registry), DataHandler(), NOW)
    [party] = [each for each in report.parties if each.owner == "teahouse"]
    assert party.undeclared == {}
    assert [each.entry.what.en for each in party.tables] == ["amount and state of an account", "vouchers"]
    assert "teahouse_amount" in party.tables[0].columns


class _Page(HTMLParser):
    """What a page holds: its tags, addresses, text and data labels."""

    def __init__(self) -> None:
        super().__init__()
        self.tags, self.addresses, self.text = list[str](), list[str](), ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("language", ["zh", "en"])
def test_page_and_markdown_say_the_same_and_fetch_nothing(language: Language) -> None:
    """It is shown to an authority, perhaps on a machine without a network."""
    report = describe(read_declared(PARTICIPANTS))
    blocks = build_document(report, language)
    page, markdown = _Page(), write_markdown(blocks, language)
    page.feed(write_html(blocks, language, "x"))
    assert page.addresses == []
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    for code in ("IDENTITY-KEPT-BY-LAW", "identity_shenzhen", "unionpay"):
        assert code in page.text
        assert code.replace("_", "\\_") in markdown
    assert ("未申明" if language == "zh" else "open") in page.text
    chinese = re.search("[\u4e00-\u9fff]", page.text)
    assert bool(chinese) == (language == "zh"), chinese and page.text[chinese.start() - 80 : chinese.end() + 40]


def test_text_of_a_declaration_acts_on_nothing() -> None:
    """What a team declares is shown, not run."""
    bad = Text("<script>x</script>|`", "<script>x</script>|`")
    blocks = build_document(describe([HeldData(owner="gaming", table="access", what=bad)]), "en")
    assert "<script>" not in write_html(blocks, "en", "x")
    assert "\\<script\\>x\\</script\\>\\|\\`" in write_markdown(blocks, "en")


def test_the_command_writes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an installation, database or network."""
    monkeypatch.chdir(tmp_path)
    ran = CliRunner().invoke(
        cli, ["report", "pipl", "--pack", "emoney", "--language", "en", "--format", "html", "--out", "r.html"]
    )
    assert ran.exit_code == 0, ran.output
    assert "<title>Record of processing" in (tmp_path / "r.html").read_text("utf-8")
    told = json.loads(CliRunner().invoke(cli, ["report", "pipl", "--json"]).stdout)
    assert told["open"] == len(told["report"]["open_points"]) > 0
    (tmp_path / "bad.yaml").write_text("nome: x\n", "utf-8")
    failed = CliRunner().invoke(cli, ["report", "pipl", "--declarations", "bad.yaml", "--json"])
    assert failed.exit_code == 2
    error = json.loads(failed.stdout)["error"]
    assert (error["code"], error["fields"]["problems"][0]["line"]) == ("DECLARATIONS-INVALID", 1)
