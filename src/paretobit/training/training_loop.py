"""The training loop: tensors in memory, seeded, resumable, best epoch kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paretobit.errors import BadInput, ParetoBitError
from paretobit.graph.copies import copy_of
from paretobit.graph.restore import undone
from paretobit.nn.learned_scale import fix_scales, forget_scales, is_scale, learn_scales
from paretobit.runtime import derive_seed, device, seeded
from paretobit.training.distillation import Distillation, Teacher
from paretobit.training.evaluate import evaluate, run_on_view
from paretobit.training.history import Epoch, History
from paretobit.training.optimizers import Schedule, build_optimizer
from paretobit.training.rows import Loss, Split, batch_sizes, check_rows, is_classes
from paretobit.training.settings import TrainSettings
from paretobit.training.state import Saved, TrainingFolder, put_back, restore, snapshot

Augment = Callable[[Tensor, torch.Generator], Tensor]
OnEpoch = Callable[[Epoch], bool | None]

# Batches between looks for a loss that is not finite: each look makes an accelerator wait.
CHECK_EVERY = 64
# Without gradients a forward pass has room for more rows.
EVALUATION_BATCHES = 4


def fit(
    model: nn.Module,
    train: Split,
    val: Split | None,
    settings: TrainSettings,
    *,
    folder: Path | None = None,
    resume: bool = False,
    augment: Augment | None = None,
    loss: Loss | None = None,
    on_epoch: OnEpoch | None = None,
    teacher: nn.Module | None = None,
    distillation: Distillation | None = None,
) -> History:
    """Train `model` in place; it is left on the settings' device, in eval mode, with the best epoch's weights
    (the last one's with `keep = "last"`).

    Every epoch draws its own seed from `settings.seed`, so equal arguments give bit-identical weights on a CPU,
    also across an interruption; the caller's random state is not touched. Whatever ends the training, the model
    holds the best weights so far (the initial ones before the first epoch ended). With `learned_scales` its
    scaled integers have fixed scales then; `best/weights.safetensors` keeps those as parameters.

    Args:
        model: Maps `(rows, ...)` to logits `(rows, classes)`, or to whatever `loss` takes.
        train: Inputs and targets, rows first. Targets int64 `(rows,)` are classes in [0, classes).
        val: Rows that choose the best epoch; without them the last one is kept.
        settings: See `TrainSettings`.
        folder: Where to write `learning_curves.csv`, `best/` and `last/` after every epoch.
        resume: Go on from the state in `folder`, where there is one; otherwise what `folder` held is replaced.
        augment: Called with a batch of inputs and a generator on their device; gives the batch to train on.
        loss: Maps (outputs, targets) to a mean, 0-d; the default is cross-entropy. Targets that are not classes
            need one, and leave accuracies None.
        on_epoch: Called after each epoch, once its files are written; what it returns ends the training where
            it is true. A training that it ended can be resumed.
        teacher: Classes only: a model whose logits the student also learns, on the same augmented batches;
            it is left as it is. Validation is against the labels alone.
        distillation: How the student learns from the teacher; the defaults unless told.

    Raises:
        BadInput: Data, settings and model do not fit together; the weights are as they were.
        ParetoBitError: The loss is no longer finite.
    """
    if resume and folder is None:
        raise BadInput("resuming needs the folder of the interrupted training", key="resume", allowed="a folder")
    scales = learn_scales(model) if settings.learned_scales else None
    history = None
    try:
        trainer = _Trainer(model, train, val, settings, augment, loss, _Lesson(teacher, distillation))
        history = trainer.history
        history.scales_not_learned = scales.left if scales else {}
        _run(trainer, None if folder is None else TrainingFolder(folder), resume, on_epoch)
    finally:
        if scales:
            if history is None or not history.epochs:
                forget_scales(model)
            else:
                history.scales_not_learned |= fix_scales(model)
    return history


def _run(trainer: _Trainer, run: TrainingFolder | None, resume: bool, on_epoch: OnEpoch | None) -> None:
    """All epochs; the model is left as `fit` says, its learned scales still parameters."""
    model, settings, history = trainer.model, trainer.settings, trainer.history
    saved = run.load(settings) if run and resume else None
    if saved:
        trainer.resume(saved, run and run.path)
    elif run:
        run.clear()
    best = saved.best if saved else snapshot(model)
    try:
        while not trainer.finished():
            epoch = trainer.epoch()
            if epoch is history.kept:
                best = snapshot(model)
            if run:
                run.commit(model, trainer.optimizer, settings, history)
            if on_epoch and on_epoch(epoch):
                history.stopped_by_caller = not trainer.finished()
                break
        if run and not history.epochs:  # nothing is to be trained: the model as it came is the result
            run.write_weights(model)
    finally:
        restore(model, best)
        model.eval()


def check_fit(model: nn.Module, train: Split, val: Split | None, settings: TrainSettings) -> None:
    """Refuse what `fit` would refuse, without touching the model.

    Raises:
        BadInput: Data, settings and model do not fit together.
    """
    private = copy_of(model)
    if settings.learned_scales:
        learn_scales(private)
    _Trainer(private, train, val, settings, None, None, _Lesson(None, None))


class _Trainer:
    """One training under way: data and model on the device, optimiser, schedule, history."""

    def __init__(
        self,
        model: nn.Module,
        train: Split,
        val: Split | None,
        settings: TrainSettings,
        augment: Augment | None,
        loss: Loss | None,
        lesson: _Lesson,
    ) -> None:
        self.model, self.settings, self.augment, self.loss = model, settings, augment, loss
        self.classes = is_classes(train[1])
        monitor = check_rows(train, val, settings, loss, self.classes)
        self.device = device(settings.device)
        self.model.to(self.device)
        self.x, self.y = (tensor.to(self.device) for tensor in train)
        self.val = None if val is None else (val[0].to(self.device), val[1].to(self.device))
        self.sizes = batch_sizes(self.x, settings.batch_size, model)
        self.teacher = lesson.teacher(self.classes, self.device)
        self._check_output()
        settings = settings.model_copy(update={"monitor": monitor})
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if not self.parameters:
            raise BadInput("the model has no parameter to train", key="model")
        self.optimizer = build_optimizer(_groups(model), settings)
        self.schedule = Schedule(self.optimizer, settings, len(self.sizes))
        self.history = History(monitor, keep=settings.keep)

    def resume(self, saved: Saved, source: object) -> None:
        """Continue after the epochs of an interrupted training."""
        put_back(self.model, self.optimizer, saved, source)
        self.history.epochs = saved.epochs
        if not self.finished():
            self.schedule.replay(self.history.value(epoch) for epoch in saved.epochs)

    def finished(self) -> bool:
        """Whether no epoch is left, or patience has run out (which is noted)."""
        done, patience = len(self.history.epochs), self.settings.early_stopping
        out_of_patience = patience is not None and done - self.history.best_epoch >= patience
        self.history.stopped_early = out_of_patience and done < self.settings.max_epochs
        return out_of_patience or done >= self.settings.max_epochs

    def epoch(self) -> Epoch:
        """Train one epoch and add its record to the history."""
        start, number = time.perf_counter(), len(self.history.epochs) + 1
        rate = float(self.optimizer.param_groups[0]["lr"])
        with seeded(derive_seed(self.settings.seed, "epoch", number)):
            train_loss, train_accuracy = self._train(number)
            val_loss, val_accuracy = self._validate(number)
        seconds = time.perf_counter() - start
        record = Epoch(number, train_loss, train_accuracy, val_loss, val_accuracy, rate, seconds, is_best=False)
        record = replace(record, is_best=self.history.improved_by(record))
        self.history.epochs.append(record)
        self.schedule.after_epoch(self.history.value(record))
        return record

    def _train(self, number: int) -> tuple[float, float | None]:
        """One pass in training mode: mean loss and accuracy."""
        self.model.train()
        rows = torch.randperm(len(self.x), generator=self._generator("order", number, "cpu")).to(self.device)
        draws = self._generator("augment", number, self.device)
        losses: list[Tensor] = []
        rates: list[float] = []
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        for batch in torch.split(rows, self.sizes):
            x, y = self.x[batch], self.y[batch]
            rates.append(float(self.optimizer.param_groups[0]["lr"]))
            x = self.augment(x, draws) if self.augment else x
            targets = self.teacher.logits(x) if self.teacher else None  # first: the student may work in place
            outputs = self.model(x)
            losses.append(self._step(outputs, y, targets))
            if self.classes:
                correct += (outputs.detach().argmax(1) == y).sum()
            if len(losses) % CHECK_EVERY == 0 or len(losses) == len(self.sizes):
                _check_finite(losses, rates, number)
        weights = torch.tensor(self.sizes, dtype=torch.float64)
        mean = float(torch.stack(losses).cpu().double() @ weights) / len(rows)
        return mean, correct.item() / len(rows) if self.classes else None

    def _step(self, outputs: Tensor, y: Tensor, targets: Tensor | None) -> Tensor:
        """One step of the optimiser; gives the loss before it."""
        if self.loss:
            loss = self.loss(outputs, y)
        else:
            loss = F.cross_entropy(outputs, y, label_smoothing=self.settings.label_smoothing)
        if self.teacher and targets is not None:
            loss = self.teacher.loss(loss, outputs, targets)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.settings.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.settings.gradient_clip)
        self.optimizer.step()
        self.schedule.after_batch()
        return loss.detach()

    def _validate(self, number: int) -> tuple[float | None, float | None]:
        """Loss and accuracy of the validation rows in eval mode; the model learns nothing from them."""
        self.model.eval()
        if self.val is None:
            return None, None
        rows = EVALUATION_BATCHES * self.settings.batch_size
        with undone(self.model):
            if self.loss is None:
                result = evaluate(self.model, *self.val, rows)
                loss, accuracy = result.loss, result.accuracy
            else:
                loss, accuracy = self._validate_by_loss(self.loss, *self.val, rows)
        if not torch.isfinite(torch.tensor(loss)):
            raise ParetoBitError(f"the validation loss is {loss} after epoch {number}: lower the learning rate")
        return loss, accuracy if self.classes else None

    def _validate_by_loss(self, loss: Loss, x: Tensor, y: Tensor, batch_size: int) -> tuple[float, float]:
        total, correct = 0.0, 0
        with torch.no_grad():
            for inputs, targets in zip(torch.split(x, batch_size), torch.split(y, batch_size), strict=True):
                outputs = run_on_view(self.model, inputs)
                total += float(loss(outputs, targets)) * len(inputs)
                correct += int((outputs.argmax(1) == targets).sum()) if self.classes else 0
        return total / len(x), correct / len(x)

    def _generator(self, purpose: str, number: int, place: torch.device | str) -> torch.Generator:
        return torch.Generator(place).manual_seed(derive_seed(self.settings.seed, purpose, number))

    def _check_output(self) -> None:
        """Look at two rows' outputs before any work."""
        if not self.classes:
            return
        self.model.eval()
        with seeded(0), torch.no_grad():
            shape = tuple(self.model(self.x[:2].clone()).shape)
            if len(shape) != 2:
                raise BadInput("class targets need logits", key="model", found=shape, allowed="(rows, classes)")
            if self.teacher:
                self.teacher.check(self.x[:2], shape)
        labels = [self.y, *([self.val[1]] if self.val else [])]
        low, high = min(int(y.min()) for y in labels), max(int(y.max()) for y in labels)
        if low < 0 or high >= shape[1]:
            allowed = f"0 to {shape[1] - 1}: the model has {shape[1]} outputs"
            raise BadInput("a label is not a class", key="y", found=low if low < 0 else high, allowed=allowed)


class _Lesson(NamedTuple):
    """Who teaches, and how."""

    model: nn.Module | None
    settings: Distillation | None

    def teacher(self, classes: bool, place: torch.device) -> Teacher | None:
        """The teacher on its device; None where there is none."""
        if self.model is None:
            if self.settings is not None:
                raise BadInput("settings of a teacher, and no teacher", key="distillation")
            return None
        if not classes:
            raise BadInput("a teacher needs targets that are classes", key="teacher", allowed="int64 (rows,)")
        return Teacher(self.model, self.settings or Distillation(), place)


def _groups(model: nn.Module) -> list[dict[str, Any]]:
    """What is trained, as an optimiser takes it: learned scales are not drawn towards zero."""
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    scales = [parameter for name, parameter in named if is_scale(name, model)]
    weights = [parameter for name, parameter in named if not is_scale(name, model)]
    groups: list[dict[str, Any]] = [{"params": weights}, {"params": scales, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _check_finite(losses: list[Tensor], rates: list[float], number: int) -> None:
    """Stop at the first batch whose loss is not finite."""
    finite = torch.isfinite(torch.stack(losses))
    if finite.all():
        return
    first = int((~finite).nonzero()[0])
    raise ParetoBitError(
        f"the loss is {float(losses[first])} in epoch {number}, batch {first + 1}, at a learning rate of"
        f" {rates[first]:g}: lower learning_rate or set gradient_clip (the best weights so far are kept)"
    )
