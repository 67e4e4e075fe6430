"""A cost table gives MACs × cost per MAC; what it does not hold is an error naming op and formats."""

import pytest
import torch
from torch import nn

from paretobit.errors import BadInput
from paretobit.formats import FULL, Integer
from paretobit.graph import trace
from paretobit.passes.analysis import CostTable

GOOD = """op,data_format,weight_format,energy,luts
linear,"integer(width=8, frac_width=4)",integer,0.5,30
linear,integer(width=8*,"integer(width=4*",0.25,20
conv*,*,*,2,1
linear,float,float,4.5,700
"""


@pytest.fixture
def read(tmp_path):
    def read(text=GOOD):
        (tmp_path / "table.csv").write_text(text)
        return CostTable.read(tmp_path / "table.csv")

    return read


@pytest.fixture
def graph():
    layers = nn.Sequential(nn.Conv1d(1, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 5), nn.Linear(5, 2))
    return trace(layers, torch.zeros(3, 1, 4))


def test_costs_are_macs_times_cost_per_mac(read, graph):
    formats = {
        "3": {"data_in": Integer(8, 4), "weight": Integer(6)},
        "4": {"data_in": Integer(8, 2), "weight": Integer(4, 2)},
    }
    conv, linear, last = 2 * 4 * 3, 40, 10
    table = read()
    assert table.total(graph, formats) == {
        "energy": conv * 2 + linear * 0.5 + last * 0.25,
        "luts": conv * 1 + linear * 30 + last * 20,
    }
    assert table.total(graph) == {"energy": conv * 2 + 50 * 4.5, "luts": conv + 50 * 700}


def test_the_first_row_that_fits_counts_and_names_are_whole(read):
    table = read()
    assert table.per_mac("linear", Integer(8, 4), Integer(4))["luts"] == 30
    assert table.per_mac("linear", Integer(8, 2), Integer(4))["luts"] == 20
    with pytest.raises(BadInput):
        table.per_mac("bilinear", Integer(8), Integer(4))


def test_a_pair_that_is_missing_is_an_error_naming_operation_and_formats(read):
    with pytest.raises(
        BadInput,
        match=r"no row for the operation 'linear' on data in 'integer\(width=8.*' and weights in 'float' "
        r"\(.*table.csv\).*allowed: linear, .*conv\*, \*, \*",
    ):
        read().per_mac("linear", Integer(8), FULL)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an empty cost table"),
        (GOOD.splitlines()[0], "an empty cost table"),
        (GOOD.replace("data_format", "data"), r"lacks a column .*table.csv:1.*found .*'data'"),
        (GOOD.replace("energy", "luts"), r"names of their own .*table.csv:1"),
        ("op,data_format,weight_format\nlinear,*,*\n", "names of their own"),
        (GOOD.replace("0.25", "low"), r"not a cost \(.*table.csv:3, energy\): found 'low'"),
        (GOOD.replace("0.25", "-1"), r"not a cost .*found '-1'.*0 or more"),
        (GOOD.replace("0.25", "nan"), "not a cost"),
        (GOOD.replace("*,2,1", "*,2"), r"another length than the header \(.*table.csv:4"),
        (GOOD + '"open', "not CSV text"),
    ],
)
def test_a_bad_table_is_refused(read, text, message):
    with pytest.raises(BadInput, match=message):
        read(text)


def test_a_table_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(BadInput, match="cannot read the cost table: No such file"):
        CostTable.read(tmp_path / "none.csv")
