"""Identity documents and company codes: check that one is well-formed, and make well-formed ones.

Reading refuses numbers that cannot have been issued (wrong check character, unknown prefecture, a birth date that does
not exist or is in the future); whether a document *was* issued only its issuer knows. Sources: GB 11643-1999 (resident
number, ISO 7064 MOD 11-2), GB/T 2260 (regions, through python-stdnum), the rules on residence permits for Hong Kong,
Macao and Taiwan residents (2018), on mainland travel permits and on the foreign permanent resident ID card (2017 and
2023 forms), ICAO Doc 9303 part 4 (passports, TD3) and GB 32100-2015 with GB 11714 (company codes).

Of the libraries, python-stdnum has the right regions and credit codes' check characters, which are used. Its resident
numbers are not: it takes a birth date of 2099, refuses 810000, 820000 and 830000, and breaks on a county that it does
not know. id-validator takes those permits, but also birth dates of tomorrow or 1899, and refuses numbers that begin
with 9. Neither knows travel permits or passports.
"""

from __future__ import annotations

import re
from datetime import date
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import msgspec
from stdnum import numdb
from stdnum.cn import uscc

from jiebang.model.check import Text
from jiebang.model.errors import InvalidInputError

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


class IdentityDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A well-formed document. `number` is as printed, normalised; `issuer` a region or nationality where it says one.

    Within a type, `key` is equal for two documents exactly when they are the same person's same document: renewed
    travel permits keep their first nine characters, and two countries may print the same passport number.
    `birth_date`, `sex` ("F" or "M") and `expires` are None where the number does not carry them.
    """

    type: DocumentType
    number: str
    key: str
    issuer: str | None = None
    birth_date: date | None = None
    sex: str | None = None
    expires: date | None = None


_LENGTH = Text("长度不对", "wrong length")
_CHARACTERS = Text("含有不允许的字符", "a character that this document does not have there")
_CHECKSUM = Text("校验码不符", "the check character does not fit")
_REGION = Text("地区代码不存在", "there is no such region code")
_BIRTH = Text("出生日期不存在", "the birth date does not exist")
_FUTURE = Text("出生日期在将来", "the birth date lies in the future")
_EXPIRY = Text("有效期不存在", "the expiry date does not exist")

_EARLIEST_BIRTH: Final = date(1900, 1, 1)  # no living holder was born earlier


def read_document(kind: str, text: str, today: date) -> IdentityDocument:
    """Return the document that `text` spells: `kind` is a DocumentType or its word, `today` a Shanghai calendar day.

    For a passport `text` is the second machine-readable line, 44 characters: the number alone carries no check digit.
    Raises InvalidInputError (field "number", reason as Text); the number itself is never part of the error.
    """
    return _READERS[kind](text.strip().upper(), today)


def document_key(kind: str, number: str) -> str:
    """Return the `key` that read_document gives for a number that it accepts, without checking it again."""
    number = number.strip().upper()
    if kind == "passport":
        return _passport_key(number)
    lengths = _PERMIT_LENGTHS.get(kind)
    return number if lengths is None else number[: lengths[0]]


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


@lru_cache(maxsize=2048)
def _is_prefecture(code: str) -> bool:
    """Whether a four-digit prefecture code exists or existed. Counties are newer than any table that we could ship."""
    parts = numdb.get("cn/loc").info(f"{code}00")
    return len(parts) > 1 and bool(parts[1][1])


_TERRITORIES: Final = {"810000": "HKG", "820000": "MAC", "830000": "TWN"}


def _read_resident_id(number: str, today: date) -> IdentityDocument:
    _require_checksum_18(number)
    if number[0] in "89" or not _is_prefecture(number[:4]):
        raise _refusal(_REGION)
    born = _read_birth_date(number[6:14], today)
    kind = DocumentType.RESIDENT_ID
    return IdentityDocument(
        type=kind, number=number, key=number, issuer=number[:6], birth_date=born, sex=_sex(number[14:17])
    )


def _read_residence_permit(number: str, today: date) -> IdentityDocument:
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


def _read_foreign_residence(number: str, today: date) -> IdentityDocument:
    kind = DocumentType.FOREIGN_PERMANENT_RESIDENCE
    if len(number) == _OLD_RESIDENCE_LENGTH:
        if not _OLD_RESIDENCE.fullmatch(number):
            raise _refusal(_CHARACTERS)
        if not _is_prefecture(f"{number[3:5]}00"):
            raise _refusal(_REGION)
        born = _short_year(number[7:13], today, _BIRTH)
        return IdentityDocument(type=kind, number=number, key=number, issuer=number[:3], birth_date=born)
    _require_checksum_18(number)
    if number[0] != "9":
        raise _refusal(_CHARACTERS)
    if not _is_prefecture(f"{number[1:3]}00"):
        raise _refusal(_REGION)
    born = _read_birth_date(number[6:14], today)
    return IdentityDocument(
        type=kind, number=number, key=number, issuer=number[3:6], birth_date=born, sex=_sex(number[14:17])
    )


def make_foreign_residence(province: str, nationality: str, birth_date: date, order: int) -> str:
    """Return the 18-digit form: "9", two digits of the province, ISO 3166 numeric nationality, birth date, order."""
    return make_resident_id(f"9{province}{nationality}", birth_date, order)


def _short_year(digits: str, today: date, reason: Text) -> date:
    """Return the latest date not in the future with this YYMMDD."""
    for century in (today.year // 100 * 100, today.year // 100 * 100 - 100):
        try:
            day = date(century + int(digits[:2]), int(digits[2:4]), int(digits[4:6]))
        except ValueError:
            continue
        if day <= today:
            return day
    raise _refusal(reason)


# --- Passports -------------------------------------------------------------------------------------------------------

_MRZ = re.compile(r"[A-Z0-9<]{9}[0-9][A-Z]([A-Z]{2}|[A-Z]<|<<)[0-9]{7}[MF<][0-9]{7}[A-Z0-9<]{14}[0-9<][0-9]")
_MRZ_LENGTH: Final = 44
_MRZ_VALUE: Final[Mapping[str, int]] = {c: i for i, c in enumerate("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")} | {"<": 0}
_MRZ_WEIGHTS: Final = (7, 3, 1)


def mrz_check(field: str) -> str:
    """Return the ICAO 9303 check digit of a machine-readable field. Raises KeyError for other characters."""
    return str(sum(_MRZ_VALUE[c] * _MRZ_WEIGHTS[i % 3] for i, c in enumerate(field)) % 10)


def _read_passport(line: str, today: date) -> IdentityDocument:
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
    try:
        expires = date(2000 + int(line[21:23]), int(line[23:25]), int(line[25:27]))  # machine-readable since the 1980s
    except ValueError:
        raise _refusal(_EXPIRY) from None
    nationality, number = line[10:13].rstrip("<"), line[:9].rstrip("<")
    if not number:
        raise _refusal(_CHARACTERS)
    return IdentityDocument(
        type=DocumentType.PASSPORT,
        number=number,
        key=_passport_key(line),
        issuer=nationality,
        birth_date=_short_year(line[13:19], today, _BIRTH),
        sex=None if line[20] == "<" else line[20],
        expires=expires,
    )


def _passport_key(line: str) -> str:
    return f"{line[10:13].rstrip('<')}:{line[:9].rstrip('<')}"


def make_passport(number: str, nationality: str, birth_date: date, sex: str, expires: date) -> str:
    """Return the second machine-readable line of a passport. `sex` is "F", "M" or "<"."""
    number = number.ljust(9, "<")
    born, until = f"{birth_date:%y%m%d}", f"{expires:%y%m%d}"
    head = number + mrz_check(number)
    tail = born + mrz_check(born), until + mrz_check(until) + "<" * 14 + "0"
    return f"{head}{nationality.ljust(3, '<')}{tail[0]}{sex}{tail[1]}{mrz_check(head + tail[0] + tail[1])}"


_READERS: Final[Mapping[str, Callable[[str, date], IdentityDocument]]] = {
    DocumentType.RESIDENT_ID: _read_resident_id,
    DocumentType.RESIDENCE_PERMIT: _read_residence_permit,
    DocumentType.HK_MACAO_PERMIT: lambda number, _: _read_permit(DocumentType.HK_MACAO_PERMIT, _HK_MACAO, number),
    DocumentType.TAIWAN_PERMIT: lambda number, _: _read_permit(DocumentType.TAIWAN_PERMIT, _TAIWAN, number),
    DocumentType.FOREIGN_PERMANENT_RESIDENCE: _read_foreign_residence,
    DocumentType.PASSPORT: _read_passport,
}


# --- Companies -------------------------------------------------------------------------------------------------------

_CREDIT_CODE = re.compile(r"[0-9A-HJ-NPQRTUWXY]{2}[0-9]{6}[0-9A-HJ-NPQRTUWXY]{10}")
_CARD_LENGTHS: Final = (12, 19)
_ORG_WEIGHTS: Final = (3, 7, 9, 10, 5, 8, 4, 2)


@lru_cache(maxsize=4096)
def _credit_check(body: str) -> str:
    """Return the check character of GB 32100. Kept, because many people belong to the same companies."""
    return str(uscc.calc_check_digit(body))


def read_credit_code(text: str) -> str:
    """Return a unified social credit code, normalised. Raises InvalidInputError (field "credit_code").

    Wider than python-stdnum in its first two places: rural collectives ("N2…") and unions carry letters there.
    """
    code = text.strip().upper()
    reason = None
    if len(code) != _BODY + 1:
        reason = _LENGTH
    elif not _CREDIT_CODE.fullmatch(code):
        reason = _CHARACTERS
    elif _credit_check(code[:_BODY]) != code[_BODY]:
        reason = _CHECKSUM
    elif not _is_prefecture(f"{code[2:4]}00") and code[2:4] != "10":
        reason = _REGION
    if reason is not None:
        raise InvalidInputError(field="credit_code", reason=reason)
    return code


def make_credit_code(kind: str, region: str, organisation: str) -> str:
    """Return a credit code: `kind` is authority and type ("91"), `organisation` eight characters of GB 11714."""
    total = sum(int(c, 36) * w for c, w in zip(organisation, _ORG_WEIGHTS, strict=True))
    inner = "0123456789X0"[(11 - total % 11)]
    body = f"{kind}{region}{organisation}{inner}"
    return body + _credit_check(body)


_SINGLE: Final = bytes.maketrans(b"0123456789", bytes(range(10)))
_DOUBLED: Final = bytes.maketrans(b"0123456789", bytes((0, 2, 4, 6, 8, 1, 3, 5, 7, 9)))  # digit sum of twice the digit


def luhn_check(body: str) -> str:
    """Return the Luhn check digit of a card number without it (ISO/IEC 7812)."""
    digits = body.encode()
    return str(-(sum(digits[-1::-2].translate(_DOUBLED)) + sum(digits[-2::-2].translate(_SINGLE))) % 10)


def is_card_number(number: str) -> bool:
    """Whether `number` is 12 to 19 digits with the right Luhn check digit."""
    well_formed = number.isascii() and number.isdigit() and _CARD_LENGTHS[0] <= len(number) <= _CARD_LENGTHS[1]
    return well_formed and luhn_check(number[:-1]) == number[-1]
