"""Points of an image that are found again in a copy that was rotated, mirrored or cropped."""

import hashlib
from dataclasses import dataclass

import numpy as np

from stp.images.overview import read_overview
from stp.images.pyramid import ImagePyramid

UM_PER_PX = 16.0  # of the small image in which points are searched
FINE_SIGMA = 2.0  # pixels: points are the centers of blobs between these two sizes
COARSE_SIGMA = 4.0
SMOOTH_SIGMA = 1.5  # pixels, so that a copy may be shifted by a part of a pixel
MIN_DISTANCE = 4  # pixels between two points
N_POINTS = 200
RADII = (2.0, 4.0, 6.0, 8.0, 10.0, 12.0)  # pixels: circles on which a point's surroundings are read
N_ANGLES = 32
N_ORDERS = 9  # of the Fourier series along a circle
MEAN_WEIGHT = 0.5  # of the mean along a circle; means alone are alike at all blobs
MIN_CONTRAST = 1.0  # gray values; glass has no points


@dataclass(frozen=True, eq=False)
class Keypoints:
    """Points of an image.

    Parameters
    ----------
    digest
        SHA-256 (hexadecimal) of the small image in which the points were searched.
    centers
        Points (k, 2) as x, y in µm from the corner of the image.
    features
        Unit vectors (k, d) float32 that describe the surroundings of each point. Rotating and
        mirroring the image does not change them.
    """

    digest: str
    centers: np.ndarray
    features: np.ndarray


def find_keypoints(image: ImagePyramid, n_points: int = N_POINTS) -> Keypoints:
    """Return the points of an image that differ most from what is around them.

    Points are the extrema of a difference of Gaussians (Lowe 2004). Their features are the
    magnitudes of the Fourier series of gray values along circles, which do not depend on the angle.
    No point is so near the border that its circles leave the image: the border is no detail, and
    stores fill the last row and column with white.

    Parameters
    ----------
    image
        Image of a slide.
    n_points
        Number of points; an image with little detail has fewer.
    """
    from scipy.ndimage import gaussian_filter, maximum_filter

    gray = read_overview(image, UM_PER_PX).mean(axis=-1, dtype=np.float32)
    blobs = gaussian_filter(gray, FINE_SIGMA) - gaussian_filter(gray, COARSE_SIGMA)
    strength = np.abs(blobs)
    is_point = strength == maximum_filter(strength, 2 * MIN_DISTANCE + 1)
    is_point &= strength > MIN_CONTRAST
    is_point &= _is_inside(gray.shape, int(max(RADII)))
    rows, columns = np.nonzero(is_point)
    strongest = np.argsort(-strength[rows, columns], kind="stable")[:n_points]
    points = _refine(strength, rows[strongest], columns[strongest])
    features = _describe(gaussian_filter(gray, SMOOTH_SIGMA), points)
    digest = hashlib.sha256(f"{gray.shape} ".encode() + gray.tobytes()).hexdigest()
    return Keypoints(digest, (points[:, ::-1] + 0.5) * UM_PER_PX, features)


def _is_inside(shape: tuple[int, int], margin: int) -> np.ndarray:
    """Return which pixels are at least so far from the border."""
    is_inside = np.zeros(shape, bool)
    is_inside[margin : shape[0] - margin, margin : shape[1] - margin] = True
    return is_inside


def _refine(strength: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the places (k, 2) of maxima as row and column, by a parabola through neighbors."""
    padded = np.pad(strength, 1, mode="edge")
    places = np.stack([rows, columns], axis=1).astype(float)
    here = padded[rows + 1, columns + 1]
    for axis, (down, right) in enumerate(((1, 0), (0, 1))):
        after = padded[rows + 1 + down, columns + 1 + right]
        before = padded[rows + 1 - down, columns + 1 - right]
        curvature = 2 * here - after - before
        step = (after - before) / np.maximum(2 * curvature, 1e-9)
        places[:, axis] += np.clip(step, -0.5, 0.5)
    return places


def _describe(gray: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the features (k, d) of places (k, 2) as row and column."""
    from scipy.ndimage import map_coordinates

    angles = 2 * np.pi * np.arange(N_ANGLES) / N_ANGLES
    radii = np.array(RADII)[:, None]
    circles = np.stack([radii * np.sin(angles), radii * np.cos(angles)])  # (2, n_radii, n_angles)
    places = points.T[:, :, None, None] + circles[:, None]
    values = map_coordinates(gray, places, order=1, mode="nearest")
    series = np.abs(np.fft.rfft(values, axis=-1))[:, :, :N_ORDERS] / N_ANGLES
    series[:, :, 0] -= series[:, :, 0].mean(axis=1, keepdims=True)
    series = np.sign(series) * np.sqrt(np.abs(series))  # else one circle outweighs the others
    series[:, :, 0] *= MEAN_WEIGHT
    features = series.reshape(len(points), len(RADII) * N_ORDERS).astype(np.float32)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-9)
