"""Pictures of studies and trainings, by name. Colour-blind safe, readable in grey, axes with units."""

from paretobit.report.figures import against_knobs, bars, format_map, front, predicted, progress
from paretobit.report.figures import learning_curves as learning
from paretobit.report.figures.front import draw_front
from paretobit.report.figures.progress import draw_best_error
from paretobit.report.figures.registry import FIGURES, Asked, Kind, figure
from paretobit.report.figures.style import FORMATS, Picture, drawn, save

for _kind in (
    front.front,
    progress.running_best,
    progress.running_best_by_format,
    progress.error,
    progress.hypervolume,
    bars.bars,
    against_knobs.knob,
    against_knobs.stages,
    against_knobs.heatmap,
    format_map.formats,
    predicted.predicted,
    learning.learning_curves,
    learning.trial_curves,
):
    FIGURES.register(_kind.name, summary=_kind.summary)(_kind)
