"""Public case ids: they lead to the case, tell a stranger nothing, and no made-up one is taken for ours."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jiebang.model.ids import KEY_BYTES, CaseIds

IDS = CaseIds(bytes(range(KEY_BYTES)))
OTHERS = CaseIds(bytes(range(1, KEY_BYTES + 1)))
ACCOUNTS = st.integers(1, 2**53 - 1)
NUMBERS = st.integers(1, 2**32 - 1)


@given(ACCOUNTS, NUMBERS)
def test_an_id_leads_back_to_its_case(account_id: int, case_no: int) -> None:
    """A person follows the link of their own case, not another's."""
    public = IDS.encode(account_id, case_no)
    assert IDS.decode(public) == (account_id, case_no)
    assert len(public) == 31
    assert public.startswith("case_")
    assert public == public.lower()
    assert public.isascii()


@given(ACCOUNTS, NUMBERS)
def test_an_id_of_another_installation_is_not_ours(account_id: int, case_no: int) -> None:
    """Ids made under another key must not open a case here."""
    assert IDS.decode(OTHERS.encode(account_id, case_no)) is None


@given(ACCOUNTS, NUMBERS, st.integers(0, 25), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"))
def test_one_letter_changed_is_another_id_or_none(account_id: int, case_no: int, at: int, letter: str) -> None:
    """Guessing from a known id must not reach the neighbour's case, nor the same case by a second name."""
    public = IDS.encode(account_id, case_no)
    body = public[5:]
    forged = "case_" + body[:at] + letter + body[at + 1 :]
    assert (IDS.decode(forged) is None) == (forged != public)


@given(st.text(max_size=40))
def test_any_text_at_all_is_refused_quietly(text: str) -> None:
    """A hostile path parameter must give 404, never a stack trace."""
    assert IDS.decode(text) is None
    assert IDS.decode("case_" + text) is None


@pytest.mark.parametrize(
    "body", ["ß" * 26, "ı" * 26, "0" * 26, "=" * 26, "a" * 25, "a" * 27, "A" * 26, "a" * 25 + "\n", ""]
)
def test_letters_that_are_not_ours_are_refused(body: str) -> None:
    """Letters whose upper case has another length once broke decoders like this one."""
    assert IDS.decode("case_" + body) is None


def test_an_id_shows_neither_account_nor_number() -> None:
    """Two cases of one account must look unrelated to a stranger."""
    first, second = (base64.b32decode(IDS.encode(42, n)[5:].upper() + "======") for n in (1, 2))
    assert sum(a == b for a, b in zip(first, second, strict=True)) < 6
    assert (42).to_bytes(8, "big") not in first


@given(st.integers(1, 2**53 - 1), st.one_of(st.just(0), st.integers(2**32, 2**63)))
def test_a_number_out_of_range_is_not_ours(account_id: int, case_no: int) -> None:
    """The upper 32 bits are what tells our ids from noise; a number that fills them is refused."""
    assert IDS.decode(IDS.encode(account_id, case_no)) is None


@pytest.mark.parametrize("length", [0, 15, 17, 32])
def test_a_key_of_the_wrong_length_is_refused_at_start(length: int) -> None:
    """An operator who cuts the key short must hear of it before any id is given out."""
    with pytest.raises(ValueError, match="16 bytes"):
        CaseIds(bytes(length))
