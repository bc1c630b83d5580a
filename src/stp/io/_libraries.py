"""The slides of a table: one, or one for each library that a column of `obs` names."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from stp._log import preview
from stp.images.regions import check_one_slide, check_region, list_libraries
from stp.io._slide_elements import name_slides
from stp.tables.table import has_value, require_column

if TYPE_CHECKING:
    from anndata import AnnData

Value = TypeVar("Value")


class Library(NamedTuple):
    """The spots of one slide in a table, and their image."""

    label: str | None  # name in `uns["spatial"]`, or None
    region: str  # name in the SpatialData
    rows: np.ndarray  # (n,) positions in the table
    image: Any  # as the user passes it


def only_library(adata: "AnnData", centers: np.ndarray, image: Any, name: str) -> Library:
    """Return a table as the spots of one slide.

    Raises
    ------
    ValueError
        The table has several slides, or there are several images.
    """
    if _is_mapping(image):
        raise ValueError(
            f"image= is a mapping with the keys {_texts(image)}; pass library_key=, the column of "
            "obs with these libraries"
        )
    check_one_slide(adata, centers)
    labels, _ = list_libraries(adata)
    (region,) = name_slides([name])
    return Library(labels[0] if labels else None, region, np.arange(adata.n_obs), image)


def split_libraries(
    adata: "AnnData", centers: np.ndarray, image: Any, library_key: str
) -> list[Library]:
    """Return the slides of a table, in the order in which the mapping has their images.

    Raises
    ------
    KeyError
        `obs[library_key]` is missing.
    ValueError
        The libraries are not the keys of the images, spots have no library, or a library has the
        spots of several slides.
    """
    row_labels = _read_labels(adata, library_key)
    images = _images_by_label(row_labels, image, library_key)
    regions = name_slides(list(images))
    libraries = []
    for (label, library_image), region in zip(images.items(), regions, strict=True):
        rows = np.flatnonzero(row_labels == label)
        check_region(adata[rows], centers[rows], is_only=False)
        libraries.append(Library(label, region, rows, library_image))
    return libraries


def value_of(value: Value | Mapping[str, Value], library: Library) -> Value | None:
    """Return the value of a library, or the value of all; None if a mapping has none for it."""
    if not isinstance(value, Mapping):
        return value
    by_label = {str(label): one_value for label, one_value in value.items()}
    return by_label.get(str(library.label))


def check_keys(
    value: Any, argument: str, libraries: Sequence[Library], library_key: str | None
) -> None:
    """Raise ValueError if a mapping has keys that are no libraries."""
    if not isinstance(value, Mapping):
        return
    if library_key is None:
        raise ValueError(
            f"{argument}= is a mapping with the keys {_texts(value)}; pass library_key=, the "
            "column of obs with these libraries"
        )
    labels = [str(library.label) for library in libraries]
    if not set(_texts(value)) <= set(labels):
        raise ValueError(
            f"the keys of {argument}= are {_texts(value)}, the libraries in "
            f"obs[{library_key!r}] are {labels}; both must have the same names"
        )


def _read_labels(adata: "AnnData", library_key: str) -> np.ndarray:
    """Return the library of each row (n_obs,) as text."""
    column = require_column(adata, library_key, "library_key")
    is_labeled = has_value(column)
    if not is_labeled.all():
        raise ValueError(
            f"{(~is_labeled).sum()} of {adata.n_obs} spots have no library in "
            f"obs[{library_key!r}] ({preview(adata.obs_names[~is_labeled])}); name it, or leave "
            "these spots out"
        )
    return column.astype(str).to_numpy(dtype=object)


def _images_by_label(row_labels: np.ndarray, image: Any, library_key: str) -> dict[str, Any]:
    """Return the image of each library; all are None if the slides have no images."""
    labels = list(dict.fromkeys(row_labels))
    if image is None:
        return dict.fromkeys(labels)
    if not _is_mapping(image):
        raise ValueError(
            f"library_key={library_key!r} makes a slide of each library; pass image= as a mapping "
            f"from each of {labels} to its image or None"
        )
    if sorted(_texts(image)) != sorted(labels):
        raise ValueError(
            f"the keys of image= are {_texts(image)}, the libraries in obs[{library_key!r}] are "
            f"{labels}; both must have the same names"
        )
    return {str(label): library_image for label, library_image in image.items()}


def _is_mapping(image: Any) -> bool:
    """Return whether `image` maps names to images, and is not a multiscale image itself."""
    return isinstance(image, Mapping) and not type(image).__module__.startswith("xarray.")


def _texts(names: Mapping[Any, Any]) -> list[str]:
    return [str(name) for name in names]
