"""Training stores, and the batches of masked tokens that pretraining reads from them."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from stp._keys import MASK_ID, PAD_ID, STORE, STORE_VERSION
from stp._levels import open_array
from stp._ranks import rank_table
from stp._table import names_on_disk
from stp.patches import ImagePyramid
from stp.tokens import mask_tokens, rank_genes
from stp.vocabulary import Vocabulary

BLOCK_ROWS = 4096  # spots ranked at a time


class SpotStore:
    """One store written by `stp.io.write_store`, read lazily and with zarr alone.

    Parameters
    ----------
    path
        The zarr folder.
    table_key
        Its table.

    Raises
    ------
    ValueError
        The folder is no training store of this version, or has no such table.
    """

    def __init__(self, path: str | Path, table_key: str = "table") -> None:
        import zarr

        self.path = Path(path)
        try:
            self._group = zarr.open_group(self.path, mode="r")
            attrs = self._group.attrs.get(STORE, {})
        except (FileNotFoundError, zarr.errors.ContainsArrayError):
            attrs = {}
        if attrs.get("version") != STORE_VERSION or f"tables/{table_key}" not in self._group:
            raise ValueError(f"{path} is not a training store with a table {table_key!r}; stp.io.write_store makes one")
        self.name, self._um_per_px = attrs["name"], attrs["patch_um_per_px"]
        self._table = self._group[f"tables/{table_key}"]
        self._indptr = self._table["X/indptr"][:]

    def __len__(self) -> int:
        return len(self._indptr) - 1

    @cached_property
    def gene_names(self) -> np.ndarray:
        """Names of the genes (n_genes,): Ensembl ids where known."""
        return names_on_disk(self._table["var"])

    @cached_property
    def coordinates(self) -> np.ndarray | None:
        """Spot centers (n, 2) as x, y, in um where the scale is known; None where there are none."""
        return self._table["obsm/spatial"][:] if "obsm/spatial" in self._table else None

    @cached_property
    def pyramid(self) -> ImagePyramid | None:
        """The image, in um, with levels of moderate size in memory; None where there is none."""
        if "images/image" not in self._group:
            return None
        image = self._group["images/image"]
        paths = [level["path"] for level in image.attrs["ome"]["multiscales"][0]["datasets"]]
        levels = tuple(open_array(image[path]) for path in paths)
        to_pixels = np.diag([1 / self._um_per_px, 1 / self._um_per_px, 1])
        return ImagePyramid(levels, self._um_per_px, to_pixels, "store").in_memory()

    def trainable(self, min_genes: int) -> np.ndarray:
        """Return the rows of spots in tissue that detect at least `min_genes` genes."""
        enough = np.diff(self._indptr) >= min_genes
        if "in_tissue" in self._table["obs"] and hasattr(self._table["obs/in_tissue"], "shape"):
            enough &= self._table["obs/in_tissue"][:].astype(bool)
        return np.flatnonzero(enough)

    def tokens(self, vocabulary: Vocabulary, context_length: int) -> np.ndarray:
        """Rank all spots, block by block: (n, context_length) uint16, padded with 0; ValueError if they are damaged."""
        index, table = vocabulary.encode(self.gene_names), rank_table(vocabulary.divisors())
        tokens = np.zeros((len(self), context_length), np.uint16)
        for start in range(0, len(self), BLOCK_ROWS):
            counts = self._counts(start, min(start + BLOCK_ROWS, len(self)))
            rank_genes(
                counts,
                index,
                table,
                context_length=context_length,
                n_special=vocabulary.n_special,
                out=tokens[start : start + BLOCK_ROWS],
            )
        return tokens

    def _counts(self, start: int, stop: int):
        from scipy.sparse import csr_matrix

        low, high = self._indptr[start], self._indptr[stop]
        try:
            values, indices = (self._table[f"X/{name}"][low:high] for name in ("data", "indices"))
        except (KeyError, OSError, RuntimeError, ValueError) as error:
            raise ValueError(f"the counts of {self.path} cannot be read ({error}); write the store again") from error
        # Where a chunk is gone, zarr reads zeros; a store holds none, and of column 0 at most one entry per row.
        if not values.all() or (indices == 0).sum() > stop - start:
            raise ValueError(f"{self.path} has lost a part of its counts; write the store again")
        parts = (values, indices, self._indptr[start : stop + 1] - low)
        return csr_matrix(parts, shape=(stop - start, len(self.gene_names)))


class Picks(NamedTuple):
    """Which spots make a batch: what samplers yield and datasets read."""

    epoch: int
    spots: np.ndarray  # (m, 2): store, row


class TokenDataset(Dataset):
    """Batches of masked tokens for pretraining; masks depend on seed, store, spot and epoch alone."""

    def __init__(
        self, stores: Sequence[SpotStore], vocabulary: Vocabulary, *, context_length: int, fraction: float, seed: int
    ) -> None:
        self.stores, self.vocabulary, self.fraction, self.seed = stores, vocabulary, fraction, seed
        self.tokens = [store.tokens(vocabulary, context_length) for store in stores]

    def __getitem__(self, picks: Picks) -> dict[str, torch.Tensor]:
        """Return ids to read, ids to predict and which to predict, each (m, longest); padded with the model's 1."""
        rows = [self._masked(store, row, picks.epoch) for store, row in picks.spots]
        inputs, targets, chosen = (
            _stack(part, fill) for part, fill in zip(zip(*rows, strict=True), (PAD_ID, PAD_ID, 0), strict=True)
        )
        return {"inputs": inputs.long(), "targets": targets.long(), "chosen": chosen.bool()}

    def _masked(self, store: int, row: int, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        tokens = self.tokens[store][row].astype(np.int64)
        tokens = tokens[tokens > 0]
        rng = np.random.default_rng((self.seed, store, row, epoch))
        genes = (self.vocabulary.n_special, self.vocabulary.n_tokens)
        inputs, chosen = mask_tokens(tokens, rng, fraction=self.fraction, mask_id=MASK_ID, gene_ids=genes)
        return inputs, tokens, chosen

    def log_frequency(self, rows: Sequence[np.ndarray]) -> torch.Tensor:
        """Return the log share of each token (n_tokens,) over these rows of each store, smoothed by one."""
        counts = np.ones(self.vocabulary.n_tokens)
        for tokens, chosen in zip(self.tokens, rows, strict=True):
            counts += np.bincount(tokens[chosen].ravel(), minlength=len(counts))
        counts[: self.vocabulary.n_special] = 1  # padding is never predicted
        return torch.from_numpy(np.log(counts / counts.sum())).float()


def _stack(rows: Sequence[np.ndarray], fill: int) -> torch.Tensor:
    """Pad rows to the longest and stack them (m, longest)."""
    stacked = np.full((len(rows), max(map(len, rows))), fill, dtype=np.int64)
    for row, values in zip(stacked, rows, strict=True):
        row[: len(values)] = values
    return torch.from_numpy(stacked)
