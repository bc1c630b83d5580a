"""The nuclei of a synthetic slide: their positions and shapes, and their look in the image."""

from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from scipy import spatial

from stp.datasets._tissue import CELL_UM, LOOK, Tissue, sample_map

CHUNK_NUCLEI = 2000  # rendered at a time


class Nuclei(NamedTuple):
    """Nuclei as ellipses: arrays of shape (n_nuclei,)."""

    x: np.ndarray  # µm
    y: np.ndarray  # µm
    long: np.ndarray  # half axis in µm
    short: np.ndarray  # half axis in µm
    angle: np.ndarray  # of the long axis
    dark: np.ndarray  # optical density
    pallor: np.ndarray  # how much paler the center is than the rim


def draw_nuclei(rng: Generator, tissue: Tissue) -> Nuclei:
    """Draw nuclei: their density, size and shape depend on domain and activity."""
    size = np.array(tissue.mask.shape[::-1]) * CELL_UM
    # A Poisson process at twice the highest density, thinned to the density of each place.
    max_per_um2 = 2 * LOOK["nuclei"].max() * 1e-6
    xy = rng.uniform(0, size, (rng.poisson(max_per_um2 * size.prod()), 2))
    domain = (rng.random(len(xy)) > sample_map(tissue.shares, xy)[:-1].cumsum(axis=0)).sum(axis=0)
    look = LOOK.iloc[domain].reset_index(drop=True)
    activity = sample_map(tissue.activity, xy).clip(-2, 2)
    density = look["nuclei"] * 1e-6 * 2 ** (activity / 2) / max_per_um2
    room = (
        (1 - look["nests"] * sample_map(tissue.clefts, xy))
        * (1 - sample_map(tissue.fat, xy))
        * (sample_map(tissue.mask, xy) == 1)
    )
    is_nucleus = (rng.random(len(xy)) < density * room).to_numpy()
    xy = xy[is_nucleus]
    look = look[is_nucleus]
    n = len(xy)
    radius = look["radius"].to_numpy() * 1.06 ** activity[is_nucleus] * rng.lognormal(0, 0.15, n)
    aspect = 1 + (look["aspect"].to_numpy() - 1) * rng.lognormal(0, 0.3, n)
    # Nuclei lie along the fibers, and long ones more strictly.
    dy, dx = sample_map(np.stack(np.gradient(tissue.across)), xy)
    angle = np.arctan2(dx, -dy) + 2 / aspect**2 * rng.standard_normal(n)
    dark = (look["dark"] * rng.lognormal(0, 0.2, n)).to_numpy()
    pallor = look["pallor"].to_numpy()
    stretch = np.sqrt(aspect)
    x, y = xy.T
    nuclei = Nuclei(x, y, radius * stretch, radius / stretch, angle, dark, pallor)
    return _select(nuclei, _find_separate(xy, radius))


def render_nuclei(nuclei: Nuclei, shape: tuple[int, int], um_per_px: float) -> np.ndarray:
    """Return nuclei as optical density (y, x) of an image."""
    canvas = np.zeros(shape[0] * shape[1], dtype=np.float32)
    # Nuclei of similar size share a chunk, so that small ones need small patches only.
    by_size = np.argsort(nuclei.long)
    for chunk in np.array_split(by_size, len(by_size) // CHUNK_NUCLEI + 1):
        _render_chunk(canvas, _select(nuclei, chunk), shape, um_per_px)
    return canvas.reshape(shape)


def _render_chunk(
    canvas: np.ndarray, nuclei: Nuclei, shape: tuple[int, int], um_per_px: float
) -> None:
    """Add nuclei to the optical densities (height * width,); the darker value of a pixel wins."""
    reach = int(np.ceil(nuclei.long.max() / um_per_px)) + 1
    step = np.arange(-reach, reach + 1)
    # Axes: nuclei, then rows and columns of a patch around each.
    x, y, long, short, angle, dark, pallor = (
        values.astype(np.float32)[:, None, None] for values in nuclei
    )
    col = (x // um_per_px).astype(int) + step
    row = (y // um_per_px).astype(int) + step[:, None]
    dx = (col + 0.5) * um_per_px - x
    dy = (row + 0.5) * um_per_px - y
    cos = np.cos(angle)
    sin = np.sin(angle)
    # 0 at the center of a nucleus, 1 at its rim.
    r2 = ((dx * cos + dy * sin) / long) ** 2 + ((dy * cos - dx * sin) / short) ** 2
    body = ((1 - np.sqrt(r2)) * short / max(1.0, um_per_px) + 0.5).clip(0, 1)
    # Tissue ends well before the image, so clipping moves only empty corners of a patch.
    pixel = row.clip(0, shape[0] - 1) * shape[1] + col.clip(0, shape[1] - 1)
    np.maximum.at(canvas, pixel, dark * body * (1 - pallor * (1 - r2).clip(0, 1)))


def _find_separate(xy: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Return the indices of discs that hardly overlap: of each close pair, the later is dropped."""
    pairs = spatial.cKDTree(xy).query_pairs(2 * radius.max(), output_type="ndarray")
    distance = np.linalg.norm(xy[pairs[:, 0]] - xy[pairs[:, 1]], axis=1)
    is_close = distance < 0.85 * radius[pairs].sum(axis=1)
    return np.setdiff1d(np.arange(len(xy)), pairs[is_close, 1])


def _select(nuclei: Nuclei, index: np.ndarray) -> Nuclei:
    return Nuclei(*(values[index] for values in nuclei))
