"""Documents: a wrong digit binds a name to somebody else's number, and a refused right one locks a person out."""

from __future__ import annotations

from datetime import date, timedelta
from string import digits
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jiebang.model.errors import InvalidInputError
from jiebang.policy import documents as made
from jiebang.policy import regions
from jiebang.policy.cards import doubt_card_number, is_card_number, luhn_check
from jiebang.policy.companies import doubt_credit_code, make_credit_code, read_credit_code
from jiebang.policy.documents import (
    DocumentType,
    Doubt,
    IdentityDocument,
    document_key,
    latest_birth,
    may_be_born,
    read_document,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_A_NUMBER: Final = 8  # characters, of the shortest
TODAY: Final = date(2026, 11, 22)
BORN: Final = st.dates(date(1900, 1, 1), TODAY)
ORDER: Final = st.integers(0, 999)
REGION: Final = st.sampled_from(["110101", "310115", "440305", "540102", "650102"])
TERRITORY: Final = st.sampled_from(["810000", "820000", "830000"])
PASSPORT: Final = DocumentType.PASSPORT

RESIDENT: Final = st.builds(made.make_resident_id, REGION, BORN, ORDER)
PERMIT: Final = st.builds(made.make_resident_id, TERRITORY, BORN, ORDER)
FOREIGN: Final = st.builds(
    made.make_foreign_residence,
    st.sampled_from(["11", "31", "44"]),
    st.sampled_from(["276", "840", "036"]),
    BORN,
    ORDER,
)
CHECKED: Final = st.one_of(
    st.tuples(st.just(DocumentType.RESIDENT_ID), RESIDENT),
    st.tuples(st.just(DocumentType.RESIDENCE_PERMIT), PERMIT),
    st.tuples(st.just(DocumentType.FOREIGN_PERMANENT_RESIDENCE), FOREIGN),
)
"""Documents of 18 characters with a MOD 11-2 check character."""
MRZ: Final = st.builds(
    made.make_passport,
    st.from_regex(r"[A-Z][0-9]{7}[0-9A-Z]?", fullmatch=True),
    st.sampled_from(["DEU", "USA", "D", "UTO"]),
    st.dates(date(1930, 1, 1), TODAY),
    st.sampled_from("FM<"),
    st.dates(date(2020, 1, 1), date(2036, 1, 1)),
)
CREDIT_CODE: Final = st.builds(
    make_credit_code,
    st.sampled_from(["91", "92", "12", "51", "N2"]),
    st.sampled_from(["110000", "440300", "350100"]),
    st.from_regex(r"MA[0-9A-HJ-NPQRTUWXY]{6}", fullmatch=True),
)
FREE: Final = [
    (DocumentType.HK_MACAO_PERMIT, st.from_regex(r"[HM][0-9]{8}([0-9]{2})?", fullmatch=True)),
    (DocumentType.TAIWAN_PERMIT, st.from_regex(r"[0-9]{8}([0-9]{2})?", fullmatch=True)),
]
"""Travel permits carry no check character: nothing in the number tells a mistake."""


def refusal(kind: DocumentType, number: str, today: date = TODAY) -> str | None:
    """Why a number is refused, in English; None: it is accepted."""
    try:
        read_document(kind, number, today)
    except InvalidInputError as refused:
        error = refused
    else:
        return None
    assert error.fields["field"] == "number"
    assert error.fields["reason"].zh
    assert len(number) < _A_NUMBER or number not in repr(error), "the number itself must not go into logs"
    return str(error.fields["reason"].en)


def code_refused(code: str) -> bool:
    try:
        read_credit_code(code)
    except InvalidInputError:
        return True
    return False


def one_off(number: str, at: int, other: str) -> str:
    return number[:at] + other + number[at + 1 :]


def swapped(number: str, at: int) -> str:
    return number[:at] + number[at + 1] + number[at] + number[at + 2 :]


# Published examples: the standards' own, and those that adopters know.
EXAMPLES: Final = {
    "GB 11643's own": (DocumentType.RESIDENT_ID, "11010519491231002X", ("110105", date(1949, 12, 31), "F")),
    "in lower case, with spaces": (
        DocumentType.RESIDENT_ID,
        " 11010519491231002x ",
        ("110105", date(1949, 12, 31), "F"),
    ),
    "Hong Kong resident": (DocumentType.RESIDENCE_PERMIT, "810000199408230021", ("810000", date(1994, 8, 23), "F")),
    "Taiwan resident": (DocumentType.RESIDENCE_PERMIT, "830000199201300022", ("830000", date(1992, 1, 30), "F")),
    "Hong Kong permit": (DocumentType.HK_MACAO_PERMIT, "H12345678", ("HKG", None, None)),
    "Macao permit, renewed": (DocumentType.HK_MACAO_PERMIT, "m1234567801", ("MAC", None, None)),
    "Taiwan permit": (DocumentType.TAIWAN_PERMIT, "12345678", ("TWN", None, None)),
    "Taiwan permit, older": (DocumentType.TAIWAN_PERMIT, "1234567801", ("TWN", None, None)),
    "foreign resident, older": (
        DocumentType.FOREIGN_PERMANENT_RESIDENCE,
        "CAN110078121001",
        ("CAN", date(1978, 12, 10), None),
    ),
    "ICAO 9303's own": (PASSPORT, "L898902C36UTO7408122F1204159ZE184226B<<<<<10", ("UTO", date(1974, 8, 12), "F")),
}


@pytest.mark.parametrize("what", EXAMPLES)
def test_published_examples_are_read(what: str) -> None:
    kind, number, expected = EXAMPLES[what]
    document = read_document(kind, number, TODAY)
    assert (document.issuer, document.birth_date, document.sex) == expected
    assert document.number == number.strip().upper() or kind is PASSPORT


def test_the_passport_of_the_standard_in_full() -> None:
    line = "L898902C36UTO7408122F1204159ZE184226B<<<<<10"
    assert read_document(PASSPORT, line, TODAY) == IdentityDocument(
        type=PASSPORT,
        number="L898902C3",
        key="UTO:L898902C3",
        issuer="UTO",
        birth_date=date(1974, 8, 12),
        sex="F",
        expires=date(2012, 4, 15),
    )


def test_the_standards_own_credit_code() -> None:
    assert read_credit_code(" 91350100m000100y43 ") == "91350100M000100Y43"


# --- One digit off, and two swapped ----------------------------------------------------------------------------------


@given(CHECKED, st.integers(0, 17), st.sampled_from(digits + "X"))
def test_one_digit_off_is_refused(document: tuple[DocumentType, str], at: int, other: str) -> None:
    """The most common slip of the hand; MOD 11-2 sees every one of them."""
    kind, number = document
    assert refusal(kind, number) is None
    assume(number[at] != other)
    assert refusal(kind, one_off(number, at, other)) is not None


@given(CHECKED, st.integers(0, 16))
def test_two_digits_swapped_are_refused(document: tuple[DocumentType, str], at: int) -> None:
    """The second most common; MOD 11-2 sees every one of them too."""
    kind, number = document
    assume(number[at] != number[at + 1])
    assert refusal(kind, swapped(number, at)) is not None


_COVERED: Final = [*range(9), 9, *range(13, 20), *range(21, 44)]
"""What of a passport's line a check digit covers: all but nationality and sex."""


@given(MRZ, st.sampled_from(_COVERED), st.sampled_from(digits))
def test_a_passport_with_one_digit_off_is_refused(line: str, at: int, other: str) -> None:
    assert refusal(PASSPORT, line) is None
    assume(line[at].isdigit() and line[at] != other)
    assert refusal(PASSPORT, one_off(line, at, other)) is not None


@given(MRZ, st.sampled_from([*range(8), *range(13, 18), *range(21, 26)]))
def test_a_passport_with_two_digits_swapped_is_refused(line: str, at: int) -> None:
    """ICAO 9303 sees all but digits five apart, which weigh the same; a letter counts as its value mod 10."""
    first, second = line[at], line[at + 1]
    assume(first.isdigit() and second.isdigit() and (int(first) - int(second)) % 5)
    assert refusal(PASSPORT, swapped(line, at)) is not None


@given(CREDIT_CODE, st.integers(0, 17), st.sampled_from("0123456789ABCDEFGHJKLMNPQRTUWXY"))
def test_a_credit_code_with_one_character_off_is_refused_or_in_doubt(code: str, at: int, other: str) -> None:
    """A slip must not pass unseen, nor a company be turned away that trades under such a code."""
    assert (read_credit_code(code), doubt_credit_code(code)) == (code, None)
    assume(code[at] != other)
    assert code_refused(off := one_off(code, at, other)) or doubt_credit_code(off) is Doubt.CHECK_CHARACTER


@given(CREDIT_CODE, st.integers(0, 16))
def test_a_credit_code_with_two_characters_swapped_is_refused_or_in_doubt(code: str, at: int) -> None:
    assume(code[at] != code[at + 1])
    assert code_refused(off := swapped(code, at)) or doubt_credit_code(off) is Doubt.CHECK_CHARACTER


@pytest.mark.parametrize("kind", [kind for kind, _ in FREE])
@given(st.data())
def test_a_travel_permit_one_digit_off_is_another_document(kind: DocumentType, data: st.DataObject) -> None:
    """It cannot be told from a right one; at least it is never the same document, with the same quota."""
    number = data.draw(dict(FREE)[kind])
    at = data.draw(st.integers(1, 7))
    other = one_off(number, at, data.draw(st.sampled_from(digits.replace(number[at], ""))))
    assert refusal(kind, number) is refusal(kind, other) is None
    assert read_document(kind, number, TODAY).key != read_document(kind, other, TODAY).key


@pytest.mark.parametrize("kind", [kind for kind, _ in FREE])
def test_a_renewed_travel_permit_is_the_same_document(kind: DocumentType) -> None:
    """Else a renewal would bring three new changes a year."""
    base = {DocumentType.HK_MACAO_PERMIT: "H12345678", DocumentType.TAIWAN_PERMIT: "12345678"}[kind]
    keys = {read_document(kind, base + renewal, TODAY).key for renewal in ("", "01", "02")}
    assert keys == {document_key(kind, base)}


# --- Dates -----------------------------------------------------------------------------------------------------------

DATED: Final[Sequence[tuple[DocumentType, Callable[[date], str]]]] = [
    (DocumentType.RESIDENT_ID, lambda born: made.make_resident_id("440305", born, 123)),
    (DocumentType.RESIDENCE_PERMIT, lambda born: made.make_resident_id("830000", born, 123)),
    (DocumentType.FOREIGN_PERMANENT_RESIDENCE, lambda born: made.make_foreign_residence("44", "276", born, 123)),
]


@pytest.mark.parametrize(("kind", "make"), DATED, ids=[kind.value for kind, _ in DATED])
@given(st.dates(date(2000, 1, 1), date(2098, 1, 1)), st.integers(1, 400))
def test_nobody_is_born_after_today(kind: DocumentType, make: Callable[[date], str], today: date, ahead: int) -> None:
    """Born today is the last; the check character of the others is right, so nothing else would stop them."""
    assert refusal(kind, make(today), today) is None
    assert refusal(kind, make(today + timedelta(days=ahead)), today) == "the birth date lies in the future"


@pytest.mark.parametrize(("kind", "make"), DATED, ids=[kind.value for kind, _ in DATED])
def test_born_in_2099_or_before_anyone_alive_is_refused(kind: DocumentType, make: Callable[[date], str]) -> None:
    assert refusal(kind, make(date(2099, 5, 17))) == "the birth date lies in the future"
    assert refusal(kind, make(date(1899, 12, 31))) == "the birth date does not exist"


@pytest.mark.parametrize("born", ["20230229", "19000229", "20240230", "20231301", "20230001", "20230100"])
@pytest.mark.parametrize(
    ("kind", "head"),
    [
        (DocumentType.RESIDENT_ID, "440305"),
        (DocumentType.RESIDENCE_PERMIT, "810000"),
        (DocumentType.FOREIGN_PERMANENT_RESIDENCE, "944276"),
    ],
)
def test_days_that_never_were_are_refused(kind: DocumentType, head: str, born: str) -> None:
    body = f"{head}{born}123"
    assert refusal(kind, body + made.mod11_2_check(body)) == "the birth date does not exist"


@pytest.mark.parametrize("born", [date(2024, 2, 29), date(2000, 2, 29), date(1904, 2, 29)])
def test_born_on_a_leap_day(born: date) -> None:
    for kind, make in DATED:
        assert read_document(kind, make(born), TODAY).birth_date == born


@given(st.dates(date(2000, 1, 2), date(2090, 1, 1)), st.integers(1, 365))
def test_two_digits_of_a_year_never_mean_the_future(today: date, ahead: int) -> None:
    """A passport and the older residence card carry two: the latest such day that is not ahead."""
    born = today + timedelta(days=ahead)
    assume((born.month, born.day) != (2, 29))
    line = made.make_passport("E1234567", "DEU", born, "F", date(2030, 1, 1))
    assert read_document(PASSPORT, line, today).birth_date == born.replace(year=born.year - 100)
    older = f"DEU4403{born:%y%m%d}01"
    found = read_document(DocumentType.FOREIGN_PERMANENT_RESIDENCE, older, today)
    assert found.birth_date == born.replace(year=born.year - 100)


def test_a_leap_day_of_two_digits_that_one_century_lacks() -> None:
    """1900 was no leap year, 2000 was."""
    line = made.make_passport("E1234567", "DEU", date(2000, 2, 29), "M", date(2030, 1, 1))
    assert read_document(PASSPORT, line, TODAY).birth_date == date(2000, 2, 29)
    assert refusal(PASSPORT, line, date(1999, 6, 1)) == "the birth date does not exist"


# --- Whose document is whose -----------------------------------------------------------------------------------------


@given(CHECKED)
def test_a_number_is_of_one_type_alone(document: tuple[DocumentType, str]) -> None:
    """A number that two types took would be two documents, each with three changes of its own."""
    kind, number = document
    accepted = {other for other in DocumentType if refusal(other, number) is None}
    assert accepted == {kind}


@pytest.mark.parametrize("region", ["990000", "000000", "820100", "810101", "910000"])
def test_a_resident_number_of_no_prefecture_is_refused(region: str) -> None:
    assert refusal(DocumentType.RESIDENT_ID, made.make_resident_id(region, date(1990, 5, 17), 123)) is not None
    assert refusal(DocumentType.RESIDENCE_PERMIT, made.make_resident_id(region, date(1990, 5, 17), 123)) is not None


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        (DocumentType.HK_MACAO_PERMIT, "X12345678"),
        (DocumentType.HK_MACAO_PERMIT, "H1234567"),
        (DocumentType.HK_MACAO_PERMIT, "H123456789"),
        (DocumentType.HK_MACAO_PERMIT, "H1234567A"),
        (DocumentType.HK_MACAO_PERMIT, "H123456789012"),
        (DocumentType.TAIWAN_PERMIT, "1234567"),
        (DocumentType.TAIWAN_PERMIT, "123456789"),
        (DocumentType.TAIWAN_PERMIT, "1234567A"),
        (DocumentType.TAIWAN_PERMIT, "１２３４５６７８"),
        (DocumentType.RESIDENT_ID, "440305900517123"),
        (DocumentType.RESIDENT_ID, "44030519900517123٣"),
        (DocumentType.FOREIGN_PERMANENT_RESIDENCE, "CA1110078121001"),
        (DocumentType.FOREIGN_PERMANENT_RESIDENCE, "CAN990078121001"),
        (DocumentType.FOREIGN_PERMANENT_RESIDENCE, "CAN110078139901"),
        (PASSPORT, "L898902C36UTO7408122F1204159ZE184226B<<<<<1"),
        (PASSPORT, "<<<<<<<<<0UTO7408122F1204159<<<<<<<<<<<<<<08"),
        (PASSPORT, "E12345678"),
    ],
)
def test_what_looks_almost_right_is_refused(kind: DocumentType, number: str) -> None:
    assert refusal(kind, number) is not None


