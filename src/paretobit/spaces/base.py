"""What a search space is: a specification, bound to one model into a tree of knobs that can be applied."""

from __future__ import annotations

import abc
from collections.abc import Callable, Collection, Container, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, TypeVar
from weakref import WeakKeyDictionary

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from paretobit.data.calibration import Calibration
from paretobit.graph import ModelGraph
from paretobit.graph.copies import copy_of
from paretobit.models import resized
from paretobit.passes.layers.assignment import Assignment
from paretobit.registry import Registry
from paretobit.schemas import FromSignature, check
from paretobit.spaces.format_knobs import plain
from paretobit.spaces.knobs import Config, Tree
from paretobit.spaces.mentions import Mention
from paretobit.training import TrainSettings

Stage = Literal["shape", "compress", "calibrate", "train"]
Given = TypeVar("Given", bound=TrainSettings)


@dataclass(frozen=True)
class Step:
    """When in a trial a space acts.

    Attributes:
        word: Its step in `[search.pipeline] steps`.
        stage: `shape`: it makes the model's shape, before all else. `compress`: it works on the weights
            that the model has at its step. `calibrate`: it acts at that step, in place of what that does
            by itself. `train`: it changes the settings of the steps that train.
        order: Of steps that nobody wrote down, those with less come first.
    """

    word: str
    stage: Stage = "compress"
    order: int = 0


@dataclass(frozen=True)
class Dropped:
    """A knob that was removed because it changes nothing on this model."""

    knob: str
    reason: str


@dataclass(frozen=True)
class Changed:
    """A parameter under a configuration, before its format.

    Attributes:
        key: Equal where the value is; None where nobody knows.
        value: Its value.
    """

    key: Hashable
    value: Callable[[], Tensor]


Weights = Mapping[str, Changed]
"""Name of a parameter to its value, for those that a configuration changes."""


class BoundSpace(abc.ABC):
    """A space over one model.

    Args:
        graph: The model.

    Attributes:
        name: Of the kind of space.
        tree: The knobs.
        dropped: Knobs without effect, removed from the tree.
        matched: Layers that the space varies, by node name.
        unmatched: Layers that it leaves alone.
        changes_shapes: Whether configurations are models of other shapes.
    """

    name: ClassVar[str]
    tree: Tree
    dropped: tuple[Dropped, ...]
    matched: tuple[str, ...]
    unmatched: tuple[str, ...]
    changes_shapes: bool = False
    impossible: str = ""
    """In words, how many combinations of values make no model, and why the first; empty where all do."""
    skipped: Collection[str] = ()
    """Paths and sites that are to stay in float."""
    has_equals: bool = False
    """Whether different configurations can be one network, which `network_of` then tells."""

    def __init__(self, graph: ModelGraph) -> None:
        self._graph = graph

    def graph(self, config: Config) -> ModelGraph:
        """The graph of the model of a configuration: another one where shapes change."""
        return self._graph

    def formats(self, config: Config) -> Assignment:
        """The formats of every varied layer under a configuration, without touching a model."""
        return {}

    def reached(self) -> Mapping[str, Collection[str]] | None:
        """Path or site to the slots that a configuration may give formats to; None where it gives none."""
        return None

    def network_of(self, config: Config) -> Hashable:
        """What configurations share that are the same network."""
        own = {knob.name for knob in self.tree.all_knobs()}
        return tuple((name, value) for name, value in config.items() if name in own)

    def widths(self, config: Config) -> Mapping[str, int]:
        """Width group to the number of channels that a configuration gives it."""
        return {}

    def weights(self, config: Config) -> Weights:
        """The parameters whose values are not those of `graph(config)`, with the values before formats.

        By itself it applies the configuration to a copy and looks. A space that knows says so faster;
        it may leave out biases.
        """
        if self not in _LOOKED_AT:
            _LOOKED_AT[self] = self.prepare()
        model, given = self.apply(_LOOKED_AT[self], config), dict(self.graph(config).model.named_parameters())
        now = {name: value.detach() for name, value in model.named_parameters() if name in given}
        changed = {name: value.clone() for name, value in now.items() if not torch.equal(value, given[name])}
        return {name: Changed(None, lambda value=value: value) for name, value in changed.items()}  # type: ignore[misc]

    def prunings(self, config: Config) -> Mapping[str, Hashable]:
        """Path of a layer to what a configuration does to its weights before they are quantised."""
        return {}

    def acts_on(self) -> Mapping[str, tuple[str, ...]]:
        """Knob of the first level to the paths of the layers where its effect is, for those where it is local.

        The others change the model as a whole, or neither its cost nor its shape.
        """
        return {}

    def parts(self, config: Config) -> Mapping[str, BoundSpace]:
        """Name of a space to the bound space that works on the shape of a configuration, in order of work."""
        return {self.name: self}

    def fitted(self, space: Space, config: Config) -> Space | None:
        """One of the spaces that this is made of as it is for a configuration; None where it does not act."""
        return space

    def train_settings(self, step: str, given: Given, config: Config) -> Given:
        """The settings of a step that trains, `train` or `finetune`, under a configuration."""
        return given

    def check_steps(self, steps: Mapping[str, TrainSettings]) -> None:  # noqa: B027
        """Refuse steps that train and do not go with what the space says of them.

        Raises:
            BadInput: Which one.
        """

    def page(self, config: Config, known: Mapping[str, Any]) -> dict[str, Any]:
        """What `model.json` says of the model of a configuration, so that `load` builds it.

        Args:
            config: The configuration.
            known: What it says of the given model: `source`, `resized` where widths are others already.
        """
        widths = self.widths(config)
        shape = resized(self._graph, widths) if widths else None
        if shape is None:
            return dict(known)
        before = known.get("resized", {"widths": {}})
        return {**known, "resized": {**shape, "widths": {**before["widths"], **shape["widths"]}}}

    @property
    def outer(self) -> tuple[str, ...]:
        """Knobs of the first level that change shapes."""
        return tuple(knob.name for knob in self.tree.knobs) if self.changes_shapes else ()

    def private_copy(self) -> nn.Module:
        """A copy of the model in evaluation mode, without gradients."""
        return copied(self._graph.model)

    def prepare(self) -> nn.Module:
        """A private, instrumented copy on which `apply` works."""
        model = self.private_copy()
        self.instrument(model)
        return model

    def instrument(self, model: nn.Module) -> None:  # noqa: B027
        """Make a copy ready for `apply`, in place; it computes what it did. By itself it does nothing."""

    @abc.abstractmethod
    def apply(self, prepared: nn.Module, config: Config | None) -> nn.Module:
        """Set every knob on a prepared copy, and give the model of the configuration.

        It is the copy itself where shapes do not change. None gives the unmodified model. Whatever
        was applied before leaves no trace.
        """

    def plain(self, prepared: nn.Module, config: Config) -> nn.Module:
        """The model of the shapes of a configuration, with nothing else of it applied."""
        return self.apply(prepared, None)

    @abc.abstractmethod
    def describe(self) -> dict[str, Any]:
        """What `Space.explain` needs to spell out a configuration without the model; JSON-able."""


