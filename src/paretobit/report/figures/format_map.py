"""Which format each layer of a trial has, and how many bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paretobit.errors import BadInput
from paretobit.passes.layers.entries import SLOTS
from paretobit.report.families import LayerCell, layer_cells
from paretobit.report.figures import style
from paretobit.report.figures.registry import Asked, figure
from paretobit.report.runs import Runs
from paretobit.report.tables import cell
from paretobit.studies.study import Study
from paretobit.studies.trial import Trial

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FULL_BITS = 32


@figure("formats", takes=("trial",))
def formats(runs: Runs, asked: Asked) -> style.Picture:
    """The format map of a trial, the best one unless asked otherwise: layers by slots, shaded by bits."""
    study = runs.study
    trial = study[asked.trial] if asked.trial is not None else best_trial(study)
    rows = layer_cells(study, trial.config)
    known = dict.fromkeys(column for cells in rows.values() for column in cells)
    columns = [slot for slot in SLOTS if slot in known] + [name for name in known if name not in SLOTS]
    if not columns:
        raise BadInput("the space varies nothing that belongs to a layer")

    def paint(canvas: Figure) -> None:
        _paint(canvas, rows, columns)

    widths = [max(len(name), *(len(cells[name].text) for cells in rows.values() if name in cells)) for name in columns]
    size = (1.6 + 0.075 * max(map(len, rows)) + sum(0.5 + 0.075 * width for width in widths), 1.3 + 0.3 * len(rows))
    return style.Picture(_reading(study, trial, rows), paint, (max(4.5, size[0]), size[1]))


def best_trial(study: Study) -> Trial:
    """The answer to the question of the run; without one, the best first objective.

    Raises:
        BadInput: No trial satisfies it.
    """
    return study.best(study.facts.get("best"))


def _paint(canvas: Figure, rows: dict[str, dict[str, LayerCell]], columns: list[str]) -> None:
    import numpy as np
    from matplotlib.colors import Normalize

    table = np.full((len(rows), len(columns)), np.nan)
    for i, cells in enumerate(rows.values()):
        for j, column in enumerate(columns):
            if column in cells and (bits := cells[column].bits) is not None:
                table[i, j] = bits
    known = table[np.isfinite(table)]
    norm = Normalize(0, max(known.max() if known.size else _FULL_BITS, 1))
    axes = canvas.subplots()
    image = axes.imshow(table, aspect="auto", cmap=style.SHADES, norm=norm)
    for i, cells in enumerate(rows.values()):
        for j, column in enumerate(columns):
            if column in cells:
                colour = style.ink(norm, table[i, j]) if np.isfinite(table[i, j]) else "black"
                axes.text(j, i, cells[column].text, ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(range(len(columns)), [column.replace("_", " ") for column in columns])
    axes.set_yticks(range(len(rows)), list(rows))
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_ylabel("layer")
    if known.size:
        canvas.colorbar(image, ax=axes, label="bits of an element [bits]", location="bottom", shrink=0.7, pad=0.02)


def _reading(study: Study, trial: Trial, rows: dict[str, dict[str, LayerCell]]) -> str:
    """How many layers are quantised, and the narrowest and widest weights."""
    bits = {
        column: {layer: cells[column].bits for layer, cells in rows.items() if column in cells}
        for column in dict.fromkeys(column for cells in rows.values() for column in cells)
    }
    told = []
    for column, by_layer in bits.items():
        known = {layer: b for layer, b in by_layer.items() if b is not None}
        if known:
            low, high = min(known, key=lambda name: known[name]), max(known, key=lambda name: known[name])
            name = column.replace("_", " ")
            told.append(
                f"{name} takes {known[low]} bits in all {len(known)} layers"
                if known[low] == known[high]
                else f"{name} takes {known[low]} bits ({low}) to {known[high]} ({high})"
            )
    named = [name for objective in study.objectives for name in objective.metrics if name in trial.metrics]
    metrics = ", ".join(f"{name.replace('_', ' ')} {cell(trial.metrics[name])}" for name in named)
    head = f"Trial {trial.number}" + (f" ({metrics})" if metrics else "") + f" varies {len(rows)} layers"
    return f"{head}: {'; '.join(told)}." if told else f"{head}."
