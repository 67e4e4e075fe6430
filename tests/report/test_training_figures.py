"""Pictures of searches that train: stages of the trials, their learning curves, runs laid over each other."""

from __future__ import annotations

import statistics
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

import paretobit as pb
from paretobit.errors import BadInput
from paretobit.report.figures import FIGURES, Asked, drawn
from paretobit.report.runs import Run, Runs

Rows = tuple[Tensor, Tensor]


def search(net: nn.Module, digits: dict[str, Rows], seed: int = 0, epochs: int = 2) -> pb.Study:
    """Trials that are quantised and then trained."""
    entry = {"name": "scaled_integer", "data_in_width": 6, "weight_width": [2, 3, 4]}
    space = pb.Quantize(seed={"linear": entry}, share="type")
    steps = ["quantize", "evaluate", "finetune", "evaluate"]
    pipeline = {"steps": steps, "control": True, "finetune": {"max_epochs": epochs, "batch_size": 100}}
    split = {name: digits[name] for name in ("train", "val")}
    return pb.search(
        net, space=space, **split, maximize="accuracy", pipeline=pipeline, strategy="brute_force", seed=seed
    )


@pytest.fixture(scope="module")
def trained(net: nn.Module, digits: dict[str, Rows]) -> list[pb.Study]:
    return [search(net, digits, seed) for seed in (0, 1, 2)]


def draw(name: str, *studies: pb.Study, **asked: Any) -> tuple[Figure, str]:
    runs = Runs([Run(f"run-{i}", study) for i, study in enumerate(studies)])
    picture = FIGURES[name].picture(runs, Asked(**asked))
    return drawn(picture), picture.reading


def line(axes: Axes, label: str) -> tuple[list[float], list[float]]:
    (found,) = [one for one in axes.get_lines() if str(one.get_label()) == label]
    return list(map(float, found.get_xdata())), list(map(float, found.get_ydata()))


def test_stages_are_lines_over_a_knob_with_the_values_of_their_metrics(trained: list[pb.Study]) -> None:
    figure, reading = draw("stages", trained[0], metric="accuracy", knob="linear.weight_width")
    (axes,) = figure.axes
    for label, metric in {
        "after quantize": "accuracy_after_quantize",
        "at the end": "accuracy",
        "control: trained as long, not compressed": "accuracy_control",
    }.items():
        xs, ys = line(axes, label)
        assert xs == [2, 3, 4]
        assert ys == [t.metrics[metric] for t in sorted(trained[0], key=lambda t: t.config["linear.weight_width"])]
        assert f"{label} {ys[0]:.5g} at 2 and {ys[-1]:.5g} at 4" in reading


def test_runs_that_differ_in_their_seed_are_one_line_of_medians_over_a_knob(trained: list[pb.Study]) -> None:
    figure, _ = draw("knob", *trained, metric="accuracy")
    (axes,) = figure.axes
    (median,) = [one for one in axes.get_lines() if len(one.get_xdata()) == 3]
    by_width = [
        statistics.median(t.metrics["accuracy"] for s in trained for t in s if t.config["linear.weight_width"] == w)
        for w in (2, 3, 4)
    ]
    assert list(map(float, median.get_ydata())) == by_width
    assert len(line(axes, "trials")[0]) == 9


def test_several_runs_have_no_second_knob(trained: list[pb.Study]) -> None:
    with pytest.raises(BadInput, match="a line each"):
        draw("knob", *trained, by="linear.weight_width")


def test_trial_curves_are_the_epochs_of_the_trials(trained: list[pb.Study]) -> None:
    figure, reading = draw("trial_curves", trained[0])
    loss, accuracy = figure.axes
    assert loss.get_ylabel() == "validation loss [nats]"
    for trial in trained[0]:
        width = trial.config["linear.weight_width"]
        label = f"weight width of linear = {width}"
        assert line(loss, label) == ([1, 2], [epoch.val_loss for epoch in trial.curve])
        assert line(accuracy, label)[1] == [epoch.val_accuracy for epoch in trial.curve]
        assert f"{trial.curve[-1].val_accuracy:.5g} with {width}" in reading


def test_runs_that_train_differently_or_other_models_are_no_repetitions(
    trained: list[pb.Study], net: nn.Module, digits: dict[str, Rows]
) -> None:
    longer = Runs([Run("two", trained[0]), Run("one", search(net, digits, 1, epochs=1))])
    assert list(longer.groups) == ["two", "one"]
    named = [
        Run(f"{model}-{seed}", trained[seed], settings={"model.name": model})
        for model in ("small", "large")
        for seed in (0, 1)
    ]
    assert {label: len(group) for label, group in Runs(named).groups.items()} == {"small": 2, "large": 2}
