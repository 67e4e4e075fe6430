"""Strategies are compared on equal terms, on a table or live, and what cannot take part is said."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path

import pytest
from torch import nn

from paretobit.comparing.comparison import RANDOM, SHUFFLED
from paretobit.comparing.replay import Play, play
from paretobit.comparing.table import Table, rank
from paretobit.document import Document
from paretobit.errors import BadInput
from paretobit.strategies.brute_force import BruteForce, BruteForceSettings
from paretobit.wanted.wanted import Wanted
from paretobit.workflow.compare import asked_of, compare_live, compare_on_table, write_comparisons
from paretobit.workflow.contestants import Asking, parse_spec
from paretobit.workflow.enumeration import enumerate_space
from paretobit.workflow.run_folder import RunFolder
from paretobit.workflow.settings import Settings

TABLES = Path(__file__).parents[2] / "examples/tables"
SEARCH = """
model = "jsc-three-linear"
data = "digits"
[train]
max_epochs = 3
learning_rate = 1e-2
[search]
maximize = "accuracy"
minimize = "bitops"
[search.space]
by = "type"
[search.space.seed.linear]
data_in_width = [3, 4, 6]
data_in_frac_width = 2
weight_width = 4
weight_frac_width = 3
"""


def settings_of() -> tuple[Settings, Document]:
    document = Document(tomllib.loads(SEARCH))
    return Settings.from_document(document), document


@pytest.fixture(scope="module")
def widths() -> Table:
    """Knobs that are numbers."""
    return Table.open(TABLES / "digits_widths.npz")


@pytest.fixture(scope="module")
def families() -> Table:
    """Knobs that depend on others."""
    return Table.open(TABLES / "digits_families.npz")


def test_random_and_shuffled_brute_force_always_take_part(widths: Table) -> None:
    done = compare_on_table(widths, Asking(["nsgaii"], seeds=2, budget=10))
    assert [entry.label for entry in done.entries] == [RANDOM, SHUFFLED, "nsgaii"]
    again = compare_on_table(widths, Asking(["random", "brute_force"], seeds=2, budget=10))
    assert [entry.label for entry in again.entries] == [RANDOM, SHUFFLED]


def test_by_default_all_samplers_that_can_use_the_space_take_part(families: Table) -> None:
    done = compare_on_table(families, Asking(None, seeds=1, budget=8))
    labels = {entry.label for entry in done.entries}
    assert {RANDOM, SHUFFLED, "tpe", "nsgaii", "nsgaiii", "bruteforce"} <= labels
    assert set(done.left_out) == {"qmc", "cmaes", "gp", "grid"}
    assert "which others are active" in done.left_out["gp"]


def test_curves_are_those_of_the_proposals_on_the_table(widths: Table) -> None:
    wanted = Wanted.of(maximize="accuracy")
    plays: dict[tuple[str, int], Play] = {}
    done = compare_on_table(widths, Asking(["tpe"], seeds=2, budget=15), wanted=wanted, known=plays)
    accuracies = widths.columns["accuracy"]
    for seed in (0, 1):
        found = [accuracies[rank(widths.tree, config)] for config in plays["tpe", seed].configs]
        best = [max(found[: i + 1]) for i in range(15)]
        expected = [accuracies.max() - value for value in best]
        assert done.entry("tpe").curves[seed] == pytest.approx(expected, abs=1e-12)
    p = accuracies.max()
    assert done.yardstick.noise == pytest.approx(2 * math.sqrt(p * (1 - p) / 270))


def test_shuffled_brute_force_of_the_whole_space_reaches_the_whole_front(families: Table) -> None:
    problem = families.problem()
    settings = BruteForceSettings(order="shuffled")
    one = play(
        lambda problem: BruteForce(problem, 0, settings),
        problem,
        lambda config: families.outcome(config, problem),
        len(families),
    )
    stick = compare_on_table(families, Asking([], seeds=1, budget=2)).yardstick
    assert len(set(one.configs)) == len(families) == 4913
    assert stick.curve(one.points)[-1] == pytest.approx(1.0)


@pytest.mark.slow
def test_the_same_question_gives_the_same_answer_in_processes(widths: Table) -> None:
    alone = compare_on_table(widths, Asking(["tpe"], seeds=2, budget=8))
    several = compare_on_table(widths, Asking(["tpe"], seeds=2, budget=8, workers=2))
    assert [entry.curves for entry in alone.entries] == [entry.curves for entry in several.entries]


def test_plays_that_are_known_are_not_made_again(widths: Table) -> None:
    plays: dict[tuple[str, int], Play] = {}
    told: list[str] = []
    first = compare_on_table(widths, Asking(["tpe"], seeds=2, budget=8), known=plays)
    del plays["tpe", 1]
    again = compare_on_table(
        widths, Asking(["tpe"], seeds=2, budget=8), known=plays, on_play=lambda label, *_: told.append(label)
    )
    assert told == ["tpe"]
    assert [entry.curves for entry in first.entries] == [entry.curves for entry in again.entries]


def test_a_replay_needs_no_model(widths: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a model was made")

    monkeypatch.setattr(nn.Module, "__init__", refuse)
    done = compare_on_table(widths, Asking(["tpe", "nsgaii"], seeds=1, budget=5))
    assert len(done.entries) == 4


def test_the_bound_of_a_constraint_is_kept(widths: Table) -> None:
    wanted = Wanted.of(maximize="accuracy", subject_to="bitops <= 20000")
    plays: dict[tuple[str, int], Play] = {}
    done = compare_on_table(widths, Asking(["tpe"], seeds=1, budget=10), wanted=wanted, known=plays)
    costs = widths.columns["total_bitops"]
    assert done.yardstick.optimum == -widths.columns["accuracy"][costs <= 20000].max()
    for one in plays.values():
        assert all(costs[rank(widths.tree, config)] <= 20000 for config in one.configs)
    assert plays["random", 0].rejected > 0


def test_a_strategy_that_needs_evidence_is_refused_where_there_is_none(widths: Table) -> None:
    bare = Table(
        widths.tree,
        widths.states,
        widths.columns,
        {**widths.about, "evidence": None, "evidence_absent": "there were no calibration rows"},
    )
    with pytest.raises(BadInput, match=r"'guided' needs evidence.*there were no calibration rows"):
        compare_on_table(bare, Asking(["guided"], seeds=1, budget=5))
    left_out = compare_on_table(bare, Asking(["tpe"], seeds=1, budget=5)).left_out
    assert left_out == {}  # it was not asked for


def test_guided_is_replayed_from_the_evidence_of_the_table(widths: Table) -> None:
    done = compare_on_table(widths, Asking(["guided"], seeds=1, budget=20))
    guided = done.entry("guided")
    assert guided.evidence > 0
    assert guided.curves[0][-1] > done.entry(RANDOM).curves[0][-1]


@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        ("tpi", "unknown strategy.*did you mean 'tpe'"),
        ("tpe:seed", "not a setting"),
        ("tpe:trials=0", "not a number of trials"),
        ("tpe:n_startup=3", "has no such setting"),
        ("brute_force:order=random", "not one of the choices"),
        ("cmaes", "takes one objective"),
    ],
)
def test_a_strategy_that_cannot_take_part_is_refused_by_name(widths: Table, strategy: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        compare_on_table(widths, Asking([strategy], seeds=1, budget=5))


def test_settings_follow_the_name() -> None:
    assert parse_spec("brute_force:order=nested") == (
        "brute_force:order=nested",
        {"name": "brute_force", "order": "nested"},
        None,
    )
    assert parse_spec("tpe:multivariate=false:n_startup_trials=5")[1] == {
        "name": "tpe",
        "sampler_settings": {"multivariate": False, "n_startup_trials": 5},
    }


def test_a_strategy_may_stop_sooner_than_the_others_and_it_is_said(widths: Table) -> None:
    done = compare_on_table(widths, Asking(["tpe:trials=4", "tpe"], seeds=2, budget=9))
    short, whole = done.entry("tpe:trials=4"), done.entry("tpe")
    assert short.ended == "2 of 2 seeds: stopped after 4 evaluations, as it was asked to"
    assert whole.ended is None
    for less, more in zip(short.curves, whole.curves, strict=True):
        assert less == (*more[:4], *[more[3]] * 5)


@pytest.mark.parametrize("change", [{"seeds": 0}, {"budget": 0}, {"workers": 0}, {"within": -1.0}])
def test_nonsense_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(BadInput):
        Asking(**change)  # type: ignore[arg-type]


def test_another_question_replaces_the_tables_own(tmp_path: Path, widths: Table) -> None:
    path = TABLES / "digits_widths.npz"
    _, name, wanted = asked_of(path)
    assert (name, wanted) == ("digits_widths", None)
    _, _, wanted = asked_of(path, subject_to=["bitops <= 9 and loss < 1"])
    assert wanted is not None
    assert [o.label for o in wanted.objectives] == ["accuracy", "total_bitops"]
    assert len(wanted.constraints) == 2
    widths.save(tmp_path / "mine" / "table.npz")
    assert asked_of(tmp_path / "mine" / "table.npz")[1] == "mine"
    with pytest.raises(BadInput, match="the table has no such metric"):
        compare_on_table(widths, Asking([], 1, 2), wanted=Wanted.of(minimize="latency"))


def test_a_live_comparison_shows_what_a_replay_of_its_table_shows(tmp_path: Path) -> None:
    table = Table.open(enumerate_space(*settings_of(), RunFolder(tmp_path / "run")))
    asking = Asking(["tpe"], seeds=2, budget=27)
    replayed = compare_on_table(table, asking)
    live = compare_live(*settings_of(), RunFolder(tmp_path / "live"), asking)
    assert live.exact  # shuffled brute force saw all 27
    assert [entry.curves for entry in live.entries] == [entry.curves for entry in replayed.entries]
    assert live.yardstick.noise == replayed.yardstick.noise


def test_where_not_all_is_known_the_best_is_the_best_that_was_found(tmp_path: Path) -> None:
    live = compare_live(*settings_of(), RunFolder(tmp_path / "live"), Asking([], seeds=1, budget=4))
    assert not live.exact
    assert live.size == 27
    assert max(entry.curves[0][-1] for entry in live.entries) <= 1


def test_a_live_comparison_runs_in_one_process(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="runs in one process"):
        compare_live(*settings_of(), RunFolder(tmp_path / "live"), Asking(workers=2))


def test_page_pictures_and_numbers_are_written(tmp_path: Path, widths: Table) -> None:
    done = compare_on_table(widths, Asking([], seeds=1, budget=5), name="digits_widths")
    page, numbers, picture = write_comparisons([done], tmp_path / "out", "svg")
    assert f"]({picture.name})" in page.read_text()
    assert numbers.stat().st_size > 0
    assert picture.suffix == ".svg"
    with pytest.raises(BadInput, match="no such kind of picture"):
        write_comparisons([done], tmp_path, "bmp")


def test_every_committed_table_is_whole_and_small() -> None:
    paths = sorted(TABLES.glob("*.npz"))
    assert [path.stem for path in paths] == ["digits_families", "digits_widths", "pendigits_widths"]
    for path in paths:
        table = Table.open(path)
        assert len(table) >= 4096
        assert path.stat().st_size < 300_000
        assert table.has_evidence
        assert path.with_suffix(".toml").exists()
        assert (table.columns["accuracy"] >= 0).all()
        assert {"test_accuracy", "test_loss"} <= set(table.columns)
    assert len(Table.open(TABLES / "pendigits_widths.npz")) == 10_000
