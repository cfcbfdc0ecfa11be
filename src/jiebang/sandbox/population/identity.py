"""The real names: document, name and history of changes of a chunk of people."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from jiebang.policy import documents
from jiebang.policy.documents import DocumentType
from jiebang.sandbox.population import names
from jiebang.sandbox.population.chance import WeightedChoice
from jiebang.sandbox.population.people import RESERVED
from jiebang.sandbox.population.render import (
    DAY,
    Loose,
    Pool,
    beside,
    characters,
    codes,
    day,
    digits,
    json_of,
    stamp,
    texts,
)

if TYPE_CHECKING:
    from jiebang.sandbox.population.chance import Dice, Ints
    from jiebang.sandbox.population.people import Chunk
    from jiebang.sandbox.population.render import Canvas

_EPOCH: Final = date(1970, 1, 1)
_TAG: Final = 1
_SURNAME: Final = WeightedChoice([weight for _, weight in names.SURNAMES])
_GIVEN: Final = [name for sexes in names.GIVEN for words in sexes for name in words]
_GIVEN_COUNT: Final = np.array([[len(words) for words in sexes] for sexes in names.GIVEN])
_GIVEN_START: Final = (np.cumsum(_GIVEN_COUNT.ravel()) - _GIVEN_COUNT.ravel()).reshape(_GIVEN_COUNT.shape)
_GENERATION_DAYS: Final = np.array([(date(year, 1, 1) - _EPOCH).days for year in names.GENERATION_ENDS])
_REGION_DIGITS: Final = np.frombuffer("".join(code for code, _ in names.REGIONS).encode(), "V6")
_CHECKS: Final = np.frombuffer(documents.MOD11_2_CHECKS.encode(), "V1")
_PAPER: Final = b',"document_type":"%b","document_number":"%b"'
_KINDS: Final = texts(("bound", "renamed", "document_renewed"), before=b'","kind":')
_REVIEWED: Final = WeightedChoice((250, 120, 250))
_REVIEWED_KINDS: Final = (DocumentType.HK_MACAO_PERMIT, DocumentType.TAIWAN_PERMIT, DocumentType.PASSPORT)
_UNUSUAL_SHARE: Final = 130  # residence permits and foreign permanent residents, of 10,000 without a review


def write_identity(canvas: Canvas, chunk: Chunk) -> None:
    """Write the section `identity`."""
    dice = chunk.dice(_TAG)
    region = dice.below(len(names.REGIONS))
    holders = _Holders(
        _resident_ids(chunk, dice, region), _names(chunk, dice), [names.REGIONS[one][0] for one in region.tolist()]
    )
    _others(chunk, dice, holders)
    paper = Pool(holders.papers)
    changes, changed, times = _changes(chunk, dice)
    level = dice.below(2) + 2
    canvas.write(b',"identity":{"name":', Loose(map(json_of, holders.names)), paper[np.arange(chunk.count)])
    canvas.write(b',"birth_date":"', day(chunk.birth_day), b'","region":', Loose(map(json_of, holders.regions)))
    canvas.write(b',"level":', digits(level, 1), b',"changed_at":"', stamp(changed))
    rows = chunk.rows(_TAG, changes)
    kind = _KINDS[np.where(rows.ordinal == 0, 0, 1 + rows.dice.below(2))]
    head = b'"change_id":', digits(rows.ordinal + 1, 1), b',"at":"', stamp(times[rows.person, rows.ordinal])
    canvas.list(b'","changes":', rows, *head, kind, paper[rows.person], b"}")
    canvas.write(b"}")


class _Holders(NamedTuple):
    """Everybody's document (as fields), name and region."""

    papers: list[bytes]
    names: list[str]
    regions: list[str]


def _resident_ids(chunk: Chunk, dice: Dice, region: Ints) -> list[bytes]:
    order = digits(dice.below(499) * 2 + chunk.sex + 2, 3)
    birth = characters(np.delete(codes(day(chunk.birth_day)), (4, 7), axis=1))
    body = beside((_REGION_DIGITS[region], birth, order))
    residue = (codes(body).astype(np.int64) - ord("0")) @ np.array(documents.MOD11_2_WEIGHTS) % 11
    return [_PAPER % (b"resident_id", number) for number in beside((body, _CHECKS[residue])).tolist()]


