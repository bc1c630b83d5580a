"""Read training stores from disk, lazily and with zarr alone."""

import hashlib
import math
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp._text import readable
from stp.data.store_source import STORE, WRITE_AGAIN, check_version, describe_other, find_local
from stp.images.levels import Level, open_array
from stp.images.pyramid import ImagePyramid
from stp.tables.in_tissue import IN_TISSUE, read_in_tissue

if TYPE_CHECKING:
    import zarr
    from scipy.sparse import csr_matrix

METADATA = "stp_metadata"  # attribute: what the manifest of a collection says about the slide


class SpotStore:
    """A store that `stp.io.write_store` wrote.

    Parameters
    ----------
    path
        Path of the zarr folder, or its URL. A remote store is downloaded once, into the cache.
    table_key
        Name of the table in the store.

    Attributes
    ----------
    path : Path
        The folder on a local disk, from which everything is read.
    source : str
        The path as it was passed, or the URL without passwords and tokens.
    is_in_um : bool
        Whether the coordinates are in µm.

    Raises
    ------
    ValueError
        The folder is not a training store of this version, or has no such table.
    OSError
        A remote store cannot be downloaded.
    """

    def __init__(self, path: str | Path, table_key: str = "table") -> None:
        self.source = readable(path)
        self.path = find_local(path)
        self._table_key = table_key
        attrs = self._read_attrs()
        check_version(attrs, self.source, table_key)
        if f"tables/{table_key}" not in self._group:
            raise ValueError(describe_other(self.source, table_key))
        self.name = attrs["name"]
        self._um_per_px = attrs["patch_um_per_px"]
        self.is_in_um = attrs["unit"] == "um"
        self._pixel_folder: Path | None = None  # set by `map_pixels`
        self.species: str | None = attrs.get("species")
        self.digest: str = attrs["digest"]  # of the whole content, by `write_store`
        self._spots_digest = attrs.get("spots_digest")
        self._genes = attrs.get("genes")
        self._indptr = self._table["X/indptr"][:]

    def __len__(self) -> int:
        return len(self._indptr) - 1

    def _read_attrs(self) -> dict[str, Any]:
        import zarr

        try:
            return self._group.attrs.get(STORE, {})
        except (FileNotFoundError, zarr.errors.ContainsArrayError):
            return {}

    def __getstate__(self) -> dict:
        # Each process opens the files itself when it first reads from them.
        files = ("_group", "_table", "pyramid")
        return {name: value for name, value in self.__dict__.items() if name not in files}

    @cached_property
    def _group(self) -> "zarr.Group":
        import zarr

        return zarr.open_group(self.path, mode="r")

    @cached_property
    def _table(self) -> "zarr.Group":
        return self._group[f"tables/{self._table_key}"]

    @property
    def attributes(self) -> dict[str, Any]:
        """What `stp.io.write_store` recorded: `stp_store`, and `stp_source` in newer stores."""
        return dict(self._group.attrs)

    @property
    def genes(self) -> str:
        """Digest of the gene names in their order; most stores of a collection share it."""
        return self._genes or names_digest(self.gene_names)

    def check_spots(self) -> None:
        """Raise ValueError if genes or spots changed after the digest was computed.

        This happens if a part of a store is written with SpatialData, which copies the digest.
        """
        n_genes = self._table["X"].attrs["shape"][1]
        digest = spots_digest(self.genes, n_genes, self._indptr, self.coordinates)
        if digest != self._spots_digest:
            raise ValueError(
                f"the genes or spots of {self.source} changed after the store was written, so its "
                f"digest is not of its content; {WRITE_AGAIN}"
            )

    @property
    def gene_names(self) -> np.ndarray:
        """Names of the genes (n_genes,): Ensembl ids if known."""
        return names_on_disk(self._table["var"])

    @property
    def gene_umis(self) -> np.ndarray | None:
        """UMIs of each gene over all spots (n_genes,); None if the store does not record them."""
        var = self._table["var"]
        return var["umis"][:] if "umis" in var else None

    @property
    def patients(self) -> frozenset[str]:
        """Patients of the spots, by the manifest or `obs["patient"]`; empty without."""
        import anndata

        patient = self._group.attrs.get(METADATA, {}).get("patient")
        if patient:
            return frozenset([patient])
        if "patient" not in self._table["obs"]:
            return frozenset()
        values = set(anndata.io.read_elem(self._table["obs/patient"]))
        return frozenset(value for value in values if isinstance(value, str) and value)

    @cached_property
    def coordinates(self) -> np.ndarray | None:
        """Spot centers (n, 2) as x, y, in µm if the scale is known; None for a store without."""
        return self._table["obsm/spatial"][:] if "obsm/spatial" in self._table else None

    @cached_property
    def pyramid(self) -> ImagePyramid | None:
        """The image in µm, whose pixels are read when they are needed; None for a store without."""
        if "images/image" not in self._group:
            return None
        image = self._group["images/image"]
        paths = level_paths(image)
        if self._pixel_folder is None:
            levels = [open_array(image[path]) for path in paths]
        else:
            files = [self._pixel_folder / f"{number}.npy" for number in range(len(paths))]
            levels = [Level(np.load(file, mmap_mode="r")) for file in files]
        to_pixels = np.diag([1 / self._um_per_px, 1 / self._um_per_px, 1])
        return ImagePyramid(tuple(levels), self._um_per_px, to_pixels, "store")

    def write_pixels(self, folder: Path) -> None:
        """Decode the image into NumPy files in a new folder, for `map_pixels`."""
        folder.mkdir()
        for number, level in enumerate(self._levels):
            height, width = level.shape
            pixels = np.lib.format.open_memmap(
                folder / f"{number}.npy", "w+", np.uint8, (height, width, 3)
            )
            for top, bottom in pairwise(level.edges[0]):
                pixels[top:bottom] = level.read(top, bottom, 0, width)

    def map_pixels(self, folder: Path) -> None:
        """Read the image from the files of `write_pixels` from now on.

        All processes map the same files, so that the system caches the pixels once, and no process
        has a copy in its own memory.
        """
        self._pixel_folder = folder
        self.__dict__.pop("pyramid", None)

    @property
    def n_pixel_bytes(self) -> int:
        """Number of bytes of all pixels, which `write_pixels` needs on disk."""
        return sum(3 * math.prod(level.shape) for level in self._levels)

    @property
    def _levels(self) -> tuple[Level, ...]:
        return self.pyramid.levels if self.pyramid else ()

    def trainable(self, min_genes: int) -> np.ndarray:
        """Return the rows of spots in tissue that detect at least `min_genes` genes."""
        is_trainable = np.diff(self._indptr) >= min_genes
        if "in_tissue" in self._table["obs"]:
            is_trainable &= self._is_in_tissue()
        return np.flatnonzero(is_trainable)

    def _is_in_tissue(self) -> np.ndarray:
        """Return whether each spot is in tissue; the column may have any type."""
        import anndata
        import pandas as pd

        column = pd.Series(anndata.io.read_elem(self._table[f"obs/{IN_TISSUE}"]))
        return read_in_tissue(column, f"obs[{IN_TISSUE!r}] of {self.source}")

    def counts(self, n_rows: int) -> "Iterator[tuple[int, csr_matrix]]":
        """Yield the first row and the counts of blocks of at most `n_rows` spots.

        Raises
        ------
        ValueError
            The counts are damaged.
        """
        for start in range(0, len(self), n_rows):
            yield start, self._read_counts(start, min(start + n_rows, len(self)))

    def _read_counts(self, start: int, stop: int) -> "csr_matrix":
        from scipy.sparse import csr_matrix

        low = self._indptr[start]
        high = self._indptr[stop]
        try:
            values = self._table["X/data"][low:high]
            indices = self._table["X/indices"][low:high]
        except (KeyError, OSError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"the counts of {self.source} cannot be read ({error}); write the store again"
            ) from error
        # zarr reads a missing chunk as zeros. A store has no count of zero, and no row names column
        # 0 twice.
        if not values.all() or (indices == 0).sum() > stop - start:
            raise ValueError(f"{self.source} has lost a part of its counts; write the store again")
        parts = (values, indices, self._indptr[start : stop + 1] - low)
        return csr_matrix(parts, shape=(stop - start, self._table["X"].attrs["shape"][1]))


