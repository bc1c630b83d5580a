"""What the embedding verbs share: a buffer for results, batches and a progress bar."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

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


@dataclass(frozen=True)
class Computing:
    """How embeddings are computed.

    Parameters
    ----------
    batch_size
        Number of spots per batch.
    device
        Torch device; by default that of `stp.settings`, or a GPU if there is one.
    precision
        "auto" (bf16 on a GPU, fp32 on a CPU), "bf16" or "fp32".
    progress
        Show a progress bar, or lines of the log if there is no terminal.
    """

    batch_size: int
    device: str | None
    precision: str
    progress: bool


class EmbeddingParts(Protocol):
    """What was embedded before a call was stopped, and where this call saves its own part."""

    def load(self) -> Iterator[tuple[Rows, list[np.ndarray]]]:
        """Yield rows (m,) and the arrays of their outputs, each (m, width), in saved order."""

    def add(self, rows: Rows, outputs: list[np.ndarray]) -> None:
        """Save the outputs of one batch, at once or with later ones."""


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
    parts
        What was embedded before, and where batches are saved; None saves nothing.
    """

    def __init__(
        self,
        n_obs: int,
        model: Pretrained | PatchEncoder,
        precision: str,
        parts: EmbeddingParts | None = None,
    ) -> None:
        self.n_obs = n_obs
        self._parts = parts
        self.arrays: list[np.ndarray] = []
        name = model.name or type(model).__name__
        self._title = f"features that {name} computed in {precision}"
        self._remedy = "check the weights of the model for NaN"
        if precision != "fp32":
            self._remedy = f'pass precision="fp32", or {self._remedy}'

    def restore(self) -> int:
        """Store what was embedded before, and return the number of these rows."""
        n_restored = 0
        if self._parts is not None:
            for rows, outputs in self._parts.load():
                self._store(rows, outputs)
                n_restored += len(rows)
        return n_restored

    def add(self, rows: Rows, outputs: tuple[torch.Tensor, ...]) -> None:
        """Store what the model returned for these rows.

        Raises
        ------
        ValueError
            A value is NaN or infinite.
        """
        values = [output.float().cpu().numpy() for output in outputs]
        for output in values:
            # The first batch with such a value stops the run, which may take hours.
            require_finite(output, rows, self._title, self._remedy)
        self._store(rows, values)
        if self._parts is not None:
            self._parts.add(rows, values)

    def _store(self, rows: Rows, outputs: list[np.ndarray]) -> None:
        if not self.arrays:
            shapes = [(self.n_obs, output.shape[1]) for output in outputs]
            self.arrays = [np.full(shape, np.nan, dtype=np.float32) for shape in shapes]
        for array, output in zip(self.arrays, outputs, strict=True):
            array[rows] = output

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
    batches: Iterator[Batch], total: int, name: str, is_shown: bool, initial: int = 0
) -> Iterator[Batch]:
    """Yield the batches, and show how many spots are done; `initial` were done before."""
    with Progress(total, name, "spot", is_shown=is_shown, initial=initial) as progress:
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