def _names(chunk: Chunk, dice: Dice) -> list[str]:
    generation = np.searchsorted(_GENERATION_DAYS, chunk.birth_day, side="right")
    at = _GIVEN_START[chunk.sex, generation] + dice.below(_GIVEN_COUNT[chunk.sex, generation])
    surnames = dice.choose(_SURNAME).tolist()
    full = [names.SURNAMES[one][0] + _GIVEN[other] for one, other in zip(surnames, at.tolist(), strict=True)]
    for place, person in chunk.reserved:
        full[place] = person.name
    return full


def _others(chunk: Chunk, dice: Dice, holders: _Holders) -> None:
    """Put the other documents, names and regions in place: a few in a hundred, so one at a time."""
    reviewed = dice.choose(_REVIEWED)
    unusual = dice.chance(_UNUSUAL_SHARE) & ~chunk.meets["MINOR-EVIDENCE"] & (chunk.accounts > RESERVED)
    draws = np.stack([dice.lane() for _ in range(6)], axis=1)
    numbers = dice.below_wide(10**8)
    for at in np.flatnonzero(chunk.meets["DOC-REVIEW"] | unusual).tolist():
        draw = draws[at].tolist()
        if chunk.meets["DOC-REVIEW"][at]:
            kind = _REVIEWED_KINDS[reviewed[at]]
        else:
            kind = DocumentType.RESIDENCE_PERMIT if draw[5] % 3 else DocumentType.FOREIGN_PERMANENT_RESIDENCE
        birth = _EPOCH + timedelta(days=int(chunk.birth_day[at]))
        number, where = _document(kind, draw, int(numbers[at]), birth, int(chunk.sex[at]), chunk.today)
        holders.papers[at] = _PAPER % (kind.encode(), number.encode())
        holders.regions[at] = where
        if kind in (DocumentType.PASSPORT, DocumentType.FOREIGN_PERMANENT_RESIDENCE):
            first = names.FOREIGN_GIVEN[chunk.sex[at]]
            last = names.FOREIGN_SURNAMES
            holders.names[at] = f"{first[draw[3] % len(first)]} {last[draw[4] % len(last)]}"


def _document(kind: DocumentType, draw: list[int], number: int, birth: date, sex: int, today: date) -> tuple[str, str]:
    """Return a document's number and its holder's region."""
    nation, numeric = names.NATIONS[draw[0] % len(names.NATIONS)]
    order = draw[1] % 499 * 2 + sex
    if kind is DocumentType.HK_MACAO_PERMIT:
        territory, where = ("H", "HKG") if draw[0] % 4 else ("M", "MAC")
        return documents.make_hk_macao_permit(territory, number, draw[1] % 9 if draw[2] % 8 == 0 else None), where
    if kind is DocumentType.TAIWAN_PERMIT:
        return documents.make_taiwan_permit(number, draw[1] % 9 if draw[2] % 8 == 0 else None), "TWN"
    if kind is DocumentType.RESIDENCE_PERMIT:
        code, _ = names.TERRITORIES[draw[0] % len(names.TERRITORIES)]
        return documents.make_resident_id(code, birth, order), code
    province = names.REGIONS[draw[2] % len(names.REGIONS)][0][:2]
    if kind is DocumentType.FOREIGN_PERMANENT_RESIDENCE:
        return documents.make_foreign_residence(province, numeric, birth, order), nation
    letter = "CEGKLMPRTX"[draw[2] % 10]
    expires = today + timedelta(days=200 + draw[1] % 3000)
    return documents.make_passport(f"{letter}{number:08d}", nation, birth, "FM"[sex], expires), nation


def _changes(chunk: Chunk, dice: Dice) -> tuple[Ints, Ints, Ints]:
    """Return how many changes each has, when the last one was, and the times of all (4 columns)."""
    recent, quota = chunk.meets["ID-RECENT-CHANGE"], chunk.meets["ID-QUOTA"]
    counts = np.where(recent | dice.chance(800), 2, 1)
    counts = np.where(quota, 4, counts)
    bound = chunk.created + DAY + dice.below(20) * DAY
    since = chunk.now - bound
    settled = bound + ((since - 100 * DAY) * (8192 + (dice.lane() >> 1)) >> 16)
    fresh = chunk.now - DAY - dice.below(88) * DAY - dice.below(DAY // 2)
    year_start = ((chunk.today.replace(month=1, day=1) - _EPOCH).days * DAY) - 8 * 3600
    this_year = chunk.now - year_start
    times = np.repeat(bound[:, None], 4, axis=1)
    times[:, 1] = np.where(quota, year_start + this_year // 6, np.where(recent, fresh, settled))
    for number in (2, 3):
        times[:, number] = year_start + this_year * (2 * number - 1) // 6
    return counts, times[np.arange(chunk.count), counts - 1], times
