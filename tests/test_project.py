"""What surrounds the package agrees with it: versions, lowest versions, hooks."""

import itertools
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import paretobit as pb

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOWEST = ROOT / ".ci/lowest.py"


def declared():
    """Every requirement, extras included, but for the project's own extras."""
    texts = itertools.chain(PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    return [r for r in map(Requirement, texts) if r.name != PROJECT["name"]]


def lowest(*arguments):
    return subprocess.run([sys.executable, str(LOWEST), *arguments], capture_output=True, text=True)


def test_the_newest_dated_section_of_the_changelog_is_this_version_below_what_is_to_come():
    heads = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    dated = heads[1:] if heads[0] == "Unreleased" else heads
    assert re.fullmatch(re.escape(pb.__version__) + r" \(\d{4}-\d{2}-\d{2}\)", dated[0])


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert (citation["title"], citation["version"]) == ("ParetoBit", pb.__version__)
    assert citation["license"] == PROJECT["license"]
    assert [author["name"] for author in citation["authors"]] == [a["name"] for a in PROJECT["authors"]]
    dated = f"## {citation['version']} ({citation['date-released']})"
    assert dated in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()


def test_the_lowest_versions_are_those_that_are_declared():
    pinned = [Requirement(line) for line in lowest().stdout.splitlines()]
    bounds = {
        requirement.name: min(s.version for s in requirement.specifier if s.operator == ">=")
        for requirement in declared()
    }
    assert {pin.name: str(pin.specifier) for pin in pinned} == {n: f"=={v}" for n, v in bounds.items()}
    assert {"torch", "pytest", "transformers"} <= bounds.keys()


def test_every_requirement_is_allowed_at_its_lowest_version():
    pinned = {pin.name: next(iter(pin.specifier)).version for pin in map(Requirement, lowest().stdout.split())}
    assert all(requirement.specifier.contains(pinned[requirement.name]) for requirement in declared())


def test_what_ci_installs_is_the_lowest_torch():
    (line,) = [s for s in (ROOT / "constraints.txt").read_text().splitlines() if not s.startswith("#")]
    (torch,) = [requirement for requirement in declared() if requirement.name == "torch"]
    assert Version(line.removeprefix("torch==")) == Version(lowest().stdout.split()[0].removeprefix("torch=="))
    assert torch.specifier.contains(line.removeprefix("torch=="))


def test_a_requirement_without_a_lower_bound_is_refused(tmp_path):
    (tmp_path / "p.toml").write_text('[project]\nname = "p"\ndependencies = ["numpy<3"]\noptional-dependencies = {}\n')
    refused = lowest(str(tmp_path / "p.toml"))
    assert refused.returncode == 1
    assert "no lower bound: numpy<3" in refused.stderr


def test_the_hooks_are_the_linters_of_make_lint_and_come_from_the_same_place():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert repository["repo"] == "local"
    hooks = {hook["id"]: hook["entry"].split() for hook in repository["hooks"]}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipe = re.search(r"^lint:.*\n((?:\t.+\n)+)", makefile, re.MULTILINE)[1]
    commands = [line.replace("$(BIN)", ".venv/bin").removesuffix(" .").split() for line in recipe.splitlines()]
    assert [[word for word in entry if word != "--force-exclude"] for entry in hooks.values()] == commands


def test_there_is_a_floor_for_the_coverage_and_ci_counts_it():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["coverage"]
    assert settings["report"]["fail_under"] >= 80
    assert "make test COVERAGE=--cov" in (ROOT / ".ci/run").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["SECURITY.md", "docs/stability.md"])
def test_pages_give_no_address_that_could_be_wrong(page):
    assert "@" not in re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
