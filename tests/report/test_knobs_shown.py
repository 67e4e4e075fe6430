"""Knobs, their endings, and what makes a configuration uniform."""

from __future__ import annotations

import pytest

import paretobit as pb
from paretobit.errors import BadInput
from paretobit.report.families import family_by_trial, layer_cells
from paretobit.report.knob_columns import (
    ABSENT,
    endings,
    knob_named,
    knobs_of,
    short,
    uniform_trials,
    values_of,
    varying,
)


def test_endings_are_what_stands_behind_the_layer(layers: pb.Study) -> None:
    assert endings(layers) == {
        "0.data_in_width": "data_in_width",
        "0.weight_width": "weight_width",
        "2.data_in_width": "data_in_width",
        "2.weight_width": "weight_width",
    }
    assert list(knobs_of(layers))[:2] == ["data_in_width", "weight_width"]
    tied = knob_named(layers, "weight_width")
    assert [tied.value(t) is not ABSENT for t in layers] == [
        t.config["0.weight_width"] == t.config["2.weight_width"] for t in layers
    ]
    assert tied.label == "weight width, the same in all layers [bits]"
    assert knob_named(layers, "0.weight_width").label == "weight width of 0 [bits]"


def test_uniform_trials_are_those_that_treat_all_layers_alike(layers: pb.Study, grid: pb.Study) -> None:
    alike = [
        t.number
        for t in layers
        if len({(t.config[f"{i}.data_in_width"], t.config[f"{i}.weight_width"]) for i in (0, 2)}) == 1
    ]
    assert [t.number for t in uniform_trials(layers, layers.trials)] == alike
    assert len(alike) == 6
    assert uniform_trials(grid, grid.trials) == [], "one knob for all layers: every trial would be"


def test_formats_of_a_choice_count_as_uniform_only_with_their_parameters(families: pb.Study) -> None:
    for trial in uniform_trials(families, families.trials):
        by_layer = [{k.partition(".")[2]: v for k, v in trial.config.items() if k.startswith(f"{i}.")} for i in (0, 2)]
        assert by_layer[0] == by_layer[1]
    assert len(uniform_trials(families, families.trials)) == 5  # integer 4 and 8, log 4 and 8, float


def test_values_come_in_the_order_a_reader_expects(grid: pb.Study) -> None:
    data = knob_named(grid, "linear.data_in")
    assert [short(v) for v in values_of(data, grid.trials)] == ["integer(4, 2)", "integer(8, 4)", "integer(16, 8)"]
    assert values_of(knob_named(grid, "weight_width"), grid.trials) == [2, 4, 8, 16]
    assert {knob.name for knob in varying(grid, grid.trials)} == {"linear.data_in", "linear.weight_width"}


def test_an_unknown_knob_is_refused_with_those_there_are(layers: pb.Study) -> None:
    with pytest.raises(BadInput, match="did you mean 'weight_width'"):
        knob_named(layers, "weigth_width")


def test_the_formats_of_a_layer_are_those_of_the_explanation(families: pb.Study) -> None:
    from paretobit.report import explain

    for trial in families:
        for layer, cells in layer_cells(families, trial.config).items():
            said = explain(families, trial)[layer]["config"]
            if said["name"] == "NA":
                assert {cell.text for cell in cells.values()} == {"float"}
            else:
                assert cells["weight"].bits == said["weight_width"]
                assert cells["weight"].text.startswith(said["name"])
                assert cells["bias"].text == "float"


def test_the_family_of_a_trial_is_what_its_layers_share(families: pb.Study) -> None:
    found = family_by_trial(families)
    for trial, family in zip(families, found, strict=True):
        names = {v for k, v in trial.config.items() if k.endswith("name")} - {"float"}
        assert family == ("mixed" if len(names) > 1 else (names or {"float"}).pop())


def test_sparsity_and_width_stand_beside_the_formats(net, digits) -> None:  # type: ignore[no-untyped-def]
    entry = {"data_in_width": 8, "data_in_frac_width": 4, "weight_width": [4, 8], "weight_frac_width": 3}
    quantize = pb.Quantize(seed={"linear": {"name": "integer", **entry}})
    space = quantize * pb.Prune(seed={"default": {"sparsity": [0.0, 0.5]}})
    study = pb.search(net, val=digits["val"], space=space, maximize="accuracy", n_trials=3, strategy="random")
    for trial in study:
        cells = layer_cells(study, trial.config)
        assert cells["0"]["sparsity"].text == str(trial.config["0.sparsity"])
        assert cells["0"]["weight"].bits == trial.config["0.weight_width"]
    assert {cell.text for cells in layer_cells(study, None).values() for cell in cells.values()} == {"float"}
