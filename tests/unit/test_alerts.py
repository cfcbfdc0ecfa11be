"""Alerts: every rule speaks of a metric that exists, is silent on a quiet installation and speaks up on a bad one."""

from __future__ import annotations

import operator
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from prometheus_client import REGISTRY

import jiebang.api.gate.admission
import jiebang.api.gate.middleware
import jiebang.usecases.driving.advance
import jiebang.usecases.operations.backlog
import jiebang.usecases.operations.delivery
import jiebang.usecases.operations.gauges
import jiebang.usecases.retention.destroy
import jiebang.usecases.timelines.seal  # noqa: F401 - the metrics of all of them are in the registry then

DOCS = Path(__file__).parents[2] / "docs"
RULES: Mapping[str, Mapping[str, Any]] = {
    rule["alert"]: rule
    for group in yaml.safe_load((DOCS / "alerts" / "jiebang.rules.yml").read_text("utf-8"))["groups"]
    for rule in group["rules"]
}
BOUNDED: Final = {
    "state", "participant", "op", "answer", "kind", "template", "which", "reason", "urgency", "method", "route",
    "status", "owner", "why", "outcome", "pack",
}  # fmt: skip
"""Labels that a metric of ours may have: none names a person, and none has a value for each."""

Samples = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]
EXPRESSION = re.compile(
    r"(?P<since>time\(\) - )?(?P<fold>sum|max)(?: by \((?P<by>[a-z, ]+)\))? ?"
    r"\((?:(?P<rate>rate)\()?(?P<metric>[a-z_]+)(?:\[5m\]\))?\) (?P<compare>[><]) (?P<limit>[0-9.]+)"
)
ABSENT = re.compile(r"absent\((?P<metric>[a-z_]+)\)")
WINDOW = 300.0
RUNBOOK: Final = {
    "stuck-cases",
    "half-confirmed",
    "busy-wallets",
    "parked-ops",
    "lag",
    "silent-participants",
    "unsealed-timelines",
    "overdue-keys",
}
"""The parts of docs/operations.md that rules lead to."""


def labels_of() -> dict[str, tuple[str, ...]]:
    """Every metric of ours, by the name that it is scraped under."""
    found = {}
    for collector, names in REGISTRY._collector_to_names.items():
        found.update(
            {name: tuple(getattr(collector, "_labelnames", ())) for name in names if name.startswith("jiebang")}
        )
    return found


def alarms(expr: str, before: Samples, after: Samples, now: float) -> list[dict[str, str]]:
    """Evaluate a rule as Prometheus does: samples five minutes ago and now; the labels of every alarm it raises."""
    if gone := ABSENT.fullmatch(expr):
        return [] if any(name == gone["metric"] for name, _ in after) else [{}]
    form = EXPRESSION.fullmatch(expr)
    assert form, f"write it so that this test can read it: {expr}"
    groups: defaultdict[tuple[tuple[str, str], ...], list[float]] = defaultdict(list)
    kept = [name.strip() for name in (form["by"] or "").split(",")]
    for (name, labels), value in after.items():
        if name == form["metric"]:
            seen = (value - before.get((name, labels), 0.0)) / WINDOW if form["rate"] else value
            groups[tuple((key, text) for key, text in labels if key in kept)].append(seen)
    fold: Callable[[list[float]], float] = sum if form["fold"] == "sum" else max
    compare = operator.gt if form["compare"] == ">" else operator.lt
    limit = float(form["limit"])
    return [
        dict(labels)
        for labels, values in groups.items()
        if compare(now - fold(values) if form["since"] else fold(values), limit)
    ]


