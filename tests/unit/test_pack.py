"""Loading packs: the built-in one is whole, and a bad one never loads and always says where it is wrong."""

from __future__ import annotations

import copy
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml

from jiebang.model.case import Kind
from jiebang.model.check import Text
from jiebang.model.errors import PackInvalidError
from jiebang.model.facts import FactType
from jiebang.model.plan import PlannedOperation
from jiebang.participants import PARTICIPANTS
from jiebang.policy import packs
from jiebang.policy.condition import ConditionError, compile_condition
from jiebang.policy.load import load_pack
from jiebang.policy.pack import MESSAGE_VALUES, MESSAGES, fill_message
from jiebang.policy.protection import WRONG_TRIES
from tests.examples import some

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXT, FILE = packs.text("wechat")
WHOLE: Final = load_pack(TEXT, FILE, PARTICIPANTS)
Path = tuple[str | int, ...]


def _dump(document: Any) -> str:
    """As YAML, section by section: those that are SMALL's own are written once."""
    return "".join(_KEPT.get(id(value)) or _section(name, value) for name, value in document.items())


def _section(name: str, value: Any) -> str:
    return str(yaml.dump({name: value}, Dumper=yaml.CSafeDumper, allow_unicode=True, sort_keys=False, width=10_000))


_KEPT: Final[dict[int, str]] = {}


def _small() -> dict[str, Any]:
    """The built-in pack with a few of its entries: enough of everything, and quick to load a few hundred times."""
    document: dict[str, Any] = yaml.load(TEXT, yaml.CSafeLoader)
    wanted = {"PAY-AUTODEBIT", "ID-RECENT-CHANGE", "SEC-DEVICE", "ID-QUOTA", "ID-COOLING"}
    wanted |= {"WALLET-AUTODEBIT-ENDED", "UNIONPAY-RELEASED", "INSTEAD-LEGAL-PERSON", "INSTEAD-END-AUTODEBITS"}
    for section in ("rules", "consequences", "alternatives"):
        document[section] = [entry for entry in document[section] if entry["code"] in wanted]
    codes = {rule["code"] for rule in document["rules"]}
    document["remedies"] = {name: code for name, code in document["remedies"].items() if code in codes}
    document["items"] = {"autodebit_items": document["items"]["autodebit_items"]}
    used = re.findall(r":([a-z][a-z0-9_]*)\b|\{([a-z][a-z0-9_]*)\}", _dump({**document, "params": {}}))
    kept = {name for pair in used for name in pair}
    document["params"] = {name: param for name, param in document["params"].items() if name in kept}
    document["messages"] = {name: document["messages"][name] for name in (*MESSAGES, WRONG_TRIES)}
    return document


SMALL: Final = _small()
_KEPT.update({id(value): _section(name, value) for name, value in SMALL.items() if isinstance(value, dict | list)})


def _problems(text: str) -> list[dict[str, Any]]:
    with pytest.raises(PackInvalidError) as refused:
        load_pack(text, "bad.yaml", PARTICIPANTS)
    problems: list[dict[str, Any]] = refused.value.fields["problems"]
    for problem in problems:
        assert problem["file"] == "bad.yaml"
        assert problem["line"] >= 1
        assert problem["column"] >= 1
        assert re.search(r"[\u4e00-\u9fff]", problem["zh"])
        assert problem["en"].strip()
        assert not re.search(r"[\u4e00-\u9fff]", re.sub(r"'[^']*'", "", problem["en"]))
    return problems


def _span(text: str, path: Path) -> tuple[int, int]:
    """First and last line, from 1, of the value at `path`; the line of its key counts as its own."""
    before = max(0, text.find(f"\n{path[0]}:") + 1) if path else 0  # only the section need be read
    node = yaml.compose(text[before:], yaml.CSafeLoader)
    above = text.count("\n", 0, before)
    assert node is not None
    first = 0
    for step in path:
        if isinstance(node, yaml.MappingNode):
            [(key, node)] = [pair for pair in node.value if pair[0].value == step]
            first = key.start_mark.line
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            node = node.value[step]
            first = node.start_mark.line
    return above + first + 1, above + node.end_mark.line + 1


