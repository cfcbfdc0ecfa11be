"""Who the made-up people are: the reserved ones that the stories name, and what shares of the others meets what.

| what a person meets | code | of 10,000 |
|---|---|---|
| an active auto-debit contract | `PAY-AUTODEBIT` | 4,600 |
| money left in the balance | `PAY-BALANCE` | 2,000 |
| an open credit product | `CREDIT-OPEN` | 700 |
| a permit or passport as document (two more reviews) | `DOC-REVIEW` | 620 |
| an unclaimed red packet | `PAY-RED-PACKET` | 600 |
| an unfinished transaction | `PAY-PENDING` | 500 |
| an abnormal login in the last 30 days | `SEC-ABNORMAL-LOGIN` | 450 |
| the primary device changed in the last 7 days | `SEC-DEVICE-RECENT` | 350 |
| under 18 | `MINOR-EVIDENCE` | 300 |
| the identity changed in the last 90 days | `ID-RECENT-CHANGE` | 300 |
| administrator of an enterprise | `ORG-ADMIN` | 200 |
| an open merchant number (informs) | `MERCHANT-OPEN` | 200 |
| administrator of an official account | `OA-ADMIN` | 150 |
| arrears | `PAY-ARREARS` | 100 |
| frozen funds | `PAY-FROZEN` | 60 |
| three changes with one document this year | `ID-QUOTA` | 40 |
| a court's or authority's hold | `LEGAL-HOLD` | 20 |

Drawn independently, they let about 28 in 100 pass and put an auto-debit contract in about 64 of 100 failures: the
picture that the domain's source gives of today (fewer than 35% succeed, over 60% of failures are auto-debit).
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

import msgspec
import numpy as np

from jiebang.sandbox.population.chance import Dice, WeightedChoice, roots
from jiebang.sandbox.population.lexicon import PHONE_PREFIXES
from jiebang.sandbox.population.names import words
from jiebang.sandbox.population.render import DAY, Fixed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jiebang.sandbox.population.chance import Flags, Ints

SHARES: Final[Mapping[str, int]] = {
    "PAY-AUTODEBIT": 4600,
    "PAY-BALANCE": 2000,
    "CREDIT-OPEN": 700,
    "DOC-REVIEW": 620,
    "PAY-RED-PACKET": 600,
    "PAY-PENDING": 500,
    "SEC-ABNORMAL-LOGIN": 450,
    "SEC-DEVICE-RECENT": 350,
    "MINOR-EVIDENCE": 300,
    "ID-RECENT-CHANGE": 300,
    "ORG-ADMIN": 200,
    "MERCHANT-OPEN": 200,
    "OA-ADMIN": 150,
    "PAY-ARREARS": 100,
    "PAY-FROZEN": 60,
    "ID-QUOTA": 40,
    "LEGAL-HOLD": 20,
}
"""How many people in ten thousand meet each (a person under 18 always has a resident number)."""

PAYMENT_PASSWORD: Final = "246810"  # noqa: S105 - of people who do not exist
"""The payment password of everybody here: test data."""

RESERVED: Final = 20
"""Accounts 1 to 20 are the same for every seed: adults with a resident number, who meet only what is said here."""


class StoryPerson(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody whom a story or a test names. `device_id` is the primary device; `meets` the blockers' codes."""

    account_id: int
    name: str
    sex: int
    phone: str
    device_id: str
    payment_password: str = PAYMENT_PASSWORD
    balance_fen: int = 0
    meets: tuple[str, ...] = ()


def device_id(account_id: int, number: int = 1) -> str:
    """Return the id of an account's device; number 1 is the primary one."""
    return f"dev-{account_id:016d}-{number}"


_PHONE_BASE: Final = 61_803_399


def _story(account_id: int, name: str, sex: int, balance_fen: int = 0, meets: tuple[str, ...] = ()) -> StoryPerson:
    return StoryPerson(
        account_id=account_id,
        name=name,
        sex=sex,
        phone=f"{PHONE_PREFIXES[0]}{account_id * _PHONE_BASE % 10**8:08d}",
        device_id=device_id(account_id),
        balance_fen=balance_fen,
        meets=meets,
    )


STORY_PEOPLE: Final[Mapping[str, StoryPerson]] = {
    "clear": _story(1, "林清", 0),
    "blocked": _story(2, "陈零", 1, 1, ("PAY-BALANCE", "PAY-RED-PACKET")),
    "moving": _story(3, "周转", 1),
    "silent": _story(4, "沈默", 0),
    "sender": _story(5, "钱多", 1, 100_000, ("PAY-BALANCE",)),
} | {
    f"spare_{number}": _story(number + 5, name, number % 2)
    for number, name in enumerate(
        words("安宁 白杨 常乐 丁一 方圆 高远 何川 江月 孔明 李想 马克 宁静 平安 乔木 任重"), 1
    )
}
"""The reserved people. `clear` passes; `blocked` has 0.01 yuan and one unopened red packet, no more; `moving` passes
until money reaches it mid-way; `silent` passes, for the network that falls silent; `sender` passes but for its 1,000
yuan, which it can send; `spare_1` to `spare_15` pass."""