@given(
    st.sampled_from(DocumentType), st.one_of(st.text(max_size=50), st.from_regex(r"[0-9A-Z<]{8,44}", fullmatch=True))
)
def test_whatever_is_typed_is_read_or_refused(kind: DocumentType, text: str) -> None:
    """Never another error: a door that breaks on odd input is one to push against."""
    refusal(kind, text)
    code_refused(text)
    is_card_number(text)


@given(st.text("0123456789", min_size=12, max_size=18), st.integers(0, 18), st.integers(1, 9))
def test_a_card_number_with_one_wrong_digit_is_in_doubt(body: str, place: int, shift: int) -> None:
    """A mistyped card must not pass unseen; that some banks' cards follow no standard is no reason to refuse them."""
    number = body + luhn_check(body)
    assert is_card_number(number)
    assert doubt_card_number(number) is None
    place %= len(number)
    wrong = number[:place] + str((int(number[place]) + shift) % 10) + number[place + 1 :]
    assert is_card_number(wrong)
    assert doubt_card_number(wrong) is Doubt.CHECK_CHARACTER


def test_a_known_card_number_is_accepted_and_other_digits_are_not() -> None:
    """Digits of other scripts look like digits to Python."""
    assert is_card_number("4111111111111111")
    assert doubt_card_number("4111111111111111") is None
    assert not is_card_number("411111111111111١")
    assert not is_card_number("41111111111")


