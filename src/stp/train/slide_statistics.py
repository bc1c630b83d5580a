"""Mean and spread of the features of slides, by which later slides are compared."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch

from stp.data.bag_file import BagFile
from stp.models.slide import SlideModel

FILE = "statistics.npz"
# Spreads below this share of the feature's size are rounding errors of a constant feature.
ROUNDING = 1e-6
# The spread of all slides but one is at least this share of the spread of all slides.
MIN_SHARE = 0.1


@dataclass(frozen=True)
class SlideStatistics:
    """Mean and variance of the features of each slide.

    Parameters
    ----------
    n_tiles
        Number of tiles of each slide (n_slides,).
    means
        Mean features of each slide (n_slides, width).
    variances
        Variances of the features of each slide (n_slides, width).
    """

    n_tiles: np.ndarray
    means: np.ndarray
    variances: np.ndarray

    @classmethod
    def save(cls, file: BagFile, folder: Path) -> None:
        """Read all features once, and save their statistics in a folder."""
        shape = (len(file.slides), file.features.shape[1])
        n_tiles = np.diff(file.slide_offsets)
        means = np.zeros(shape)
        variances = np.zeros(shape)
        first_slide = np.searchsorted(file.slide_offsets, file.offsets)
        for patient in range(len(file)):
            bag = file.bag(patient)
            start = file.offsets[patient]
            for slide in range(first_slide[patient], first_slide[patient + 1]):
                rows = file.slide_offsets[slide : slide + 2] - start
                tiles = torch.from_numpy(bag[slice(*rows)].astype(np.float32))
                if len(tiles):
                    means[slide] = tiles.mean(0).numpy()
                    variances[slide] = tiles.var(0, unbiased=False).numpy()
        np.savez(folder / FILE, n_tiles=n_tiles, means=means, variances=variances)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load the statistics that `save` wrote."""
        with np.load(folder / FILE) as arrays:
            return cls(arrays["n_tiles"], arrays["means"], arrays["variances"])

    def describe_to(self, model: SlideModel, is_training: np.ndarray) -> float:
        """Set the statistics of a model, and return the distance above which a slide is far.

        The distance is the outer fence of Tukey's rule for outliers, and at least the largest
        distance of a training slide from the others.

        Parameters
        ----------
        model
            The model whose buffers are set.
        is_training
            Which slides (n_slides,) are those of training patients.
        """
        is_used = is_training & (self.n_tiles > 0)
        n_tiles = self.n_tiles[is_used]
        means = self.means[is_used]
        variances = self.variances[is_used]
        mean = np.average(means, axis=0, weights=n_tiles)
        spread = np.average(variances + np.square(means - mean), axis=0, weights=n_tiles)
        model.feature_mean[:] = torch.as_tensor(mean)
        model.feature_sd[:] = torch.as_tensor(_nonzero(np.sqrt(spread), mean))
        slide_mean = means.mean(0)
        model.slide_mean[:] = torch.as_tensor(slide_mean)
        model.slide_sd[:] = torch.as_tensor(_nonzero(means.std(0), slide_mean))
        distances = _distances_to_others(means)
        low, high = np.quantile(distances, (0.25, 0.75))
        return float(max(distances.max(), high + 3 * (high - low)))


def _distances_to_others(means: np.ndarray) -> np.ndarray:
    """Return how far each slide (n_slides,) is from mean and spread of all others.

    The distance is that of `SlideModel.measure_distances`. A feature that is the same in all other
    slides has no spread among them, so that a tenth of the spread of all slides is the least.
    """
    n_others = max(1, len(means) - 1)
    mean = means.mean(axis=0)
    centered = means - mean
    others_mean = -centered / n_others  # of centered slides, whose sum is zero
    squares = np.square(centered)
    others_variance = (squares.sum(axis=0) - squares) / n_others - np.square(others_mean)
    least = MIN_SHARE * np.sqrt(squares.mean(axis=0))
    spread = _nonzero(np.maximum(np.sqrt(np.maximum(others_variance, 0)), least), mean)
    return np.sqrt(np.square((centered - others_mean) / spread).mean(axis=1))


def _nonzero(spread: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return the spread of features of this mean, with 1 for those that are constant."""
    return np.where(spread > ROUNDING * np.abs(mean), spread, 1.0)
