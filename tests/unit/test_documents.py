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
from jiebang.policy.documents import (
    DocumentType,
    IdentityDocument,
    document_key,
    is_card_number,
    read_credit_code,
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
    made.make_credit_code,
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
def test_a_credit_code_with_one_character_off_is_refused(code: str, at: int, other: str) -> None:
    assert read_credit_code(code) == code
    assume(code[at] != other)
    assert code_refused(one_off(code, at, other))


@given(CREDIT_CODE, st.integers(0, 16))
def test_a_credit_code_with_two_characters_swapped_is_refused(code: str, at: int) -> None:
    assume(code[at] != code[at + 1])
    assert code_refused(swapped(code, at))


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
def test_a_card_number_with_one_wrong_digit_is_refused(body: str, place: int, shift: int) -> None:
    """A mistyped card must not be bound."""
    number = body + made.luhn_check(body)
    assert made.is_card_number(number)
    place %= len(number)
    wrong = number[:place] + str((int(number[place]) + shift) % 10) + number[place + 1 :]
    assert not made.is_card_number(wrong)


def test_a_known_card_number_is_accepted_and_other_digits_are_not() -> None:
    """Digits of other scripts look like digits to Python."""
    assert made.is_card_number("4111111111111111")
    assert not made.is_card_number("411111111111111١")
