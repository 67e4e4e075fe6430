"""Runs are named by what tells them apart, and those alike but for their seeds belong together."""

from __future__ import annotations

from pathlib import Path

import pytest

import paretobit as pb
from paretobit.errors import BadInput
from paretobit.report.runs import CURVES, Run, Runs, flat, read_curves
from paretobit.training.history import Epoch
from paretobit.training.state import TrainingFolder


def study_of(layers: pb.Study, **facts: object) -> pb.Study:
    study = pb.Study()
    study.begin({**layers.facts, **facts}, layers.trials[:4])
    return study


def of_sampler(layers: pb.Study, sampler: str, seed: int, **facts: object) -> Run:
    said = study_of(layers, strategy={"name": "optuna", "sampler": sampler}, seed=seed, **facts)
    return Run(f"{sampler}-{seed}", said)


def test_seeds_of_one_sampler_are_one_group_named_by_it(layers: pb.Study) -> None:
    runs = Runs([of_sampler(layers, sampler, seed) for sampler in ("tpe", "random") for seed in (0, 1, 2)])
    assert {label: [run.name for run in group] for label, group in runs.groups.items()} == {
        "tpe": ["tpe-0", "tpe-1", "tpe-2"],
        "random": ["random-0", "random-1", "random-2"],
    }


def test_settings_that_differ_are_part_of_the_name(layers: pb.Study) -> None:
    orders = ("nested", "shuffled")
    runs = Runs([Run(o, study_of(layers, strategy={"name": "brute_force", "order": o})) for o in orders])
    assert list(runs.groups) == ["brute_force, order = nested", "brute_force, order = shuffled"]


def test_runs_of_one_strategy_are_named_by_their_formats(layers: pb.Study, families: pb.Study) -> None:
    objectives = layers.facts["objectives"]
    other = pb.Study()
    other.begin({**families.facts, "objectives": objectives}, families.trials)
    names = list(Runs([Run("a", layers), Run("b", other)]).groups)
    assert names == ["integer", "float + integer + log + mixed"]


def test_folders_name_what_nothing_else_tells_apart(layers: pb.Study) -> None:
    spaces = [{**layers.facts["space"], "tree": str(i)} for i in range(2)]
    runs = [
        Run(f"{name}-{seed}", study_of(layers, space=s, seed=seed))
        for name, s in zip("ab", spaces, strict=True)
        for seed in (0, 1)
    ]
    assert list(Runs(runs).groups) == ["a", "b"]


def test_one_seed_on_two_models_is_no_repetition(layers: pb.Study) -> None:
    prints = [{"model": str(i), "data": "d"} for i in range(2)]
    runs = Runs([of_sampler(layers, "tpe", 0, fingerprints=p) for p in prints])
    assert len(runs.groups) == 2
    assert not runs.measured_alike
    other_seeds = Runs([of_sampler(layers, "tpe", i, fingerprints=p) for i, p in enumerate(prints)])
    assert len(other_seeds.groups) == 1, "a seed also trains another model"
    assert other_seeds.measured_alike


def test_learning_curves_are_read_as_they_were_written(tmp_path: Path) -> None:
    epochs = [Epoch(1, 2.5, 0.25, None, None, 1e-3, 0.125, True), Epoch(2, 0.1, None, 0.2, 1.0, 1e-4, 3.0, False)]
    TrainingFolder(tmp_path).write_curves(epochs)
    assert list(read_curves(tmp_path / CURVES)) == epochs
    (tmp_path / CURVES).write_text("number,loss\n1,x\n")
    with pytest.raises(BadInput, match="not the learning curves"):
        read_curves(tmp_path / CURVES)


def test_trainings_are_named_by_the_settings_that_differ() -> None:
    epoch = Epoch(1, 2.5, 0.25, 2.0, 0.3, 1e-3, 0.125, True)
    settings = [{"train.batch_size": b, "train.learning_rate": 0.1, "seed": s} for b in (32, 64) for s in (0, 1)]
    runs = Runs([Run(str(i), None, (epoch,), one) for i, one in enumerate(settings)])
    assert {label: len(group) for label, group in runs.groups.items()} == {"batch_size = 32": 2, "batch_size = 64": 2}


def test_a_search_and_a_training_have_nothing_in_common(layers: pb.Study) -> None:
    with pytest.raises(BadInput, match="no figure in common"):
        Runs([Run("a", layers), Run("b", None, (Epoch(1, 1, 1, 1, 1, 1, 1, True),))])


def test_a_nested_table_is_flattened() -> None:
    assert flat({"a": {"b": {"c": 1}}, "d": []}) == {"a.b.c": 1, "d": []}