def level_paths(image: Any) -> list[str]:
    """Return the paths of the arrays in an image group, finest first."""
    return [level["path"] for level in image.attrs["ome"]["multiscales"][0]["datasets"]]


def names_on_disk(frame: Any) -> np.ndarray:
    """Read the index of a dataframe from its zarr group: an array, or values with a mask."""
    index = frame[frame.attrs["_index"]]
    values = index if hasattr(index, "shape") else index["values"]
    return np.asarray(values[:], dtype=object)


def names_digest(names: Iterable[str]) -> str:
    """Return the digest of a list of gene names in their order."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def spots_digest(
    genes: str, n_genes: int, indptr: np.ndarray, coordinates: np.ndarray | None
) -> str:
    """Return the digest of genes, number of genes per spot and coordinates, which is fast.

    Parameters
    ----------
    genes
        Digest of the gene names.
    n_genes
        Number of genes.
    indptr
        Position (n + 1,) of each spot in the counts.
    coordinates
        Spot centers (n, 2); None without.
    """
    sha256 = hashlib.sha256(f"{genes} {n_genes}".encode())
    sha256.update(np.ascontiguousarray(indptr, "<i8").data)
    if coordinates is not None:
        sha256.update(np.ascontiguousarray(coordinates, "<f8").data)
    return sha256.hexdigest()


def trainable(stores: list[SpotStore], min_genes: int) -> list[np.ndarray]:
    """Return the rows of each store to train on, or raise ValueError if there are none at all."""
    rows = [store.trainable(min_genes) for store in stores]
    if not sum(map(len, rows)):
        raise ValueError(
            f"no spot of {len(rows)} stores detects {min_genes} genes; lower min_genes"
        )
    return rows
