"""Spaces that multiply: `Quantize(...) * Prune(...) * ChannelMultiplier(...)` vary together."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar

from torch import nn

from paretobit.errors import BadInput
from paretobit.graph import ModelGraph
from paretobit.passes.transform import Assignment
from paretobit.search.evidence.calibration import Calibration
from paretobit.search.knobs import Config, Tree
from paretobit.search.spaces.base import SPACES, BoundSpace, Space

_KEPT_SHAPES = 4


@SPACES.register("product")
class Product(Space):
    """Several spaces at once: every configuration of one with every configuration of the others.

    Args:
        spaces: What varies; each kind of space once.

    Raises:
        BadInput: Fewer than two spaces, or two of a kind.
    """

    name: ClassVar[str] = "product"

    def __init__(self, spaces: Sequence[Space]) -> None:
        parts = [p for space in spaces for p in (space.spaces if isinstance(space, Product) else (space,))]
        self.spaces: tuple[Space, ...] = tuple(sorted(parts, key=lambda part: part.goes_last))
        names = [space.name for space in self.spaces]
        twice = next((name for name in names if names.count(name) > 1), None)
        if len(names) < 2 or twice is not None:
            raise BadInput("a product has several spaces, each kind once", key="name", found=names)

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
            try:
                spaces.append(SPACES[name].from_settings(settings.get(name, {})))
            except BadInput as error:
                raise error.under(name) from None
        return cls(spaces)

    def to_settings(self) -> dict[str, Any]:
        """The names, and a table for each."""
        return {
            "spaces": [space.name for space in self.spaces],
            **{space.name: space.to_settings() for space in self.spaces},
        }

    def bind(self, graph: ModelGraph, calibration: Calibration | None = None) -> BoundProduct:
        """The spaces over one model."""
        return BoundProduct(self, graph, calibration)

    @staticmethod
    def explain(described: Mapping[str, Any], config: Config) -> dict[str, Any]:
        """What each space says of a layer, in one table."""
        spelt: dict[str, Any] = {}
        for name, part in described["parts"].items():
            for layer, said in SPACES[name].explain(part, config).items():
                merged = spelt.setdefault(layer, {"config": {}})
                merged["config"].update(said["config"])
        return spelt


class BoundProduct(BoundSpace):
    """A product over one model.

    A space that changes shapes comes first: the others are bound anew to each shape, so that what
    depends on sizes (the accumulator of a bias, masks) fits. The last few shapes are kept.
    """

    def __init__(self, space: Product, graph: ModelGraph, calibration: Calibration | None = None) -> None:
        super().__init__(graph)
        self._calibration = calibration
        bound = {part.name: (part, self._bind(part, graph)) for part in space.spaces}
        self._parts = {name: part for name, (_, part) in bound.items()}
        self._shape = next((part for part in self._parts.values() if part.changes_shapes), None)
        self.changes_shapes = self._shape is not None
        self._others = [part for part, own in bound.values() if not own.changes_shapes]
        knobs = tuple(knob for part in self._parts.values() for knob in part.tree.knobs)
        self.tree = Tree(knobs)
        named = [knob.name for part in self._parts.values() for knob in part.tree.all_knobs()]
        twice = next((name for name in named if named.count(name) > 1), None)
        if twice is not None:
            raise BadInput("two spaces have a knob of the same name", key="name", found=twice)
        self.dropped = tuple(dropped for part in self._parts.values() for dropped in part.dropped)
        matched = {name for part in self._parts.values() for name in part.matched}
        self.matched = tuple(node.name for node in graph if node.name in matched)
        self.unmatched = tuple(node.name for node in graph.layers if node.name not in matched)
        unshaped = [part for part in self._parts.values() if not part.changes_shapes]
        self._bound: OrderedDict[int, tuple[ModelGraph, list[BoundSpace]]] = OrderedDict()
        self._bound[id(graph)] = (graph, unshaped)
        self._models: OrderedDict[int, tuple[ModelGraph, nn.Module]] = OrderedDict()

    def graph(self, config: Config) -> ModelGraph:
        """The graph of the shape that a configuration has."""
        return self._shape.graph(config) if self._shape is not None else self._graph

    def formats(self, config: Config) -> Assignment:
        """The formats of every space that has some, for the shape of the configuration."""
        return {path: slots for part in self._on(config) for path, slots in part.formats(config).items()}

    def widths(self, config: Config) -> Mapping[str, int]:
        """Those of the space that changes shapes."""
        return self._shape.widths(config) if self._shape is not None else {}

    def sparsity(self, config: Config) -> Mapping[str, float]:
        """The fractions of zeros of every space that makes some."""
        return {path: share for part in self._on(config) for path, share in part.sparsity(config).items()}

    def prunings(self, config: Config) -> Mapping[str, Hashable]:
        """Those of every space."""
        return {path: done for part in self._on(config) for path, done in part.prunings(config).items()}

    def acts_on(self) -> dict[str, tuple[str, ...]]:
        """Those of every space."""
        return {knob: paths for part in self._parts.values() for knob, paths in part.acts_on().items()}

    @property
    def outer(self) -> tuple[str, ...]:
        """Those of the space that changes shapes."""
        return self._shape.outer if self._shape is not None else ()

    def instrument(self, model: nn.Module) -> None:
        """Everything that the spaces need in a model of the original shape."""
        for part in self._parts.values():
            part.instrument(model)

    def apply(self, prepared: nn.Module, config: Config | None) -> nn.Module:
        """Every space's knobs, on the prepared copy or on one of another shape."""
        return self._applied(prepared, config, config)

    def plain(self, prepared: nn.Module, config: Config) -> nn.Module:
        """The model of the shape of a configuration."""
        return self._applied(prepared, config, None)

    def _applied(self, prepared: nn.Module, shape: Config | None, config: Config | None) -> nn.Module:
        if shape is None:
            parts: Sequence[BoundSpace] = [p for p in self._parts.values() if not p.changes_shapes]
            model = prepared
        else:
            graph, parts = self.graph(shape), self._on(shape)
            model = prepared if graph is self._graph else self._copy_of(graph, parts)
        for part in parts:
            model = part.apply(model, config)
        return model.train(prepared.training)

    def describe(self) -> dict[str, Any]:
        """What each space needs to explain itself."""
        return {"parts": {name: part.describe() for name, part in self._parts.items()}}

    def _on(self, config: Config) -> list[BoundSpace]:
        """The spaces that keep shapes, bound to the shape of a configuration."""
        graph = self.graph(config)
        if id(graph) not in self._bound:
            self._bound[id(graph)] = (graph, [self._bind(space, graph) for space in self._others])
            if len(self._bound) > _KEPT_SHAPES + 1:  # the original shape stays
                del self._bound[list(self._bound)[1]]
        return self._bound[id(graph)][1]

    def _copy_of(self, graph: ModelGraph, parts: Sequence[BoundSpace]) -> nn.Module:
        """A private, instrumented model of another shape."""
        if id(graph) not in self._models:
            model = parts[0].private_copy()
            for part in parts:
                part.instrument(model)
            self._models[id(graph)] = (graph, model)
            if len(self._models) > _KEPT_SHAPES:
                self._models.popitem(last=False)
        return self._models[id(graph)][1]

    def _bind(self, space: Space, graph: ModelGraph) -> BoundSpace:
        try:
            return space.bind(graph, self._calibration)
        except BadInput as error:
            raise error.under(space.name) from None
