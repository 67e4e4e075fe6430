"""The space `architecture`: the configuration of a transformer, and which square layers it does without.

The seed gives keys of the HuggingFace configuration with lists of values. Every combination is tried
on the device `meta` before the search; what transformers cannot build is no part of the space.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from paretobit.data.calibration import Calibration
from paretobit.errors import BadInput, under
from paretobit.graph import ModelGraph, conditional_like
from paretobit.graph.names import node_name
from paretobit.passes.layers.selection import By, compiled
from paretobit.spaces.base import SPACES, Space, Step
from paretobit.spaces.combinations import Combinations
from paretobit.spaces.knobs import Config, Knob, Option, Tree, Value
from paretobit.spaces.nesting import Row, deciding, nested_tree
from paretobit.spaces.networks import IDENTITY, LAYER, LINEAR, Networks, Placed, layer_knob
from paretobit.spaces.transformer import Impossible, Transformer

_KEPT_GRAPHS = 8


@SPACES.register("architecture")
class Architecture(Space):
    """The configuration of a transformer of HuggingFace: depth, heads, sizes, and layers left out.

    Every model is built from its configuration with fresh weights.

    Args:
        seed: Key of the configuration to its values (`{"num_hidden_layers": [1, 2]}`); one value alone
            is fixed. What another type calls the key is resolved where the type knows the name.
        linear: Key to `["linear", "identity"]`: linear layers with as many features in as out, which may
            be left out. The key `default` is for all of them that no other key chooses.
        by: How the keys of `linear` choose: `name` (node names or paths), `regex` or `type`.
        weights_seed: Of the fresh weights.

    Raises:
        BadInput: An empty seed, or an unknown value.
    """

    name: ClassVar[str] = "architecture"
    step: ClassVar[Step | None] = Step("build", "shape")
    goes_first: ClassVar[bool] = True
    needs_training: ClassVar[bool] = True

    def __init__(
        self,
        *,
        seed: Mapping[str, Any],
        linear: Mapping[str, Any] | None = None,
        by: By = "name",
        weights_seed: int = 0,
    ) -> None:
        self.check(seed=seed, linear=linear, by=by, weights_seed=weights_seed)
        if not (seed or linear):
            allowed = "a table of keys of the configuration"
            raise BadInput("the seed names no keys", key="seed", found=seed, allowed=allowed)
        self.seed = {key: _values(value, f"seed.{key}") for key, value in seed.items()}
        self.linear = {key: _values(value, f"linear.{key}") for key, value in (linear or {}).items()}
        for key, values in self.linear.items():
            for value in values:
                if value not in (LINEAR, IDENTITY):
                    kinds = [LINEAR, IDENTITY]
                    raise BadInput("not a kind of layer", key=f"linear.{key}", found=value, allowed=kinds)
        self.by, self.weights_seed = by, weights_seed

    def bind(self, graph: ModelGraph, calibration: Calibration | None = None) -> BoundArchitecture:
        """The space over one model, whose type and data it takes; its weights do not matter.

        Raises:
            BadInput: The model is no transformer of HuggingFace, a key is not one of its configuration,
                a layer cannot be left out, or no combination is possible.
        """
        return BoundArchitecture(self, graph)

    @staticmethod
    def explain(described: Mapping[str, Any], config: Config) -> dict[str, Any]:
        """`{"architecture": {"config": {"num_hidden_layers": 2, ...}}, "..._query": {"config": ...}}`."""
        values = {key: config.get(key, value) for key, value in described["values"].items()}
        spelt: dict[str, Any] = {"architecture": {"config": values}}
        for layer in described["layers"]:
            if layer_knob(layer) in config:
                spelt[layer] = {"config": {LAYER: config[layer_knob(layer)]}}
        for layer in described["without"]:
            spelt[layer] = {"config": {LAYER: IDENTITY}}
        return spelt


class BoundArchitecture(Networks):
    """The space `architecture` over one model.

    Attributes:
        tree: The knobs: every possible network once.
        listed: Combinations of the values of the seed.
        excluded: How many of them are impossible.
        reason: Why the first of them is, empty where none is.
        repeated: How many are the network of another one.
        dropped: Keys and values without effect, with the reason.
        matched: Layers of the given model that vary, or that some networks lack, by node name.
        unmatched: The others.
        layers_vary: Whether some networks have layers that others lack.
    """

    name = Architecture.name

    def __init__(self, space: Architecture, graph: ModelGraph) -> None:
        super().__init__(graph)
        self._pattern = Transformer(graph)
        self._seed = space.weights_seed
        found = Combinations(self._pattern, self._choices(space), space.weights_seed)
        self._found = found
        self.listed, self.excluded, self.repeated = found.listed, found.excluded, found.repeated
        self.reason, self.dropped = found.reason, found.dropped
        if self.excluded:
            counted = f"{self.excluded:,} of {self.listed:,} combinations are impossible"
            self.impossible = f"{counted}: {self.reason}"
        self._skipped = self._linear_choices(space)
        self.leaves_out = "linear" if self._skipped else ""
        self._built: OrderedDict[tuple[Row, tuple[str, ...]], ModelGraph] = OrderedDict()
        self._rows = {tuple(own.items()): row for row, own in ((r, found.chosen(r)) for r in found.shapes)}
        self.tree = self.tree_with(lambda graph: [])
        self.layers_vary = len({s.layers for s in found.shapes.values()}) > 1 or bool(self._skipped)
        self.matched, self.unmatched = self._reached()

    def values(self, config: Config) -> dict[str, Value]:
        """What a configuration sets in the configuration of the model, by the keys of its type."""
        return {key: config.get(key, value) for key, value in self._all_values.items()}

    def replaced(self, config: Config) -> list[str]:
        """Paths of the layers in whose place a configuration has `nn.Identity`."""
        shape = self._found.shapes[self._row(config)]
        chosen = ((path, self._skipped.get(path, ())) for path in shape.layers)
        return [
            path for path, kinds in chosen if kinds and config.get(layer_knob(node_name(path)), kinds[0]) == IDENTITY
        ]

    def graph(self, config: Config) -> ModelGraph:
        """The traced network of a configuration; the last few are kept, for costs as for measuring."""
        return self._graph_of(self._row(config), tuple(self.replaced(config)))

    def describe(self) -> dict[str, Any]:
        varied = [node_name(path) for path, kinds in self._skipped.items() if len(kinds) > 1]
        without = [node_name(path) for path, kinds in self._skipped.items() if kinds == (IDENTITY,)]
        return {"values": self._all_values, "layers": varied, "without": without}

    def page(self, config: Config, known: Mapping[str, Any]) -> dict[str, Any]:
        """The source with the values of a configuration, and the layers that are left out."""
        source = known.get("source")
        given = source and {**source, "config": {**source.get("config", {}), **self.values(config)}}
        return {**known, "source": given, "identity": list(self.replaced(config))}

    def samples(self) -> list[ModelGraph]:
        """The smallest network of every set of layers, with all its linear layers."""
        without = {path for path, kinds in self._skipped.items() if kinds == (IDENTITY,)}
        shapes = self._found.shapes
        return [
            self._graph_of(row, tuple(path for path in shapes[row].layers if path in without))
            for row in self._samples().values()
        ]

    def tree_with(self, more: Callable[[ModelGraph], Sequence[Placed]]) -> Tree:
        own = {}
        for layers, graph in zip(self._samples(), self.samples(), strict=True):
            there = more(graph)
            knobs: list[Knob] = []
            for path, local in self._local(layers, there).items():
                owned = {LINEAR: local, IDENTITY: ()}
                options = tuple(Option(kind, owned[kind]) for kind in self._skipped[path])
                knobs.append(Knob(layer_knob(node_name(path)), options))
            placed = {knob.name for kept in self._local(layers, there).values() for knob in kept}
            own[layers] = (*knobs, *(knob for knob, _ in there if knob.name not in placed))
        shapes = self._found.shapes
        return nested_tree(self._found.names, self._found.values, list(shapes), lambda r: own[shapes[r].layers])

    def cases(self) -> list[list[dict[str, Value]]]:
        shapes = self._found.shapes
        columns = sorted(deciding(len(self._found.names), {r: shape.layers for r, shape in shapes.items()}))
        found: dict[tuple[str, ...], list[dict[str, Value]]] = {layers: [] for layers in self._samples()}
        for row, shape in shapes.items():
            case = {self._found.names[c]: self._found.values[c][row[c]] for c in columns}
            if case not in found[shape.layers]:
                found[shape.layers].append(case)
        return list(found.values())

    def left_out(self, graph: ModelGraph, there: Sequence[Placed]) -> dict[str, dict[str, Value]]:
        """Name of each layer that may be left out to the knobs of other spaces on it, at their first option."""
        layers = tuple(node.owner for node in graph.layers)
        return {node_name(path): dict(Tree(own).at(0)) for path, own in self._local(layers, there).items()}

    def _local(self, layers: Sequence[str], there: Sequence[Placed]) -> dict[str, tuple[Knob, ...]]:
        """Path of each layer that may be left out to the knobs that act on it alone."""
        local: dict[str, tuple[Knob, ...]] = {}
        for path in (path for path in layers if len(self._skipped.get(path, ())) > 1):
            name = node_name(path)
            shared = [k.name for k, at in there if len(at) > 1 and k.name.startswith(f"{name}.")]
            if shared:
                problem = f"layers share knobs with '{name}', which may be left out"
                raise BadInput(problem, key="linear", found=shared[0], allowed="layers that are not tied")
            local[path] = tuple(knob for knob, at in there if at == {path})
        return local

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_built": OrderedDict()}

    @property
    def _all_values(self) -> dict[str, Value]:
        """The first combination's."""
        return self._found.chosen(next(iter(self._found.shapes)))

    def _row(self, config: Config) -> Row:
        return self._rows[tuple(self.values(config).items())]

    def _graph_of(self, row: Row, without: tuple[str, ...]) -> ModelGraph:
        key = (row, without)
        if key not in self._built:
            model = self._pattern.build(self._found.chosen(row), self._seed, without)
            self._built[key] = conditional_like(self._pattern.trace(model), self._graph)
            if len(self._built) > _KEPT_GRAPHS:
                self._built.popitem(last=False)
        self._built.move_to_end(key)
        return self._built[key]

    def _samples(self) -> dict[tuple[str, ...], Row]:
        """The smallest network of every set of layers."""
        smallest: dict[tuple[str, ...], Row] = {}
        shapes = self._found.shapes
        for row in sorted(shapes, key=lambda row: shapes[row].weights):
            smallest.setdefault(shapes[row].layers, row)
        return smallest

    def _choices(self, space: Architecture) -> dict[str, tuple[Value, ...]]:
        """The seed by the keys of the type."""
        choices: dict[str, tuple[Value, ...]] = {}
        for given, values in space.seed.items():
            with under("seed"):
                key = self._pattern.key(given)
                if key in choices:
                    raise BadInput(f"this is '{key}', which is there already", key=given)
            choices[key] = values
        return choices

    def _linear_choices(self, space: Architecture) -> dict[str, tuple[str, ...]]:
        """Path of every linear layer that may be left out to what may stand there."""
        chosen: dict[str, tuple[str, ...]] = {}
        shapes = list(dict.fromkeys(self._found.shapes.values()))
        sizes: dict[str, set[tuple[int, int]]] = {}
        for path, wide, out in (one for shape in shapes for one in shape.linear):
            sizes.setdefault(path, set()).add((wide, out))
        for key, kinds in sorted(space.linear.items(), key=lambda item: item[0] == "default"):
            with under(f"linear.{key}"):
                for path in self._meant(key, space.by, sizes, chosen):
                    chosen[path] = tuple(str(kind) for kind in kinds)
        return {path: kinds for path, kinds in chosen.items() if kinds != (LINEAR,)}

    def _meant(
        self, key: str, by: By, sizes: Mapping[str, set[tuple[int, int]]], taken: Mapping[str, Any]
    ) -> Iterator[str]:
        """The square layers that a key means; one that is named and cannot be left out is an error."""
        paths = [path for path in sizes if _means(key, by, path)]
        if not paths:
            allowed = [node_name(path) for path in sizes]
            raise BadInput("no linear layer has this name", found=key, allowed=allowed)
        refused = ""
        free = 0
        for path in paths:
            reason = self._needed(path, sizes[path])
            twice = path in taken and key != "default"
            if twice or (reason and by == "name" and key != "default"):
                raise BadInput(reason or f"layer '{node_name(path)}' is chosen twice", found=key)
            refused = refused or reason
            if not reason and path not in taken:
                free += 1
                yield path
        if not free and not any(path in taken for path in paths):
            raise BadInput(f"no layer that is meant can be left out: {refused}", found=key)

    def _needed(self, path: str, sizes: set[tuple[int, int]]) -> str:
        """Why a layer cannot be left out; empty where it can."""
        if any(wide != out for wide, out in sizes):
            said = ", ".join(f"{wide} to {out}" for wide, out in sorted(sizes))
            return f"layer '{node_name(path)}' is not square in every network: {said}"
        row = next(row for row, shape in self._found.shapes.items() if path in shape.layers)
        try:
            self._pattern.network(self._found.chosen(row), [path])
        except Impossible as error:
            return f"the model does not run without layer '{node_name(path)}': {error}"
        return ""

    def _reached(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of the given model's layers that vary, and of the others."""
        sizes = [shape.sizes() for shape in dict.fromkeys(self._found.shapes.values())]

        def varies(path: str) -> bool:
            return path in self._skipped or len({own.get(path) for own in sizes}) > 1

        layers = {node.name: varies(node.owner) for node in self._graph.layers}
        return tuple(n for n, varied in layers.items() if varied), tuple(n for n, v in layers.items() if not v)


def _means(key: str, by: By, path: str) -> bool:
    """Whether a key chooses a linear layer."""
    if key == "default":
        return True
    if by == "type":
        return key.lower() == LINEAR
    if by == "name":
        return key in (path, node_name(path))
    pattern = compiled(key)
    return bool(pattern.fullmatch(path) or pattern.fullmatch(node_name(path)))


def _values(given: Any, key: str) -> tuple[Value, ...]:
    """A list of plain values; one alone is a list of one."""
    values = tuple(given) if isinstance(given, list | tuple) else (given,)
    if not values:
        raise BadInput("a knob needs at least one option", key=key, found=[])
    for value in values:
        if value is not None and not isinstance(value, str | int | float | bool):
            raise BadInput("not a value of a configuration", key=key, found=value, allowed="plain values")
    Knob.of(key, list(values))  # refuses a value that is listed twice
    return values