def _walk(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    yield path, value
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in pairs:
        yield from _walk(inner, (*path, step))


def _copied(path: Path) -> tuple[Any, Any]:
    """SMALL with what leads to `path` copied, so that it may be changed there; and what holds its last step."""
    document: Any = copy.copy(SMALL)
    at = document
    for step in path[:-1]:
        at[step] = copy.copy(at[step])
        at = at[step]
    return document, at


def _put(path: Path, value: Any) -> Any:
    document, at = _copied(path)
    at[path[-1]] = copy.deepcopy(value)  # YAML would write what stands twice as an alias
    return document


def _get(path: Path) -> Any:
    at: Any = SMALL
    for step in path:
        at = at[step]
    return at


def _without(path: Path) -> Any:
    document, at = _copied(path)
    del at[path[-1]]
    return document


# Places where a key may come or go without harm.
_FREE: Final = re.compile(
    r"^(params|owners|kinds|items|messages|plans|proofs|reasons|legacy_codes|remedies|limits)$|^plans\.\w+\.operations(\.\w+\.effects)?$"
)


# Keys that may be absent.
_OPTIONAL: Final = re.compile(
    r"^(consequences|alternatives|legacy_codes|remedies(\.\w+)?|quota|devices|protection|time_zone|limits(\.\w+(\.otherwise)?)?)$|\.(earliest|operations|effects|effects\.\w+|consent_to|consent|recommended)$"
    r"|^(consequences|alternatives)\.\d+\.(when|kind)$"
)


def _dotted(path: Path) -> str:
    return ".".join(str(step) for step in path)


def _structures() -> list[Path]:
    return [path for path, value in _walk(SMALL) if isinstance(value, dict) and not _FREE.match(_dotted(path))]


def _representative(paths: list[Path]) -> list[Path]:
    """One path of every shape: all rules are alike, and all params, and all messages."""
    shapes: dict[str, Path] = {}
    for path in paths:
        shape = re.sub(
            r"^((?:params|owners|kinds|items|messages|reasons|legacy_codes)\.)\w[\w-]*|\.\d+", r"\1*", _dotted(path)
        )
        shapes.setdefault(shape, path)
    return list(shapes.values())


def test_the_built_in_pack_is_whole() -> None:
    assert WHOLE.id == "wechat/2"
    plan = WHOLE.plans[Kind.REVOKE]
    assert plan.name == WHOLE.id
    assert plan.participants[-1] == "wallet"
    assert plan.operations["wallet"] == PlannedOperation(
        "downgrade", {"receive_limit_fen": 200_000, "cash_out_pause_hours": 72}
    )
    proofs = WHOLE.proofs[Kind.REVOKE]
    assert proofs.methods == ("payment_password", "sms_code")
    assert (proofs.code_lives, proofs.code_digits) == (timedelta(minutes=5), 6)
    assert load_pack(_dump(SMALL), "small.yaml", PARTICIPANTS).id == "wechat/2"


def test_every_policy_number_of_the_domain_is_a_parameter_with_unit_and_source() -> None:
    """A number in code cannot be changed by a compliance officer."""
    values = {name: (param.value, param.unit.value) for name, param in WHOLE.params.items()}
    assert values["abnormal_login_days"] == (30, "days")
    assert values["device_change_days"] == (7, "days")
    assert values["identity_change_days"] == (90, "days")
    assert values["identity_changes_a_year"] == (3, "count")
    assert values["cooling_off_days"] == (180, "days")
    assert values["receive_limit_after_fen"] == (200_000, "fen")
    assert values["aml_years"] == (10, "years")
    assert all(param.source for param in WHOLE.params.values())


def test_chinese_is_chinese_and_english_is_english() -> None:
    """A text pasted under the wrong language is read by nobody."""
    for path, value in _walk(yaml.load(TEXT, yaml.CSafeLoader)):
        if path and path[-1] == "zh":
            assert re.search(r"[\u4e00-\u9fff]|^[^A-Za-z]*(\{\w+\}[^A-Za-z]*)+$", value), path
        if path and path[-1] == "en":
            assert not re.search(r"[\u4e00-\u9fff]", value), path


@pytest.mark.parametrize(
    ("path", "value", "says"),
    some(
        [
            (("time_zone",), "Europe/Brusels", "no time zone"),
            (("time_zone",), "localtime", "no time zone"),
            (("time_zone",), "Asia", "no time zone"),
            (("time_zone",), "Europe/Brussels", "where there is a quota"),
            (("remedies", "cash_in"), "SEC-DEVICE", "must be one of cash_out"),
            (("remedies", "logins"), "ID-QUOTA", "no rule cleared on the spot"),
            (("remedies", "logins"), "SEC-DEVICE", "stands twice"),
            (("remedies", "logins"), "NO-SUCH", "no rule cleared on the spot"),
            (("devices", "proof"), "nobody", "one of any, case, primary"),
            (("protection", "window"), ":cases_a_day", "a length of time"),
            (("protection", "case_pause"), ":no_such", "no_such"),
            (("protection", "account", "messages"), ":protection_window_hours", "a count above zero"),
            (("protection", "address", "cases"), ":protection_window_hours", "a count above zero"),
            (("protection", "tell_after"), ":messages_a_day", "never be told"),
            (("protection", "unlock", "pause"), ":cases_a_day", "a length of time"),
        ]
    ),
)
def test_a_zone_or_remedy_that_is_none_is_refused_where_it_stands(path: Path, value: str, says: str) -> None:
    """Such a zone would fail every check, such a remedy clear something else, and such a protection protect nobody."""
    text = _dump({**_put(path, value), **({"time_zone": value} if path == ("time_zone",) else {})})
    line, _ = _span(text, path)
    assert any(problem["line"] == line and says in problem["en"] for problem in _problems(text))


@pytest.mark.parametrize("template", [*MESSAGES, WRONG_TRIES])
def test_messages_fill_whole(template: str) -> None:
    values = {name: Text(f"<{name}>", f"<{name}>") for name in MESSAGE_VALUES}
    for kind in WHOLE.plans:
        for text in fill_message(WHOLE, template, kind, values):
            assert "{" not in text.zh + text.en
    if template == "sms_code":
        assert "<code>" in fill_message(WHOLE, template, Kind.REVOKE, values)[0].zh
        assert "5 分钟" in fill_message(WHOLE, template, Kind.REVOKE, values)[0].zh


def test_what_has_ended_is_told_in_the_words_of_its_kind() -> None:
    """Who closed the payment account must not read that a receiving limit was lowered."""
    values = {name: Text(f"<{name}>", f"<{name}>") for name in MESSAGE_VALUES}
    told = {kind: fill_message(WHOLE, "case_done", kind, values) for kind in WHOLE.plans}
    assert len(set(told.values())) == len(told)
    assert "¥2,000" in told[Kind.REVOKE][2].en
    assert "¥2,000" not in told[Kind.CLOSE_PAYMENT][2].en
    assert fill_message(WHOLE, "case_aborted", Kind.CLOSE_PAYMENT, values)[0].en.startswith("[WeChat] Your request")


def test_reasons_have_words_for_codes_and_strangers() -> None:
    assert WHOLE.reason("PAY-BALANCE").en == "There is money left in your balance"
    assert "动" in WHOLE.reason("FUNDS-MOVED").zh
    assert WHOLE.reason("FUNDS-MOVED,PAY-BALANCE").en.endswith("; There is money left in your balance")
    assert WHOLE.reason("NO-SUCH-CODE") == WHOLE.reasons["OTHER"]


# A hundred kinds of mistakes, generated over the whole shape of a pack.


@pytest.mark.parametrize("path", some(_representative(_structures())), ids=_dotted)
def test_an_unknown_key_is_refused_where_it_stands(path: Path) -> None:
    """A misspelt key that is ignored is a rule that silently does not hold."""
    text = _dump(_put((*path, "surprise"), "x"))
    line, _ = _span(text, (*path, "surprise"))
    assert any(problem["line"] == line and "surprise" in problem["en"] for problem in _problems(text))


_KEYS: Final = _representative(
    [(*path, key) for path in _structures() for key in _get(path) if not _OPTIONAL.search(_dotted((*path, key)))]
)


@pytest.mark.parametrize("path", some(_KEYS), ids=_dotted)
def test_a_missing_key_is_named_at_its_parent(path: Path) -> None:
    text = _dump(_without(path))
    first, last = _span(text, path[:-1])
    assert any(first <= problem["line"] <= last and f"'{path[-1]}'" in problem["en"] for problem in _problems(text))


_LEAVES: Final = _representative([path for path, value in _walk(SMALL) if not isinstance(value, dict | list)])


_WRONG: Final[list[Any]] = [["a", "list"], {"a": "mapping"}, None, "", 1.5]


@pytest.mark.parametrize(("at", "path"), some(list(enumerate(_LEAVES))), ids=map(_dotted, some(_LEAVES)))
def test_a_value_of_the_wrong_type_is_refused_where_it_stands(at: int, path: Path) -> None:
    for wrong in (_WRONG[at % len(_WRONG)], _WRONG[(at + 2) % len(_WRONG)]):
        text = _dump(_put(path, wrong))
        first, last = _span(text, path)
        assert any(first <= problem["line"] <= last for problem in _problems(text))


_BRANCHES: Final = _representative([path for path, value in _walk(SMALL) if isinstance(value, dict | list) and path])


@pytest.mark.parametrize("path", some(_BRANCHES), ids=_dotted)
def test_a_scalar_where_a_structure_belongs_is_refused_where_it_stands(path: Path) -> None:
    text = _dump(_put(path, "word"))
    first, last = _span(text, path)
    assert any(first <= problem["line"] <= last for problem in _problems(text))


def _rule(code: str) -> int:
    return next(at for at, rule in enumerate(SMALL["rules"]) if rule["code"] == code)


_CHANGE: Final = _rule("ID-RECENT-CHANGE")
_DEBIT: Final = _rule("PAY-AUTODEBIT")
_END: Final = next(at for at, one in enumerate(SMALL["consequences"]) if one["code"] == "WALLET-AUTODEBIT-ENDED")


@pytest.mark.parametrize(
    ("when", "says"),
    some(
        [
            ("autodebit_contracts >", "not a valid SQL condition"),
            ("autodebit_contracts > 0 AND", "not a valid SQL condition"),
            ("(autodebit_contracts > 0", "not a valid SQL condition"),
            ("autodebit_contracts > 0)", "not a valid SQL condition"),
            ("autodebit_contracts > 'x", "not a valid SQL condition"),
            ("autodebit_contracts > 0; DROP TABLE wallet.account", "not part of the condition language"),
            ("SELECT 1", "not part of the condition language"),
            ("autodebit_contracts IN (SELECT 1)", "IN needs a list"),
            ("pg_sleep(10) IS NULL", "not part of the condition language"),
            ("autodebit_contracts / 0 > 1", "not part of the condition language"),
            ("autodebit_contracts > 0.5", "not a whole number"),
            ("autodebit_contracts > 99999999999999999999", "not a whole number"),
            ("autodebit_contract > 0", "no fact named 'autodebit_contract'"),
            ("Autodebit_contracts > 0", "no fact named 'Autodebit_contracts'"),
            ("wallet.balance_fen > 0", "no fact named 'wallet.balance_fen'"),
            ("autodebit_contracts > :nowhere", "no parameter named ':nowhere'"),
            ("autodebit_contracts > ?", "no parameter named"),
            ("autodebit_contracts", "must yield true or false"),
            ("autodebit_contracts + 1", "must yield true or false"),
            ("NOT autodebit_contracts", "a condition must stand here"),
            ("legal_hold AND autodebit_contracts", "a condition must stand here"),
            ("autodebit_items IS NOT NULL", "is a list to show"),
            ("autodebit_contracts > balance_fen", "a count does not go with money"),
            ("balance_fen > :identity_change_days", "money does not go with a count"),
            ("identity_changed_date > 90", "a date does not go with a count"),
            ("identity_changed_at > today", "a time does not go with a date"),
            ("identity_state > 'a'", "text has no order"),
            ("identity_state = 1", "text does not go with a count"),
            ("legal_hold = 'yes'", "true or false does not go with text"),
            ("now - identity_changed_at > 90", "cannot calculate with a time"),
            ("identity_state + 1 = 2", "cannot calculate with text"),
            ("balance_fen = NULL", "Null is not part"),
            ("balance_fen IS 5", "after IS stands"),
            ("1 = 1", "names no fact"),
            ("today = today", "names no fact"),
            ("(" * 300 + "legal_hold" + ")" * 300, "nested too deeply"),
            ("legal_hold OR " * 500 + "legal_hold", "at most 2000 characters"),
        ]
    ),
)
def test_a_bad_condition_is_refused_where_it_stands(when: str, says: str) -> None:
    """A condition that means something else than its author thinks lets people through, or stops them, for nothing."""
    path: Path = ("rules", _DEBIT, "when")
    text = _dump(_put(path, when))
    line, _ = _span(text, path)
    problems = _problems(text)
    assert any(problem["line"] == line and says in problem["en"] for problem in problems), problems


def test_the_column_is_that_of_the_wrong_word() -> None:
    text = TEXT.replace(
        "    when: today - identity_changed_date <= :identity_change_days",
        "    when: >-\n      identity_state = 'active'\n"
        "      AND today - identity_change_date <= :identity_change_days",
    )
    [problem] = [one for one in _problems(text) if "no fact named" in one["en"]]
    line = text.split("\n")[problem["line"] - 1]
    assert line[problem["column"] - 1 :].startswith("identity_change_date <=")


_TEXTS: Final = [
    ("{nobody}", "no fact, parameter or value"),
    ("{", "braces only enclose a name"),
    ("}", "braces only enclose a name"),
    ("{balance_fen:x}", "braces only enclose a name"),
    ("{Balance}", "braces only enclose a name"),
    ("{balance_fen}", "is no fact, parameter or value|belongs to wallet"),
    ("{earliest_date}", "no fact, parameter or value"),
]


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize(("words", "says"), some(_TEXTS))
@pytest.mark.parametrize(
    "path",
    some(
        [
            ("rules", _CHANGE, "title"),
            ("rules", _CHANGE, "explanation"),
            ("rules", _CHANGE, "remedy", "what"),
            ("rules", _CHANGE, "appeal"),
            ("unavailable", "explanation"),
            ("items", "autodebit_items"),
            ("messages", "case_done", "sms"),
            ("messages", "sms_code", "body"),
            ("consequences", _END, "explanation"),
            ("alternatives", 0, "costs"),
        ]
    ),
    ids=_dotted,
)
def test_a_place_for_no_value_is_refused_where_it_stands(path: Path, words: str, says: str, language: str) -> None:
    """A place that nobody fills would be read by a person as "{nobody}", or break their check."""
    text = _dump(_put((*path, language), words + " 文字 words"))
    if "belongs" in says and path[0] in ("consequences", "alternatives"):
        load_pack(
            text, "good.yaml", PARTICIPANTS
        )  # what follows is told only where all it shows was read, so it may show anything
        return
    first, last = _span(text, path[:2] if "belongs" in says else (*path, language))
    assert any(first <= problem["line"] <= last and re.search(says, problem["en"]) for problem in _problems(text))


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("name",), "We Chat", "text like"),
        (("version",), 0, "whole number"),
        (("version",), True, "whole number"),
        (("rules", 1, "code"), SMALL["rules"][0]["code"], "two entries with the code"),
        (("rules", 1, "code"), "FACT-UNAVAILABLE", "two entries with the code"),
        (("rules", 1, "code"), "pay_balance", "text like"),
        (("rules", 0, "kinds"), [], "must not be empty"),
        (("rules", 0, "kinds"), ["revoke", "revoke"], "named twice"),
        (("rules", 0, "kinds", 0), "destroy", "one of revoke"),
        (("rules", 0, "severity"), "annoys", "one of blocks"),
        (("rules", 0, "legal_basis"), "the law", "text like"),
        (("rules", 0, "remedy", "on_the_spot"), "yes", "true or false"),
        (("rules", _CHANGE, "remedy", "earliest"), "identity_changed_at", "must yield a date"),
        (("rules", _CHANGE, "remedy", "earliest"), "abnormal_login_date + 1", "belongs to security"),
        (("params", "proof_tries", "value"), "five", "does not fit the unit"),
        (("params", "proof_tries", "value"), -1, "whole number 0"),
        (("params", "proof_tries", "value"), 0, "a count above zero"),
        (("params", "proof_tries", "unit"), "parsecs", "one of fen"),
        (("params", "proof_tries", "unit"), "days", "a count above zero"),
        (("params", "identity_change_days", "value"), 40_000, "at most 36525 days"),
        (("params", "sms_code_minutes", "unit"), "fen", "length of time"),
        (("params", "balance_fen"), SMALL["params"]["proof_tries"], "may not bear a fact's name"),
        (("items", "balance_fen"), {"zh": "零钱", "en": "money"}, "not a fact made of items"),
        (("rules", _CHANGE, "consent_to"), "autodebit_items", "only a rule that needs_consent"),
        (("rules", _DEBIT, "consent_to"), "balance_fen", "no list of items with an id"),
        (("rules", _DEBIT, "consent_to"), "consents", "no list of items with an id"),
        (("rules", _DEBIT, "consent_to"), "grant_items", "belongs to openplatform"),
        (("rules", _DEBIT, "consent_to"), "Autodebit", "text like"),
        (("rules", _DEBIT, "severity"), "blocks", "there is no rule 'PAY-AUTODEBIT' that needs consent"),
        (("rules", _DEBIT, "kinds"), ["revoke"], "there is no rule 'PAY-AUTODEBIT' that needs consent"),
        (("consequences", _END, "consent"), "PAY-AUTODEBITS", "there is no rule 'PAY-AUTODEBITS'"),
        (("consequences", _END, "consent"), "ID-RECENT-CHANGE", "there is no rule 'ID-RECENT-CHANGE' that needs"),
        (("consequences", _END, "code"), "PAY-AUTODEBIT", "two entries with the code"),
        (("consequences", _END, "code"), "FACT-UNAVAILABLE", "two entries with the code"),
        (("consequences", _END, "participant"), "atlantis", "`owners` lacks 'atlantis'"),
        (("consequences", _END, "kinds"), ["revoke", "revoke"], "named twice"),
        (("consequences", _END, "kinds"), [], "must not be empty"),
        (("consequences", _END, "kinds", 0), "destroy", "one of revoke"),
        (("consequences", _END, "when"), "autodebit_contracts", "must yield true or false"),
        (("consequences", _END, "when"), "1 = 1", "names no fact"),
        (("consequences", _END, "when"), "autodebit > 0", "no fact named 'autodebit'"),
        (("consequences", _END, "when"), "autodebit_contracts > :nowhere", "no parameter named"),
        (("consequences", _END, "lasts", "en"), "{nobody}", "no fact, parameter or value"),
        (("consequences", _END, "lasts", "en"), "{earliest}", "no fact, parameter or value"),
        (("consequences", _END, "explanation", "zh"), "{grant_items}", "`items` does not word 'grant_items'"),
        (("consequences", _END, "legal_basis"), "the law", "text like"),
        (("alternatives", 0, "kind"), "revoke", "not be what it stands in for"),
        (("alternatives", 0, "kind"), "destroy", "one of revoke"),
        (("alternatives", 0, "code"), "SEC-DEVICE", "two entries with the code"),
        (("alternatives", 0, "recommended"), "administered_enterprises", "must yield true or false"),
        (("alternatives", 0, "recommended"), "today = today", "names no fact"),
        (("alternatives", 0, "recommended"), "yes", "no fact named 'yes'"),
        (("alternatives", 0, "when"), "enterprises > 0", "no fact named"),
        (("alternatives", 0, "title", "zh"), "{", "braces only enclose"),
        (("legacy_codes", "30007"), "PAY-NOTHING", "there is no rule 'PAY-NOTHING'"),
        (("legacy_codes", "30007"), "WALLET-AUTODEBIT-ENDED", "there is no rule"),
        (("legacy_codes", "SEC-DEVICE"), "PAY-AUTODEBIT", "is a code of this pack itself"),
        (("legacy_codes", "OTHER"), "PAY-AUTODEBIT", "is a code of this pack itself"),
        (("legacy_codes", "3 0"), "PAY-AUTODEBIT", "does not fit"),
        (("currency",), "¥¥¥¥¥", "text like"),
        (("currency",), "1", "text like"),
        (("plans", "revoke", "waves"), [["wallet"], ["social"]], "the wallet's wave comes last"),
        (("plans", "revoke", "waves"), [["social", "wallet"]], "the wallet's wave comes last"),
        (("plans", "revoke", "waves"), [["social", "social"], ["wallet"]], "named once each"),
        (("plans", "revoke", "waves", 0, 0), "atlantis", "no participant 'atlantis'"),
        (("plans", "revoke", "waves"), [["social"], []], "must not be empty"),
        (("plans", "revoke", "operations", "wallet", "effects", "receive_limit_fen"), ":nowhere", "no parameter named"),
        (("plans", "revoke", "operations", "wallet", "effects", "receive_limit_fen"), 200_000, "text"),
        (("plans", "revoke", "operations", "wallet", "effects", "recieve_limit_fen"), ":aml_years", "knows no effect"),
        (("plans", "revoke", "operations", "wallet", "effects", "receive_limit_fen"), True, "must be a whole number"),
        (("plans", "revoke", "operations", "social", "effects", "moments_per_day"), ":receive_limit_after_fen", "0 to"),
        (("plans", "revoke", "operations", "wallet", "operation"), "reclaim", "has no operation 'reclaim'"),
        (("plans", "revoke", "effects"), {"wallet": {}}, "stand under `operations`"),
        (("plans", "revoke", "operations", "atlantis"), {"operation": "sink"}, "which it does not name"),
        (("plans", "nonsense"), SMALL["plans"]["revoke"], "must be one of revoke"),
        (("plans", "restore"), SMALL["plans"]["revoke"], "'restore' is missing"),
        (("proofs", "revoke", "methods"), ["retina"], "must be one of payment_password"),
        (("proofs", "revoke", "methods"), ["sms_code", "sms_code"], "once each"),
        (("proofs", "revoke", "tries"), ":nowhere", "no parameter named"),
        (("proofs", "revoke", "tries"), 5, "text like"),
    ],
)
def test_a_mistake_of_meaning_is_refused_where_it_stands(path: Path, value: Any, says: str) -> None:
    text = _dump(_put(path, value))
    problems = _problems(text)
    assert any(says in problem["en"] for problem in problems), problems


