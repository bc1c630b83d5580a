"""HDF5 files with features: those of KatherLab's STAMP, of TRIDENT and of CLAM."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp._log import warn
from stp.data.feature_layout import (
    Extraction,
    Layout,
    TileScale,
    has_places,
    matrix_shape,
    require_float,
    resolve,
)

if TYPE_CHECKING:
    import h5py

KATHERLAB = "KatherLab h5"
TRIDENT = "TRIDENT h5"
CLAM = "CLAM h5"

COORDS = "coords"
FEATURES = "features"
KATHERLAB_FEATURES = ("feats", "patch_embeddings")
MODEL_ATTRIBUTE = "stp_model"  # in files of stp.io.write_features: the record of the model

# The first version of KatherLab's STAMP writes places in a unit of 256/224 µm, and no tile size.
FIRST_TILE_UM = 256.0
FIRST_TILE_PX = 224
# TRIDENT's magnification by the largest µm per pixel for which it writes it.
MAGNIFICATIONS = {0.16: 80.0, 0.2: 60.0, 0.3: 40.0, 0.6: 20.0, 1.2: 10.0, 2.4: 5.0}


@dataclass(frozen=True)
class H5Arrays:
    """Features and places in an HDF5 file.

    Parameters
    ----------
    path
        The file.
    key
        Name of the features.
    has_places
        Whether each tile has a place.
    """

    path: Path
    key: str
    has_places: bool

    def features(self) -> np.ndarray:
        """Return the features (n_tiles, width) in the order of the file."""
        import h5py

        with h5py.File(self.path, "r") as file:
            values = file[self.key][()]
        return values.reshape(matrix_shape(values.shape, self.key))

    def places(self) -> np.ndarray | None:
        """Return the places (n_tiles, 2) as x, y in the unit of the file; None without."""
        import h5py

        if not self.has_places:
            return None
        with h5py.File(self.path, "r") as file:
            return file[COORDS][()].reshape(-1, 2)


@dataclass(frozen=True)
class _Contents:
    """What the headers of an HDF5 file say."""

    path: Path
    key: str  # of the features
    shape: tuple[int, int]
    dtype: np.dtype
    is_vector: bool
    has_places: bool
    root: dict[str, Any]  # attributes of the file, of the features and of the places
    of_features: dict[str, Any]
    of_coords: dict[str, Any]

    def layout(self, writer: str, scale: TileScale, model: dict[str, str]) -> Layout:
        """Return the layout of the file."""
        arrays = H5Arrays(self.path, self.key, self.has_places)
        if self.is_vector and not self.has_places:
            scale = TileScale()  # of a slide, which is no tile
        return Layout(writer, arrays, self.shape, self.dtype, scale, model)


def open_h5(path: Path, um_per_px: float | None, tile_um: float | None) -> Layout:
    """Return the layout of an HDF5 file, recognized by its datasets and attributes.

    Raises
    ------
    ValueError
        The file has no features, or they cannot be used.
    """
    import h5py

    with h5py.File(path, "r") as file:
        contents = _read_headers(path, file)
    if contents.key in KATHERLAB_FEATURES:
        return _open_katherlab(contents, um_per_px, tile_um)
    if "level0_magnification" in contents.of_coords:
        return _open_trident(contents, um_per_px, tile_um)
    return _open_clam(contents, um_per_px, tile_um)


def _read_headers(path: Path, file: "h5py.File") -> _Contents:
    import h5py

    for key in (*KATHERLAB_FEATURES, FEATURES):
        if isinstance(file.get(key), h5py.Dataset):
            break
    else:
        contents = f"only {sorted(file)}" if len(file) else "nothing"
        hint = "; these are places of tiles without features" if COORDS in file else ""
        raise ValueError(
            f"{path} has no features: expected a dataset 'feats' or 'features', and it has "
            f"{contents}{hint}"
        )
    dataset = file[key]
    label = f"the {key} of {path}"
    shape = matrix_shape(dataset.shape, label)
    require_float(dataset.dtype, label)
    coords = file.get(COORDS)
    return _Contents(
        path,
        key,
        shape,
        dataset.dtype,
        is_vector=shape[0] == 1,
        has_places=has_places(
            None if coords is None else coords.shape, shape[0], shape[0] == 1, path
        ),
        root=dict(file.attrs),
        of_features=dict(dataset.attrs),
        of_coords={} if coords is None else dict(coords.attrs),
    )


def _open_katherlab(contents: _Contents, um_per_px: float | None, tile_um: float | None) -> Layout:
    """Return the layout of a file of KatherLab's STAMP, of version 1, 2.0 or later."""
    attrs = contents.root
    scale = _katherlab_scale(contents)
    if scale.um_per_unit is not None and um_per_px is not None:
        raise ValueError(
            f"{contents.path} has its places in µm, not in pixels, so um_per_px= does not apply; "
            "leave it out"
        )
    extractor = _text(attrs.get("extractor", attrs.get("encoder")))
    tile = _describe_tile(scale.tile_um, scale.um_per_px)
    extraction = Extraction(
        KATHERLAB, extractor, _text(attrs.get("code_hash")), tile, contents.shape[1]
    )
    model = extraction.model_record()
    if MODEL_ATTRIBUTE in attrs:
        model = json.loads(_text(attrs[MODEL_ATTRIBUTE]))
    scale = TileScale(
        resolve(tile_um, scale.tile_um, "tile_um", contents.path),
        scale.um_per_px,
        scale.um_per_unit or um_per_px,
        slide_um_per_px=um_per_px,
    )
    _require_tile_um(contents, scale.um_per_unit, scale.tile_um)
    return contents.layout(KATHERLAB, scale, model)


