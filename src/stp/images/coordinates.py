"""Coordinate systems and the affine maps between them."""

from collections.abc import Iterable
from typing import Any

import numpy as np

PREFERRED = ("um", "global")  # coordinate systems, where spots and image meet in several
SAME_PX = 0.5  # two coordinate systems that put spots no further apart on the image say the same


SQUARE = 1.02  # a pixel may be this much longer than wide


def affine_of(element: Any, system: str) -> np.ndarray:
    """Return the (3, 3) matrix that takes x, y of a SpatialData element to a coordinate system."""
    from spatialdata.transformations import get_transformation

    return get_transformation(element, system).to_affine_matrix(("x", "y"), ("x", "y"))


def linear_scale(matrix: np.ndarray) -> float:
    """Return the length of a unit after an affine map: the root of its determinant."""
    return float(np.sqrt(abs(np.linalg.det(np.asarray(matrix)[:2, :2]))))


def inverse(matrix: np.ndarray, name: str) -> np.ndarray:
    """Invert an affine map; refuse one without inverse, and one under which square patches would not be square."""
    longest, shortest = (
        np.linalg.svd(matrix[:2, :2], compute_uv=False) if np.isfinite(matrix).all() else (1, 0)
    )
    if not shortest > 1e-9 * longest:
        raise ValueError(
            f"the transformation of {name} has no inverse; set it anew: {matrix.tolist()}"
        )
    if longest > SQUARE * shortest:
        raise ValueError(
            f"the transformation of {name} makes pixels {longest / shortest:.3g} times longer than wide, and patches "
            "would be distorted; resample the image to square pixels"
        )
    return np.linalg.inv(matrix)


def only_system(systems: Any) -> str:
    """Return the coordinate system in µm, or the only one; ValueError if there are several others."""
    if um_system(systems) or len(systems) == 1:
        return um_system(systems) or next(iter(systems))
    raise ValueError(
        f"the image is in several coordinate systems; pass coordinate_system= one of {sorted(systems)}"
    )


def coordinate_systems(element: Any) -> dict[str, Any]:
    """Return the coordinate systems of a SpatialData element, each with its transformation."""
    from spatialdata.transformations import get_transformation

    return get_transformation(element, get_all=True)


def images_under_spots(
    sdata: Any, spots: Any, shared: dict[str, tuple[str, np.ndarray]]
) -> dict[str, tuple[str, np.ndarray]]:
    """Keep the images on which spots lie; all, where none does."""
    from spatialdata import get_centroids

    kept = {}
    for key, (system, matrix) in shared.items():
        centers = (
            get_centroids(spots, coordinate_system=system)
            .compute()[["x", "y"]]
            .to_numpy(dtype=float)
        )
        to_pixels = inverse(affine_of(sdata.images[key], system), f"image {key!r} to {system!r}")
        pixels = centers @ to_pixels[:2, :2].T + to_pixels[:2, 2]
        sizes = finest_array(sdata.images[key]).sizes
        if ((pixels >= 0) & (pixels <= (sizes["x"], sizes["y"]))).all(axis=1).any():
            kept[key] = (system, matrix)
    return kept or shared


def shared_system(
    spots: Any, image: Any, wanted: str | None, key: str
) -> tuple[str, np.ndarray] | None:
    """Name the coordinate system in which spots and image meet, and map spots to pixels (3, 3).

    It is the wanted one, else um, global, or any other if all others put the spots in the same place.
    """
    both = [
        name
        for name in coordinate_systems(spots)
        if name in coordinate_systems(image) and wanted in (None, name)
    ]
    both.sort(key=lambda name: PREFERRED.index(name) if name in PREFERRED else len(PREFERRED))
    to_pixels = [
        inverse(affine_of(image, name), f"image {key!r} to {name!r}") @ affine_of(spots, name)
        for name in both
    ]
    if not both:
        return None
    others = [] if both[0] in PREFERRED else to_pixels[1:]
    if not all(np.allclose(other, to_pixels[0], rtol=1e-3, atol=SAME_PX) for other in others):
        raise ValueError(
            f"spots and image share several coordinate systems; pass coordinate_system= one of {both}"
        )
    return both[0], to_pixels[0]


def finest_array(image: Any) -> Any:
    """Return the array of an image, the finest of a multiscale one."""
    return next(iter(image["scale0"].data_vars.values())) if hasattr(image, "children") else image


def spot_centers(spots: Any, instances: np.ndarray, system: str, name: str) -> np.ndarray:
    """Look up the centers of these instances (n, 2), by id and never by order."""
    from spatialdata import get_centroids

    centroids = get_centroids(spots, coordinate_system=system).compute()
    missing = ~np.isin(instances, centroids.index)
    if missing.any():
        raise ValueError(
            f"{missing.sum()} rows of the table have no spot in {name!r}, e.g. {instances[missing][0]}"
        )
    return centroids.loc[instances, ["x", "y"]].to_numpy(dtype=float)


def um_system(systems: Iterable[str]) -> str | None:
    """Name the coordinate system in um: `um`, or `um-slide`, as spatialdata.concatenate renames that of a slide."""
    named = sorted(name for name in systems if name == "um" or name.startswith("um-"))
    return named[0] if named and (named[0] == "um" or len(named) == 1) else None
