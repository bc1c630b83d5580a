"""What a feature file records, whoever wrote it, and the checks that all formats share."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from stp.images.scale import TOLERANCE

UNKNOWN = "unknown extractor"


class Arrays(Protocol):
    """The arrays of a file, read when they are needed."""

    def features(self) -> np.ndarray:
        """Return the features (n_tiles, width) in the order of the file."""

    def places(self) -> np.ndarray | None:
        """Return the places (n_tiles, 2) as x, y in the unit of the file; None without."""


@dataclass(frozen=True)
class TileScale:
    """The physical scale of tiles.

    Parameters
    ----------
    tile_um
        Side of a tile in µm; None if it is unknown.
    um_per_px
        µm per pixel of the patches that the encoder saw; None if it is unknown.
    um_per_unit
        µm per unit of the places in the file; None if it is unknown.
    is_corner
        Whether a place is the top left corner of its tile, and not its center.
    slide_um_per_px
        µm per pixel of the slide at full resolution; None if it is unknown.
    """

    tile_um: float | None = None
    um_per_px: float | None = None
    um_per_unit: float | None = None
    is_corner: bool = True
    slide_um_per_px: float | None = None


@dataclass(frozen=True)
class Layout:
    """A file or store, as its format describes it.

    Parameters
    ----------
    writer
        Name of the format.
    arrays
        The features and their places.
    shape
        Number of tiles, and number of values of each.
    dtype
        Type of the values.
    scale
        Physical scale of the tiles.
    model
        Name, class and digest of the model that made the features; None if there is no record.
    """

    writer: str
    arrays: Arrays
    shape: tuple[int, int]
    dtype: np.dtype
    scale: TileScale
    model: dict[str, str] | None


@dataclass(frozen=True)
class Extraction:
    """How others made features, as far as that is the same for all their slides.

    Parameters
    ----------
    writer
        Name of the format.
    extractor
        Name of the encoder; "" if the file does not record it.
    code_hash
        Digest of the code that made the features; "" if the file does not record it.
    tile
        Size of the tiles, in the unit in which the user of the other tool chose it.
    width
        Number of values of a tile.
    """

    writer: str
    extractor: str
    code_hash: str
    tile: str
    width: int

    def model_record(self) -> dict[str, str]:
        """Return the record of the model, with which models of slides know these features."""
        parts = [self.writer, self.extractor, self.code_hash, self.tile, self.width]
        digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        return {"name": self.extractor or UNKNOWN, "class": self.writer, "digest": digest}


def matrix_shape(shape: tuple[int, ...], label: str) -> tuple[int, int]:
    """Return the number of tiles and of values; a single vector is a bag of one tile.

    Raises
    ------
    ValueError
        The array has more than two axes, or none.
    """
    if len(shape) == 1:
        return (1 if shape[0] else 0), shape[0]
    if len(shape) != 2:
        raise ValueError(
            f"{label} have the shape {tuple(shape)}; expected (tiles, width), or (width,) for the "
            "vector of a slide"
        )
    return shape[0], shape[1]


def require_float(dtype: np.dtype, label: str) -> None:
    """Raise ValueError if values are not floating-point numbers."""
    if not np.issubdtype(dtype, np.floating):
        raise ValueError(f"{label} are of type {dtype}; expected floating-point numbers")


def has_places(shape: tuple[int, ...] | None, n_tiles: int, is_vector: bool, path: Path) -> bool:
    """Return whether there is a place for each tile.

    The vector of a slide has none, though the places of the tiles of that slide may be in its file.

    Parameters
    ----------
    shape
        Shape of the places; None without.
    n_tiles
        Number of tiles.
    is_vector
        Whether the features are one vector.
    path
        The file, for an error.

    Raises
    ------
    ValueError
        There are more or fewer places than tiles, or they are not x and y.
    """
    if shape is None:
        return False
    if n_tiles == 0 and shape[0] == 0:
        return True
    if len(shape) != 2 or shape[1] != 2:
        raise ValueError(f"the coords of {path} have the shape {shape}; expected x and y, (n, 2)")
    if shape[0] != n_tiles:
        if is_vector:
            return False
        raise ValueError(
            f"{path} has {n_tiles} rows of features and {shape[0]} of coords, so it is not "
            "complete; extract its features again"
        )
    return True


def resolve(
    passed: float | None, recorded: float | None, argument: str, path: Path
) -> float | None:
    """Return a scale that the caller passes, or that a file records.

    Raises
    ------
    ValueError
        Both are known and differ by more than 5 %.
    """
    if passed is None or recorded is None:
        return passed if recorded is None else recorded
    if abs(passed / recorded - 1) > TOLERANCE:
        raise ValueError(
            f"{argument}={passed:g} contradicts {path}, which records {recorded:g}; leave "
            f"{argument}= out, or check that it belongs to this slide"
        )
    return recorded
