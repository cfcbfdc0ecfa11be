"""One line of a population file: everything about one account."""
# ruff: noqa: RUF012 - msgspec makes every object an empty list of its own

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from jiebang.sandbox.population.format.business import EnterpriseRecord, MerchantRecord
from jiebang.sandbox.population.format.fields import Id, Instant, PopulationRecord, TextId
from jiebang.sandbox.population.format.gaming import GamingRecord
from jiebang.sandbox.population.format.identity import IdentityRecord
from jiebang.sandbox.population.format.openplatform import OpenPlatformRecord
from jiebang.sandbox.population.format.security import SecurityRecord
from jiebang.sandbox.population.format.social import SocialRecord
from jiebang.sandbox.population.format.wallet import WalletRecord


class NetworkBindingRecord(PopulationRecord):
    """A card or the payment account as a clearing network knows it. `title` is masked."""

    network: Literal["unionpay", "netsunion"]
    binding: TextId
    kind: Literal["card", "account"]
    title: Annotated[str, Meta(max_length=64)] = ""


class Person(PopulationRecord, kw_only=True):
    """One line: everything about one account. `identity` null: no real name bound."""

    account_id: Id
    created_at: Instant
    identity: IdentityRecord | None
    wallet: WalletRecord
    security: SecurityRecord
    social: SocialRecord
    openplatform: OpenPlatformRecord
    enterprise: EnterpriseRecord
    merchant: MerchantRecord
    gaming: GamingRecord
    bindings: list[NetworkBindingRecord] = []
