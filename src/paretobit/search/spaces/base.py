"""What a search space is: a specification, bound to one model into a tree of knobs that can be applied."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from paretobit.graph import ModelGraph
from paretobit.passes.transform import Assignment
from paretobit.registry import Registry
from paretobit.search.knobs import Config, Tree


@dataclass(frozen=True)
class Dropped:
    """A knob that was removed because it changes nothing on this model."""

    knob: str
    reason: str


class BoundSpace(abc.ABC):
    """A space over one model.

    Attributes:
        tree: The knobs.
        dropped: Knobs without effect, removed from the tree.
        matched: Layers that the space varies, by node name.
        unmatched: Layers that it leaves alone.
    """

    tree: Tree
    dropped: tuple[Dropped, ...]
    matched: tuple[str, ...]
    unmatched: tuple[str, ...]

    @abc.abstractmethod
    def formats(self, config: Config) -> Assignment:
        """The formats of every varied layer under a configuration, without touching a model."""

    @abc.abstractmethod
    def prepare(self) -> nn.Module:
        """A private, instrumented copy of the model, in evaluation mode, on which `apply` works."""

    @abc.abstractmethod
    def apply(self, prepared: nn.Module, formats: Assignment) -> None:
        """Set every knob on a prepared copy, full precision included."""

    @abc.abstractmethod
    def describe(self) -> dict[str, Any]:
        """What `Space.explain` needs to spell out a configuration without the model; JSON-able."""


class Space(abc.ABC):
    """The description of what may vary, before it meets a model."""

    name: ClassVar[str]

    @abc.abstractmethod
    def bind(self, graph: ModelGraph) -> BoundSpace:
        """The space over one model.

        Raises:
            BadInput: The description does not fit the model.
        """

    @classmethod
    @abc.abstractmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Space:
        """The space that the keys of a `[search.space]` table describe."""

    @abc.abstractmethod
    def to_settings(self) -> dict[str, Any]:
        """The keys that `from_settings` takes."""

    @staticmethod
    @abc.abstractmethod
    def explain(described: Mapping[str, Any], config: Config) -> dict[str, Any]:
        """A configuration spelt out layer by layer, as the reports print it.

        Args:
            described: From `BoundSpace.describe`.
            config: The configuration.
        """


SPACES: Registry[type[Space]] = Registry("search space")
