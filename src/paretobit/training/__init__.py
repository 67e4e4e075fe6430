"""The one training loop."""

from paretobit.training.distillation import Distillation
from paretobit.training.evaluate import Evaluation, evaluate
from paretobit.training.history import Epoch, History
from paretobit.training.settings import TrainSettings
from paretobit.training.training_loop import check_fit, fit