SHANGHAI: Final = ZoneInfo("Asia/Shanghai")
_AGE_DECADES: Final = WeightedChoice((1600, 2600, 2500, 1700, 1100, 500))
_GROWN_UP: Final = 18
_MINOR_FROM: Final = 9


class Rows:
    """The rows of one list over a chunk: whose each is, which of theirs, and the dice to draw for them."""

    def __init__(self, chunk: Chunk, tag: int, counts: Ints) -> None:
        """Lay out `counts` rows for each person, fewer than 4,096; `tag` (1 to 4095) is the list's own."""
        self.counts = counts
        self.total = int(counts.sum())
        self.person: Ints = np.repeat(np.arange(len(counts)), counts)
        self.ordinal: Ints = np.arange(self.total) - np.repeat(np.cumsum(counts) - counts, counts)
        self.dice = Dice.of_rows(chunk.root, tag, self.person, self.ordinal)
        self.now = chunk.now
        self.age = chunk.age_seconds[self.person]

    @property
    def lead(self) -> Fixed:
        """The character before a row: it opens the list or parts it from the row before."""
        return np.where(self.ordinal == 0, ord("["), ord(",")).astype(np.uint8).view("V1")

    def past(self, longest: int | Ints) -> Ints:
        """Draw times from `longest` seconds ago, but not before the account was made, until an hour ago."""
        reach = np.minimum(self.age, longest) - 2 * 3600
        times: Ints = self.now - 3600 - ((self.dice.lane() * reach) >> 16) - self.dice.below(3600)
        return times


class Chunk:
    """A run of people being made: what is drawn once for each person and used by several sections."""

    def __init__(self, first: int, count: int, seed: int, now: datetime) -> None:
        """Draw for accounts `first` to `first + count - 1` as of `now`, whose seconds alone count."""
        self.count = count
        self.accounts: Ints = np.arange(first, first + count, dtype=np.int64)
        self.root = roots(self.accounts, seed, RESERVED)
        self.now = int(now.astimezone(UTC).timestamp())
        today = now.astimezone(SHANGHAI).date()
        self.today = today
        self.today_day = (today - date(1970, 1, 1)).days
        dice = Dice.of_people(self.root, 0xFFF)
        self.meets: dict[str, Flags] = {code: dice.chance(share) for code, share in SHARES.items()}
        self.sex = dice.below(2)
        self.meets["DOC-REVIEW"] &= ~self.meets["MINOR-EVIDENCE"]
        self._reserve()
        minor = self.meets["MINOR-EVIDENCE"]
        years = np.where(
            minor,
            _MINOR_FROM + dice.below(_GROWN_UP - _MINOR_FROM - 1),
            _GROWN_UP + 1 + dice.choose(_AGE_DECADES) * 10 + dice.below(10),
        )
        self.birth_day: Ints = self.today_day - years * 365 - years // 4 - 1 - dice.below(300)
        self.age_seconds: Ints = np.where(minor, 400 * DAY, (400 + dice.below(4000)) * DAY) + dice.below(DAY)
        self.created: Ints = self.now - self.age_seconds
        prefix = np.asarray(PHONE_PREFIXES)[np.where(self.accounts <= RESERVED, 0, dice.below(len(PHONE_PREFIXES)))]
        self.phone: Ints = prefix * 10**8 + self.accounts % 10**8 * _PHONE_BASE % 10**8

    def _reserve(self) -> None:
        for person in STORY_PEOPLE.values():
            at = person.account_id - int(self.accounts[0])
            if 0 <= at < self.count:
                self.sex[at] = person.sex
                for code, flags in self.meets.items():
                    flags[at] = code in person.meets

    @property
    def reserved(self) -> list[tuple[int, StoryPerson]]:
        """The reserved people of this chunk, with their places in it."""
        first = int(self.accounts[0])
        placed = ((person.account_id - first, person) for person in STORY_PEOPLE.values())
        return [(at, person) for at, person in placed if 0 <= at < self.count]

    def dice(self, tag: int) -> Dice:
        """Dice for one purpose over the people."""
        return Dice.of_people(self.root, tag)

    def ago(self, at: int, seconds: int) -> datetime:
        """Return the time so long ago, but not before the account of person `at` was made."""
        return datetime.fromtimestamp(self.now - min(seconds, int(self.age_seconds[at])), UTC)

    def rows(self, tag: int, counts: Ints) -> Rows:
        """Lay out the rows of one list."""
        return Rows(self, tag, counts)
