"""Spaces that multiply: `Quantize(...) * Prune(...) * ChannelMultiplier(...)` vary together."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, Field
from torch import nn

from paretobit.data.calibration import Calibration
from paretobit.errors import BadInput, under
from paretobit.graph import ModelGraph
from paretobit.passes.layers.assignment import Assignment
from paretobit.schemas import OpenSchema
from paretobit.spaces.base import SPACES, BoundSpace, Given, Space, Step, Weights, copied
from paretobit.spaces.fitting import Fitting
from paretobit.spaces.knobs import Config, Tree
from paretobit.spaces.networks import IDENTITY, Networks, Placed, layer_knob
from paretobit.training import TrainSettings

_KEPT_SHAPES = 8  # of each configuration up to two: before and after its widths


class ProductSettings(OpenSchema):
    """The keys of a product: the names of its spaces, and a table for each under its name."""

    spaces: list[str] = Field(
        description="names of the spaces, as `name = [...]` gives them too; a table under the name of each"
    )


@SPACES.register("product")
class Product(Space):
    """Several spaces at once: every configuration of one with every configuration of the others.

    Args:
        spaces: What varies; each kind of space once.

    Raises:
        BadInput: Fewer than two spaces, or two of a kind.
    """

    name: ClassVar[str] = "product"
    Settings: ClassVar[type[BaseModel]] = ProductSettings
    step: ClassVar[Step | None] = Step("")  # its parts have their own

    def __init__(self, spaces: Sequence[Space]) -> None:
        parts = [p for space in spaces for p in (space.spaces if isinstance(space, Product) else (space,))]
        self.spaces: tuple[Space, ...] = tuple(sorted(parts, key=lambda p: p.goes_last - p.goes_first))
        names = [space.name for space in self.spaces]
        twice = next((name for name in names if names.count(name) > 1), None)
        if len(names) < 2 or twice is not None:
            raise BadInput("a product has several spaces, each kind once", key="name", found=names)
        first = [space.name for space in self.spaces if space.goes_first]
        if len(first) > 1:
            raise BadInput("only one space makes the models of the others", key="name", found=first)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Product:
        """`spaces`: the names; and a table for each of them."""
        names = settings.get("spaces", [])
        for name in names:
            if name not in SPACES:
                raise BadInput(f"unknown {SPACES.noun}", key="name", found=name, allowed=SPACES.names())
        for key in settings:
            if key != "spaces" and key not in names:
                raise BadInput("unknown key", key=key, found=key, allowed=["name", *names])
        spaces = []
        for name in names:
            with under(name):
                spaces.append(SPACES[name].from_settings(settings.get(name, {})))
        return cls(spaces)

    @property
    def parts(self) -> tuple[Space, ...]:
        return self.spaces

    def to_settings(self) -> dict[str, Any]:
        return {
            "spaces": [space.name for space in self.spaces],
            **{space.name: space.to_settings() for space in self.spaces},
        }

    def bind(self, graph: ModelGraph, calibration: Calibration | None = None) -> BoundProduct:
        return BoundProduct(self, graph, calibration)

    @staticmethod
    def explain(described: Mapping[str, Any], config: Config) -> dict[str, Any]:
        spelt: dict[str, Any] = {}
        for said in _said(described, config):
            for layer, words in said.items():
                merged = spelt.setdefault(layer, {"config": {}})
                merged["config"].update(words["config"])
        return spelt


def _said(described: Mapping[str, Any], config: Config) -> Iterator[dict[str, Any]]:
    """What each space says of a configuration; where layers differ, for the network that it has."""
    for name, part in described["parts"].items():
        yield SPACES[name].explain(part, config)
    for network in described.get("networks", ()):
        if any(all(config[key] == value for key, value in case.items()) for case in network["when"]):
            gone = [layer for layer in network["local"] if config.get(layer_knob(layer)) == IDENTITY]
            filled = Config({k: v for layer in gone for k, v in network["local"][layer].items()} | dict(config))
            for name, part in network["parts"].items():
                said = SPACES[name].explain(part, filled)
                yield {layer: words for layer, words in said.items() if layer not in gone}


class BoundProduct(BoundSpace):
    """A product over one model.

    Spaces that change shapes come first: the others are bound anew to each shape, so that what
    depends on sizes (the accumulator of a bias, masks) fits. The last few shapes are kept.
    """

    name = Product.name

    def __init__(self, space: Product, graph: ModelGraph, calibration: Calibration | None = None) -> None:
        super().__init__(graph)
        self._calibration = calibration
        self._order = [part.name for part in space.spaces]
        self._spaces = {part.name: part for part in space.spaces}
        first = next((part for part in space.spaces if part.goes_first), None)
        self._networks = None if first is None else self._networks_of(first, graph)
        if self._networks is not None:
            self.impossible = self._networks.impossible
        rest = [part for part in space.spaces if part is not first]
        networks = [] if self._networks is None else self._networks.samples()
        self._fitting = {part.name: Fitting(part, networks) for part in rest}
        own = {part.name: self._bind(part, graph) for part in rest}
        self._given = {name: part for name, part in own.items() if part is not None}
        self.has_equals = any(part.has_equals for part in self._given.values())
        shaping = {name for name, part in self._given.items() if part.changes_shapes}
        if len(shaping) > 1:
            raise BadInput("only one space can change widths", key="name", found=sorted(shaping))
        self._widths = next((part for part in rest if part.name in shaping), None)
        self._others = [part for part in rest if part is not self._widths]
        self.changes_shapes = self._networks is not None or self._widths is not None
        self._bound: _PerGraph[dict[str, BoundSpace]] = _PerGraph()
        self._models: _PerGraph[nn.Module] = _PerGraph()
        on_networks: list[tuple[ModelGraph, dict[str, BoundSpace]]] = []
        self.tree = self._make_tree(on_networks)
        self._described_networks = self._described(on_networks)
        varied = [part for _, parts in on_networks for part in parts.values()] or [*self._given.values()]
        self._acts_on = self._local(on_networks[0][1] if on_networks else self._given)
        every = [*varied] if self._networks is None else [self._networks, *varied]
        shapes = {name for part in every if part.changes_shapes for name in part.outer}
        self._outer = tuple(knob.name for knob in self.tree.knobs if knob.name in shapes)
        self.dropped = tuple(dict.fromkeys(dropped for part in every for dropped in part.dropped))
        matched = {name for part in every for name in part.matched}
        self.matched = tuple(node.name for node in graph if node.name in matched)
        self.unmatched = tuple(node.name for node in graph.layers if node.name not in matched)

    def graph(self, config: Config) -> ModelGraph:
        graph = self._graph if self._networks is None else self._networks.graph(config)
        widths = self._width_part(graph)
        return graph if widths is None else widths.graph(config)

    def parts(self, config: Config) -> dict[str, BoundSpace]:
        """The spaces bound to what they work on, in the order of the product.

        A space that is about layers of other networks only is not there.
        """
        found = self._on(config)
        base = self._graph
        if self._networks is not None:
            found = {**found, self._networks.name: self._networks}
            base = self._networks.graph(config)
        widths = self._width_part(base)
        if widths is not None:
            found = {**found, widths.name: widths}
        return {name: found[name] for name in self._order if name in found}

    def fitted(self, space: Space, config: Config) -> Space | None:
        """One of the spaces as it is for the network of a configuration; None where it is about others only."""
        return self._fitting[space.name].on(self.graph(config))

    def train_settings(self, step: str, given: Given, config: Config) -> Given:
        for part in self.parts(config).values():
            given = part.train_settings(step, given, config)
        return given

    def check_steps(self, steps: Mapping[str, TrainSettings]) -> None:
        for part in self.parts(self.tree.at(0)).values():
            part.check_steps(steps)

    def page(self, config: Config, known: Mapping[str, Any]) -> dict[str, Any]:
        page = dict(known)
        for part in self.parts(config).values():
            page = part.page(config, page)
        return page

    def formats(self, config: Config) -> Assignment:
        parts = self._on(config).values()
        return {path: slots for part in parts for path, slots in part.formats(config).items()}

    def network_of(self, config: Config) -> Hashable:
        parts = self._given if self._networks is None else self.parts(config)
        return tuple((name, part.network_of(config)) for name, part in parts.items())

    def widths(self, config: Config) -> Mapping[str, int]:
        widths = self._width_part(self._graph if self._networks is None else self._networks.graph(config))
        return {} if widths is None else widths.widths(config)

    def weights(self, config: Config) -> Weights:
        found = [part.weights(config) for part in self._on(config).values()]
        merged = {name: changed for own in found for name, changed in own.items()}
        twice = len(merged) < sum(map(len, found))  # then the order in which they are applied matters
        return super().weights(config) if twice else merged

    def prunings(self, config: Config) -> Mapping[str, Hashable]:
        parts = self._on(config).values()
        return {path: done for part in parts for path, done in part.prunings(config).items()}

    def acts_on(self) -> Mapping[str, tuple[str, ...]]:
        """Those of every space; none where layers come and go, for then no knob is about one layer of all."""
        return self._acts_on

    @property
    def outer(self) -> tuple[str, ...]:
        return self._outer

    def instrument(self, model: nn.Module) -> None:
        for part in self._given.values():
            part.instrument(model)

    def apply(self, prepared: nn.Module, config: Config | None) -> nn.Module:
        return self._applied(prepared, config, config)

    def plain(self, prepared: nn.Module, config: Config) -> nn.Module:
        return self._applied(prepared, config, None)

    def _applied(self, prepared: nn.Module, shape: Config | None, config: Config | None) -> nn.Module:
        if shape is None:
            parts, model = {n: p for n, p in self._given.items() if not p.changes_shapes}, prepared
        else:
            graph, parts = self.graph(shape), self._on(shape)
            model = prepared if graph is self._graph else self._copy_of(graph, parts)
        for part in parts.values():
            model = part.apply(model, config)
        return model.train(prepared.training)

    def describe(self) -> dict[str, Any]:
        """What each space needs to explain itself; where layers differ, for every set of them."""
        if self._networks is None:
            return {"parts": {name: part.describe() for name, part in self._given.items()}}
        return {"parts": {self._networks.name: self._networks.describe()}, "networks": self._described_networks}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_bound": _PerGraph(), "_models": _PerGraph()}  # known by objects of this process

    def _make_tree(self, on_networks: list[tuple[ModelGraph, dict[str, BoundSpace]]]) -> Tree:
        """The knobs side by side; those of layers that only some networks have hang under what decides.

        Args:
            on_networks: Takes one network with every set of layers, and the other spaces bound to it.
        """
        if self._networks is not None:
            if self._widths is not None and self._networks.leaves_out:
                problem = "widths depend on the layers around them: none may be left out"
                key = f"{self._networks.name}.{self._networks.leaves_out}"
                raise BadInput(problem, key=key, allowed=f"without {self._widths.name}")

            def knobs_on(graph: ModelGraph) -> list[Placed]:
                bound = {name: self._bind(self._spaces[name], graph) for name in self._order[1:]}
                parts = {name: part for name, part in bound.items() if part is not None}
                on_networks.append((graph, parts))
                return self._placed(parts)

            return self._networks.tree_with(knobs_on)
        named = [knob.name for part in self._given.values() for knob in part.tree.all_knobs()]
        twice = next((name for name in named if named.count(name) > 1), None)
        if twice is not None:
            raise BadInput("two spaces have a knob of the same name", key="name", found=twice)
        return Tree(tuple(knob for part in self._given.values() for knob in part.tree.knobs))

    def _described(self, on_networks: list[tuple[ModelGraph, dict[str, BoundSpace]]]) -> list[dict[str, Any]]:
        """What explains the other spaces on each set of layers, and which configurations have it."""
        described: list[dict[str, Any]] = []
        if self._networks is None:
            return described
        for (graph, parts), when in zip(on_networks, self._networks.cases(), strict=True):
            local = self._networks.left_out(graph, self._placed(parts))
            words = {name: part.describe() for name, part in parts.items()}
            described.append({"when": when, "parts": words, "local": local})
        return described

    def _local(self, parts: Mapping[str, BoundSpace]) -> dict[str, tuple[str, ...]]:
        if self._networks is not None and self._networks.layers_vary:
            return {}
        return {knob: paths for part in parts.values() for knob, paths in part.acts_on().items()}

    def _placed(self, parts: Mapping[str, BoundSpace]) -> list[Placed]:
        placed = []
        for part in parts.values():
            acts_on = part.acts_on()
            placed += [(knob, frozenset(acts_on.get(knob.name, ()))) for knob in part.tree.knobs]
        return placed

    def _width_part(self, graph: ModelGraph) -> BoundSpace | None:
        """The space that changes widths, bound to the network that it works on."""
        if self._widths is None:
            return None
        return self._parts_on(graph, [self._widths]).get(self._widths.name)

    def _on(self, config: Config) -> dict[str, BoundSpace]:
        """The spaces that keep shapes, bound to the shape of a configuration."""
        return self._parts_on(self.graph(config), self._others)

    def _parts_on(self, graph: ModelGraph, spaces: Sequence[Space]) -> dict[str, BoundSpace]:
        if graph is self._graph:
            return {space.name: self._given[space.name] for space in spaces if space.name in self._given}
        known = self._bound.of(graph, dict)
        for space in spaces:
            if space.name not in known and (bound := self._bind(space, graph)) is not None:
                known[space.name] = bound
        return {space.name: known[space.name] for space in spaces if space.name in known}

    def _copy_of(self, graph: ModelGraph, parts: Mapping[str, BoundSpace]) -> nn.Module:
        """A private, instrumented model of another shape."""

        def make() -> nn.Module:
            model = copied(graph.model)
            for part in parts.values():
                part.instrument(model)
            return model

        return self._models.of(graph, make)

    def _bind(self, space: Space, graph: ModelGraph) -> BoundSpace | None:
        """A space over one network; None where it is about layers of other networks only."""
        fitting = self._fitting[space.name].on(graph)
        return None if fitting is None else self._bound_to(fitting, graph)

    def _networks_of(self, space: Space, graph: ModelGraph) -> Networks:
        bound = self._bound_to(space, graph)
        assert isinstance(bound, Networks), f"the space '{space.name}' goes first and makes no networks"
        return bound

    def _bound_to(self, space: Space, graph: ModelGraph) -> BoundSpace:
        with under(space.name):
            return space.bind(graph, self._calibration)


T = TypeVar("T")


class _PerGraph(Generic[T]):
    """What was made for the last few graphs."""

    def __init__(self) -> None:
        self._made: OrderedDict[int, tuple[ModelGraph, T]] = OrderedDict()

    def of(self, graph: ModelGraph, make: Callable[[], T]) -> T:
        """What belongs to a graph."""
        if id(graph) not in self._made:
            self._made[id(graph)] = (graph, make())
            if len(self._made) > _KEPT_SHAPES:
                self._made.popitem(last=False)
        return self._made[id(graph)][1]
