"""Every picture draws what the study holds: points, lines, axes with units, and words that are computed."""

from __future__ import annotations

import itertools
import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from scipy.stats import rankdata

import paretobit as pb
from paretobit.errors import BadInput
from paretobit.report import draw_best_error, draw_front
from paretobit.report.figures import FIGURES, Asked, Picture, drawn, save
from paretobit.report.figures.style import line, marker, wants_log
from paretobit.report.runs import Run, Runs
from paretobit.training.history import Epoch
from paretobit.wanted.hypervolume import hypervolume

OF_TRAININGS = ("predicted", "learning_curves", "stages", "trial_curves")
"""What a search that trains nothing has no picture of."""


def picture(name: str, *studies: pb.Study, **asked: object) -> Picture:
    runs = Runs([Run(f"run-{i}", study) for i, study in enumerate(studies)])
    return FIGURES[name].picture(runs, Asked(**asked))


def draw(name: str, *studies: pb.Study, **asked: object) -> Figure:
    return drawn(picture(name, *studies, **asked))


def labelled(axes: Axes, label: str) -> tuple[list[float], list[float]]:
    """The points behind a label of the legend."""
    known = {str(drawn_line.get_label()): drawn_line for drawn_line in axes.get_lines()}
    (found,) = [known[label]] if label in known else [known[name] for name in known if name.startswith(label)]
    return list(map(float, found.get_xdata())), list(map(float, found.get_ydata()))


def grey(colour: Any) -> float:
    """Its lightness as ITU-R BT.601 weighs it, in [0, 1]."""
    r, g, b = to_rgb(colour)
    return 0.299 * r + 0.587 * g + 0.114 * b


def legend(figure: Figure) -> list[str]:
    (found,) = figure.legends
    return [text.get_text() for text in found.get_texts()]


def test_every_promised_figure_is_registered_with_a_summary() -> None:
    assert FIGURES.names() == [
        "front",
        "running_best",
        "running_best_by_format",
        "error",
        "hypervolume",
        "bars",
        "knob",
        "stages",
        "heatmap",
        "formats",
        "predicted",
        "learning_curves",
        "trial_curves",
    ]
    assert all(entry.summary.endswith(".") for entry in FIGURES)


def test_the_front_is_drawn_with_dominated_uniform_and_float(layers: pb.Study) -> None:
    figure = draw("front", layers)
    (axes,) = figure.axes
    assert axes.get_xlabel() == "total bitops [bit operations per sample]"
    assert axes.get_ylabel() == "accuracy [share of rows]"
    kept = {t.number for t in layers.front()}
    xs, ys = labelled(axes, "front")
    assert sorted(zip(xs, ys, strict=True)) == sorted(
        (t.metrics["total_bitops"], t.metrics["accuracy"]) for t in layers.front()
    )
    assert len(labelled(axes, "dominated")[0]) == len(layers) - len(kept)
    alike = [
        t
        for t in layers
        if all(t.config[f"0.{key}"] == t.config[f"2.{key}"] for key in ("data_in_width", "weight_width"))
    ]
    assert sorted(labelled(axes, "uniform")[0]) == sorted(t.metrics["total_bitops"] for t in alike)
    assert len(alike) == 6
    assert "float baseline" in " ".join(legend(figure))
    said = picture("front", layers).reading
    assert f"The front has {len(kept)} points" in said
    assert f"{len(layers) - len(kept)} feasible trials besides" in said
    assert "6 trials of uniform configuration" in said


def test_three_objectives_have_a_panel_for_each_cost_and_no_steps_between_projections(three: pb.Study) -> None:
    figure = draw("front", three)
    assert [axes.get_xlabel() for axes in figure.axes] == [
        "total bitops [bit operations per sample]",
        "model size [bytes]",
    ]
    for axes in figure.axes:
        (front,) = [drawn_line for drawn_line in axes.get_lines() if drawn_line.get_label() == "front"]
        assert front.get_linestyle() == "None"
        assert len(front.get_xdata()) == len(three.front())
    assert len(labelled(figure.axes[0], "infeasible")[0]) == three.counts()["infeasible"] > 0


