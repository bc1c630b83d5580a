"""Training stores as they lie on disk, read lazily and with zarr alone."""

import hashlib
import math
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp.images.levels import Level, open_array
from stp.images.pyramid import ImagePyramid

if TYPE_CHECKING:
    import zarr
    from scipy.sparse import csr_matrix


STORE = "stp_store"  # attribute of a training store
STORE_VERSION = 1

INSIDE, OUTSIDE = (
    ("1", "1.0", "true"),
    ("0", "0.0", "false"),
)  # what `obs["in_tissue"]` holds, as text


class SpotStore:
    """One store written by `stp.io.write_store`.

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

        self.path, self._table_key = Path(path), table_key
        try:
            attrs = self._group.attrs.get(STORE, {})
        except (FileNotFoundError, zarr.errors.ContainsArrayError):
            attrs = {}
        if attrs.get("version") != STORE_VERSION or f"tables/{table_key}" not in self._group:
            raise ValueError(
                f"{path} is not a training store with a table {table_key!r}; stp.io.write_store makes one"
            )
        self.name, self._um_per_px = attrs["name"], attrs["patch_um_per_px"]
        self._pixels: Path | None = None  # the folder that `map_pixels` was given
        self._genes = attrs.get("genes")
        self._indptr = self._table["X/indptr"][:]

    def __len__(self) -> int:
        return len(self._indptr) - 1

    def __getstate__(self) -> dict:
        # Processes open and map the files themselves, and only if they read of them.
        return {
            name: value
            for name, value in self.__dict__.items()
            if name not in ("_group", "_table", "pyramid")
        }

    @cached_property
    def _group(self) -> "zarr.Group":
        import zarr

        return zarr.open_group(self.path, mode="r")

    @cached_property
    def _table(self) -> "zarr.Group":
        return self._group[f"tables/{self._table_key}"]

    @property
    def genes(self) -> str:
        """Digest of the names of the genes, in their order: most stores of a collection share it."""
        return self._genes or names_digest(self.gene_names)

    @property
    def digest(self) -> str:
        """Tell a store that was written anew, without reading its counts: genes, how many a spot detects, and where."""
        found = hashlib.sha256(f"{self.genes} {self._um_per_px}".encode())
        for array in (self._indptr, self.coordinates):
            found.update(b"" if array is None else np.ascontiguousarray(array).data)
        return found.hexdigest()

    @property
    def gene_names(self) -> np.ndarray:
        """Names of the genes (n_genes,): Ensembl ids where known."""
        return names_on_disk(self._table["var"])

    @cached_property
    def coordinates(self) -> np.ndarray | None:
        """Spot centers (n, 2) as x, y, in um where the scale is known; None where there are none."""
        return self._table["obsm/spatial"][:] if "obsm/spatial" in self._table else None

    @cached_property
    def pyramid(self) -> ImagePyramid | None:
        """The image, in um, read from disk as it is asked for; None where there is none."""
        if "images/image" not in self._group:
            return None
        image = self._group["images/image"]
        paths = [level["path"] for level in image.attrs["ome"]["multiscales"][0]["datasets"]]
        levels = [open_array(image[path]) for path in paths]
        if self._pixels is not None:
            files = [(self._pixels / str(number), np.uint8) for number in range(len(levels))]
            shapes = [(*level.shape, 3) for level in levels]
            levels = [
                Level(np.memmap(*file, "r", shape=shape))
                for file, shape in zip(files, shapes, strict=True)
            ]
        to_pixels = np.diag([1 / self._um_per_px, 1 / self._um_per_px, 1])
        return ImagePyramid(tuple(levels), self._um_per_px, to_pixels, "store")

    def write_pixels(self, folder: Path) -> None:
        """Decode the image into plain files of a new folder, for `map_pixels`."""
        folder.mkdir()
        for number, level in enumerate(self._levels):
            height, width = level.shape
            pixels = np.memmap(folder / str(number), np.uint8, "w+", shape=(height, width, 3))
            for top, bottom in pairwise(level.edges[0]):
                pixels[top:bottom] = level.read(top, bottom, 0, width)

    def map_pixels(self, folder: Path) -> None:
        """Read the image from plain files from now on: processes map the same ones, and none holds them.

        Patches are cut at the speed of memory where the system keeps the pages, however many slides there are.
        """
        self._pixels = folder
        self.__dict__.pop("pyramid", None)

    @property
    def n_pixel_bytes(self) -> int:
        """What `write_pixels` takes on disk."""
        return sum(3 * math.prod(level.shape) for level in self._levels)

    @property
    def _levels(self) -> tuple[Level, ...]:
        return self.pyramid.levels if self.pyramid else ()

    def trainable(self, min_genes: int) -> np.ndarray:
        """Return the rows of spots in tissue that detect at least `min_genes` genes."""
        enough = np.diff(self._indptr) >= min_genes
        return np.flatnonzero(
            enough & self._in_tissue() if "in_tissue" in self._table["obs"] else enough
        )

    def _in_tissue(self) -> np.ndarray:
        """Tell which spots are in tissue, whatever type says so."""
        import anndata
        import pandas as pd

        said = pd.Series(anndata.io.read_elem(self._table["obs/in_tissue"])).astype(str).str.lower()
        if len(unknown := said[~said.isin([*INSIDE, *OUTSIDE])]):
            raise ValueError(
                f"obs['in_tissue'] of {self.path} holds {unknown.iloc[0]!r}, which is neither 0 nor 1; "
                "write the store again with a column that says it of each spot, or without one"
            )
        return said.isin(INSIDE).to_numpy()

    def counts(self, n_rows: int) -> "Iterator[tuple[int, csr_matrix]]":
        """Yield blocks of at most `n_rows` spots: the first row, and the counts; ValueError where they are damaged."""
        for start in range(0, len(self), n_rows):
            yield start, self._counts(start, min(start + n_rows, len(self)))

    def _counts(self, start: int, stop: int) -> "csr_matrix":
        from scipy.sparse import csr_matrix

        low, high = self._indptr[start], self._indptr[stop]
        try:
            values, indices = (self._table[f"X/{name}"][low:high] for name in ("data", "indices"))
        except (KeyError, OSError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"the counts of {self.path} cannot be read ({error}); write the store again"
            ) from error
        # Where a chunk is gone, zarr reads zeros; a store holds none, and of column 0 at most one entry per row.
        if not values.all() or (indices == 0).sum() > stop - start:
            raise ValueError(f"{self.path} has lost a part of its counts; write the store again")
        parts = (values, indices, self._indptr[start : stop + 1] - low)
        return csr_matrix(parts, shape=(stop - start, self._table["X"].attrs["shape"][1]))


def names_on_disk(frame: Any) -> np.ndarray:
    """Read the index of a dataframe from its zarr group: stored as an array, or as values beside a mask."""
    index = frame[frame.attrs["_index"]]
    values = index if hasattr(index, "shape") else index["values"]
    return np.asarray(values[:], dtype=object)


def names_digest(names: Iterable[str]) -> str:
    """Tell a list of gene names, in their order, from others."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def trainable(stores: list[SpotStore], min_genes: int) -> list[np.ndarray]:
    """List the spots of each store to train on; refuse stores that have none together."""
    rows = [store.trainable(min_genes) for store in stores]
    if not sum(map(len, rows)):
        raise ValueError(
            f"no spot of {len(rows)} stores detects {min_genes} genes; lower min_genes"
        )
    return rows
