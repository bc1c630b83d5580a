"""Warn if the spots of a slide lie farther apart, or closer, than on any platform."""

import numpy as np

from stp._log import warn

# Spots of Spatial Transcriptomics lie 200 µm apart, those of Visium 100 and those of DBiT-seq at
# most 100. Spots of Stereo-seq lie 0.5 µm apart, bins of Visium HD at least 2, and cells about 10.
MAX_UM = 500.0
MIN_UM = 0.3
# Spots of a slide without neighbors, because other spots were left out, do not show the distance.
NEIGHBOR_QUANTILE = 0.1
MIN_SPOTS = 16  # fewer may lie anywhere
MAX_SPOTS = 50_000  # that are looked at


def warn_if_not_plausible(um: np.ndarray, um_per_px: float, name: str) -> None:
    """Warn if no platform has spots at such distances, so that the scale must be wrong.

    Parameters
    ----------
    um
        Spot centers (n, 2) in µm; those that are not finite do not count.
    um_per_px
        µm per pixel by which they are in µm.
    name
        Name of the slide.
    """
    distance = neighbor_distance(um)
    if distance is None or MIN_UM <= distance <= MAX_UM:
        return
    fact = "farther than on any platform" if distance > MAX_UM else "closer than on any platform"
    warn(
        f"spots of {name} lie {distance:,.4g} µm from their neighbors at {um_per_px:.4g} µm per "
        f"pixel, {fact} (Spatial Transcriptomics 200, Visium 100, Visium HD 2 to 16); pass the "
        "right um_per_px=, or spot_pitch_um= in its place if the spots are a square grid"
    )


def neighbor_distance(centers: np.ndarray) -> float | None:
    """Return the distance between neighboring spots; None if there are too few to tell.

    A tenth of the spots have a neighbor that is at most so far.

    Parameters
    ----------
    centers
        Spot centers (n, 2) in any unit; those that are not finite do not count.
    """
    from scipy.spatial import KDTree

    places = np.unique(centers[np.isfinite(centers).all(axis=1)], axis=0)  # sorted by x
    if len(places) < MIN_SPOTS:
        return None
    start = max(0, len(places) - MAX_SPOTS) // 2
    strip = places[start : start + MAX_SPOTS]
    distances, _ = KDTree(strip).query(strip, k=2)
    return float(np.quantile(distances[:, 1], NEIGHBOR_QUANTILE))
