"""Participant merchant: merchant numbers and the records that commercial retention keeps."""

from __future__ import annotations

from typing import Final

from jiebang.model.facts import FactType, specs
from jiebang.model.participants import Declaration, Operation, ValueType, Weaker
from jiebang.model.promises import Probe
from jiebang.participants.core import CENTURY_DAYS, CONFIRMED_MEANWHILE, load_facts_sql

DECLARATION: Final = Declaration(
    owner="merchant",
    package=__name__,
    databases={"merchant": "guiyang"},
    facts=specs(
        "merchant",
        ("open_merchants", FactType.INT, "未注销商户号数", "open merchant numbers"),
        ("merchant_items", {"id": FactType.TEXT, "name": FactType.TEXT}, "商户号", "open merchant numbers"),
    ),
    facts_sql=load_facts_sql(__name__),
    operations={
        "retain": Operation(
            effects={"records_kept_days": ValueType(int, most=CENTURY_DAYS, weaker=Weaker.LESS)},
            on_confirm={
                "records_kept_until": "CASE WHEN e.records_kept_days IS NULL THEN a.records_kept_until "
                "ELSE e.now + make_interval(hours => 24 * e.records_kept_days::integer) END"
            },
        ),
    },
    formerly="retain",
    probes={
        "effect": {
            "records_kept_days": Probe(
                holds="a.records_kept_until - make_interval(hours => 24 * e.records_kept_days::integer) "
                f"{CONFIRMED_MEANWHILE}",
                until="a.records_kept_until",
            )
        }
    },
)
