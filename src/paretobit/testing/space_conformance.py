"""The conformance suite of spaces: what every space promises, as a class of tests to inherit."""

import copy
import json
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from paretobit.data.calibration import Calibration
from paretobit.graph import ModelGraph
from paretobit.graph.copies import copy_of
from paretobit.spaces import BoundSpace, Space
from paretobit.spaces.knobs import Config, Knob
from paretobit.testing.inputs import asked_for
from paretobit.trials.steps import TrainingStep


class SpaceConformance:
    """Tests that hold for every space; three fixtures say on which model and rows.

    Example::

        class TestMySpace(SpaceConformance):
            @pytest.fixture
            def space(self):
                return MySpace(seed={"linear": [1, 2]})

            @pytest.fixture
            def graph(self, inputs):
                return paretobit.trace(my_model(), inputs)

            @pytest.fixture
            def inputs(self):
                return torch.randn(8, 6)

    The fixture `calibration` is None; give rows where the space needs some.
    """

    space = asked_for("space", "a space")

    @pytest.fixture
    def calibration(self) -> Calibration | None:
        """Rows for spaces that look at data."""
        return None

    @pytest.fixture
    def bound(self, space: Space, graph: ModelGraph, calibration: Calibration | None) -> BoundSpace:
        """The space over the model."""
        return space.bind(graph, calibration)

    def test_the_tree_has_every_configuration_once(
        self, space: Space, bound: BoundSpace, graph: ModelGraph, calibration: Calibration | None
    ) -> None:
        tree, number = bound.tree, min(bound.tree.size, 500)
        found = [tree.at(i) for i in range(number)]
        assert len(set(found)) == number
        for config in found:
            assert tree.walk(lambda knob, config=config: config[knob.name]) == config  # type: ignore[misc]
        assert space.bind(graph, calibration).tree.fingerprint == tree.fingerprint

    def test_a_configuration_survives_json(self, bound: BoundSpace) -> None:
        for config in self._configs(bound):
            assert bound.tree.check(json.loads(config.to_json())) == Config.from_json(config.to_json()) == config

    def test_what_was_applied_before_leaves_no_trace(self, bound: BoundSpace, graph: ModelGraph, inputs: Any) -> None:
        given = copy.deepcopy(graph.model.state_dict())
        used = bound.prepare()
        for config in [None, *self._configs(bound), None, *reversed(self._configs(bound)), None]:
            _same(_seen(bound, used, config, inputs), _seen(bound, bound.prepare(), config, inputs))
        _same(_outputs(used, inputs), _outputs(copy_of(graph.model).eval(), inputs))
        _same(graph.model.state_dict(), given)

    def test_every_knob_acts(self, bound: BoundSpace, inputs: Any) -> None:
        """A knob changes outputs, formats, zeros, widths or training; what does not is in `dropped`."""
        prepared = bound.prepare()
        for knob in bound.tree.all_knobs():
            rests = [_varied(knob, place, bound) for place in (0, -1)]
            meant = [{_meaning(bound, prepared, config, inputs) for config in rest} for rest in rests]
            assert max(map(len, meant)) > 1, f"the knob '{knob.name}' changes nothing"
        for dropped in bound.dropped:
            assert dropped.knob not in {knob.name for knob in bound.tree.all_knobs()}
            assert dropped.reason

    def test_settings_bring_it_back(
        self, space: Space, bound: BoundSpace, graph: ModelGraph, calibration: Calibration | None
    ) -> None:
        written = json.loads(json.dumps(space.to_settings()))
        back = type(space).from_settings(written)
        assert back.to_settings() == space.to_settings()
        assert back.bind(graph, calibration).tree.fingerprint == bound.tree.fingerprint

    def test_a_configuration_is_spelt_out_without_the_model(self, space: Space, bound: BoundSpace) -> None:
        described = json.loads(json.dumps(bound.describe()))
        configs = self._configs(bound)
        spelt = [json.dumps(space.explain(described, config), default=str) for config in configs]
        assert spelt == [json.dumps(space.explain(bound.describe(), c), default=str) for c in configs]
        assert len(set(spelt)) == len(configs), "two configurations are spelt alike"

    def test_it_travels_to_another_process(self, bound: BoundSpace, inputs: Any) -> None:
        other = pickle.loads(pickle.dumps(bound))
        assert other.tree.fingerprint == bound.tree.fingerprint
        for config in self._configs(bound):
            _same(_seen(other, other.prepare(), config, inputs), _seen(bound, bound.prepare(), config, inputs))

    def _configs(self, bound: BoundSpace) -> list[Config]:
        """Some configurations, the first and the last among them."""
        size = bound.tree.size
        return [bound.tree.at(i) for i in sorted({0, size // 3, size // 2, size - 1})]


def _varied(knob: Knob, place: int, bound: BoundSpace) -> list[Config]:
    """Configurations that differ by one knob, and what it owns; of the others the first or last value."""

    def choose(asked: Knob, value: Any) -> Any:
        owners = [option.value for option in asked.options if _owns(option.knobs, knob.name)]
        return value if asked.name == knob.name else [*owners, asked.values[place]][0]

    return [bound.tree.walk(lambda k, value=value: choose(k, value)) for value in knob.values[:4]]  # type: ignore[misc]


def _owns(knobs: tuple[Knob, ...], name: str) -> bool:
    return any(knob.name == name or any(_owns(o.knobs, name) for o in knob.options) for knob in knobs)


def _meaning(bound: BoundSpace, prepared: nn.Module, config: Config, inputs: Any) -> str:
    """What a configuration is to a search: its costs, its training, and what the model computes."""
    training = [bound.train_settings(step, TrainingStep(), config) for step in ("train", "finetune")]
    costs = bound.formats(config), bound.widths(config), training
    tensors = tree_leaves(_outputs(bound.apply(prepared, config), inputs))
    return repr((costs, [tensor.numpy().tobytes() for tensor in tensors]))


def _outputs(model: nn.Module, inputs: Any) -> Any:
    """What a model computes; noise is the same each time."""
    torch.manual_seed(0)
    with torch.no_grad():
        found = model(**inputs) if isinstance(inputs, dict) else model(inputs)
    return list(found.values()) if hasattr(found, "values") and not isinstance(found, Tensor) else found


def _seen(bound: BoundSpace, prepared: nn.Module, config: Config | None, inputs: Any) -> Any:
    model = bound.apply(prepared, config)
    return [_outputs(model, inputs), copy.deepcopy(model.state_dict())]


def _same(left: Any, right: Any) -> None:
    """Equal to the last bit."""
    pairs = list(zip(tree_leaves(left), tree_leaves(right), strict=True))
    assert pairs
    assert all(torch.equal(a.nan_to_num(17), b.nan_to_num(17)) for a, b in pairs)
