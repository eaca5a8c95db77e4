"""What is said of every class that Gin can bind: whole, right, and the same in docs/parts.md."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
from conftest import ROOT

from monosem.autoencoders.topk import TopK
from monosem.core.fields import Count, Fraction, Part, PathField, Range
from monosem.datasets.digits import Digits
from monosem.describing.catalog import catalog, describe, find, places
from monosem.describing.docstrings import docstring_of
from monosem.describing.kinds import KINDS, OTHER
from monosem.describing.page import (
    kind_table,
    overview_text,
    part_text,
    renewed,
    tables_of,
)
from monosem.describing.values import kind_of_value
from monosem.learning.objectives import NonNegative
from monosem.specs.errors import SpecError

PARTS = [part for part in catalog() if part.is_own]
PAGE = (ROOT / "docs" / "parts.md").read_text()


@dataclass(frozen=True)
class Vessel(Part):
    """Holds tea.

    From nowhere: this is no field.

        volume = pi r^2 h

    height and radius: in cm;
        both of them.
    """

    height: Count
    radius: Annotated[float, Range(0, 9, open=True)] = 2.0
    shape: Literal["cup", "bowl"] = "cup"


@dataclass(frozen=True)
class Pot(Vessel):
    """Holds more tea.

    spout: which way it points.
    """

    spout: tuple[Fraction, ...] | None = None


# Every class


def test_every_class_says_what_it_is_and_what_each_of_its_fields_is():
    assert len(PARTS) > 190
    for part in PARTS:  # one test, as a test costs more than a class
        assert part.kind is not OTHER, f"describing/kinds.py lacks the base of {part.name}"
        assert part.about[-1:] in (".", ":"), part.name
        assert not [field.name for field in part.fields if not field.about], part.name
        assert (ROOT / "monosem" / part.file).is_file(), part.name


def test_every_kind_has_classes_and_classes_of_one_kind_follow_one_another():
    order = [part.kind for part in PARTS]
    assert list(dict.fromkeys(order)) == list(KINDS)
    assert order == sorted(order, key=KINDS.index)


# Taken from docstrings and annotations


def test_a_docstring_is_taken_apart():
    doc = docstring_of(Vessel)
    assert doc.opening == "Holds tea."
    assert doc.text == "From nowhere: this is no field.\n\n    volume = pi r^2 h"
    assert doc.fields == dict.fromkeys(("height", "radius"), "in cm; both of them.")


def test_fields_of_a_base_class_are_described_by_it():
    about = {field.name: field.about for field in describe(Pot).fields}
    assert about["height"] == "in cm; both of them." and about["spout"] == "which way it points."


def test_what_a_field_takes_and_its_default_are_in_words():
    fields = {field.name: (field.takes, field.default) for field in describe(Pot).fields}
    assert fields == {
        "height": ("whole number, 1 or more", None),
        "radius": ("number, between 0 and 9, 0 excluded", "2.0"),
        "shape": ("'cup' or 'bowl'", "'cup'"),
        "spout": ("tuple of numbers, between 0 and 1 or None", "None"),
    }
    assert kind_of_value(PathField | None) == "path or None"
    assert kind_of_value(tuple[int, str]) == "tuple (whole number; string)"


def test_a_class_is_said_to_go_where_a_field_takes_its_base():
    assert ["Pretrain.objective"] in places([NonNegative], PARTS)
    goes = [place for family in places([TopK], PARTS) for place in family]
    assert {"Matryoshka.sparsity", "SparseAutoencoder.sparsity"} <= set(goes)


def test_fields_that_are_inherited_from_one_class_stand_together():
    families = places([Digits], PARTS)
    assert ["Pretrain.data", "SparseAutoencoder.data"] in families
    (measured,) = (family for family in families if "Curve.data" in family)
    assert {"Adversarial.data", "Shift.data"} <= set(measured)


# By name


def test_a_class_is_found_by_its_name_and_a_kind_by_its_own():
    for typed in ("TopK", "topk", "@TopK()"):
        assert [part.name for part in find(typed, PARTS)] == ["TopK"]
    (part,) = find("MultiTopK.weight", PARTS)
    assert [field.name for field in part.fields] == ["weight"]
    assert {part.name for part in find("attack", PARTS)} == {"FGSM", "PGD"}


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("LabelNoize", "nothing called LabelNoize; did you mean LabelNoise?"),
        ("coruption", "did you mean corruption?"),
        ("xyzzy", "--describe alone lists all"),
        ("TopK.kk", "TopK has no parameter 'kk'"),
    ],
)
def test_an_unknown_name_gives_the_nearest_one(typed, said):
    with pytest.raises(SpecError, match=said.replace("?", r"\?")):
        find(typed, PARTS)


def test_the_text_of_a_class_has_its_fields_ranges_defaults_and_place():
    (part,) = find("BatchTopK", PARTS)
    text = part_text(part, PARTS)
    assert "k: whole number, 1 or more; default 256" in text
    assert "momentum: number, between 0 and 1; default 0.01" in text
    assert "goes into Matryoshka.sparsity, SparseAutoencoder.sparsity, " in text
    assert text.endswith("monosem/autoencoders/topk.py")


def test_the_overview_has_every_class_once_in_a_line():
    lines = overview_text(PARTS).splitlines()
    named = Counter(line.split()[0] for line in lines if line.startswith("  "))
    assert named == Counter(part.name for part in PARTS)
    assert max(map(len, lines)) <= 100


# The page


def test_the_page_has_a_table_of_every_kind_once():
    assert sorted(tables_of(PAGE)) == sorted(kind.name for kind in KINDS)


def test_the_page_is_what_the_command_writes():
    assert renewed(PAGE, PARTS) == PAGE, "python -m monosem.describing writes docs/parts.md anew"


def test_a_cell_of_the_page_holds_no_bar_of_its_own():
    widths = {
        line.replace(r"\|", "").count("|")
        for kind in KINDS
        for line in kind_table(kind.name, PARTS).splitlines()
        if line.startswith("|")
    }
    assert widths == {4}
