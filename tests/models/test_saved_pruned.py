"""A pruned model comes back from disk as it was, masks and all."""

import pytest
import torch
from torch import nn

from paretobit.graph import trace
from paretobit.models import build, load, load_state, read_state, save, source_of
from paretobit.nn.masks import masks_of, sparsity_of, zeros_in
from paretobit.passes.layers.assignment import assignment_of
from paretobit.passes.transform import (
    ActivationPruning,
    InputPruning,
    PruneSettings,
    QuantizeSettings,
    WeightPruning,
    input_prunings_of,
    prune,
    quantize,
)

X = torch.randn(64, 16)


@pytest.mark.parametrize("quantised", [False, True])
def test_a_pruned_model_comes_back_bit_for_bit_and_stays_pruned(tmp_path, quantised):
    graph = trace(build("jsc-hls4ml", (16,), 5, 3), X[:1])
    if quantised:
        entry = {"weight_width": 6, "data_in_width": 8}
        graph, _ = quantize(graph, QuantizeSettings("type", {"linear": entry}))
    spec = PruneSettings(WeightPruning(sparsity=0.7), ActivationPruning(InputPruning(0.25, "random", seed=2)))
    model = prune(graph, spec)[0].model.eval()
    save(tmp_path, model, source=source_of("jsc-hls4ml", (16,), 5))
    given = build("jsc-hls4ml", (16,), 5, 0)
    for loaded in (load(tmp_path), load(tmp_path, given)):
        assert torch.equal(loaded(X), model(X))
        assert sparsity_of(loaded) == sparsity_of(model)
        assert assignment_of(loaded) == assignment_of(model)
        assert input_prunings_of(loaded) == input_prunings_of(model)
        optimizer = torch.optim.SGD(loaded.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
        for _ in range(2):
            loaded.train()(X).square().sum().backward()
            optimizer.step()
        for path, masks in masks_of(model).items():
            assert zeros_in(loaded.get_submodule(path).weight) == int((~masks["weight"]).sum())
    assert masks_of(given) == {}


def test_a_layer_that_is_the_model_keeps_its_mask(tmp_path):
    model = prune(trace(nn.Linear(16, 4), X[:1]), PruneSettings(WeightPruning(sparsity=0.5)))[0].model
    save(tmp_path, model)
    other = nn.Linear(16, 4)
    load_state(other, read_state(tmp_path), tmp_path)
    assert torch.equal(other.weight, model.weight)
    assert torch.equal(masks_of(other)[""]["weight"], masks_of(model)[""]["weight"])
