"""A trial is a plain value."""

import copy
import pickle

import pytest
import torch

import paretobit as pb
from paretobit.errors import ParetoBitError


def test_a_trial_travels_as_a_value_and_leaves_the_model_behind(net, rows, linear_space):
    study = pb.search(net, val=rows, space=linear_space, minimize=["loss", "bitops"], n_trials=3)
    for trial in study:
        assert isinstance(trial.model(), torch.nn.Module)
        for other in (pickle.loads(pickle.dumps(trial)), copy.deepcopy(trial)):
            assert other == trial
            assert other.metrics == trial.metrics
            with pytest.raises(ParetoBitError, match="without its model"):
                other.model()
