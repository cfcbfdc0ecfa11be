"""Identity documents: read one as its issuer made it, with what is odd about it, and make well-formed ones.

Reading refuses numbers that cannot have been issued (a resident's wrong check character, no such province, a birth date
that does not exist or is in the future). What was issued although it departs from its standard is read and gets a
`Doubt`: documents are what issuers made, not what the formula says. Whether a document *was* issued only its issuer
knows. Sources: GB 11643-1999 (resident number, ISO 7064 MOD 11-2), GB/T 2260 (regions: policy/regions), the rules on
residence permits for Hong Kong, Macao and Taiwan residents (2018), on mainland travel permits and on the foreign
permanent resident ID card (2017 and 2023 forms) and ICAO Doc 9303 parts 3 and 4 (passports, TD3).

Of the libraries, python-stdnum's regions lack codes that were in force, and its resident numbers take a birth date of
2099, refuse 810000, 820000 and 830000, and break on a county that it does not know. id-validator takes those permits,
but also birth dates of tomorrow or 1899, and refuses numbers that begin with 9. Neither knows travel permits or
passports.
"""

from __future__ import annotations

import re
from datetime import date
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import msgspec

from jiebang.model.check import Text
from jiebang.model.errors import InvalidInputError
from jiebang.policy import regions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class DocumentType(StrEnum):
    """The documents to which a real name can be bound."""

    RESIDENT_ID = "resident_id"  # 居民身份证
    RESIDENCE_PERMIT = "residence_permit"  # 港澳台居民居住证
    HK_MACAO_PERMIT = "hk_macao_permit"  # 港澳居民来往内地通行证
    TAIWAN_PERMIT = "taiwan_permit"  # 台湾居民来往大陆通行证
    FOREIGN_PERMANENT_RESIDENCE = "foreign_permanent_residence"  # 外国人永久居留身份证
    PASSPORT = "passport"  # 护照


BROUGHT_DOCUMENTS: Final = (DocumentType.RESIDENT_ID.value, DocumentType.RESIDENCE_PERMIT.value)
"""The documents of which a case may bring one: their number tells birth date and division, and they need no reviews."""


class Doubt(StrEnum):
    """How a document, company code or card departs from its standard, though such were issued. Kept with the record."""

    REGION_UNLISTED = "region_unlisted"  # no list that we know ever held its region
    BIRTH_DATE_PARTIAL = "birth_date_partial"  # its birth date, or a part of it, is unknown
    CHECK_CHARACTER = "check_character"  # its check character or digit does not fit


class IdentityDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A document that can have been issued. `number` is as printed, normalised; `issuer` its region or nationality.

    Within a type, `key` is equal for two documents exactly when they are the same person's same document: renewed
    travel permits keep their first nine characters, and two countries may print the same passport number.
    `birth_date`, `sex` ("F" or "M") and `expires` are None where the number does not carry them whole; `born_in` is
    then what it does say of the birth date: digits of YYMMDD, "." for an unknown one (None: nothing to say).
    """

    type: DocumentType
    number: str
    key: str
    issuer: str | None = None
    birth_date: date | None = None
    sex: str | None = None
    expires: date | None = None
    born_in: str | None = None
    doubt: Doubt | None = None


_LENGTH = Text("长度不对", "wrong length")
_CHARACTERS = Text("含有不允许的字符", "a character that this document does not have there")
_CHECKSUM = Text("校验码不符", "the check character does not fit")
_REGION = Text("地区代码不存在", "there is no such region code")
_BIRTH = Text("出生日期不存在", "the birth date does not exist")
_FUTURE = Text("出生日期在将来", "the birth date lies in the future")
_EXPIRY = Text("有效期不存在", "the expiry date does not exist")

_EARLIEST_BIRTH: Final = date(1900, 1, 1)  # no living holder was born earlier


def read_document(kind: str, text: str, today: date, born: date | None = None) -> IdentityDocument:
    """Return the document that `text` spells: `kind` is a DocumentType or its word, `today` a Shanghai calendar day.

    `born`: the holder's birth date, where it is known: it says the century of a year of two digits, which otherwise
    is the latest that is not ahead. For a passport `text` is the second machine-readable line, 44 characters: the
    number alone carries no check digit. Raises InvalidInputError (field "number", reason as Text); the number itself is
    never part of the error.
    """
    return _READERS[kind](text.strip().upper(), today, born)


def document_key(kind: str, number: str) -> str:
    """Return the `key` that read_document gives for a number that it accepts, without checking it again."""
    number = number.strip().upper()
    if kind == "passport":
        return _passport_key(number)
    lengths = _PERMIT_LENGTHS.get(kind)
    return number if lengths is None else number[: lengths[0]]


def doubt_document(kind: str, number: str) -> Doubt | None:
    """Return the `doubt` that read_document gives for a number that it accepts, without checking it again."""
    number = number.strip().upper()
    if kind == "resident_id":
        return _doubt_of_region(number[:6])
    return Doubt.BIRTH_DATE_PARTIAL if kind == "passport" and _known_birth(number[13:19]) is not None else None


def _refusal(reason: Text) -> InvalidInputError:
    return InvalidInputError(field="number", reason=reason)


# --- ISO 7064 MOD 11-2, over 17 digits and a check character ---------------------------------------------------------

_BODY: Final = 17
MOD11_2_WEIGHTS: Final = tuple(pow(2, _BODY - place, 11) for place in range(_BODY))
"""The weight of each of the 17 digits."""

MOD11_2_CHECKS: Final = "10X98765432"
"""The check character by the weighted sum mod 11."""


def mod11_2_check(body: str) -> str:
    """Return the check character of 17 digits."""
    return MOD11_2_CHECKS[int(body, 13) * 2 % 11]  # the weighted sum: 13 and 2 are equal mod 11, and int() is fast


def _require_checksum_18(number: str) -> None:
    if len(number) != _BODY + 1:
        raise _refusal(_LENGTH)
    if not (number.isascii() and number[:_BODY].isdigit() and (number[_BODY].isdigit() or number[_BODY] == "X")):
        raise _refusal(_CHARACTERS)
    if mod11_2_check(number[:_BODY]) != number[_BODY]:
        raise _refusal(_CHECKSUM)


def _read_birth_date(digits: str, today: date) -> date:
    try:
        born = date(int(digits[:4]), int(digits[4:6]), int(digits[6:8]))
    except ValueError:
        raise _refusal(_BIRTH) from None
    if born < _EARLIEST_BIRTH:
        raise _refusal(_BIRTH)
    if born > today:
        raise _refusal(_FUTURE)
    return born


def _sex(order: str) -> str:
    return "M" if int(order) % 2 else "F"


def _doubt_of_region(code: str) -> Doubt | None:
    return None if regions.is_listed(code) else Doubt.REGION_UNLISTED


_TERRITORIES: Final = {"810000": "HKG", "820000": "MAC", "830000": "TWN"}


def _read_resident_id(number: str, today: date, _born: date | None) -> IdentityDocument:
    _require_checksum_18(number)
    if not regions.is_province(number):
        raise _refusal(_REGION)
    return IdentityDocument(
        type=DocumentType.RESIDENT_ID,
        number=number,
        key=number,
        issuer=number[:6],
        birth_date=_read_birth_date(number[6:14], today),
        sex=_sex(number[14:17]),
        doubt=_doubt_of_region(number[:6]),
    )


def _read_residence_permit(number: str, today: date, _born: date | None) -> IdentityDocument:
    _require_checksum_18(number)
    if number[:6] not in _TERRITORIES:
        raise _refusal(_REGION)
    born = _read_birth_date(number[6:14], today)
    kind = DocumentType.RESIDENCE_PERMIT
    return IdentityDocument(
        type=kind, number=number, key=number, issuer=number[:6], birth_date=born, sex=_sex(number[14:17])
    )


def make_resident_id(region: str, birth_date: date, order: int) -> str:
    """Return a resident number (or, for region 810000, 820000, 830000, a residence permit's). `order` is 0 to 999."""
    body = f"{region}{birth_date:%Y%m%d}{order:03d}"
    return body + mod11_2_check(body)


# --- Mainland travel permits -----------------------------------------------------------------------------------------

_HK_MACAO = re.compile(r"[HM][0-9]{8}(?:[0-9]{2})?")
_TAIWAN = re.compile(r"[0-9]{8}(?:[0-9]{2})?")
_PERMIT_LENGTHS: Final[Mapping[str, tuple[int, int]]] = {
    DocumentType.HK_MACAO_PERMIT: (9, 11),
    DocumentType.TAIWAN_PERMIT: (8, 10),
}


def _read_permit(kind: DocumentType, pattern: re.Pattern[str], number: str) -> IdentityDocument:
    short, long = _PERMIT_LENGTHS[kind]
    if len(number) not in (short, long):
        raise _refusal(_LENGTH)
    if not pattern.fullmatch(number):
        raise _refusal(_CHARACTERS)
    issuer = {"H": "HKG", "M": "MAC"}.get(number[0], "TWN")
    return IdentityDocument(type=kind, number=number, key=number[:short], issuer=issuer)


def make_hk_macao_permit(territory: str, holder: int, issue: int | None = None) -> str:
    """Return a permit of "H" or "M": `holder` is eight digits, `issue` the old form's two-digit count of renewals."""
    return f"{territory}{holder:08d}" + ("" if issue is None else f"{issue:02d}")


def make_taiwan_permit(holder: int, issue: int | None = None) -> str:
    """Return a permit of a Taiwan resident, in the new form of eight digits or the old one of ten."""
    return f"{holder:08d}" + ("" if issue is None else f"{issue:02d}")


# --- Foreign permanent residents -------------------------------------------------------------------------------------

_OLD_RESIDENCE = re.compile(r"[A-Z]{3}[0-9]{12}")
_OLD_RESIDENCE_LENGTH: Final = 15


def _read_foreign_residence(number: str, today: date, born: date | None) -> IdentityDocument:
    kind = DocumentType.FOREIGN_PERMANENT_RESIDENCE
    if len(number) == _OLD_RESIDENCE_LENGTH:
        if not _OLD_RESIDENCE.fullmatch(number):
            raise _refusal(_CHARACTERS)
        if not regions.is_province(number[3:5]):
            raise _refusal(_REGION)
        day = _short_year(number[7:13], today, born)
        return IdentityDocument(type=kind, number=number, key=number, issuer=number[:3], birth_date=day)
    _require_checksum_18(number)
    if number[0] != "9":
        raise _refusal(_CHARACTERS)
    if not regions.is_province(number[1:3]):
        raise _refusal(_REGION)
    day = _read_birth_date(number[6:14], today)
    return IdentityDocument(
        type=kind, number=number, key=number, issuer=number[3:6], birth_date=day, sex=_sex(number[14:17])
    )


def make_foreign_residence(province: str, nationality: str, birth_date: date, order: int) -> str:
    """Return the 18-digit form: "9", two digits of the province, ISO 3166 numeric nationality, birth date, order."""
    return make_resident_id(f"9{province}{nationality}", birth_date, order)


def _short_year(digits: str, today: date, born: date | None) -> date:
    """Return the day that YYMMDD means: `born`, where it can be that, else the latest not in the future."""
    if born is not None and _EARLIEST_BIRTH <= born <= today and digits == f"{born:%y%m%d}":
        return born
    for century in (today.year // 100 * 100, today.year // 100 * 100 - 100):
        day = _day(century, digits)
        if day is not None and day <= today:
            return day
    raise _refusal(_BIRTH)


def _day(century: int, digits: str) -> date | None:
    try:
        return date(century + int(digits[:2]), int(digits[2:4]), int(digits[4:6]))
    except ValueError:
        return None


# --- Passports -------------------------------------------------------------------------------------------------------

_MRZ = re.compile(
    r"[A-Z0-9<]{9}[0-9][A-Z]([A-Z]{2}|[A-Z]<|<<)(?:[0-9]{2}|<<){3}[0-9][MF<](?:[0-9]{2}|<<){3}[0-9]"
    r"[A-Z0-9<]{14}[0-9<][0-9]"
)
_UNKNOWN: Final = "<"
_MRZ_LENGTH: Final = 44
_LONGEST_VALIDITY: Final = 20
"""No country's passport is valid for more years."""
_MRZ_VALUE: Final[Mapping[str, int]] = {c: i for i, c in enumerate("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")} | {"<": 0}
_MRZ_WEIGHTS: Final = (7, 3, 1)


def mrz_check(field: str) -> str:
    """Return the ICAO 9303 check digit of a machine-readable field. Raises KeyError for other characters."""
    return str(sum(_MRZ_VALUE[c] * _MRZ_WEIGHTS[i % 3] for i, c in enumerate(field)) % 10)


def _read_passport(line: str, today: date, born: date | None) -> IdentityDocument:
    if len(line) != _MRZ_LENGTH:
        raise _refusal(_LENGTH)
    if not _MRZ.fullmatch(line):
        raise _refusal(_CHARACTERS)
    personal_ok = line[42] == mrz_check(line[28:42]) or (line[42] == "<" and not line[28:42].strip("<"))
    if (
        mrz_check(line[:9]) != line[9]
        or mrz_check(line[13:19]) != line[19]
        or mrz_check(line[21:27]) != line[27]
        or not personal_ok
        or mrz_check(line[:10] + line[13:20] + line[21:43]) != line[43]
    ):
        raise _refusal(_CHECKSUM)
    nationality, number = line[10:13].rstrip("<"), line[:9].rstrip("<")
    if not number:
        raise _refusal(_CHARACTERS)
    day, born_in = _read_mrz_birth(line[13:19], today, born)
    return IdentityDocument(
        type=DocumentType.PASSPORT,
        number=number,
        key=_passport_key(line),
        issuer=nationality,
        birth_date=day,
        sex=None if line[20] == "<" else line[20],
        expires=_read_mrz_expiry(line[21:27], today),
        born_in=born_in,
        doubt=Doubt.BIRTH_DATE_PARTIAL if born_in is not None else None,
    )


def _read_mrz_birth(digits: str, today: date, born: date | None) -> tuple[date | None, str | None]:
    """Return the birth date, or what is known of it: "<<" is an unknown year, month or day (Doc 9303-3), as is 00."""
    known = _known_birth(digits)
    if known is None:
        return _short_year(digits, today, born), None
    some_year = "00" if known.startswith(".") else known[:2]  # 2000 had every day that a year may have
    if latest_birth(some_year + known[2:], today) is None:
        raise _refusal(_BIRTH)
    return None, known


def _known_birth(digits: str) -> str | None:
    """Return a birth date of which a part is unknown as `born_in`; None for a whole one."""
    year, month, day = digits[:2], digits[2:4], digits[4:]
    parts = (".." if year == "<<" else year, *(".." if part in ("<<", "00") else part for part in (month, day)))
    return "".join(parts) if ".." in parts else None


def latest_birth(born_in: str, today: date) -> date | None:
    """Return the last day, not after `today`, of which a document with `born_in` may say that its holder was born.

    None where it leaves the year open, or fits no day. The last, so that what protects the young holds for too long
    rather than not long enough.
    """
    if not born_in or born_in.startswith("."):
        return None
    months = range(12, 0, -1) if born_in[2:4] == ".." else (int(born_in[2:4]),)
    days = range(31, 0, -1) if born_in[4:6] == ".." else (int(born_in[4:6]),)
    for century in (today.year // 100 * 100, today.year // 100 * 100 - 100):
        for month in months:
            for day in days:
                found = _day(century, f"{born_in[:2]}{month:02d}{day:02d}")
                if found is not None and _EARLIEST_BIRTH <= found <= today:
                    return found
    return None


def may_be_born(document: IdentityDocument, born: date) -> bool:
    """Whether the document's own birth date, as far as it carries one, is `born`."""
    if document.born_in is not None:
        return re.fullmatch(document.born_in, f"{born:%y%m%d}") is not None
    return document.birth_date is None or document.birth_date == born


def _read_mrz_expiry(digits: str, today: date) -> date | None:
    """Return the latest such day that a passport may be valid until today; None where the day is not given whole."""
    if _UNKNOWN in digits:
        return None
    for century in (today.year // 100 * 100 + 100, today.year // 100 * 100, today.year // 100 * 100 - 100):
        day = _day(century, digits)
        if day is not None and day.year <= today.year + _LONGEST_VALIDITY:
            return day
    raise _refusal(_EXPIRY)


def _passport_key(line: str) -> str:
    return f"{line[10:13].rstrip('<')}:{line[:9].rstrip('<')}"


def make_passport(number: str, nationality: str, birth_date: date, sex: str, expires: date) -> str:
    """Return the second machine-readable line of a passport. `sex` is "F", "M" or "<"."""
    number = number.ljust(9, "<")
    born, until = f"{birth_date:%y%m%d}", f"{expires:%y%m%d}"
    head = number + mrz_check(number)
    tail = born + mrz_check(born), until + mrz_check(until) + "<" * 14 + "0"
    return f"{head}{nationality.ljust(3, '<')}{tail[0]}{sex}{tail[1]}{mrz_check(head + tail[0] + tail[1])}"


_READERS: Final[Mapping[str, Callable[[str, date, date | None], IdentityDocument]]] = {
    DocumentType.RESIDENT_ID: _read_resident_id,
    DocumentType.RESIDENCE_PERMIT: _read_residence_permit,
    DocumentType.HK_MACAO_PERMIT: lambda number, *_: _read_permit(DocumentType.HK_MACAO_PERMIT, _HK_MACAO, number),
    DocumentType.TAIWAN_PERMIT: lambda number, *_: _read_permit(DocumentType.TAIWAN_PERMIT, _TAIWAN, number),
    DocumentType.FOREIGN_PERMANENT_RESIDENCE: _read_foreign_residence,
    DocumentType.PASSPORT: _read_passport,
}
