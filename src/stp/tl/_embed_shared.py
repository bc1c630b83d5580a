"""What the embedding verbs share: a buffer for results, batches and a progress bar."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from tqdm.auto import tqdm

from stp.models.patch_encoder import PatchEncoder
from stp.models.saved.pretrained import Pretrained
from stp.tables import keys

if TYPE_CHECKING:
    from anndata import AnnData

Rows = np.ndarray  # rows of a table, (n,)
PatchBatch = tuple[Rows, np.ndarray]  # with the patches of these rows, (n, size, size, 3)
Batch = TypeVar("Batch", Rows, PatchBatch)


class EmbeddingBuffer:
    """Features and aligned vectors of each row of a table, NaN until the row is embedded."""

    def __init__(self, n_obs: int) -> None:
        self.n_obs = n_obs
        self.arrays: list[np.ndarray] = []

    def add(self, rows: Rows, outputs: tuple[torch.Tensor, ...]) -> None:
        """Store what a model returned for these rows."""
        if not self.arrays:
            shapes = [(self.n_obs, output.shape[1]) for output in outputs]
            self.arrays = [np.full(shape, np.nan, dtype=np.float32) for shape in shapes]
        for array, output in zip(self.arrays, outputs, strict=True):
            array[rows] = output.float().cpu().numpy()

    def write(self, adata: "AnnData", key: str) -> None:
        """Write the features to `obsm[key]`, and the aligned vectors, if there are any, next to it.

        Raises
        ------
        ValueError
            No row was embedded.
        """
        if not self.arrays:
            raise ValueError("there is no spot to embed: the table is empty, or no spot has tokens")
        # Aligned vectors of an earlier model do not belong to the new features.
        adata.obsm.pop(keys.aligned(key), None)
        names = (key, keys.aligned(key))
        for name, array in zip(names, self.arrays, strict=False):
            adata.obsm[name] = array


def batches(rows: Rows, batch_size: int) -> Iterator[Rows]:
    """Yield the rows in batches."""
    for start in range(0, len(rows), batch_size):
        yield rows[start : start + batch_size]


def show_progress(
    batches: Iterator[Batch], total: int, name: str, is_shown: bool
) -> Iterator[Batch]:
    """Yield the batches, and show a progress bar on a terminal."""
    # None switches the bar off if there is no terminal.
    disable = None if is_shown else True
    with tqdm(total=total, desc=name, unit="spot", disable=disable) as bar:
        for batch in batches:
            yield batch
            rows = batch[0] if isinstance(batch, tuple) else batch
            bar.update(len(rows))


def model_record(model: Pretrained | PatchEncoder) -> dict[str, str | None]:
    """Return name, class and digests of a model, as `uns` stores them with an embedding."""
    class_name = type(model).__name__
    vocabulary = None
    if isinstance(model, Pretrained) and model.reads_genes:
        vocabulary = model.vocabulary.digest
    return {
        "name": model.name or class_name,
        "class": class_name,
        "digest": model.digest,
        "vocabulary": vocabulary,
    }