def test_the_running_best_of_one_run_shows_every_trial_and_never_falls(layers: pb.Study) -> None:
    figure = draw("running_best", layers)
    (axes,) = figure.axes
    xs, ys = labelled(axes, "trials")
    assert xs == list(range(36))
    assert ys == [t.metrics["accuracy"] for t in layers]
    assert labelled(axes, "best so far")[1] == list(itertools.accumulate(ys, max))
    assert axes.get_xlabel() == "trial [number]"
    best = max(ys)
    assert f"{best:.5g}, was reached by trial {ys.index(best)} of 36" in picture("running_best", layers).reading


def test_a_metric_that_is_minimised_falls(layers: pb.Study) -> None:
    (axes,) = draw("running_best", layers, metric="loss").axes
    losses = [t.metrics["loss"] for t in layers]
    assert axes.get_ylabel() == "loss [nats]"
    assert labelled(axes, "best so far")[1] == list(itertools.accumulate(losses, min))


def test_each_family_of_formats_has_its_own_running_best(families: pb.Study) -> None:
    figure = draw("running_best_by_format", families)
    (axes,) = figure.axes

    def family(trial: pb.Trial) -> str:
        names = {str(value) for key, value in trial.config.items() if key.endswith(".name")} - {"float"}
        return "mixed" if len(names) > 1 else names.pop() if names else "float"

    found = [family(trial) for trial in families]
    assert set(found) == {"integer", "log", "float", "mixed"} == set(legend(figure)) - {"float baseline"}
    for name in set(found):
        best = -math.inf
        for number, value in enumerate(labelled(axes, name)[1]):
            if found[number] == name:
                best = max(best, families.trials[number].metrics["accuracy"])
            assert value == best if math.isfinite(best) else math.isnan(value)


def test_the_error_is_one_minus_accuracy(layers: pb.Study) -> None:
    figure = draw("error", layers)
    (axes,) = figure.axes
    assert axes.get_ylabel() == "error [1 - accuracy]"
    errors = [1 - t.metrics["accuracy"] for t in layers]
    assert labelled(axes, "trials")[1] == errors
    assert labelled(axes, "best so far")[1] == list(itertools.accumulate(errors, min))
    level = labelled(axes, "float baseline")[1]
    assert level == pytest.approx([1 - layers.baseline["accuracy"]] * 2)


def test_the_hypervolume_is_that_of_the_trials_so_far_and_never_falls(layers: pb.Study) -> None:
    (axes,) = draw("hypervolume", layers).axes
    ys = labelled(axes, "brute_force")[1]
    assert all(a <= b for a, b in itertools.pairwise(ys))
    values = np.array([[-t.metrics["accuracy"], t.metrics["total_bitops"]] for t in layers])
    if wants_log(values[:, 1]):
        values[:, 1] = np.log10(values[:, 1])
    scaled = (values - values.min(0)) / (values.max(0) - values.min(0))
    for n in (1, 7, 36):
        assert ys[n - 1] == pytest.approx(hypervolume(scaled[:n].tolist(), (1, 1)))


def test_the_hypervolume_of_three_objectives_ends_where_all_trials_do(three: pb.Study) -> None:
    (axes,) = draw("hypervolume", three).axes
    ys = labelled(axes, "brute_force")[1]
    names = ("accuracy", "total_bitops", "model_size")
    values = np.array([[t.metrics[name] for name in names] for t in three if t.state == "complete"])
    values[:, 0] *= -1
    assert not wants_log(values[:, 1])
    scaled = (values - values.min(0)) / (values.max(0) - values.min(0))
    assert ys[-1] == pytest.approx(hypervolume(scaled.tolist(), (1, 1, 1)))
    assert len(ys) == len(three)