def test_an_unquoted_old_code_is_told_where_it_stands() -> None:
    """30007 without quotes is a number to YAML, and half of all authors will write it so."""
    text = TEXT.replace('  "30007": PAY-AUTODEBIT', "  30007: PAY-AUTODEBIT")
    [problem] = _problems(text)
    assert "a key must be text" in problem["en"]
    assert text.split("\n")[problem["line"] - 1].strip().startswith("30007")


@pytest.mark.parametrize("section", ["kinds", "owners", "messages", "reasons", "items", "proofs"])
def test_a_section_without_an_entry_it_needs_is_refused(section: str) -> None:
    """A kind, owner or message without words would be found out by the first person who needs them."""
    entry = {"reasons": "OTHER"}.get(section) or next(iter(SMALL[section]))
    problems = _problems(_dump(_without((section, entry))))
    assert any(entry in problem["en"] for problem in problems), problems


def test_all_mistakes_are_told_at_once() -> None:
    """Whoever is told of one mistake a day needs a week for a week's mistakes."""
    document = copy.deepcopy(_put(("rules", 0, "severity"), "annoys"))
    document["rules"][1]["surprise"] = 1
    del document["rules"][2]["title"]["en"]
    document["params"]["proof_tries"]["value"] = None
    assert len(_problems(_dump(document))) == 4
    whole = copy.deepcopy(_put(("rules", 0, "when"), "nope > 0"))
    whole["rules"][1]["when"] = "legal_hold = 3"
    whole["rules"][2]["explanation"]["en"] = "{nope}"
    whole["proofs"]["revoke"]["tries"] = ":nope"
    assert len(_problems(_dump(whole))) == 4


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("", 1, "empty"),
        ("# nothing", 1, "empty"),
        ("just words", 1, "a mapping"),
        ("- a\n- list", 1, "a mapping"),
        ("name: a\nname: b", 2, "repeated"),
        ("name: [", 1, "not valid YAML"),
        ("name: wechat\n\tversion: 1", 2, "not valid YAML"),
        ("name: a\nversion: &x 1", 2, "anchors, aliases and tags"),
        ("name: a\nversion: !!python/object/apply:os.system [ls]", 2, "anchors, aliases and tags"),
        ("name: a\n1: b", 2, "a key must be text"),
        ("name: a\n? [x]\n: b", 2, "a key must be text"),
        ("name: a\ntitle: \x07", 2, "a character"),
        ("name: " + "[" * 5000, 1, "nested too deeply"),
        ("x" * (1 << 20) + "y", 1, "over 1 MiB"),
    ],
)
def test_a_file_that_is_no_pack_is_refused_where_it_breaks(text: str, line: int, says: str) -> None:
    """Hostile YAML must neither run anything nor exhaust the process that reads it."""
    problems = _problems(text)
    assert any(says in problem["en"] and line <= problem["line"] <= line + 1 for problem in problems), problems


def test_a_nested_sum_costs_no_more_than_its_length() -> None:
    """Typing a child twice would double with each level; 900 levels would never end."""
    params = {"days": (FactType.INT, 3)}
    condition = compile_condition("+".join(["contacts"] * 190) + " > :days", FactType.BOOL, params, PARTICIPANTS)
    assert condition.names | condition.params == {"contacts", "days"}
    with pytest.raises(ConditionError):
        compile_condition("(" * 900 + "contacts" + ")" * 900, FactType.INT, params, PARTICIPANTS)
