"""Read the features of one slide as arrays, from the files of this and other tools.

A file is recognized by its structure, never by its name.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from stp._log import preview
from stp.data.feature_h5 import open_h5
from stp.data.feature_layout import Arrays, Layout, TileScale
from stp.data.feature_stores import open_store
from stp.data.feature_tensors import open_tensor
from stp.tables import keys

DECIMALS = 2  # of places along y; tiles of one row differ by rounding alone
BLOCK_ROWS = 512  # rows that are checked at a time, which a cache of the processor holds


@dataclass(frozen=True)
class FeatureFile:
    """The features of one slide in a file or store, which is described without reading its rows.

    Parameters
    ----------
    path
        The file or store.
    writer
        Name of the format: "KatherLab h5", "TRIDENT h5", "CLAM h5", "CLAM pt", "tile store",
        "LazySlide store", or "SpatialData store" for a store that is none of them.
    n_tiles
        Number of tiles; 1 for the vector of a slide, 0 for an empty file.
    width
        Number of values of a tile.
    dtype
        Type of the values.
    tile_um
        Side of a tile in µm; None if it is unknown.
    um_per_px
        µm per pixel of the patches that the encoder saw; None if it is unknown.
    model
        Name, class and digest of the model that made the features; None if there is no record.
        For files of others the digest is of what they record: format, encoder, code, size of the
        tiles and number of values.
    """

    path: Path
    writer: str
    n_tiles: int
    width: int
    dtype: np.dtype
    tile_um: float | None
    um_per_px: float | None
    model: dict[str, str] | None
    arrays: Arrays = field(repr=False)
    scale: TileScale = field(repr=False)

    @classmethod
    def from_layout(cls, path: Path, layout: Layout) -> "FeatureFile":
        """Return the description of a file whose format is recognized."""
        n_tiles, width = layout.shape
        return cls(
            path,
            layout.writer,
            n_tiles,
            width,
            layout.dtype,
            layout.scale.tile_um,
            layout.scale.um_per_px,
            layout.model,
            layout.arrays,
            layout.scale,
        )

    def read(self) -> np.ndarray:
        """Return the features (n_tiles, width), sorted by y and then x if places are known.

        Raises
        ------
        ValueError
            A value is NaN or infinite, or the file is damaged.
        """
        with _name_errors(self.path):
            values = self.arrays.features()
        self._require_finite(values)
        order = self.order()
        if order is None or (order == np.arange(len(order))).all():
            return values
        return values[order]

    def order(self) -> np.ndarray | None:
        """Return the rows (n_tiles,) of the file in the order of `read`; None without places.

        Raises
        ------
        ValueError
            A place is NaN or infinite, or the file is damaged.
        """
        return self._order(self._places())

    def centers(self) -> np.ndarray | None:
        """Return the centers (n_tiles, 2) of the tiles as x, y in µm, in the order of `read`.

        They are None if the places or their scale are unknown.

        Raises
        ------
        ValueError
            A place is NaN or infinite, or the file is damaged.
        """
        scale = self.scale
        places = self._places()
        if places is None or scale.um_per_unit is None:
            return None
        if scale.is_corner and scale.tile_um is None:
            return None
        shift = scale.tile_um / 2 if scale.is_corner and scale.tile_um is not None else 0.0
        return places[self._order(places)] * scale.um_per_unit + shift

    def _places(self) -> np.ndarray | None:
        """Return the places (n_tiles, 2) in the order and unit of the file."""
        with _name_errors(self.path):
            places = self.arrays.places()
        if places is None:
            return None
        places = places.astype(np.float64)
        if not np.isfinite(places).all():
            raise ValueError(
                f"{self.path} has places of tiles that are NaN or infinite; extract its features "
                "again"
            )
        return places

    def _order(self, places: np.ndarray | None) -> np.ndarray | None:
        """Return the positions of the rows in the file, sorted by y, then x."""
        if places is None:
            return None
        return np.lexsort((places[:, 0], places[:, 1].round(DECIMALS)))

    def _require_finite(self, values: np.ndarray) -> None:
        """Raise ValueError if a value is NaN or infinite."""
        for start in range(0, len(values), BLOCK_ROWS):
            block = values[start : start + BLOCK_ROWS]
            if not _are_finite(block):
                rows = start + np.flatnonzero(~np.isfinite(block).all(axis=1))
                raise ValueError(
                    f"{self.path} has features that are NaN or infinite, in row {preview(rows)}; "
                    "extract its features again, with a precision of 32 bits if that repeats"
                )


def _are_finite(values: np.ndarray) -> bool:
    """Return whether all values are finite; of float16 five times as fast as np.isfinite."""
    if values.dtype != np.float16:
        return bool(np.isfinite(values).all())
    # All bits of the exponent are set in infinity and NaN, and in nothing else.
    exponents = np.ascontiguousarray(values).view(np.uint16) & np.uint16(0x7C00)
    return not exponents.size or int(exponents.max()) < 0x7C00


def open_features(
    path: str | Path,
    *,
    use_rep: str = keys.IMAGES,
    table_key: str = keys.TABLE,
    um_per_px: float | None = None,
    tile_um: float | None = None,
) -> FeatureFile:
    """Describe a file or store with the features of one slide; its rows are read later.

    Parameters
    ----------
    path
        A file of KatherLab's STAMP, TRIDENT or CLAM, or a store of `stp.io.write_tiles` or of
        LazySlide.
    use_rep
        Name of the features in `obsm` of a store, or "X". Files have only one kind of features.
    table_key
        Name of the table of a store.
    um_per_px
        µm per pixel of the slide at full resolution, for TRIDENT and CLAM, which record none.
    tile_um
        Side of a tile in µm, for CLAM, which does not record it.

    Raises
    ------
    FileNotFoundError
        There is nothing at the path.
    ValueError
        The file has another structure or is damaged, or a scale contradicts what it records.
    """
    path = Path(path)
    for name, value in (("um_per_px", um_per_px), ("tile_um", tile_um)):
        if value is not None and not 0 < value < np.inf:
            raise ValueError(f"{name} must be positive, not {value}")
    if not path.exists():
        raise FileNotFoundError(f"there are no features at {path}; check the path")
    with _name_errors(path):
        if path.is_dir():
            layout = open_store(path, use_rep, table_key, um_per_px, tile_um)
        else:
            layout = _open_file(path, um_per_px, tile_um)
    return FeatureFile.from_layout(path, layout)


def _open_file(path: Path, um_per_px: float | None, tile_um: float | None) -> Layout:
    import h5py

    if h5py.is_hdf5(path):
        return open_h5(path, um_per_px, tile_um)
    with path.open("rb") as file:
        start = file.read(2)
    # A tensor is a zip file, or a pickle if it was saved by a PyTorch before 1.6.
    if start in (b"PK", b"\x80\x02"):
        return open_tensor(path, tile_um)
    raise ValueError(
        f"{path} is no file of features that can be read: expected HDF5 of KatherLab, TRIDENT or "
        "CLAM, a tensor of PyTorch, or the zarr folder of a tile store"
    )


@contextmanager
def _name_errors(path: Path) -> Iterator[None]:
    """Turn the errors of libraries into one that names the file; our own pass unchanged."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        raise ValueError(
            f"the features of {path} cannot be read ({type(error).__name__}: {error}); is the "
            "file complete? Copy it again, or extract its features again"
        ) from error