def test_runs_that_differ_only_in_their_seed_are_one_band(search) -> None:  # type: ignore[no-untyped-def]
    entry = {"data_in_width": [3, 8], "data_in_frac_width": 3, "weight_width": [2, 4, 8], "weight_frac_width": 3}
    studies = [
        search({"name": "integer", **entry}, strategy=strategy, n_trials=n, seed=seed)
        for strategy, n in (("random", 8), ("tpe", 6))
        for seed in (0, 1, 2)
    ]
    figure = draw("running_best", *studies)
    (axes,) = figure.axes
    words = [text for text in legend(figure) if text != "float baseline"]
    assert words == ["random: median and quartiles of 3 runs", "tpe: median and quartiles of 3 runs"]
    assert len(axes.collections) == 2
    ys = labelled(axes, "random")[1]
    runs = [list(itertools.accumulate((t.metrics["accuracy"] for t in s), max)) for s in studies[:3]]
    assert ys == [statistics.median(values) for values in zip(*runs, strict=True)]
    assert len(labelled(axes, "tpe")[1]) == 6
    band = axes.collections[0].get_paths()[0].vertices
    quartiles = [np.quantile([run[-1] for run in runs], q) for q in (0.25, 0.75)]
    assert {float(v) for v in band[:, 1]} >= set(quartiles)


def test_bars_show_every_configuration_of_a_small_space(grid: pb.Study) -> None:
    figure = draw("bars", grid)
    assert len(figure.axes) == 4
    first = figure.axes[0]
    widths = [bar.get_width() for bar in first.patches]
    assert widths == [t.metrics["accuracy"] for t in grid]
    labels = [text.get_text() for text in first.get_yticklabels()]
    assert labels[0] == "0: integer(4, 2), 2"
    assert figure.axes[1].get_xlabel() == "total bitops\n[bit operations per sample]"
    assert "All 12 configurations" in picture("bars", grid).reading


def test_a_metric_is_drawn_against_a_knob_with_a_line_per_value_of_another(grid: pb.Study) -> None:
    figure = draw("knob", grid, metric="bitops", knob="linear.weight_width", by="linear.data_in")
    (axes,) = figure.axes
    assert axes.get_xlabel() == "weight width of linear [bits]"
    assert axes.get_ylabel() == "total bitops [bit operations per sample]"
    assert axes.get_xscale() == axes.get_yscale() == "log"  # 2, 4, 8, 16 bits; a factor of 32 in BitOPs
    label = "data in of linear = integer(8, 4)"
    xs, ys = labelled(axes, label)
    chosen = [t for t in grid if t.config["linear.data_in"] == "integer(width=8, frac_width=4)"]
    assert xs == [2, 4, 8, 16]
    assert ys == [t.metrics["total_bitops"] for t in chosen]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["2", "4", "8", "16"]


def test_an_ending_takes_the_trials_that_give_all_layers_one_value(layers: pb.Study) -> None:
    figure = draw("knob", layers, metric="accuracy", knob="weight_width", by="data_in_width")
    (axes,) = figure.axes
    xs, ys = labelled(axes, "data in width = 8")
    alike = {
        t.config["0.weight_width"]: t.metrics["accuracy"]
        for t in layers
        if t.config["0.weight_width"] == t.config["2.weight_width"]
        and t.config["0.data_in_width"] == t.config["2.data_in_width"] == 8
    }
    assert dict(zip(map(int, xs), ys, strict=True)) == alike
    said = picture("knob", layers, knob="weight_width", by="data_in_width").reading
    assert "over the 6 of 36 feasible trials that give all layers the same value" in said


def test_a_heatmap_has_the_median_of_every_cell_and_a_panel_per_metric(grid: pb.Study) -> None:
    figure = draw("heatmap", grid)
    panels = [axes for axes in figure.axes if axes.images]
    assert len(panels) == 6
    accuracy = panels[0]
    assert accuracy.get_title() == "accuracy\n[share of rows]"
    assert accuracy.get_xlabel() == "data in of linear"
    assert accuracy.get_ylabel() == "weight width of linear [bits]"
    table = np.asarray(accuracy.images[0].get_array())
    assert table.shape == (4, 3)
    for trial in grid:
        column = [4, 8, 16].index(int(trial.config["linear.data_in"].split("=")[1].split(",")[0]))
        row = [2, 4, 8, 16].index(trial.config["linear.weight_width"])
        assert table[row, column] == trial.metrics["accuracy"]
    assert len(accuracy.texts) == 12


def test_cells_of_layers_with_knobs_of_their_own_hold_medians(layers: pb.Study) -> None:
    figure = draw("heatmap", layers, metric="accuracy", knob="0.weight_width", by="2.weight_width")
    table = np.asarray(figure.axes[0].images[0].get_array())
    cell = [t.metrics["accuracy"] for t in layers if (t.config["0.weight_width"], t.config["2.weight_width"]) == (4, 8)]
    assert len(cell) == 4
    assert table[2, 1] == statistics.median(cell)


