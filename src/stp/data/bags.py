"""Bags of tiles as batches: the tiles of several patients one after another, without padding."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from stp.data.bag_file import BagFile
from stp.data.samplers import SpotIndex


class Bags(Dataset):
    """Read the bags of patients. Tiles that are drawn depend only on seed, epoch and patient.

    In a :class:`~stp.data.samplers.SpotIndex` each patient is a store with one row: `spots` holds
    (number of the patient, 0). Then a sampler gets a patient by ``rows=[np.zeros(1, int), ...]``,
    and leaves one out by an empty array.

    Parameters
    ----------
    file
        The bags of all patients.
    labels
        Values of all patients by name, each (n_patients, ...), in the order of `file.patients`.
        They are added to each batch.
    max_tiles
        Number of tiles of a patient that are drawn in each epoch; None reads all tiles.
    seed
        Random seed for the tiles that are drawn.
    """

    def __init__(
        self,
        file: BagFile,
        labels: Mapping[str, torch.Tensor] | None = None,
        *,
        max_tiles: int | None = None,
        seed: int = 0,
    ) -> None:
        self.file = file
        self.labels = dict(labels or {})
        self.max_tiles = max_tiles
        self.seed = seed
        if max_tiles is not None and max_tiles < 1:
            raise ValueError(f"max_tiles must be positive or None, not {max_tiles}")
        for name, values in self.labels.items():
            if name in ("features", "offsets"):
                raise ValueError(f"a label cannot have the name {name!r} of a part of the batch")
            if len(values) != len(file):
                raise ValueError(
                    f"label {name!r} has {len(values)} values for {len(file)} patients"
                )

    @property
    def names(self) -> Sequence[str]:
        """Ids of the patients."""
        return self.file.patients

    def __getitem__(self, index: SpotIndex) -> dict[str, torch.Tensor]:
        """Return the tiles of the patients of a batch, and their labels.

        "features" is (sum of n, width) in the type of the file, and "offsets" (m + 1,) int64 are
        the first rows of the patients.
        """
        patients = index.spots[:, 0]
        rows = [self._draw(int(patient), index.epoch) for patient in patients]
        offsets = np.cumsum([0, *map(len, rows)])
        width = self.file.features.shape[1]
        features = np.empty((offsets[-1], width), self.file.features.dtype)
        for number, patient in enumerate(patients):
            bag = self.file.bag(int(patient))
            part = features[offsets[number] : offsets[number + 1]]
            if len(part) == len(bag):
                part[:] = bag
            else:
                np.take(bag, rows[number], axis=0, out=part)
        batch = {name: values[patients] for name, values in self.labels.items()}
        batch["features"] = torch.from_numpy(features)
        batch["offsets"] = torch.from_numpy(offsets)
        return batch

    def _draw(self, patient: int, epoch: int) -> np.ndarray:
        """Return the rows of a bag to read, in order."""
        n_tiles = int(self.file.offsets[patient + 1] - self.file.offsets[patient])
        if self.max_tiles is None or n_tiles <= self.max_tiles:
            return np.arange(n_tiles)
        # The id, not the number, so that the draw does not depend on the other patients.
        digest = hashlib.sha256(self.file.patients[patient].encode()).digest()
        entropy = int.from_bytes(digest[:8], "little")
        rng = np.random.default_rng((self.seed, epoch, entropy))
        return np.sort(rng.choice(n_tiles, self.max_tiles, replace=False))
