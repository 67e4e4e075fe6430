"""The docs say what the code does."""

from __future__ import annotations

import re
import runpy
import tomllib
from pathlib import Path

from paretobit.document import Document
from paretobit.passes.transform import PASSES
from paretobit.spaces import SPACES
from paretobit.workflow.settings import Settings
from paretobit.workflow.setup import assemble

ROOT = Path(__file__).parents[2]


def test_the_reference_page_is_what_the_registries_say() -> None:
    generated = runpy.run_path(str(ROOT / "docs/generate.py"))["reference"]()
    assert (ROOT / "docs/reference.md").read_text(encoding="utf-8") == generated, "run `make docs`"


def test_the_files_on_the_configuration_page_are_accepted() -> None:
    page = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    whole, summed, transform, plugged = re.findall(r"^```toml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert Settings.from_document(Document(tomllib.loads(plugged))).plugins == ("mine.py", "package.module")
    assert set(Settings.from_document(Document(tomllib.loads(transform))).passes) <= set(PASSES.names())
    settings = Settings.from_document(Document(tomllib.loads(whole)))
    assert [o.label for o in settings.search.wanted().objectives] == ["accuracy", "bitops", "model_size"]
    objectives = Settings.from_document(Document(tomllib.loads(summed))).search.wanted().objectives
    assert [o.label for o in objectives] == ["1*accuracy + -5e-07*total_bitops"]


def test_the_search_on_the_training_page_can_be_run() -> None:
    page = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    whole, *parts = re.findall(r"^```toml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    document = Document(tomllib.loads(whole))
    search = assemble(Settings.from_document(document), document).session
    assert search.pipeline is not None
    assert search.space.tree.size > 1000
    names = {tomllib.loads(part)["search"]["space"]["name"] for part in parts}
    assert names == {"training", "architecture"} <= set(SPACES.names())


def test_every_example_is_accepted() -> None:
    examples = sorted((ROOT / "examples").glob("*.toml"))
    assert examples
    for example in examples:
        Settings.from_document(Document.read(example)).search.wanted()