def _katherlab_scale(contents: _Contents) -> TileScale:
    """Return the scale of a file of KatherLab's STAMP.

    Since version 2.1 there are `tile_size_um` and `tile_size_px`, in 2.0 `tile_size` in the `unit`
    "um". Version 1 has a `tile_size` or a distance between tiles of 224, in a unit of 256/224 µm.
    """
    attrs = contents.root
    is_um = _text(attrs.get("unit")) in ("um", "µm")
    size = _number(attrs.get("tile_size_um"))
    if size is None and is_um:
        size = _number(attrs.get("tile_size"))
    if size:
        pixels = _number(attrs.get("tile_size_px"))
        return TileScale(size, size / pixels if pixels else None, um_per_unit=1.0)
    if "unit" in attrs or not contents.has_places:
        return TileScale(um_per_unit=1.0 if is_um else None)
    step = _number(attrs.get("tile_size"))
    if step is None:
        arrays = H5Arrays(contents.path, contents.key, has_places=True)
        step = smallest_step(arrays.places())
    if step is None or round(step) != FIRST_TILE_PX:
        return TileScale()
    unit = FIRST_TILE_UM / FIRST_TILE_PX
    return TileScale(FIRST_TILE_UM, unit, um_per_unit=unit)


def smallest_step(places: np.ndarray | None) -> float | None:
    """Return the smallest distance along x or y between places (n, 2); None if there is none."""
    if places is None:
        return None
    steps = np.concatenate([np.diff(np.unique(axis)) for axis in places.T])
    return float(steps.min()) if len(steps) else None


def _open_trident(contents: _Contents, um_per_px: float | None, tile_um: float | None) -> Layout:
    """Return the layout of a file of TRIDENT, which records pixels and no µm."""
    attrs = contents.of_coords
    side = _number(attrs.get("patch_size_level0"))
    pixels = _number(attrs.get("patch_size"))
    # Of the slide, as a unit of its places; it follows from the side of a tile, too.
    um_per_unit = um_per_px
    if side and tile_um is not None:
        um_per_unit = resolve(um_per_px, tile_um / side, "um_per_px", contents.path)
    if um_per_unit is not None and side:
        tile_um = um_per_unit * side
    _require_tile_um(contents, um_per_unit, tile_um)
    _warn_of_magnification(contents.path, um_per_unit, _number(attrs["level0_magnification"]))
    seen_um = tile_um / pixels if tile_um is not None and pixels else None
    extractor = _text(contents.of_features.get("encoder"))
    tile = f"{attrs.get('patch_size')} px at {attrs.get('target_magnification')}x"
    model = Extraction(TRIDENT, extractor, "", tile, contents.shape[1]).model_record()
    scale = TileScale(tile_um, seen_um, um_per_unit, slide_um_per_px=um_per_unit)
    return contents.layout(TRIDENT, scale, model)


def _open_clam(contents: _Contents, um_per_px: float | None, tile_um: float | None) -> Layout:
    """Return the layout of a file of CLAM, which records nothing about its tiles."""
    _require_tile_um(contents, um_per_px, tile_um)
    model = Extraction(CLAM, "", "", "", contents.shape[1]).model_record()
    scale = TileScale(tile_um, None, um_per_px, slide_um_per_px=um_per_px)
    return contents.layout(CLAM, scale, model)


def _require_tile_um(contents: _Contents, um_per_px: float | None, tile_um: float | None) -> None:
    """Raise ValueError if places become µm, but not those of the centers of tiles."""
    if contents.has_places and contents.shape[0] and um_per_px is not None and tile_um is None:
        raise ValueError(
            f"{contents.path} records the corners of tiles and not their size; pass tile_um=, "
            "their side, together with um_per_px="
        )


def _warn_of_magnification(
    path: Path, um_per_px: float | None, magnification: float | None
) -> None:
    """Warn if TRIDENT writes another magnification for this µm per pixel."""
    if um_per_px is None or magnification not in MAGNIFICATIONS.values():
        return
    low = 0.0
    for high, value in MAGNIFICATIONS.items():
        if value == magnification:
            break
        low = high
    if not 0.95 * low <= um_per_px <= 1.05 * high:
        warn(
            f"{path} is of a slide with magnification {magnification:g}, which TRIDENT writes for "
            f"{low:g} to {high:g} µm per pixel, but um_per_px is {um_per_px:g}: is it that of "
            "level 0, the full resolution?"
        )


def _describe_tile(tile_um: float | None, um_per_px: float | None) -> str:
    """Return the size of a tile as text, rounded, so that it is the same for all slides."""
    if tile_um is None:
        return ""
    pixels = "" if um_per_px is None else f" of {round(tile_um / um_per_px)} px"
    return f"{tile_um:.6g} um{pixels}"


def _text(value: Any) -> str:
    """Return an attribute as text; TRIDENT writes "None" for what it does not know."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return "" if value is None or str(value) == "None" else str(value)


def _number(value: Any) -> float | None:
    """Return an attribute as a number, or None if it is none."""
    try:
        number = float(_text(value))
    except ValueError:
        return None
    return number if np.isfinite(number) else None
