"""Which layer of a trained model is fragile."""

from collections.abc import Sequence

import torch

from paretobit.errors import BadInput
from paretobit.formats import Format
from paretobit.graph import trace, two_rows
from paretobit.runtime import one_thread, seeded
from paretobit.strategies.insight.sensitivity import DEFAULT_FORMATS, SensitivityReport, sensitivity
from paretobit.workflow.opening import named, open_saved
from paretobit.workflow.settings import Settings
from paretobit.workflow.train import open_checkpoint

_BATCH = 64


def fragile_layers(
    settings: Settings,
    *,
    saved: str | None = None,
    other_data: bool = False,
    formats: Sequence[Format] = DEFAULT_FORMATS,
    slots: Sequence[str] = ("both",),
    loss: str = "cross_entropy",
    split: str = "val",
    rows: int = 256,
) -> SensitivityReport:
    """The sensitivity of a trained classifier, on rows of its data.

    Args:
        settings: Model with its weights, and data.
        saved: A saved model or run folder, in place of a name.
        other_data: Whether a saved model is run on the data of the settings, not on its own.
        formats: Candidates.
        slots: What to quantise at a time.
        loss: `cross_entropy` or `kl`.
        split: Where the rows come from: drawn with the settings' seed.
        rows: How many, at most.

    Raises:
        BadInput: No weights, no such split, or what `sensitivity` refuses.
    """
    if rows < 1:
        raise BadInput("no rows", key="--rows", found=rows, allowed="1 or more")
    if saved is not None:
        model, data = open_saved(saved, settings.data if other_data else None, named(settings.model))
    elif settings.model.load is not None:
        model, data = open_checkpoint(settings)
    else:
        allowed = "a run folder, or a model with --load"
        raise BadInput("no weights to look at", key="MODEL", found=settings.model.name, allowed=allowed)
    chosen = data.split(split)
    drawn = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(settings.seed))[:rows]
    x, y = chosen.x[drawn], chosen.y[drawn]
    with one_thread(), seeded(settings.seed):
        graph = trace(model, two_rows(x))
        return sensitivity(
            graph,
            torch.split(x, _BATCH),
            formats,
            targets=torch.split(y, _BATCH),
            loss=loss,  # type: ignore[arg-type]  # checked there
            slots=slots,  # type: ignore[arg-type]
        )
