"""Documents: what the rest of the system may believe of a number, and what must never get in."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jiebang.model.errors import InvalidInputError
from jiebang.policy import documents
from jiebang.policy.documents import DocumentType, read_document

TODAY = date(2026, 1, 15)
REGIONS = st.sampled_from(["110101", "440305", "330113", "659011", "520102", "310230"])
BIRTHS = st.dates(date(1900, 1, 1), TODAY)
ORDERS = st.integers(0, 999)
MRZ_NUMBERS = st.text("ABCDEFGHJKLMNPRTUVWXYZ0123456789", min_size=6, max_size=9)

checked = st.one_of(
    st.tuples(st.just(DocumentType.RESIDENT_ID), st.builds(documents.make_resident_id, REGIONS, BIRTHS, ORDERS)),
    st.tuples(
        st.just(DocumentType.RESIDENCE_PERMIT),
        st.builds(documents.make_resident_id, st.sampled_from(["810000", "820000", "830000"]), BIRTHS, ORDERS),
    ),
    st.tuples(
        st.just(DocumentType.FOREIGN_PERMANENT_RESIDENCE),
        st.builds(documents.make_foreign_residence, st.just("31"), st.sampled_from(["840", "036"]), BIRTHS, ORDERS),
    ),
)
passports = st.builds(
    documents.make_passport,
    MRZ_NUMBERS,
    st.sampled_from(["GBR", "D", "JPN"]),
    st.dates(TODAY - timedelta(days=36_000), TODAY),
    st.sampled_from("FM<"),
    st.dates(date(2000, 1, 1), date(2040, 12, 31)),
)
permits = st.one_of(
    st.tuples(
        st.just(DocumentType.HK_MACAO_PERMIT),
        st.builds(
            documents.make_hk_macao_permit,
            st.sampled_from("HM"),
            st.integers(0, 99_999_999),
            st.none() | st.integers(0, 99),
        ),
    ),
    st.tuples(
        st.just(DocumentType.TAIWAN_PERMIT),
        st.builds(documents.make_taiwan_permit, st.integers(0, 99_999_999), st.none() | st.integers(0, 99)),
    ),
)


def refused(kind: DocumentType, text: str) -> str:
    with pytest.raises(InvalidInputError) as caught:
        read_document(kind, text, TODAY)
    assert not text or text not in repr(caught.value), "an error would leak a document number into a log"
    assert caught.value.fields["reason"].zh
    return str(caught.value.fields["reason"].en)


@pytest.mark.parametrize(
    ("kind", "text", "born"),
    [
        (DocumentType.RESIDENT_ID, "11010519491231002X", date(1949, 12, 31)),  # the example of GB 11643
        (DocumentType.RESIDENT_ID, "11010519491231002x", date(1949, 12, 31)),
        (DocumentType.PASSPORT, "L898902C36UTO7408122F1204159ZE184226B<<<<<10", date(1974, 8, 12)),  # ICAO 9303-4
        (DocumentType.FOREIGN_PERMANENT_RESIDENCE, "CAN110078091055", date(1978, 9, 10)),  # the older form
        (DocumentType.HK_MACAO_PERMIT, "H12345678", None),
        (DocumentType.TAIWAN_PERMIT, "0012345601", None),
    ],
)
def test_published_examples_are_read(kind: DocumentType, text: str, born: date | None) -> None:
    assert read_document(kind, text, TODAY).birth_date == born


@given(checked)
def test_numbers_that_are_made_are_read_back_with_their_birth_date(made: tuple[DocumentType, str]) -> None:
    kind, number = made
    document = read_document(kind, f" {number.lower()} ", TODAY)
    assert document.number == number
    assert document.birth_date is not None
    assert f"{document.birth_date:%Y%m%d}" == number[6:14]
    assert document.sex == ("M" if int(number[16]) % 2 else "F")


@given(checked, st.integers(0, 17), st.integers(1, 9))
def test_one_wrong_digit_is_refused(made: tuple[DocumentType, str], place: int, shift: int) -> None:
    kind, number = made
    digit = 10 if number[place] == "X" else int(number[place])
    wrong = (digit + shift) % 10
    assume(wrong != digit)
    refused(kind, number[:place] + str(wrong) + number[place + 1 :])


@given(checked, st.integers(0, 16))
def test_two_neighbours_exchanged_are_refused(made: tuple[DocumentType, str], place: int) -> None:
    kind, number = made
    assume(number[place] != number[place + 1])
    refused(kind, number[:place] + number[place + 1] + number[place] + number[place + 2 :])


@given(REGIONS, st.integers(1, 5000), ORDERS)
def test_a_birth_date_in_the_future_is_refused(region: str, ahead: int, order: int) -> None:
    number = documents.make_resident_id(region, TODAY + timedelta(days=ahead), order)
    assert refused(DocumentType.RESIDENT_ID, number) == "the birth date lies in the future"


@given(passports)
def test_passports_are_read_back(line: str) -> None:
    document = read_document(DocumentType.PASSPORT, line, TODAY)
    assert line.startswith(document.number)
    assert document.birth_date is not None
    assert f"{document.birth_date:%y%m%d}" == line[13:19]
    assert document.key == documents.document_key(DocumentType.PASSPORT, line)


@given(passports, st.sampled_from([*range(9), *range(13, 20), *range(21, 28), 43]), st.integers(1, 9))
def test_a_wrong_character_in_a_passport_line_is_refused(line: str, place: int, shift: int) -> None:
    assume(line[place].isdigit())
    wrong = str((int(line[place]) + shift) % 10)
    refused(DocumentType.PASSPORT, line[:place] + wrong + line[place + 1 :])


@given(permits)
def test_permits_are_read_and_renewals_have_the_same_key(made: tuple[DocumentType, str]) -> None:
    kind, number = made
    document = read_document(kind, number, TODAY)
    first = number[: 9 if kind is DocumentType.HK_MACAO_PERMIT else 8]
    assert document.key == read_document(kind, first, TODAY).key == documents.document_key(kind, number)
    refused(kind, number + "1")
    refused(kind, number[:-1] + "A")


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (DocumentType.RESIDENT_ID, ""),
        (DocumentType.RESIDENT_ID, "1" * 5000),
        (DocumentType.RESIDENT_ID, "\uff11\uff11010519491231002X"),  # full-width digits
        (DocumentType.RESIDENT_ID, documents.make_resident_id("810000", date(1990, 1, 1), 1)),
        (DocumentType.RESIDENT_ID, documents.make_resident_id("990101", date(1990, 1, 1), 1)),
        (DocumentType.RESIDENCE_PERMIT, documents.make_resident_id("440305", date(1990, 1, 1), 1)),
        (DocumentType.HK_MACAO_PERMIT, "A12345678"),
        (DocumentType.TAIWAN_PERMIT, "1234567"),
        (DocumentType.FOREIGN_PERMANENT_RESIDENCE, "CAN110078133055"),
        (DocumentType.PASSPORT, "L898902C3"),
        (DocumentType.PASSPORT, "<" * 44),
    ],
)
def test_what_no_issuer_could_have_issued_is_refused(kind: DocumentType, text: str) -> None:
    refused(kind, text)


def test_a_leap_day_that_was_none_is_refused() -> None:
    body = "44030519010229001"
    reason = refused(DocumentType.RESIDENT_ID, body + documents.mod11_2_check(body))
    assert reason == "the birth date does not exist"


@given(st.sampled_from(["91", "92", "52", "N2", "A1"]), REGIONS, st.text("0123456789ABCDEFGH", min_size=8, max_size=8))
def test_credit_codes_are_read_back_and_one_wrong_character_is_refused(
    kind: str, region: str, organisation: str
) -> None:
    code = documents.make_credit_code(kind, region, organisation)
    assert documents.read_credit_code(code.lower()) == code
    wrong = "1" if code[10] != "1" else "2"
    with pytest.raises(InvalidInputError):
        documents.read_credit_code(code[:10] + wrong + code[11:])


@pytest.mark.parametrize("code", ["", "91110000600037341I", "9111000060003734", "Ⅸ1110000600037341L"])
def test_credit_codes_of_no_company_are_refused(code: str) -> None:
    with pytest.raises(InvalidInputError):
        documents.read_credit_code(code)


def test_a_published_credit_code_is_read() -> None:
    assert documents.read_credit_code("91110000600037341L") == "91110000600037341L"


@given(st.text("0123456789", min_size=11, max_size=18), st.integers(0, 17), st.integers(1, 9))
def test_a_card_number_with_one_wrong_digit_is_refused(body: str, place: int, shift: int) -> None:
    number = body + documents.luhn_check(body)
    assert documents.is_card_number(number)
    place %= len(number)
    wrong = number[:place] + str((int(number[place]) + shift) % 10) + number[place + 1 :]
    assert not documents.is_card_number(wrong)


def test_a_known_card_number_is_accepted_and_other_digits_are_not() -> None:
    assert documents.is_card_number("4111111111111111")
    assert not documents.is_card_number("411111111111111١")