# --- What was issued although it departs from its standard ------------------------------------------------------------

FORMER: Final = ["349001", "369001", "517000", "619001", "510229", "132201", "440321", "110104", "442229"]
"""Regions that were: cities under a province for a few years, prefectures dissolved, counties renumbered."""


@pytest.mark.parametrize("region", FORMER)
@given(BORN, ORDER)
def test_a_region_that_once_was_is_a_region(region: str, born: date, order: int) -> None:
    """Whoever got the number there keeps it for life, and must be able to take the name back."""
    number = made.make_resident_id(region, born, order)
    document = read_document(DocumentType.RESIDENT_ID, number, TODAY)
    assert (document.issuer, document.birth_date, document.doubt) == (region, born, None)


@given(st.sampled_from(["11", "34", "36", "51", "61", "65"]), st.integers(0, 9999), BORN, ORDER)
def test_any_region_of_a_province_is_read_and_an_unlisted_one_in_doubt(
    province: str, rest: int, born: date, order: int
) -> None:
    """Counties are newer than any list, and police gave numbers under codes that no list held."""
    region = f"{province}{rest:04d}"
    document = read_document(DocumentType.RESIDENT_ID, made.make_resident_id(region, born, order), TODAY)
    assert document.doubt is (None if regions.is_listed(region) else Doubt.REGION_UNLISTED)
    assert read_credit_code(code := make_credit_code("91", region, "MA123456")) == code
    listed = any(regions.is_listed(f"{region[:4]}{county:02d}") for county in range(100))
    assert doubt_credit_code(code) is (None if listed else Doubt.REGION_UNLISTED)


