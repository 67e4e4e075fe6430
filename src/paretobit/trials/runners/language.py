"""How well a language model predicts the next token."""

import inspect
import math
import sys
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from paretobit.errors import BadInput
from paretobit.graph import at_rest, two_rows
from paretobit.trials.evidence import Evidence
from paretobit.trials.runners.base import RUNNERS, Candidate, Runner, RunnerSettings, SplitSettings
from paretobit.wanted.metric import Metric

IGNORED = -100
"""A label that does not count, as PyTorch and HuggingFace have it."""
_MASK = "attention_mask"
_LARGEST = math.log(sys.float_info.max)


class PerplexitySettings(SplitSettings):
    """Settings of `perplexity`. The test split judges the front and never chooses it."""

    shift: bool = Field(
        False,
        description="false: labels are the tokens that come next; true: the tokens themselves, as HuggingFace "
        "takes them, of which each is compared with the output before it",
    )
    padding: int | None = Field(
        None,
        ge=0,
        description="id of the token that fills up rows: the model gets an attention_mask, and such labels do "
        "not count; unset: every token counts",
    )


@RUNNERS.register("perplexity")
class Perplexity(Runner):
    """Perplexity of a language model on rows of token ids: exp of the mean cross-entropy of a token.

    The split holds ids `(rows, length)` and labels of the same shape; labels of -100 do not count. The
    model gives logits `(rows, length, vocabulary)`, or an output of HuggingFace that has them. The mean
    is over all tokens that count, in float64, not one of means of batches.
    """

    Settings: ClassVar[type[RunnerSettings]] = PerplexitySettings
    metrics = (
        Metric("perplexity", "minimize", "exp(nats per token)"),
        Metric("token_loss", "minimize", "nats per token"),
    )

    def __init__(self, evidence: Evidence, settings: Any) -> None:
        super().__init__(evidence, settings)
        x, y = evidence.split(settings.split)
        self._x, y = x[: settings.num_samples], y[: settings.num_samples]
        if y.shape != self._x.shape or y.dim() != 2 or y.is_floating_point() or self._x.is_floating_point():
            found = f"{tuple(self._x.shape)} and {tuple(y.shape)}"
            allowed = "integers of shape (rows, length) both"
            raise BadInput("not token ids and labels", key="perplexity.split", found=found, allowed=allowed)
        self._y = self._counted(y)
        if not (self._y != IGNORED).any():
            raise BadInput("no label counts", key="perplexity.split", found=settings.split)
        self._rows = settings.batch_size or evidence.rows_per_pass
        self._check_model()

    def measure(self, candidate: Candidate) -> dict[str, float]:
        total, count = torch.zeros((), dtype=torch.float64), int((self._y != IGNORED).sum())
        with torch.no_grad():
            for ids, labels in zip(*(torch.split(t, self._rows) for t in (self._x, self._y)), strict=True):
                logits = self._logits(candidate.applied, ids).flatten(0, 1)
                losses = F.cross_entropy(logits.float(), labels.flatten(), ignore_index=IGNORED, reduction="none")
                total += losses.sum(dtype=torch.float64)
        loss = total.item() / count
        return {"perplexity": math.inf if loss > _LARGEST else math.exp(loss), "token_loss": loss}

    def _counted(self, labels: Tensor) -> Tensor:
        """The label of every output; -100 where none counts."""
        padding = self.settings.padding
        if self.settings.shift:
            labels = F.pad(labels[:, 1:], (0, 1), value=IGNORED)
        if padding is not None:
            labels = labels.masked_fill((labels == padding) | (self._x == padding), IGNORED)
        return labels.contiguous()

    def _logits(self, model: Any, ids: Tensor) -> Tensor:
        padding = self.settings.padding
        given = {} if padding is None else {_MASK: (ids != padding).long()}
        output = model(ids, **given)
        logits: Tensor = getattr(output, "logits", output)
        return logits

    def _check_model(self) -> None:
        """Refuse a model that gives no logits per token, takes no mask, or labels outside its vocabulary."""
        model = self.evidence.graph.model
        parameters = inspect.signature(model.forward).parameters
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        if self.settings.padding is not None and _MASK not in parameters and not takes_any:
            allowed = f"a model that takes {_MASK}"
            raise BadInput(
                "the model cannot leave out padding", key="perplexity.padding",
                found=self.settings.padding, allowed=allowed,
            )  # fmt: skip
        few = two_rows(self._x)
        with at_rest(model), torch.no_grad():
            try:
                logits = self._logits(model, few)
            except Exception as error:  # a user's model can fail in any way at all
                problem = f"the model does not run on this data: {type(error).__name__}: {error}"
                raise BadInput(problem, key="model input", found=tuple(few.shape)) from error
        if not isinstance(logits, Tensor) or logits.dim() != 3 or logits.shape[:2] != few.shape:
            shape = str(tuple(logits.shape)) if isinstance(logits, Tensor) else type(logits).__name__
            allowed = "logits of shape (rows, length, vocabulary)"
            raise BadInput("perplexity needs a language model", key="model output", found=shape, allowed=allowed)
        known = self._y[self._y != IGNORED]
        low, high = int(known.min()), int(known.max())
        if low < 0 or high >= logits.shape[2]:
            allowed = f"0 to {logits.shape[2] - 1}, or {IGNORED}"
            found = f"{low} to {high}"
            raise BadInput("labels outside the vocabulary", key="labels", found=found, allowed=allowed)
