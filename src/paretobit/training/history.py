"""What happened while training: one record per epoch."""

from dataclasses import dataclass, field
from typing import Literal

Monitor = Literal["accuracy", "loss"]
Keep = Literal["best", "last"]


@dataclass(frozen=True)
class Epoch:
    """One pass over the training rows.

    Args:
        number: Counted from 1.
        train_loss: Mean loss of the training rows as they were met, in the units of the loss (nats by default);
            with a teacher, the distance to it included.
        train_accuracy: Share of them classified correctly, in [0, 1]; None where targets are not classes.
        val_loss: Mean loss of the validation rows after the epoch; None without validation rows.
        val_accuracy: Share of them classified correctly, in [0, 1]; None without rows or classes.
        learning_rate: Of the epoch's first batch.
        seconds: Wall time, validation included.
        is_best: Better than every epoch before it.
    """

    number: int
    train_loss: float
    train_accuracy: float | None
    val_loss: float | None
    val_accuracy: float | None
    learning_rate: float
    seconds: float
    is_best: bool


@dataclass
class History:
    """The epochs of one training, a resumed one's earlier epochs included.

    Args:
        monitor: Which metric ranks the epochs: of the validation rows where there are any.
        epochs: In order.
        stopped_early: Whether patience ran out before the last epoch allowed.
        keep: Which epoch's weights the model was left with.
        stopped_by_caller: Whether `on_epoch` ended the training before that.
        scales_not_learned: Where scales were to be learned, the slots without one of their own (`path.slot`)
            and why.
    """

    monitor: Monitor
    epochs: list[Epoch] = field(default_factory=list)
    stopped_early: bool = False
    keep: Keep = "best"
    stopped_by_caller: bool = False
    scales_not_learned: dict[str, str] = field(default_factory=dict)

    @property
    def best(self) -> Epoch | None:
        """The best epoch; None where no epoch was run."""
        return next((epoch for epoch in reversed(self.epochs) if epoch.is_best), None)

    @property
    def kept(self) -> Epoch | None:
        """The epoch whose weights the model was left with; None where no epoch was run."""
        return self.best if self.keep == "best" or not self.epochs else self.epochs[-1]

    @property
    def best_epoch(self) -> int:
        """Number of the best epoch; 0 where no epoch was run."""
        return self.best.number if self.best else 0

    @property
    def best_value(self) -> float | None:
        """The monitored metric of the best epoch."""
        return self.value(self.best) if self.best else None

    @property
    def seconds(self) -> float:
        """Wall time of all epochs."""
        return sum(epoch.seconds for epoch in self.epochs)

    def value(self, epoch: Epoch) -> float:
        """The monitored metric of one epoch."""
        if self.monitor == "loss":
            return epoch.train_loss if epoch.val_loss is None else epoch.val_loss
        accuracy = epoch.train_accuracy if epoch.val_accuracy is None else epoch.val_accuracy
        assert accuracy is not None, "accuracy is monitored only where there are classes"
        return accuracy

    def improved_by(self, epoch: Epoch) -> bool:
        """Whether `epoch` beats the best so far; a tie does not.

        Without validation rows nothing can choose honestly, and the latest epoch counts as the best.
        """
        if self.best is None or epoch.val_loss is None:
            return True
        now, before = self.value(epoch), self.value(self.best)
        return now < before if self.monitor == "loss" else now > before
