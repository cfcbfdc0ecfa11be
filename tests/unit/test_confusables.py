"""Two names that look alike are one person; two people keep their two names."""

from __future__ import annotations

import unicodedata
from itertools import combinations
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jiebang.model.confusables import looks_alike, skeleton
from jiebang.model.errors import NameUnusableError
from jiebang.usecases.policy.lifecycle import normalize_name
from tests.examples import examples

ALIKE: Final = [
    ("Ann", "Аnn"),  # Cyrillic A
    ("Ann", "Αnn"),  # Greek Alpha
    ("Ann", "ann"),
    ("Ann", "Ａｎｎ"),
    ("Ann", "Ánn"),
    ("Ann", "A n-n"),
    ("Ann", "A\u200bnn"),
    ("Ann", "𝐀𝖓𝓷"),
    ("Ann", "Ⓐⓝⓝ"),
    ("HENRY", "НЕΝRΥ"),
    ("henry", "һеոгу"),
    ("Ivan", "lvan"),
    ("Ivan", "1van"),
    ("Ivan", "Іvаn"),
    ("Bob", "B0b"),
    ("Tom", "Torn"),
    ("Wei", "VVei"),
    ("scope", "ѕсоре"),
    ("Łukasz", "Lukasz"),
    ("Jürgen", "Jurgen"),
    ("Æsa", "Aesa"),
    ("ΗΛΙΑΣ", "ηλιας"),  # the same letters in another case, which look like other Latin ones
    ("O'Neil", "O’Neil"),
    ("张 三", "张三"),
    ("⽇明", "日明"),  # a Kangxi radical
    ("日明", "曰明"),
    ("工口", "エロ"),
    ("神", "神"),  # a compatibility ideograph
]
APART: Final = ["Ann", "Ben", "Hanna", "Nanna", "Mary", "张三", "李四", "張三", "王五", "Иван", "Κώστας", "op1", "op2"]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_a_look_alike_is_the_same_person(one: str, other: str) -> None:
    """One letter of another alphabet let one person propose and approve."""
    assert looks_alike(one, other)
    assert looks_alike(other, one)


def test_people_with_different_names_are_different() -> None:
    """Whoever is taken for somebody else cannot approve anything."""
    assert [pair for pair in combinations(APART, 2) if looks_alike(*pair)] == []


@pytest.mark.parametrize("name", ["jiebang", "JIEBANG", "jіebаng", "ji ebang", "j1ebang"])
def test_nobody_passes_for_the_installation(name: str) -> None:
    """Its name stands for what nobody had to approve."""
    with pytest.raises(NameUnusableError):
        normalize_name(name)


@examples(300)
@given(st.text(max_size=20))
def test_every_name_is_like_itself_in_every_form(name: str) -> None:
    """Whatever Unicode does to a name on its way, the person stays one."""
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert looks_alike(name, unicodedata.normalize(form, name))
    assert looks_alike(name, name.upper())
    assert looks_alike(name, name.casefold())
    assert skeleton(skeleton(name)) == skeleton(name)
