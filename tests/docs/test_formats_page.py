"""The page of the number formats: of every one, current, and true."""

from __future__ import annotations

import importlib
import re
import runpy
import tomllib
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

from paretobit.formats import FORMATS, BlockFormat, Integer, MinifloatIEEE, make, parameters_of
from paretobit.passes.layers.entries import slot_formats

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "formats.md").read_text(encoding="utf-8")


@pytest.fixture
def page() -> ModuleType:
    return importlib.import_module("formats_page")


@pytest.fixture
def quality() -> ModuleType:
    return importlib.import_module("signal_to_noise")


def test_every_generated_file_is_what_the_registry_says() -> None:
    files = runpy.run_path(str(DOCS / "generate.py"))["generated"]()
    for path, text in files.items():
        assert (DOCS / path).read_text(encoding="utf-8") == text, f"{path}: run `make docs`"
    there = {f"images/formats/{image.name}" for image in (DOCS / "images/formats").iterdir()}
    assert there == {path for path in files if path.endswith(".svg")}


def test_every_format_has_a_section() -> None:
    sections = re.findall(r"^### (\S+)$", PAGE, re.MULTILINE)
    assert sorted(sections) == sorted(FORMATS.names())


@pytest.mark.parametrize("name", FORMATS.names())
def test_a_section_says_what_there_is_to_know(name: str, page: ModuleType) -> None:
    family = FORMATS[name]
    section = re.search(rf"^### {name}\n(.*?)(?=^##)", PAGE, re.DOTALL | re.MULTILINE)
    assert section is not None
    text = section[1]
    assert family.formula in text
    assert family.source in text
    for parameter in parameters_of(family):
        assert page.meanings(family)[parameter.name], f"no docstring says what '{parameter.name}' means"
        assert f"| `{parameter.name}` |" in text
    for row in re.findall(r"^\|.*\|$", text, re.MULTILINE):
        assert row.count("|") in (3, 4)  # no cell is cut short by a bar of its own


def test_every_example_gives_weights_the_format_of_its_section(page: ModuleType) -> None:
    for entry in FORMATS:
        block = page.toml_example(entry)
        assert f"```toml\n{block}```" in PAGE
        formats = slot_formats(tomllib.loads(block))
        assert {slot: f.name for slot, f in formats.items()} == {"weight": entry.name}


def test_every_block_of_the_page_is_accepted() -> None:
    blocks = re.findall(r"^```toml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 1 + len(FORMATS.names())
    slots = slot_formats(tomllib.loads(blocks[0]))
    assert slots == {"data_in": make("mxfp8_e4m3"), "weight": MinifloatIEEE(8, 4), "bias": Integer(16, 8)}


def test_meanings_are_found_in_the_class_or_in_its_nearest_base(page: ModuleType) -> None:
    assert page.meanings(FORMATS["mxfp4"])["block_size"].endswith("the specification has 32.")
    assert page.meanings(FORMATS["integer"])["width"] == "Bits of an element, 1 … 64."
    assert "no_such" not in page.meanings(FORMATS["integer"])


def test_pictures_are_small_and_well_formed(page: ModuleType) -> None:
    drawn = page.pictures()
    assert {f"{name}.svg" for name in FORMATS.names()} - set(drawn) == {"float.svg"}
    for name, text in drawn.items():
        assert len(text.encode()) < 10_000, name
        root = ElementTree.fromstring(text)
        background = root.find("{http://www.w3.org/2000/svg}rect")
        assert background is not None
        assert background.get("fill") == "white"


def test_the_values_drawn_are_those_of_the_format(page: ModuleType) -> None:
    drawn = {entry.name: page.pictured_values(page.example(entry, page.PICTURED)) for entry in FORMATS}
    assert drawn["integer"] == [code / 4 for code in range(-16, 16)]
    assert [value for value in drawn["fp4_e2m1"] if value >= 0] == [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    assert drawn["binary"] == [-1, 1]
    assert drawn["scaled_integer"] == pytest.approx([code / 15 for code in range(-15, 16)])
    assert max(drawn["block_fp"]) == 15 / 8


def test_the_table_of_equal_bits_has_every_format(quality: ModuleType) -> None:
    assert quality.missing() == set(), "add them to EQUAL_BITS in docs/signal_to_noise.py"


def test_the_bits_are_about_those_of_the_heading(quality: ModuleType) -> None:
    for bits, rows in quality.equal_bits().items():
        low, high = (float(bits.split()[0]), float(bits.split()[-1]))
        assert all(low <= row["bits per element"] <= high + 1 for row in rows)


def test_shared_exponents_of_eight_bits_follow_the_data(quality: ModuleType) -> None:
    block_formats = {e.name for e in FORMATS if issubclass(e.value, BlockFormat)}
    compared = {text.partition("(")[0] for text in quality.SHARED_EXPONENT}
    assert compared == block_formats - {"nvfp4"}  # whose scales are floats
    for row in quality.over_sigma(quality.SHARED_EXPONENT):
        assert float(row["max − min"]) <= 1.0, row
    spread = {row["format"]: float(row["max − min"]) for row in quality.over_sigma(quality.OTHERS)}
    assert spread["`fp8_e4m3`"] > 20
    assert spread["`integer(width=8, frac_width=4)`"] > 20


def test_the_ratio_is_that_of_signal_and_error(quality: ModuleType) -> None:
    x = quality.normal()
    given = x.float().double()
    rounded = (given * 8).round().clamp(-128, 127) / 8
    expected = 10 * ((given**2).mean() / ((rounded - given) ** 2).mean()).log10()
    assert quality.sqnr(Integer(8, 3), x) == pytest.approx(float(expected), abs=1e-6)