def test_the_format_map_has_a_cell_for_every_slot_of_every_layer(layers: pb.Study) -> None:
    trial = next(t for t in layers if t.config["0.weight_width"] == 2 and t.config["2.weight_width"] == 8)
    figure = draw("formats", layers, trial=trial.number)
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["0", "2"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["data in", "weight", "bias"]
    bits = np.asarray(axes.images[0].get_array())
    expected = [[trial.config["0.data_in_width"], 2, 32], [trial.config["2.data_in_width"], 8, 32]]
    assert bits.tolist() == expected
    assert axes.texts[1].get_text() == "integer(2, 3)"
    assert "weight takes 2 bits (0) to 8 (2)" in picture("formats", layers, trial=trial.number).reading
    assert f"Trial {layers.best().number} " in picture("formats", layers).reading


def test_predictions_are_drawn_with_their_rank_correlation(single: pb.Study) -> None:
    with pytest.raises(BadInput, match="predicts nothing"):
        picture("predicted", single)
    measured = [t.metrics["loss"] - single.baseline["loss"] for t in single]
    guessed = {str(i): m * (1.5 if i % 3 else -0.2) for i, m in enumerate(measured)}
    single.record(predicted={"metric": "loss", "values": guessed})
    try:
        figure = draw("predicted", single)
        (axes,) = figure.axes
        xs, ys = labelled(axes, "trials")
        assert ys == measured
        assert xs == list(guessed.values())
        rank = np.corrcoef(rankdata(xs), rankdata(ys))[0, 1]  # its definition
        assert f"correlation {rank:.2f}" in legend(figure)[0]
        assert f"is {rank:.2f}" in picture("predicted", single).reading
        assert axes.get_xlabel() == "predicted increase of loss [nats]"
    finally:
        single.record(predicted={})


def trained(name: str, seed: int, size: int, losses: list[float]) -> Run:
    epochs = tuple(
        Epoch(i, loss + 0.1, 0.5, loss, 1 - loss / 4, 1e-3, 0.1, loss == min(losses[:i]))
        for i, loss in enumerate(losses, 1)
    )
    return Run(name, None, epochs, {"train.batch_size": size, "seed": seed})


def test_learning_curves_show_both_splits_and_the_best_epoch() -> None:
    runs = Runs([trained("a", 0, 32, [2.0, 1.0, 1.5])])
    shown = FIGURES["learning_curves"].picture(runs, Asked())
    loss, accuracy = drawn(shown).axes
    assert (loss.get_ylabel(), accuracy.get_ylabel()) == ("loss [nats]", "accuracy [share of rows]")
    assert loss.get_xlabel() == "epoch [number]"
    assert labelled(loss, "validation") == ([1, 2, 3], [2.0, 1.0, 1.5])
    assert labelled(loss, "training")[1] == [2.1, 1.1, 1.6]
    assert labelled(loss, "best epoch")[0] == [2, 2]
    assert shown.reading.startswith("Best of 3 epochs: 2, with loss 1.1 in training, 1 in validation")


def test_learning_curves_of_several_seeds_are_a_band() -> None:
    curves = [[2.0, 1.0], [3.0, 2.0, 0.5], [4.0, 1.6]]
    runs = [trained(f"a-{i}", i, 32, losses) for i, losses in enumerate(curves)]
    figure = drawn(FIGURES["learning_curves"].picture(Runs([*runs, trained("b", 0, 64, [1.0, 0.9])]), Asked()))
    assert legend(figure) == ["batch_size = 32: median and quartiles of 3 runs", "batch_size = 64"]
    assert figure.axes[0].get_ylabel() == "validation loss [nats]"
    assert labelled(figure.axes[0], "batch_size = 32") == ([1, 2], [3.0, 1.6])
    assert len(figure.axes[0].collections) == 1


def test_lines_differ_without_colour() -> None:
    looks = [(str(line(i)["linestyle"]), marker(i)) for i in range(8)]
    assert len(set(looks)) == 8
    assert len({look for look, _ in looks}) == 8, "no two patterns are alike"
    assert len({(line(i)["color"], str(line(i)["linestyle"])) for i in range(64)}) == 64


def test_front_and_dominated_trials_differ_in_lightness(layers: pb.Study) -> None:
    (axes,) = draw("front", layers).axes
    of = {str(mark.get_label()): grey(mark.get_color()) for mark in axes.get_lines()}
    assert abs(of["front"] - of["dominated"]) > 0.25


def test_shades_run_from_dark_to_light_in_grey() -> None:
    from matplotlib import colormaps

    shades = [grey(colour) for colour in colormaps["cividis"](np.linspace(0, 1, 20))]
    assert all(a < b for a, b in itertools.pairwise(shades))


@pytest.mark.parametrize("name", [n for n in FIGURES.names() if n not in OF_TRAININGS])
@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_every_figure_is_a_file_and_the_same_twice(families: pb.Study, tmp_path: Path, name: str, suffix: str) -> None:
    files = [tmp_path / f"{i}.{suffix}" for i in range(2)]
    for file in files:
        save(picture(name, families), file)
    first, second = (file.read_bytes() for file in files)
    assert first.startswith(b"\x89PNG" if suffix == "png" else b"<?xml")
    assert len(first) > 5000
    assert first == second
    assert sorted(p.name for p in tmp_path.iterdir()) == [f.name for f in files], "no temporary file is left"


@pytest.mark.parametrize("name", [n for n in FIGURES.names() if n not in OF_TRAININGS])
def test_the_legend_is_inside_the_picture_and_covers_no_data(families: pb.Study, layers: pb.Study, name: str) -> None:
    for study in (families, layers) if name != "running_best_by_format" else (families,):
        figure = draw(name, study)
        figure.draw_without_rendering()
        for legend_of in figure.legends:
            box = legend_of.get_window_extent()
            assert box.x0 >= 0
            assert box.x1 <= figure.bbox.x1
            assert not any(box.overlaps(axes.get_window_extent()) for axes in figure.axes)


@pytest.mark.parametrize(
    ("name", "asked", "told"),
    [
        ("front", {}, "one objective has no front"),
        ("hypervolume", {}, "one objective has no hypervolume"),
        ("running_best_by_format", {}, "one family of formats: integer"),
        ("error", {"metric": "loss"}, "not a share"),
        ("running_best", {"metric": "los"}, "did you mean 'loss'"),
        ("knob", {"knob": "0.wieght_width"}, "did you mean '0.weight_width'"),
        ("knob", {"knob": "weight_width", "by": "0.width"}, "no such knob"),
        ("formats", {"trial": 20}, "0 to 19"),
        ("learning_curves", {}, "no training is recorded"),
        ("stages", {}, "at the end of the trials alone"),
        ("trial_curves", {}, "no trial of this search trained"),
    ],
)
def test_what_cannot_be_drawn_says_why(single: pb.Study, name: str, asked: dict[str, object], told: str) -> None:
    with pytest.raises(BadInput) as refused:
        picture(name, single, **asked)
    assert told in str(refused.value)


def test_a_figure_of_one_run_refuses_several(layers: pb.Study) -> None:
    with pytest.raises(BadInput, match="of one run, not of 2"):
        picture("front", layers, layers)


def test_runs_with_different_objectives_are_refused(layers: pb.Study, single: pb.Study) -> None:
    with pytest.raises(BadInput, match="different things"):
        Runs([Run("a", layers), Run("b", single)])


def test_the_two_functions_of_the_first_issue_still_draw(layers: pb.Study, single: pb.Study, tmp_path: Path) -> None:
    draw_front(layers, tmp_path / "front.png")
    draw_front(single, tmp_path / "one.svg")
    draw_best_error({"a": layers, "b": single}, tmp_path / "error.png")
    assert len(list(tmp_path.iterdir())) == 3
    with pytest.raises(BadInput, match="png, svg"):
        draw_front(layers, tmp_path / "front.gif")


def test_an_empty_study_has_a_front_picture_without_points(tmp_path: Path, layers: pb.Study) -> None:
    empty = pb.Study()
    empty.begin(dict(layers.facts), [])
    draw_front(empty, tmp_path / "front.png")
    assert (tmp_path / "front.png").stat().st_size > 1000