def at(*parts: str, **labels: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    return (parts[0], tuple(sorted(labels.items())))


NOW = 1_800_000_000.0
QUIET: Samples = {
    at("jiebang_stuck_cases", state="trying"): 0, at("jiebang_stuck_cases", state="confirming"): 0,
    at("jiebang_parked_cases", state="confirming"): 0, at("jiebang_busy_wallets"): 0,
    at("jiebang_confirming_seconds"): 4,
    at("jiebang_oldest_due_seconds"): 0.2, at("jiebang_oldest_message_seconds"): 3,
    at("jiebang_gauges_read_timestamp_seconds"): NOW - 9,
    at("jiebang_unsealed_seconds"): 80, at("jiebang_sealing_halted"): 0,
    at("jiebang_silences_total", participant="wallet", op="try"): 40, at("jiebang_lost_saves_total"): 100,
    at("jiebang_refused_total", reason="backlog"): 10, at("jiebang_keys_overdue", which="master"): 0,
}  # fmt: skip
CASES: Mapping[str, tuple[Samples, list[dict[str, str]]]] = {
    "JiebangStuckCases": ({at("jiebang_stuck_cases", state="confirming"): 3}, [{"state": "confirming"}]),
    "JiebangHalfConfirmed": ({at("jiebang_confirming_seconds"): 61}, [{}]),
    "JiebangBusyWallets": ({at("jiebang_busy_wallets"): 1}, [{}]),
    "JiebangParkedOps": ({at("jiebang_parked_cases", state="confirming"): 1}, [{"state": "confirming"}]),
    "JiebangOpenTasks": (
        {at("jiebang_open_tasks", kind="parked", participant="gaming"): 2},
        [{"kind": "parked", "participant": "gaming"}],
    ),
    "JiebangLag": ({at("jiebang_oldest_due_seconds"): 31}, [{}]),
    "JiebangNobodyWorks": ({at("jiebang_gauges_read_timestamp_seconds"): NOW - 61}, [{}]),
    "JiebangNoWorkerSeen": ({at("jiebang_gauges_read_timestamp_seconds"): -1}, [{}]),
    "JiebangMessagesLate": ({at("jiebang_oldest_message_seconds"): 121}, [{}]),
    "JiebangSilentParticipant": (
        {at("jiebang_silences_total", participant="wallet", op="try"): 70,
         at("jiebang_silences_total", participant="wallet", op="cancel"): 70,
         at("jiebang_silences_total", participant="social", op="try"): 5},
        [{"participant": "wallet"}],
    ),
    "JiebangLostSaves": ({at("jiebang_lost_saves_total"): 500}, [{}]),
    "JiebangUnsealedTimelines": ({at("jiebang_unsealed_seconds"): 601}, [{}]),
    "JiebangSealingHalted": ({at("jiebang_sealing_halted"): 1}, [{}]),
    "JiebangKeysOverdue": ({at("jiebang_keys_overdue", which="master"): 1}, [{"which": "master"}]),
    "JiebangOverload": ({at("jiebang_refused_total", reason="backlog"): 400}, [{"reason": "backlog"}]),
}  # fmt: skip
"""What goes wrong, by rule, over the quiet installation, and the alarms that must be raised. -1: not there at all."""


@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_quiet_until_it_is_needed(name: str) -> None:
    """An alarm that rings always is switched off; one that never rings leaves people waiting."""
    bad, raised = CASES[name]
    later = {key: value for key, value in {**QUIET, **bad}.items() if value >= 0}
    assert alarms(RULES[name]["expr"], QUIET, QUIET, NOW) == []
    assert alarms(RULES[name]["expr"], QUIET, later, NOW) == raised
    others = [other for other in RULES if other != name and alarms(RULES[other]["expr"], QUIET, later, NOW)]
    assert others == [], "one trouble, one alarm"


@pytest.mark.parametrize("name", RULES)
def test_a_rule_speaks_of_metrics_that_there_are(name: str) -> None:
    """A metric that was renamed leaves a rule that never rings, and nobody would notice."""
    rule, known = RULES[name], labels_of()
    names = re.findall(r"\bjiebang_[a-z_]+", rule["expr"])
    assert names
    for metric in names:
        assert metric in known, metric
    used = {label.strip() for group in re.findall(r"by \(([a-z, ]+)\)", rule["expr"]) for label in group.split(",")}
    used |= set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
    assert used <= set(known[names[0]])
    for metric, labels in CASES[name][0]:
        assert {key for key, _ in labels} == set(known[metric]), metric


@pytest.mark.parametrize("name", RULES)
def test_a_rule_tells_what_to_do_in_both_languages(name: str) -> None:
    """Whoever is woken at night reads one of the two, and needs the page that says what to do."""
    rule = RULES[name]
    assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert re.fullmatch(r"[0-9]+[smh]", rule.get("for", "0s"))
    for text in ("summary", "description"):
        assert re.search(r"[一-鿿]", rule["annotations"][text])
        assert re.search(r"[A-Za-z]{3,} [a-z]+", rule["annotations"][text])
    page, _, anchor = rule["annotations"]["runbook_url"].removeprefix("docs/").partition("#")
    assert anchor in RUNBOOK
    headings = re.findall(r"^#+ (.+)$", (DOCS / page).read_text("utf-8"), re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
    anchors |= set(re.findall(r'<a (?:id|name)="([\w-]+)"', (DOCS / page).read_text("utf-8")))
    assert anchor in anchors


def test_no_metric_tells_of_a_person() -> None:
    """Metrics go to people and machines that may not know who asked for what."""
    for metric, labels in labels_of().items():
        assert set(labels) <= BOUNDED, metric