def test_the_list_of_regions_is_whole() -> None:
    """A list cut short would put millions in doubt."""
    assert sum(regions.is_listed(f"{code:06d}") for code in range(100_000, 830_000)) == 6805
    tens = {1: "12345", 2: "123", 3: "1234567", 4: "123456", 5: "01234", 6: "12345", 7: "1"}
    expected = {f"{ten}{one}" for ten, ones in tens.items() for one in ones}
    assert {f"{code}" for code in range(10, 100) if regions.is_province(f"{code}0000")} == expected


def test_a_company_registered_with_a_wrong_check_character_is_read() -> None:
    """It trades under that code; its people administer it all the same."""
    assert read_credit_code("91350203M0001FUE2P") == "91350203M0001FUE2P"
    assert doubt_credit_code("91350203M0001FUE2P") is Doubt.CHECK_CHARACTER
    assert doubt_credit_code("91350100M000100Y43") is None


def test_a_card_without_a_luhn_digit_is_a_card() -> None:
    """Debit cards of some banks never had one."""
    assert is_card_number("6214830000000000001")
    assert doubt_card_number("6214830000000000001") is Doubt.CHECK_CHARACTER


def passport_born(digits: str) -> str:
    """A passport's line with these six characters for the birth date."""
    line = made.make_passport("E1234567", "DEU", date(1985, 3, 9), "F", date(2030, 1, 1))
    line = line[:13] + digits + made.mrz_check(digits) + line[20:43]
    return line + made.mrz_check(line[:10] + line[13:20] + line[21:43])


