"""Coordinate systems of SpatialData elements, and the affine maps between them."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stp.images.label_centers import label_centers

if TYPE_CHECKING:
    import pandas as pd

# Coordinate systems to choose first if spots and image share several.
PREFERRED = ("um", "global")
# Coordinate systems agree if the places at which they put the spots differ by no more than this.
SAME_PLACE_PIXELS = 0.5
# A pixel may be this much longer than wide.
MAX_ASPECT = 1.02


class SharedSystem(NamedTuple):
    """A coordinate system that spots and image share."""

    name: str
    spots_to_pixels: np.ndarray  # (3, 3)


class SpotsOnImage(NamedTuple):
    """The spots of one region and their image, in the coordinate system that they share."""

    region: str
    spots: Any  # shapes or labels of a SpatialData
    centers: np.ndarray  # (n, 2) x, y in the coordinate system
    image: Any  # image of a SpatialData
    image_key: str
    coordinate_system: str


def affine_of(element: Any, system: str) -> np.ndarray:
    """Return the (3, 3) matrix that takes x, y of a SpatialData element to a coordinate system."""
    from spatialdata.transformations import get_transformation

    return get_transformation(element, system).to_affine_matrix(("x", "y"), ("x", "y"))


def linear_scale(matrix: np.ndarray) -> float:
    """Return the length of a unit after an affine map: the square root of its determinant."""
    return float(np.sqrt(abs(np.linalg.det(np.asarray(matrix)[:2, :2]))))


def inverse(matrix: np.ndarray, name: str) -> np.ndarray:
    """Return the inverse (3, 3) of an affine map.

    Raises
    ------
    ValueError
        The map has no inverse, or square patches would not be square under it.
    """
    longest, shortest = 1.0, 0.0
    if np.isfinite(matrix).all():
        longest, shortest = np.linalg.svd(matrix[:2, :2], compute_uv=False)
    if not shortest > 1e-9 * longest:
        raise ValueError(
            f"the transformation of {name} has no inverse; set it anew: {matrix.tolist()}"
        )
    if longest > MAX_ASPECT * shortest:
        raise ValueError(
            f"the transformation of {name} makes pixels {longest / shortest:.3g} times longer "
            "than wide, and patches would be distorted; resample the image to square pixels"
        )
    return np.linalg.inv(matrix)


def only_system(systems: Iterable[str]) -> str:
    """Return the coordinate system in µm, or the only one.

    Raises
    ------
    ValueError
        There are several coordinate systems, and none of them is in µm.
    """
    names = sorted(systems)
    um = um_system(names)
    if um is not None:
        return um
    if len(names) == 1:
        return names[0]
    raise ValueError(
        f"the image is in several coordinate systems; pass coordinate_system= one of {names}"
    )


def um_system(systems: Iterable[str]) -> str | None:
    """Return the name of the coordinate system in µm, or None if there is none.

    It is `um`, or `um-slide` if `spatialdata.concatenate` added the name of one slide.
    """
    names = sorted(name for name in systems if name == "um" or name.startswith("um-"))
    if not names:
        return None
    is_unique = names[0] == "um" or len(names) == 1
    return names[0] if is_unique else None


def coordinate_systems(element: Any) -> dict[str, Any]:
    """Return the coordinate systems of a SpatialData element, each with its transformation."""
    from spatialdata.transformations import get_transformation

    return get_transformation(element, get_all=True)


# spatialdata's get_transformation_between_coordinate_systems is no replacement here: it searches
# all paths between all elements, and accepts maps that distort patches.
def shared_system(
    spots: Any, image: Any, system: str | None, image_key: str
) -> SharedSystem | None:
    """Return the coordinate system that spots and image share, or None if they share none.

    It is `system` if that is given. Otherwise it is `um`, else `global`, else any other, if all
    others put the spots on the same place of the image.

    Raises
    ------
    ValueError
        Several coordinate systems are shared, and they put the spots on different places.
    """
    names = _shared_names(spots, image, system)
    if not names:
        return None
    shared = []
    for name in names:
        to_pixels = inverse(affine_of(image, name), f"image {image_key!r} to {name!r}")
        shared.append(SharedSystem(name, to_pixels @ affine_of(spots, name)))
    if names[0] not in PREFERRED and not _agree(shared):
        raise ValueError(
            "spots and image share several coordinate systems; "
            f"pass coordinate_system= one of {names}"
        )
    return shared[0]


def _shared_names(spots: Any, image: Any, system: str | None) -> list[str]:
    """List the coordinate systems that spots and image share, the preferred ones first."""
    of_image = coordinate_systems(image)
    names = [name for name in coordinate_systems(spots) if name in of_image]
    if system is not None:
        return [name for name in names if name == system]
    preferred = [name for name in PREFERRED if name in names]
    return preferred + [name for name in names if name not in PREFERRED]


def _agree(shared: Sequence[SharedSystem]) -> bool:
    """Return whether all coordinate systems put the spots on the same place of the image."""
    first = shared[0].spots_to_pixels
    return all(
        np.allclose(system.spots_to_pixels, first, rtol=1e-3, atol=SAME_PLACE_PIXELS)
        for system in shared[1:]
    )


def finest_array(image: Any) -> Any:
    """Return the array of an image; of a multiscale image, the finest."""
    return next(iter(image["scale0"].data_vars.values())) if hasattr(image, "children") else image


def centroids_of(spots: Any, system: str) -> "pd.DataFrame":
    """Return the centers of shapes or labels as columns x and y; the index has their ids.

    Shapes without coordinates are left out.
    """
    import pandas as pd
    import shapely
    from spatialdata import get_centroids

    if hasattr(spots, "geometry"):  # get_centroids starts Dask, which takes longer than the rest
        matrix = affine_of(spots, system)
        spots = spots[~(spots.geometry.is_empty | spots.geometry.isna())]
        ids = spots.index
        centers = shapely.get_coordinates(shapely.centroid(spots.geometry.to_numpy()))
    elif not hasattr(spots, "npartitions"):  # labels; get_centroids takes 36 bytes for each pixel
        ids, centers = label_centers(finest_array(spots).data)
        matrix = affine_of(finest_array(spots), system)
    else:
        return get_centroids(spots, coordinate_system=system).compute()[["x", "y"]]
    places = centers @ matrix[:2, :2].T + matrix[:2, 2]
    return pd.DataFrame(places, index=ids, columns=["x", "y"])


def spot_centers(spots: Any, instances: np.ndarray, system: str, name: str) -> np.ndarray:
    """Return the centers (n, 2) of spots as x, y, looked up by their ids and not by their order.

    The center of a shape without coordinates is NaN.

    Raises
    ------
    ValueError
        An id is not among the spots, two spots have it, or two rows of the table.
    """
    if hasattr(spots, "geometry"):
        _check_unique(np.asarray(spots.index), f"the spots of {name!r}")
    _check_unique(instances, f"the rows of the table that annotate {name!r}")
    centroids = centroids_of(spots, system)
    ids = spots.index if hasattr(spots, "geometry") else centroids.index
    is_missing = ~np.isin(instances, ids)
    if is_missing.any():
        raise ValueError(
            f"{is_missing.sum()} rows of the table have no spot in {name!r}, "
            f"e.g. {instances[is_missing][0]}"
        )
    return centroids.reindex(instances).to_numpy(dtype=float)


def require_finite(centers: np.ndarray) -> np.ndarray:
    """Return centers (n, 2) as numbers; raise ValueError if one is not finite."""
    centers = np.asarray(centers, dtype=float)
    without_place = np.flatnonzero(~np.isfinite(centers).all(axis=1))
    if len(without_place):
        raise ValueError(
            f"{len(without_place)} spots have no finite coordinates, the first in row "
            f"{without_place[0]}; leave them out"
        )
    return centers


def _check_unique(ids: np.ndarray, owners: str) -> None:
    """Raise ValueError if an id occurs twice."""
    import pandas as pd

    is_repeat = pd.Index(ids).duplicated()
    if is_repeat.any():
        raise ValueError(
            f"{is_repeat.sum()} of {owners} repeat an id, e.g. {ids[is_repeat][0]}: a row would "
            "get the place of another spot; give each spot another id"
        )
