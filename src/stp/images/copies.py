"""Find out whether one image is a copy of another: rotated, mirrored, cropped or rescaled."""

from dataclasses import dataclass, replace

import numpy as np

from stp.images.keypoints import Keypoints
from stp.images.levels import with_gaps
from stp.images.pyramid import ImagePyramid

# On five serial sections and three sections of another tissue, one point in a hundred has a point
# of another slide that is more similar than 0.995. Nearly all points of a copy do.
MIN_SIMILARITY = 0.996
MIN_POINTS = 4  # two give the transformation by chance, four do not
MAX_POINTS = 40  # that are compared; more only take time
TOLERANCE_UM = 32.0  # two pixels of the image in which points are searched
MAX_SCALE = 1.25  # ratio of the scales of an image and its copy
MIN_DISTANCE_UM = 300.0  # between two points from which a transformation is computed

WINDOW_PIXELS = 64
WINDOW_UM_PER_PX = 4.0  # serial sections share no detail of this size
SHIFT_PIXELS = 12  # by which the copy may be off
COARSE_PIXELS = 7  # smoother structure is no detail: any two shades of stain are alike
N_WINDOWS = 8
MIN_CORRELATION = 0.5  # of details; unrelated windows reach 0.2


@dataclass(frozen=True)
class Similarity:
    """A map from places in one image to those in another, in µm from their corners.

    Places are complex numbers x + yi. The map is `factor * place + shift`. If `is_mirrored`, the
    conjugate of `place` is taken first, which turns the image upside down.
    """

    factor: complex
    shift: complex
    is_mirrored: bool

    def __call__(self, places: np.ndarray) -> np.ndarray:
        """Map places (n,)."""
        return self.factor * (places.conj() if self.is_mirrored else places) + self.shift

    @property
    def angle(self) -> float:
        """Clockwise angle in degrees; of a mirrored image after left and right were exchanged."""
        degrees = float(np.degrees(np.angle(self.factor)))
        return degrees + 180 if self.is_mirrored else degrees

    @property
    def scale(self) -> float:
        """Length in the second image of what is 1 µm long in the first."""
        return abs(self.factor)


def similar_points(first: Keypoints, second: Keypoints) -> tuple[np.ndarray, np.ndarray]:
    """Return places (m,) of points in two images that look alike, the most similar ones first."""
    similarity = first.features @ second.features.T
    nearest = similarity.argmax(axis=1) if second.features.size else np.zeros(0, int)
    if not len(nearest):
        return np.zeros(0, complex), np.zeros(0, complex)
    highest = similarity[np.arange(len(nearest)), nearest]
    rows = np.argsort(-highest, kind="stable")[:MAX_POINTS]
    rows = rows[highest[rows] > MIN_SIMILARITY]
    return _as_complex(first.centers[rows]), _as_complex(second.centers[nearest[rows]])


def fit_similarity(
    first: np.ndarray, second: np.ndarray
) -> tuple[Similarity | None, np.ndarray | None]:
    """Return the similarity that most pairs of places follow, and which pairs (m,) do.

    Each two pairs of places define a similarity, and one with a mirror. The one that most other
    pairs follow is fitted to all of these.

    Parameters
    ----------
    first
        Places (m,) in one image, in µm.
    second
        Places (m,) in the other image that may be the same.

    Returns
    -------
    The similarity, or None if less than four pairs follow one.
    """
    best: tuple[Similarity | None, np.ndarray | None] = (None, None)
    n_best = MIN_POINTS - 1
    for is_mirrored in (False, True):
        places = first.conj() if is_mirrored else first
        i, j = np.nonzero(np.abs(places[:, None] - places) > MIN_DISTANCE_UM)
        factors = (second[j] - second[i]) / (places[j] - places[i])
        is_scale = (np.abs(factors) < MAX_SCALE) & (np.abs(factors) > 1 / MAX_SCALE)
        factors = factors[is_scale]
        shifts = second[i[is_scale]] - factors * places[i[is_scale]]
        distances = np.abs(factors[:, None] * places + shifts[:, None] - second)
        follows = distances < TOLERANCE_UM
        n_following = follows.sum(axis=1)
        if n_following.size and n_following.max() > n_best:
            rows = follows[n_following.argmax()]
            design = np.stack([places[rows], np.ones(rows.sum())], axis=1)
            (factor, shift), *_ = np.linalg.lstsq(design, second[rows], rcond=None)
            best = Similarity(complex(factor), complex(shift), is_mirrored), rows
            n_best = int(n_following.max())
    return best


