"""A key means layers, or it is refused with the names that would have done."""

import pytest
import torch
from torch import nn

from paretobit.errors import BadInput
from paretobit.graph import trace
from paretobit.models import MODELS
from paretobit.passes import select


@pytest.fixture(scope="module")
def graph():
    return trace(MODELS["jsc-custom"].build((16,), 5), torch.zeros(2, 16))


def chosen(graph, by, key):
    return [node.owner.removeprefix("seq_blocks.") for node in select(graph, by, key)]


@pytest.mark.parametrize("key", ["linear", "Linear", "LINEAR"])
def test_a_type_is_an_operation_or_a_class_in_any_case(graph, key):
    assert chosen(graph, "type", key) == ["2", "6", "10"]


@pytest.mark.parametrize("key", ["batch_norm1d", "BatchNorm1d", "batchnorm1d", "BATCH_NORM1D"])
def test_underscores_do_not_matter_either(graph, key):
    assert chosen(graph, "type", key) == ["0", "3", "7", "11"]


@pytest.mark.parametrize("key", ["relu", "ReLU", "RELU", "Relu"])
def test_relu_is_found_however_it_is_written(graph, key):
    assert chosen(graph, "type", key) == ["1", "4", "8", "12"]


@pytest.mark.parametrize("key", ["seq_blocks_2", "seq_blocks.2"])
def test_a_name_is_a_nodes_or_a_dotted_path(graph, key):
    assert chosen(graph, "name", key) == ["2"]


@pytest.mark.parametrize(
    ("pattern", "layers"),
    [
        (r"seq_blocks_[26]", ["2", "6"]),
        (r"seq_blocks\.1.", ["10", "11", "12"]),
        (r".*2", ["2", "12"]),
        (r"seq_blocks_1", ["1"]),
    ],
)
def test_a_pattern_matches_a_whole_name_or_path(graph, pattern, layers):
    assert chosen(graph, "regex", pattern) == layers


def test_layers_come_in_order_of_execution_and_once():
    relu = nn.ReLU()
    graph = trace(nn.Sequential(nn.Linear(2, 2), relu, nn.Linear(2, 2), relu), torch.zeros(1, 2))
    assert [node.name for node in select(graph, "regex", ".*")] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("by", "key", "message"),
    [
        ("type", "lineer", r"this type: found 'lineer'; allowed: batch_norm1d, dropout, linear, relu.*'linear'\?"),
        ("type", "conv2d", r"this type: found 'conv2d'"),
        ("type", "output", r"this type"),
        ("name", "seq_block_2", r"this name: found 'seq_block_2'.*did you mean 'seq_blocks_\d+'"),
        ("name", "x", r"this name"),
        ("regex", "blocks", r"this pattern: found 'blocks'; allowed: seq_blocks_0, seq_blocks_1"),
        ("regex", "seq_(", r"not a regular expression: .*found 'seq_\('"),
        ("typ", "linear", r"unknown way to choose layers \(by\): found 'typ'.*did you mean 'type'"),
    ],
)
def test_what_chooses_nothing_is_refused(graph, by, key, message):
    with pytest.raises(BadInput, match=message):
        select(graph, by, key)


def called(x):
    y = torch.relu(x) + 1
    return torch.relu(y).flatten(1)


class Functions(nn.Module):
    """Functions beside a layer of the same operation."""

    def __init__(self):
        super().__init__()
        self.act = nn.ReLU()

    def forward(self, x):
        return self.act(called(x))


@pytest.mark.parametrize(
    ("by", "key", "sites"),
    [
        ("type", "relu", ["relu", "relu_1", "act"]),
        ("type", "ReLU", ["relu", "relu_1", "act"]),
        ("type", "add", ["add"]),
        ("name", "relu_1", ["relu_1"]),
        ("regex", "relu.*|act", ["relu", "relu_1", "act"]),
    ],
)
def test_functions_that_count_as_layers_are_meant_in_order_of_execution(by, key, sites):
    graph = trace(Functions(), torch.zeros(2, 3))
    assert [node.site or node.owner for node in select(graph, by, key, {"relu", "add"})] == sites
    if key != "add":
        assert "act" not in sites or [n.owner for n in select(graph, by, key)] == ["act"]


def test_a_function_that_does_not_count_is_refused_by_name():
    graph = trace(Functions(), torch.zeros(2, 3))
    with pytest.raises(BadInput, match="'flatten' is the function flatten, which cannot be quantised"):
        select(graph, "name", "flatten", {"relu"})
    with pytest.raises(BadInput, match="this name: found 'relu_1'; allowed: act"):
        select(graph, "name", "relu_1")
    with pytest.raises(BadInput, match="this type: found 'relu_1'"):  # a name is no type
        select(graph, "type", "relu_1", {"relu"})
