"""The space `prune`: how sparse each layer is.

A seed entry gives `sparsity` (or `pattern`), and `method` and `scope` where these vary; a list is a
knob, a scalar is fixed. Masks are computed from the weights that the model has, every time anew:
no trial sees what another pruned.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Container, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from paretobit.data.calibration import Calibration
from paretobit.errors import BadInput, under
from paretobit.graph import Example, ModelGraph, Node
from paretobit.nn import dot_terms, parameter_uses
from paretobit.nn.masks import masks_in, place_masks, set_mask
from paretobit.passes.layers.selection import By, select
from paretobit.passes.transform.prune_activation import check_sparsity
from paretobit.passes.transform.prune_layers import Choice, input_norms, only_prunable, prunable, why_not_prunable
from paretobit.passes.transform.prune_scores import parse_pattern
from paretobit.passes.transform.prune_settings import WeightPruning
from paretobit.passes.transform.prune_weights import weight_masks
from paretobit.schemas import Entries, schema_of
from paretobit.spaces.base import SPACES, BoundSpace, Changed, Dropped, Space, Weights
from paretobit.spaces.format_knobs import as_list, one_of_each_name
from paretobit.spaces.knobs import Config, Knob, Option, Tree, Value
from paretobit.spaces.mentions import Mention, in_ties, keys_of, seed_without, ties_without
from paretobit.spaces.ties import Share, read_ties, tied_by_hand

_KEYS = ("sparsity", "pattern", "method", "scope", "floor", "ragged", "seed")
_AMOUNTS = ("sparsity", "pattern")
_DETAILS = ("method", "scope")
_MASKS = 64 * 2**20  # bytes of masks that are kept
DENSE = "dense"
"""As a pattern: nothing goes."""
PruneEntry = schema_of(
    WeightPruning, leave_out={f.name for f in fields(WeightPruning)}.difference(_KEYS), lists=(*_AMOUNTS, *_DETAILS)
)


@SPACES.register("prune")
class Prune(Space):
    """Zeros in the weights of layers, chosen by type, name or regex.

    Args:
        by: How the keys of `seed` choose layers: `type`, `name` or `regex`.
        seed: Key to entry: `{"linear": {"sparsity": [0.0, 0.5, 0.9], "method": "l1-norm"}}`. The keys
            of an entry are those of the pass `prune`: `sparsity` or `pattern` (`"2:4"`; `"dense"` is
            none), `method`, `scope`, `floor`, `ragged`, `seed`; the first four may be lists. The key
            `default` is for the layers that can be pruned and that no other key chooses.
        share: `name`: every layer has knobs of its own. `type`: the layers that one key chooses
            share one set of knobs; the scope `global` then ranks them together.
        batches: Inputs as `trace` takes them, for the method `activation-aware`; unset: the search's
            calibration rows.
        tie: Lists of names, paths or patterns (`["conv1", "regex:layer1\\..*"]`): the layers of one list
            share one set of knobs, known by the name of the first layer to run; they need the same
            entry.

    Raises:
        BadInput: An unknown value, an empty seed, or ties that are none.
    """

    name: ClassVar[str] = "prune"
    not_in_files: ClassVar[tuple[str, ...]] = ("batches",)

    def __init__(
        self,
        *,
        by: By = "type",
        seed: Annotated[Mapping[str, Mapping[str, Any]], Entries(PruneEntry, "layers")],
        share: Share = "name",
        batches: Iterable[Example] | None = None,
        tie: Sequence[Sequence[str]] = (),
    ) -> None:
        self.check(by=by, seed=seed, share=share, tie=tie)
        self.by, self.seed, self.share = by, dict(seed), share
        self.tie = read_ties(tie)
        self.batches = None if batches is None else list(batches)  # read again for every shape

    def mentions(self) -> list[Mention]:
        return [*keys_of(self.seed, self.by), *in_ties(self.tie)]

    def without(self, gone: Container[Mention]) -> Prune | None:
        other = copy.copy(self)
        other.seed, other.tie = seed_without(self.seed, self.by, gone), ties_without(self.tie, gone)
        return other if other.seed else None

    def bind(self, graph: ModelGraph, calibration: Calibration | None = None) -> BoundPrune:
        return BoundPrune(self, graph, calibration)

    @staticmethod
    def explain(described: Mapping[str, Any], config: Config) -> dict[str, Any]:
        """`{"seq_blocks_2": {"config": {"sparsity": 0.5, "method": "l1-norm"}}}`."""
        return {
            layer: {"config": _decoded(target["prefix"], target["entry"], config)}
            for target in described["targets"]
            for layer in target["layers"]
        }


@dataclass(frozen=True)
class _Target:
    """Layers that share one set of knobs."""

    prefix: str
    entry: Mapping[str, Any]
    layers: tuple[Node, ...]


class BoundPrune(BoundSpace):
    """The space `prune` over one model."""

    name = Prune.name

    def __init__(self, space: Prune, graph: ModelGraph, calibration: Calibration | None = None) -> None:
        super().__init__(graph)
        targets = tied_by_hand(graph, _targets(space, graph), space.tie, space.share == "name")
        order = sorted(targets, key=lambda t: graph.layers.index(t.layers[0]))
        found = list(_without_repeats(graph, order))
        self._targets = [target for target in found if isinstance(target, _Target)]
        self.dropped = (*(dropped for dropped in found if isinstance(dropped, Dropped)), *_left_out(space, graph))
        if not self._targets:
            raise BadInput("the model has no layer that can be pruned", key="seed.default")
        knobs = {target.prefix: _knobs(target) for target in self._targets}
        self.tree = Tree(tuple(knob for own in knobs.values() for knob in own))
        self._norms = self._measured(space, calibration)
        self._known: OrderedDict[Hashable, dict[str, Tensor]] = OrderedDict()
        for target in self._targets:
            self._check(target, knobs[target.prefix])
        chosen = {node.name for target in self._targets for node in target.layers}
        self.matched = tuple(node.name for node in graph.layers if node.name in chosen)
        self.unmatched = tuple(node.name for node in graph.layers if node.name not in chosen)

    def weights(self, config: Config) -> Weights:
        """The weights of layers that lose some; masks are computed when a value is asked for."""
        return {
            f"{node.owner}.weight": Changed(
                (target.prefix, *chosen.values()), partial(self._masked, target, chosen, node)
            )
            for target, chosen in self._removing(config)
            for node in target.layers
        }

    def _masked(self, target: _Target, chosen: Mapping[str, Any], node: Node) -> Tensor:
        weight = self._graph.module(node).get_parameter("weight").detach()
        return weight.masked_fill(~self._masks(target, chosen)[node.owner], 0)

    def _removing(self, config: Config) -> Iterator[tuple[_Target, dict[str, Any]]]:
        """The targets that lose weights, and what holds for each."""
        for target in self._targets:
            chosen = _decoded(target.prefix, target.entry, config)
            if _removes(next(chosen[key] for key in _AMOUNTS if key in chosen)):
                yield target, chosen

    def instrument(self, model: nn.Module) -> None:
        """The varied layers get masks that keep everything."""
        self._known.clear()  # the weights may have changed until now
        place_masks(model, {node.owner: ("weight",) for target in self._targets for node in target.layers})

    def apply(self, prepared: nn.Module, config: Config | None) -> nn.Module:
        """Mask every varied layer; None leaves the model as sparse as it was given."""
        for target in self._targets:
            chosen = {} if config is None else _decoded(target.prefix, target.entry, config)
            for path, mask in self._masks(target, chosen).items():
                self._set(prepared.get_submodule(path), path, mask)
        return prepared

    def prunings(self, config: Config) -> dict[str, Hashable]:
        return {node.owner: tuple(own.items()) for t, own in self._removing(config) for node in t.layers}

    def acts_on(self) -> dict[str, tuple[str, ...]]:
        """Every knob acts on the layers of its target, and on what else reads their weights."""
        readers: dict[int, list[str]] = {}
        for use in parameter_uses(self._graph):
            readers.setdefault(id(use.parameter), []).append(use.site)
        acts: dict[str, tuple[str, ...]] = {}
        for target in self._targets:
            paths = [p for n in target.layers for p in (n.owner, *readers[id(self._graph.module(n).weight)])]
            acts |= {knob.name: tuple(dict.fromkeys(paths)) for knob in _knobs(target)}
        return acts

    def describe(self) -> dict[str, Any]:
        return {
            "targets": [
                {"prefix": t.prefix, "entry": dict(t.entry), "layers": [node.name for node in t.layers]}
                for t in self._targets
            ]
        }

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_known": OrderedDict()}

    def _set(self, layer: nn.Module, path: str, mask: Tensor) -> None:
        """The original weights under a mask; where it is in place already, nothing is touched."""
        if not torch.equal(masks_in(layer)["weight"], mask):
            original = self._graph.model.get_submodule(path).get_parameter("weight")
            with torch.no_grad():
                layer.get_parameter("weight").copy_(original)
            set_mask(layer, mask)

    def _masks(self, target: _Target, chosen: Mapping[str, Any]) -> dict[str, Tensor]:
        """Path of every layer of a target to its mask; where nothing more goes, the one it was given with."""
        key = (target.prefix, *chosen.items())
        if key not in self._known:
            self._known[key] = self._ranked(target, chosen)
            while len(self._known) > 1 and sum(map(_elements, self._known.values())) > _MASKS:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]

    def _ranked(self, target: _Target, chosen: Mapping[str, Any]) -> dict[str, Tensor]:
        settings = self._settings(target, chosen)
        masks = {}
        for node in target.layers:
            module = self._graph.module(node)
            everything = torch.ones_like(module.get_parameter("weight"), dtype=torch.bool)
            masks[node.owner] = masks_in(module).get("weight", everything)
        if settings is not None and settings.sparsity != 0:
            found = weight_masks(self._graph, settings, self._norms)
            masks |= {path: own["weight"] for path, own in found.masks.items()}
        return masks

    def _settings(self, target: _Target, chosen: Mapping[str, Any]) -> WeightPruning | None:
        given = {key: value for key, value in chosen.items() if (key, value) != ("pattern", DENSE)}
        if not given.keys() & set(_AMOUNTS):
            return None
        choice = Choice("name", tuple(node.owner for node in target.layers))
        return WeightPruning(**given, choice=choice)

    def _measured(self, space: Prune, calibration: Calibration | None) -> dict[str, Tensor] | None:
        aware = [t for t in self._targets if "activation-aware" in as_list(t.entry.get("method"))]
        if not aware:
            return None
        batches = space.batches if calibration is None or space.batches is not None else calibration.batches
        if batches is None:
            key, allowed = f"seed.{aware[0].prefix}.method", "data with a split to train on, or calibration="
            raise BadInput("activation-aware pruning needs calibration batches", key=key, allowed=allowed)
        return input_norms(self._graph, [node for t in aware for node in t.layers], batches)

    def _check(self, target: _Target, knobs: tuple[Knob, ...]) -> None:
        """Refuse, before any work, what cannot be: words of all options, masks of every first one."""
        tree = Tree(knobs)
        with under(f"seed.{target.prefix}"):
            for index in range(tree.size):
                self._settings(target, _decoded(target.prefix, target.entry, tree.at(index)))
            for config in one_of_each_name(knobs):
                self._masks(target, _decoded(target.prefix, target.entry, config))


def _targets(space: Prune, graph: ModelGraph) -> Iterator[_Target]:
    chosen: dict[str, str] = {}
    for key, raw in space.seed.items():
        if key == "default":
            continue
        with under(f"seed.{key}"):
            layers = only_prunable(graph, select(graph, space.by, key), space.by)
            for node in layers:
                if node.owner in chosen:
                    raise BadInput(f"layer '{node.name}' is chosen twice", found=[chosen[node.owner], key])
                chosen[node.owner] = key
            yield from _shared(space, key, layers, _entry(raw))
    if "default" in space.seed:
        rest = tuple(n for n in graph.layers if n.owner not in chosen and prunable(graph.module(n)))
        with under("seed.default"):
            yield from _shared(space, "default", rest, _entry(space.seed["default"]))


def _left_out(space: Prune, graph: ModelGraph) -> Iterator[Dropped]:
    """The layers that a key means and that cannot be pruned."""
    for key in space.seed:
        for node in graph.layers if key == "default" else select(graph, space.by, key):
            reason = why_not_prunable(graph.module(node))
            if reason is not None and (key != "default" or dot_terms(graph.module(node)) is not None):
                yield Dropped(f"{node.name}.sparsity", reason)


def _shared(space: Prune, key: str, layers: tuple[Node, ...], entry: Mapping[str, Any]) -> Iterator[_Target]:
    if space.share == "name" and "global" in as_list(entry.get("scope")):
        problem, allowed = "layers with knobs of their own are not ranked together", 'share = "type"'
        raise BadInput(problem, key="scope", found="global", allowed=allowed)
    groups = [(key, layers)] if space.share == "type" and layers else [(node.name, (node,)) for node in layers]
    for prefix, group in groups:
        yield _Target(prefix, entry, group)


def _without_repeats(graph: ModelGraph, targets: Iterable[_Target]) -> Iterator[_Target | Dropped]:
    """Layers that share a weight vary with the first of them."""
    first: dict[int, str] = {}
    for target in targets:
        kept = []
        for node in target.layers:
            owner = first.setdefault(id(graph.module(node).weight), node.name)
            if owner == node.name:
                kept.append(node)
        if kept:
            yield replace(target, layers=tuple(kept))
        else:
            yield Dropped(target.prefix, f"its weight is that of '{owner}'")


def _entry(raw: Any) -> dict[str, Any]:
    """A checked entry; a list of one choice is no choice."""
    if len(raw.keys() & set(_AMOUNTS)) != 1:
        raise BadInput("how much goes must be said once", key="sparsity", allowed="sparsity or pattern")
    for value in as_list(raw.get("sparsity", 0)):
        check_sparsity(value)
    for value in as_list(raw.get("pattern", DENSE)):
        if value != DENSE:
            parse_pattern(value)
    entry = {k: v[0] if isinstance(v, list | tuple) and len(v) == 1 else v for k, v in raw.items()}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in entry.items()}


def _knobs(target: _Target) -> tuple[Knob, ...]:
    """How much goes is one knob; what goes first is only asked where something does."""
    entry, prefix = target.entry, target.prefix
    (amount,) = (key for key in _AMOUNTS if key in entry)
    details = tuple(Knob.of(f"{prefix}.{key}", entry[key]) for key in _DETAILS if isinstance(entry.get(key), list))
    if not isinstance(entry[amount], list):
        return details if _removes(entry[amount]) else ()
    options = (Option(value, details if _removes(value) else ()) for value in entry[amount])
    return (Knob(f"{prefix}.{amount}", tuple(options)),)


def _elements(masks: Mapping[str, Tensor]) -> int:
    return sum(mask.numel() for mask in masks.values())


def _removes(amount: Value) -> bool:
    return amount not in (0, DENSE)


def _decoded(prefix: str, entry: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """What of an entry holds under a configuration; only the amount where nothing goes."""
    (amount,) = (key for key in _AMOUNTS if key in entry)
    chosen = {amount: config[f"{prefix}.{amount}"] if isinstance(entry[amount], list) else entry[amount]}
    if not _removes(chosen[amount]):
        return chosen
    rest = (key for key in entry if key != amount)
    return chosen | {k: config[f"{prefix}.{k}"] if isinstance(entry[k], list) else entry[k] for k in rest}