PARTIAL: Final = {
    "8503<<": ("8503..", date(1985, 3, 31), [date(1985, 3, 1), date(1885, 3, 7)], date(1985, 4, 1)),
    "850300": ("8503..", date(1985, 3, 31), [date(1985, 3, 31)], date(1985, 2, 28)),
    "85<<<<": ("85....", date(1985, 12, 31), [date(1985, 1, 1)], date(1986, 1, 1)),
    "85<<09": ("85..09", date(1985, 12, 9), [date(1985, 5, 9)], date(1985, 5, 8)),
    "2402<<": ("2402..", date(2024, 2, 29), [date(1924, 2, 29)], date(2024, 3, 1)),
    "2611<<": ("2611..", TODAY, [date(2026, 11, 1), date(1926, 11, 30)], date(2026, 12, 1)),
    "<<0229": ("..0229", None, [date(1984, 2, 29)], date(1984, 3, 1)),
    "<<<<<<": ("......", None, [date(1930, 1, 1)], None),
}
"""What a passport may say: what is known of it, the last day that it can mean, days that it can and one it cannot."""


@pytest.mark.parametrize("digits", PARTIAL)
def test_a_birth_date_may_be_partly_unknown(digits: str) -> None:
    """Whoever was never registered at birth has a passport all the same."""
    born_in, latest, fits, other = PARTIAL[digits]
    document = read_document(PASSPORT, passport_born(digits), TODAY)
    assert (document.birth_date, document.born_in, document.doubt) == (None, born_in, Doubt.BIRTH_DATE_PARTIAL)
    assert latest_birth(born_in, TODAY) == latest
    assert all(may_be_born(document, day) for day in fits)
    assert other is None or not may_be_born(document, other)