def is_same_tissue(
    first: ImagePyramid, second: ImagePyramid, places: np.ndarray, similarity: Similarity
) -> bool:
    """Return whether two images show the same details at the same places.

    Parameters
    ----------
    first
        An image.
    second
        An image that may be a copy of it.
    places
        Places (m,) in the first image, in µm.
    similarity
        Map of places to the second image.
    """
    places = places[:: -(-len(places) // N_WINDOWS)]
    details = _detail(_read_gray(first, places, WINDOW_PIXELS, WINDOW_UM_PER_PX))
    copies = _detail(_read_turned(second, places, similarity))
    correlations = [
        _highest_correlation(small, large) for small, large in zip(details, copies, strict=True)
    ]
    return bool(np.median(correlations) > MIN_CORRELATION)


def overlap(
    first: ImagePyramid, second: ImagePyramid, similarity: Similarity
) -> tuple[float, float]:
    """Return the shares of the smaller and of the larger image that the other one shows, too."""
    import shapely

    width, height = (n * first.um_per_px for n in reversed(first.levels[0].shape))
    corners = similarity(np.array([0, width, width + 1j * height, 1j * height]))
    mapped = shapely.Polygon(np.stack([corners.real, corners.imag], axis=1))
    width, height = (n * second.um_per_px for n in reversed(second.levels[0].shape))
    area = shapely.box(0, 0, width, height)
    common = mapped.intersection(area).area
    smaller, larger = sorted([mapped.area, area.area])
    return float(common / smaller), float(common / larger)


def describe_copy(similarity: Similarity, share_of_larger: float) -> str:
    """Return in words how a copy differs from an image."""
    facts = []
    if similarity.is_mirrored:
        facts.append("mirrored")
    angle = round(similarity.angle) % 360
    if angle:
        facts.append(f"rotated clockwise by {angle}°")
    if not 1 / 1.02 < similarity.scale < 1.02:
        facts.append(f"{similarity.scale:.2f} times as large in µm")
    if share_of_larger < 0.98:
        facts.append(f"cropped to {share_of_larger:.0%} of the area")
    return ", ".join(facts) or "the same view with other pixels"


def _as_complex(places: np.ndarray) -> np.ndarray:
    return places[:, 0] + 1j * places[:, 1]


def _read_turned(image: ImagePyramid, places: np.ndarray, similarity: Similarity) -> np.ndarray:
    """Return larger windows of a copy, turned back: (n, side, side) gray.

    Parameters
    ----------
    image
        The copy.
    places
        Centers (n,) of the windows in the image that it is a copy of, in µm.
    similarity
        Map of these places to the copy.
    """
    from scipy.ndimage import map_coordinates

    side = WINDOW_PIXELS + 2 * SHIFT_PIXELS
    steps = (np.arange(side) - (side - 1) / 2) * WINDOW_UM_PER_PX
    x, y = np.meshgrid(steps, steps)
    offsets = similarity(x + 1j * y) - similarity.shift
    width = int(np.ceil(np.sqrt(2) * side)) + 2  # of a window that holds the turned one
    um_per_px = WINDOW_UM_PER_PX * similarity.scale
    pixels = offsets / um_per_px + (width - 1) / 2 * (1 + 1j)
    windows = _read_gray(image, similarity(places), width, um_per_px)
    return np.stack(
        [
            map_coordinates(window, [pixels.imag, pixels.real], order=1, mode="nearest")
            for window in windows
        ]
    )


def _read_gray(image: ImagePyramid, places: np.ndarray, size: int, um_per_px: float) -> np.ndarray:
    """Return gray windows (n, size, size) around places (n,) in µm from the corner of the image."""
    in_pixels = replace(image, levels=with_gaps(image.levels), affine=np.eye(3))
    centers = np.stack([places.real, places.imag], axis=1) / image.um_per_px
    windows = in_pixels.read(centers, size=size, um_per_px=um_per_px, allow_upsampling=True)
    return windows.mean(axis=-1, dtype=np.float32)


def _detail(gray: np.ndarray) -> np.ndarray:
    """Return what is left of windows (n, size, size) without smooth structure."""
    from scipy.ndimage import uniform_filter

    return gray - uniform_filter(gray, (0, COARSE_PIXELS, COARSE_PIXELS))


def _highest_correlation(small: np.ndarray, large: np.ndarray) -> float:
    """Return the highest correlation of an image with the parts of a larger one."""
    from scipy.signal import fftconvolve

    small = small - small.mean()
    box = np.ones_like(small)
    products = fftconvolve(large, small[::-1, ::-1], mode="valid")
    sums = fftconvolve(large, box, mode="valid")
    squares = fftconvolve(large**2, box, mode="valid")
    variances = np.maximum(squares - sums**2 / small.size, 1e-3)
    norms = np.linalg.norm(small) * np.sqrt(variances)
    return float((products / np.maximum(norms, 1e-9)).max())
