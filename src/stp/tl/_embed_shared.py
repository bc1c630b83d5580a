"""What the verbs that embed share: batches with a progress bar, and results by row."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm.auto import tqdm

from stp.models.saved.pretrained import Pretrained
from stp.tables import keys

if TYPE_CHECKING:
    from anndata import AnnData


class EmbeddingBuffer:
    """Features and aligned vectors by row, NaN where nothing was embedded."""

    def __init__(self, n_obs: int) -> None:
        self.n_obs = n_obs
        self.arrays: list[np.ndarray] = []

    def add(self, rows: np.ndarray, outputs: tuple[torch.Tensor, ...]) -> None:
        if not self.arrays:
            self.arrays = [
                np.full((self.n_obs, out.shape[1]), np.nan, dtype=np.float32) for out in outputs
            ]
        for array, out in zip(self.arrays, outputs, strict=True):
            array[rows] = out.float().cpu().numpy()

    def write(self, adata: "AnnData", key: str) -> None:
        if not self.arrays:
            raise ValueError("there is no spot to embed: the table is empty, or no spot has tokens")
        adata.obsm.pop(keys.aligned(key), None)  # of a model before, whose record is gone
        for name, array in zip((key, keys.aligned(key)), self.arrays, strict=False):
            adata.obsm[name] = array


def batches(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


def progress_of(batches: Iterator[Any], total: int, name: str, shown: bool) -> Iterator[Any]:
    """Pass batches on, with a bar on a terminal."""
    with tqdm(total=total, desc=name, unit="spot", disable=None if shown else True) as bar:
        for batch in batches:
            yield batch
            bar.update(len(batch[0] if isinstance(batch, tuple) else batch))


def model_record(model: Pretrained) -> dict[str, str | None]:
    """Tell which model it is, as `uns` keeps it beside an embedding."""
    kind = type(model).__name__
    vocabulary = model.vocabulary.digest if model.reads_genes else None
    return {
        "name": model.name or kind,
        "class": kind,
        "digest": model.digest,
        "vocabulary": vocabulary,
    }