@pytest.mark.parametrize("digits", ["8513<<", "850230", "85<<32", "<<0230", "<<1300"])
def test_a_birth_date_that_no_day_fits_is_refused(digits: str) -> None:
    """What is unknown excuses nothing that is known and wrong."""
    assert refusal(PASSPORT, passport_born(digits)) == "the birth date does not exist"


@given(BORN)
def test_the_century_of_a_short_year_is_that_of_the_birth_date(born: date) -> None:
    """A person born in 1920 is not six years old, and needs no guardian."""
    line = made.make_passport("E1234567", "DEU", born, "F", date(2030, 1, 1))
    assert read_document(PASSPORT, line, TODAY, born).birth_date == born
    older = f"DEU4403{born:%y%m%d}01"
    assert read_document(DocumentType.FOREIGN_PERMANENT_RESIDENCE, older, TODAY, born).birth_date == born


@given(BORN, st.dates(date(1800, 1, 1), date(2200, 1, 1)))
def test_a_birth_date_said_does_not_overrule_the_document(born: date, said: date) -> None:
    """The hint chooses between centuries and nothing else."""
    line = made.make_passport("E1234567", "DEU", born, "F", date(2030, 1, 1))
    read = read_document(PASSPORT, line, TODAY, said).birth_date
    assert read is not None
    assert f"{read:%m%d}" == f"{born:%m%d}"
    assert (read.year - born.year) % 100 == 0
    assert read <= TODAY


@given(st.dates(date(1970, 1, 1), date(2046, 12, 31)))
def test_a_passport_expires_within_its_time(until: date) -> None:
    """One of 1998 that stands in somebody's history does not run until 2098."""
    line = made.make_passport("E1234567", "DEU", date(1960, 1, 1), "F", until)
    assert read_document(PASSPORT, line, TODAY).expires == until


def test_a_passport_may_leave_its_expiry_open() -> None:
    line = made.make_passport("E1234567", "DEU", date(1985, 3, 9), "F", date(2030, 1, 1))
    line = line[:21] + "<<<<<<0" + line[28:43]
    line += made.mrz_check(line[:10] + line[13:20] + line[21:43])
    assert read_document(PASSPORT, line, TODAY).expires is None
