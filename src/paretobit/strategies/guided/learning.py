"""Scores that follow what was measured: the predicted ones, bent and corrected option by option."""

from collections.abc import Sequence

import numpy as np

from paretobit.strategies.insight.allocation import Allocation, Array, Choice

ENOUGH = 8
"""Points from which something can be learned: two for a line, the others for what is off it."""
_REACH = 1.0  # of the logarithm of predicted harm: a line is fitted where that is within a factor of e or so
_ELSEWHERE = 1e-3  # weight of the points that are far away: they decide where there are no others
_HOPE = 0.5  # standard deviations: what is not known is worth trying, what is known to be good more so
_FLOOR = 0.1  # of the harm of the best of 20 points: zero has no logarithm, and less cannot be told apart


class Learned:
    """What every option is expected to add to the level of harm, given points.

    Measured levels are, locally, a linear function of the logarithm of predicted harm, plus a correction
    for each option: a linear model with a normal prior around zero (Bayesian ridge regression).

    Args:
        allocation: Options with their predicted scores.
        points: Choices and the level of harm that was measured; -1 in a choice is an option that is not known.
    """

    def __init__(self, allocation: Allocation, points: Sequence[tuple[Choice, float]]) -> None:
        self._allocation = allocation
        predicted = np.array([_total(allocation, choice) for choice, _ in points])
        self._levels = np.array([level for _, level in points])
        self._floor = max(1e-9, float(np.quantile(predicted, 0.05)) * _FLOOR)
        self._x = np.log(predicted + self._floor)
        slopes, intercepts = self._lines(self._x)
        residual = self._levels - (intercepts + slopes * self._x)
        self._corrections = self._fit([choice for choice, _ in points], residual)

    def scores(self, budgeted: Choice) -> list[Array]:
        """For each group, the scores of its options; they hold around the predicted harm of a choice.

        The mean less half a standard deviation: what is not known is worth trying.
        """
        harm = _total(self._allocation, budgeted) + self._floor
        slope = float(self._lines(np.log([harm]))[0][0])
        parts = zip(self._allocation.scores, self._corrections, strict=True)
        return [slope / harm * own + correction for own, correction in parts]

    def _lines(self, at: Array) -> tuple[Array, Array]:
        """Slope, not below zero, and intercept of the local line at each of some places."""
        weights = np.exp(-0.5 * ((self._x[None, :] - at[:, None]) / _REACH) ** 2) + _ELSEWHERE
        weights /= weights.sum(1, keepdims=True)
        mean_x, mean_y = weights @ self._x, weights @ self._levels
        away = self._x[None, :] - mean_x[:, None]
        spread = (weights * away**2).sum(1) + _ELSEWHERE
        slopes = np.maximum(0.0, (weights * away * (self._levels[None, :] - mean_y[:, None])).sum(1) / spread)
        return slopes, mean_y - slopes * mean_x

    def _fit(self, choices: Sequence[Choice], residual: Array) -> list[Array]:
        offsets = np.cumsum([0, *self._allocation.sizes])
        hot = np.zeros((len(choices), int(offsets[-1])))
        for row, choice in enumerate(choices):
            known = [int(offset) + k for offset, k in zip(offsets, choice, strict=False) if k >= 0]
            hot[row, known] = 1.0
        variance = float(np.mean(residual**2)) / (len(self._allocation.sizes) + 1) + 1e-12
        gram = np.linalg.inv(hot @ hot.T + np.eye(len(choices)))
        mean = hot.T @ gram @ residual
        explained = np.einsum("ij,ik,kj->j", hot, gram, hot, optimize=True)
        spread = np.sqrt(variance * np.maximum(1 - explained, 0.0))
        return np.split(mean - _HOPE * spread, offsets[1:-1])


def _total(allocation: Allocation, choice: Choice) -> float:
    """Predicted harm of the options that are known."""
    return max(0.0, float(sum(own[k] for own, k in zip(allocation.scores, choice, strict=True) if k >= 0)))