_LOOKED_AT: WeakKeyDictionary[BoundSpace, nn.Module] = WeakKeyDictionary()
"""Copies of the models of spaces that do not say what they change."""


def copied(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode, without gradients."""
    model = copy_of(model)
    for parameter in model.parameters():
        parameter.grad = None
    return model.eval()


class OwnModels(BoundSpace):
    """A space whose configurations are models of their own, with other shapes."""

    changes_shapes = True

    def apply(self, prepared: nn.Module, config: Config | None) -> nn.Module:
        return prepared if config is None else self.graph(config).model.train(prepared.training)

    def plain(self, prepared: nn.Module, config: Config) -> nn.Module:
        return self.apply(prepared, config)

    def weights(self, config: Config) -> Weights:
        return {}


class Space(abc.ABC):
    """The description of what may vary, before it meets a model."""

    name: ClassVar[str]
    Settings: ClassVar[type[BaseModel]] = FromSignature()  # type: ignore[assignment]
    """The keys of its table: what its constructor takes, each kept as an attribute of that name."""
    not_in_files: ClassVar[tuple[str, ...]] = ()
    """What the constructor takes from Python only."""
    step: ClassVar[Step | None] = None
    """When in a trial it acts; unset: at a step of its own name, on the weights as they are then."""
    goes_last: ClassVar[bool] = False
    """Whether it works on what the other spaces of a product made of the model."""
    goes_first: ClassVar[bool] = False
    """Whether the other spaces of a product work on the models that it makes: it is bound to `Networks`."""
    needs_training: ClassVar[bool] = False
    """Whether its configurations are worth measuring only once trials trained them."""
    scales_from_data: ClassVar[bool] = False
    """Whether it fixes scales of data on calibration rows: while the model is untrained they are not looked
    at, and `calibrate` applies it again."""

    @classmethod
    def acts_at(cls) -> Step:
        """When in a trial it acts."""
        return cls.step or Step(cls.name)

    def __mul__(self, other: Space) -> Space:
        """Both vary at once."""
        product: Any = SPACES["product"]
        space: Space = product([self, other])
        return space

    @property
    def parts(self) -> tuple[Space, ...]:
        """The spaces that a product is made of; itself where it is none."""
        return (self,)

    def mentions(self) -> Iterable[Mention]:
        """The words by which it chooses layers and groups."""
        return ()

    def without(self, gone: Container[Mention]) -> Space | None:
        """The space without some of these words; None where it says nothing any more."""
        return self

    @abc.abstractmethod
    def bind(self, graph: ModelGraph, calibration: Calibration | None = None) -> BoundSpace:
        """The space over one model.

        Args:
            graph: The model. Its weights may still change until the first `prepare`.
            calibration: Rows from which scales, statistics and norms are taken, where the space needs them.

        Raises:
            BadInput: The description does not fit the model.
        """

    @classmethod
    def check(cls, **given: Any) -> None:
        """Refuse settings that are of no use, from Python as from a file.

        Raises:
            BadInput: The first of them, by its key.
        """
        check(cls.Settings, given)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """The space that the keys of a `[search.space]` table describe.

        Raises:
            BadInput: An unknown key, one that is missing, or a value that it cannot have.
        """
        cls.check(**settings)
        return cls(**settings)

    def to_settings(self) -> dict[str, Any]:
        """The keys that `from_settings` takes, as plain values; formats as text."""
        given = {key: getattr(self, key) for key in self.Settings.model_fields}
        return {key: plain(value) for key, value in given.items() if value not in (None, (), [], {})}

    @staticmethod
    @abc.abstractmethod
    def explain(described: Mapping[str, Any], config: Config) -> dict[str, Any]:
        """A configuration spelt out layer by layer, as the reports print it.

        Args:
            described: From `BoundSpace.describe`.
            config: The configuration.
        """


SPACES: Registry[type[Space]] = Registry("search space")
