"""A comparison as a picture, a table and words."""

import xml.etree.ElementTree as ET

import pytest

from paretobit.comparing.comparison import RANDOM, SHUFFLED, Comparison, entry_of
from paretobit.comparing.replay import Play
from paretobit.comparing.yardstick import Yardstick
from paretobit.report.comparison import comparison_page, comparison_picture, comparison_table, reading
from paretobit.report.figures import drawn, save
from paretobit.wanted.metric import Metric
from paretobit.wanted.objectives import Objective

METRICS = {
    "accuracy": Metric("accuracy", "maximize", "share of rows"),
    "bitops": Metric("bitops", "minimize", "bit operations", cheap=True),
}
ACCURACY, BITOPS = Objective.of("accuracy", "maximize"), Objective.of("bitops", "minimize")
REGRET = Yardstick([ACCURACY], [(-0.9,), (-0.2,)], METRICS, samples=400)
FRONT = Yardstick([ACCURACY, BITOPS], [(-0.9, 50.0), (-0.2, 1.0), (-0.8, 10.0), (-0.2, 50.0)], METRICS)
SEEDS = 8


def played(*points, ended=None, evidence=0.0):
    return Play(points, (), len(points), 0, 0, ended, 0.002 * len(points), evidence)


def of_accuracies(label, *curves, **more):
    return entry_of(label, [played(*((-a,) for a in curve), **more) for curve in curves], REGRET, 4)


def regret(*others, left_out=None):
    random = of_accuracies(RANDOM, *[[0.2, 0.5, 0.6, 0.7]] * SEEDS)
    shuffled = of_accuracies(SHUFFLED, *[[0.5, 0.5, 0.6, 0.7]] * SEEDS)
    entries = (random, shuffled, *others)
    return Comparison(
        "digits", ("maximize accuracy",), ("bitops <= 9",), 60, True, REGRET, tuple(range(SEEDS)), 4,
        REGRET.near, False, entries, left_out or {},
    )  # fmt: skip


GOOD = of_accuracies("good", *[[0.2, 0.9, 0.9, 0.9]] * SEEDS, evidence=3.0)
BAD = of_accuracies("bad", *[[0.2, 0.2, 0.2, 0.2 + i / 1000] for i in range(SEEDS)], ended="it gave up")


def test_the_table_starts_with_the_best_and_compares_each_with_random():
    rows = comparison_table(regret(BAD, GOOD))
    assert [row["strategy"] for row in rows] == ["good", RANDOM, SHUFFLED, "bad"]
    best, random, *_, worst = rows
    assert best["regret at 4"] == "0.000"
    assert worst["regret at 4"] == "0.697 (0.695 to 0.698)"  # .9 - .2035, quartiles of 0 … 7 thousandths
    assert best["evaluations to within 0.03"] == "2"
    assert worst["evaluations to within 0.03"] == "never"
    assert (best["seeds that came so close"], worst["seeds that came so close"]) == ("8 of 8", "0 of 8")
    assert best["evidence, in evaluations"] == "3"
    assert best["ms per proposal"] == "2"
    assert best["against random at 4"] == "8 better, 0 equal, 0 worse; p .008"  # 2 / 2^8
    assert random["against random at 4"] == "-"


def test_the_reading_names_who_beats_random_who_does_not_and_who_cannot_be_told_from_it():
    said = reading(regret(GOOD, BAD))
    assert "After 4 evaluations good has the best median regret: 0.000; random has 0.200." in said
    assert "Better than random, seed by seed: good." in said
    assert "Worse than random: bad." in said
    assert "Not to be told from random with 8 seeds: shuffled brute force." in said
    assert said.endswith("By more than the noise of the validation rows (0.030): good, bad.")


def test_differences_within_the_noise_of_the_rows_are_called_so():
    near = of_accuracies("near", *[[0.2, 0.5, 0.6, 0.72]] * SEEDS)
    said = reading(regret(near))
    assert "Better than random, seed by seed: near." in said
    assert said.endswith("By more than the noise of the validation rows (0.030): none.")


def test_the_page_says_what_was_compared_and_what_was_left_out():
    page = comparison_page(regret(BAD, left_out={"cmaes": "takes one objective"}), "picture.png")
    assert page.startswith("## digits: maximize accuracy subject to bitops <= 9\n")
    assert "60 configurations; 8 seeds; 4 unique expensive evaluations" in page
    assert "Differences below 0.030 are noise of the validation rows." in page
    assert "![regret of each strategy](picture.png)" in page
    assert "- bad ended early in 8 of 8 seeds: it gave up." in page
    assert "- Left out: cmaes: takes one objective." in page
    assert "- random does the same in every seed: read its row as one run." in page
    assert "- bad does the same" not in page


def test_a_line_ends_where_its_strategy_did() -> None:
    short = entry_of("short", [played((-0.5,), (-0.9,), ended="it gave up")] * SEEDS, REGRET, 4)
    (axes,) = drawn(comparison_picture(regret(short))).axes
    assert [len(line.get_xdata()) for line in axes.lines] == [4, 4, 2]


def front(labels):
    entries = []
    for i, label in enumerate(labels):
        points = [(-0.2 - 0.1 * min(i, 6), 10.0), None, (-0.8, 10.0), (-0.9, 50.0)]
        entries.append(entry_of(label, [played(*points)] * 3, FRONT, 4))
    objectives = ("maximize accuracy", "minimize bitops")
    return Comparison("d", objectives, (), 60, True, FRONT, (0, 1, 2), 4, 0.01, False, tuple(entries))


def test_few_strategies_share_their_axes():
    figure = drawn(comparison_picture(front([RANDOM, SHUFFLED, "tpe"])))
    (axes,) = figure.axes
    assert axes.get_xlabel() == "unique expensive evaluations"
    assert axes.get_ylabel() == "share of the best hypervolume"
    assert len(axes.lines) == 3
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == 3
    assert [list(line.get_ydata()) for line in axes.lines] == [
        pytest.approx([band[1] for band in entry.bands]) for entry in front([RANDOM, SHUFFLED, "tpe"]).entries
    ]


def test_many_strategies_have_axes_of_their_own_beside_random():
    figure = drawn(comparison_picture(front([RANDOM, SHUFFLED, *"abcde"])))
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown] == [SHUFFLED, *"abcde"]
    for axes in shown:
        random, own = axes.lines
        assert random.get_linestyle() != own.get_linestyle()


def test_regret_is_drawn_on_a_logarithmic_axis_that_still_shows_zero():
    figure = drawn(comparison_picture(regret(GOOD)))
    (axes,) = figure.axes
    assert axes.get_yscale() == "symlog"
    low, high = axes.get_ylim()
    assert low < 0 < 0.7 < high
    assert axes.get_ylabel() == "regret [accuracy]"
    noise = [patch for patch in axes.patches if "noise" in patch.get_label()]
    assert noise[0].get_extents().transformed(axes.transData.inverted()).y1 == pytest.approx(REGRET.noise)


def test_the_scale_of_a_cost_is_stated():
    page = comparison_page(front([RANDOM, SHUFFLED]), "p.png")
    assert "On a logarithmic scale: minimize bitops." in page


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_pictures_are_written_in_both_formats(tmp_path, kind):
    path = tmp_path / f"picture.{kind}"
    save(comparison_picture(regret(GOOD)), path)
    if kind == "svg":
        assert ET.parse(path).getroot().tag.endswith("svg")
    else:
        assert path.read_bytes().startswith(b"\x89PNG")
