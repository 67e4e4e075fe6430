"""The models of configurations, as a search hands them over."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import nn

from paretobit.graph import ModelGraph
from paretobit.graph.copies import copy_of
from paretobit.models import SavedModel
from paretobit.spaces import BoundSpace
from paretobit.spaces.knobs import Config
from paretobit.studies.models import BASELINE
from paretobit.studies.study import Study
from paretobit.studies.trial import Trial


@dataclass(frozen=True)
class Delivery:
    """Makes the models of trials.

    Attributes:
        model: The caller's model; never changed.
        space: Bound to it.
        graph: Of the model.
        page: What a saved model says of itself besides its formats.
        trains: Whether trials train: their weights are then those that the study keeps.
    """

    model: nn.Module
    space: BoundSpace
    graph: ModelGraph
    page: Mapping[str, Any]
    trains: bool

    def build(self, config: Config | None) -> nn.Module:
        """A copy of the model with a configuration applied; None leaves it in full precision."""
        if config is None:
            return copy_of(self.model).eval()
        prepared = self.space.prepare()
        model = self.space.apply(prepared, config)
        return model if model is prepared else copy_of(model)

    def of_trial(self, study: Study, trial: Trial) -> nn.Module:
        """The model of a trial: with the weights that it trained, where trials train.

        Raises:
            ParetoBitError: Those weights were not kept.
        """
        if not self.trains:
            return self.build(trial.config)
        number = trial.number if trial.duplicate_of is None else trial.duplicate_of
        model = copy_of(self.space.graph(trial.config).model)
        return study.models.get(number).put_into(model, f"trial {number}")

    def of_baseline(self, study: Study) -> nn.Module:
        """The unmodified model: trained as the trials were, where trials train."""
        model = self.build(None)
        return study.models.get(BASELINE).put_into(model, BASELINE) if self.trains else model

    def saved(self, study: Study, trial: Trial) -> SavedModel:
        """The model of a trial with all that `load` needs to build it."""
        return self.described(SavedModel.of(self.of_trial(study, trial)), trial.config)

    def attach(self, study: Study) -> None:
        """Let the trials of a study make their models."""
        study.attach(partial(self.of_trial, study), lambda saved, trial: self.described(saved, trial.config))

    def described(self, saved: SavedModel, config: Config | None) -> SavedModel:
        """A saved model that says what it is a model of."""
        page = self.page if config is None else self.space.page(config, self.page)
        return replace(saved, page={**saved.page, **page})
