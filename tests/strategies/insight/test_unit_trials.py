"""One unit at a time is applied, alone, and nothing of it is left."""

import copy

import pytest
import torch
from torch import nn

import paretobit as pb
from paretobit.data.calibration import Calibration
from paretobit.formats import Integer
from paretobit.nn import formats_of
from paretobit.strategies.insight.groups import PRUNED, Treatments, knob_groups
from paretobit.strategies.insight.unit_trials import UnitTrials

SEED = {"linear": {"data_in_width": [4, 8], "weight_width": [3, 8], "bias_width": 6}}


@pytest.fixture
def bound():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    graph = pb.trace(net, torch.randn(2, 6))
    space = pb.Quantize(seed=SEED) * pb.Prune(by="name", seed={"0": {"sparsity": [0.0, 0.25, 0.75]}})
    return space.bind(graph, Calibration((torch.randn(8, 6),)))


def trials_of(bound, around=None):
    treatments = Treatments(bound, bound.tree.at(0))
    shown = []
    for group in knob_groups(bound):
        own = {}
        for index in range(group.tree.size):
            values = dict(group.tree.at(index))
            for unit in treatments.units(group, values).values():
                own.setdefault(unit, values)
        shown.append(own)
    return UnitTrials(bound, bound.prepare(), treatments, shown, around), shown


@pytest.mark.parametrize("position", [None, 0, -1])
def test_each_unit_is_applied_alone_and_taken_back(bound, position):
    around = None if position is None else bound.tree.at(position % bound.tree.size)
    trials, shown = trials_of(bound, around)
    model = trials.model
    slots, state = formats_of(model), copy.deepcopy(model.state_dict())
    original = bound._graph.model.state_dict()
    for (path, slot, carried), change in trials.changes.items():
        with change.applied():
            now = formats_of(model)
            if slot == PRUNED:
                assert now == slots
                weight = model.get_submodule(path).weight
                assert float((weight == 0).float().mean()) == dict(carried)["sparsity"]
                kept = weight != 0
                assert torch.equal(weight[kept], original[f"{path}.weight"][kept])
            else:
                assert {p: {**s, slot: None} if p == path else s for p, s in now.items()} == {
                    p: {**s, slot: None} if p == path else s for p, s in slots.items()
                }
                assert now[path][slot] == carried
                assert isinstance(carried, Integer)
    assert sorted(map(str, trials.changes)) == sorted(str(unit) for own in shown for unit in own)
    assert formats_of(model) == slots
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_an_interrupted_trial_is_taken_back(bound):
    trials, _ = trials_of(bound)
    slots, state = formats_of(trials.model), copy.deepcopy(trials.model.state_dict())
    for change in trials.changes.values():
        with pytest.raises(KeyboardInterrupt), change.applied():
            raise KeyboardInterrupt
        assert formats_of(trials.model) == slots
        assert all(torch.equal(tensor, state[name]) for name, tensor in trials.model.state_dict().items())
