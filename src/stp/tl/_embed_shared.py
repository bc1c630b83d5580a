"""What the embedding verbs share: a buffer for results, batches and a progress bar."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

from stp._progress import Progress
from stp.models.patch_encoder import PatchEncoder
from stp.models.saved.pretrained import Pretrained
from stp.tables import keys
from stp.tables.embeddings import require_finite

if TYPE_CHECKING:
    from anndata import AnnData

Rows = np.ndarray  # rows of a table, (n,)
PatchBatch = tuple[Rows, np.ndarray]  # with the patches of these rows, (n, size, size, 3)
Batch = TypeVar("Batch", Rows, PatchBatch)


class EmbeddingBuffer:
    """Features and aligned vectors of each row of a table, NaN until the row is embedded.

    Parameters
    ----------
    n_obs
        Number of rows of the table.
    model
        The model that embeds the rows.
    precision
        "bf16" or "fp32", in which the model computes.
    """

    def __init__(self, n_obs: int, model: Pretrained | PatchEncoder, precision: str) -> None:
        self.n_obs = n_obs
        self.arrays: list[np.ndarray] = []
        name = model.name or type(model).__name__
        self._title = f"features that {name} computed in {precision}"
        self._remedy = "check the weights of the model for NaN"
        if precision != "fp32":
            self._remedy = f'pass precision="fp32", or {self._remedy}'

    def add(self, rows: Rows, outputs: tuple[torch.Tensor, ...]) -> None:
        """Store what the model returned for these rows.

        Raises
        ------
        ValueError
            A value is NaN or infinite.
        """
        if not self.arrays:
            shapes = [(self.n_obs, output.shape[1]) for output in outputs]
            self.arrays = [np.full(shape, np.nan, dtype=np.float32) for shape in shapes]
        for array, output in zip(self.arrays, outputs, strict=True):
            values = output.float().cpu().numpy()
            # The first batch with such a value stops the run, which may take hours.
            require_finite(values, rows, self._title, self._remedy)
            array[rows] = values

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
    """Yield the batches, and show how many spots are done."""
    with Progress(total, name, "spot", is_shown=is_shown) as progress:
        for batch in batches:
            yield batch
            rows = batch[0] if isinstance(batch, tuple) else batch
            progress.update(len(rows))


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
