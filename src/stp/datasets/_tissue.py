"""The layout of a synthetic slide: a map of tissue domains, drawn on a fine grid."""

from dataclasses import dataclass
from io import StringIO

import numpy as np
import pandas as pd
from numpy.random import Generator
from scipy import spatial, special

CELL_UM = 2.0  # the layout is a grid this fine, whatever the resolution of the scan

# What a domain looks like. Optical densities: eosin; haze, the hematoxylin between nuclei; dark,
# that of a nucleus. Contrasts: fibers; grain; nests, the clefts between them; pallor inside a
# nucleus. Nuclei: number per mm², radius in µm, aspect as a ratio. RNA: its relative content.
# By mean color tumor is near immune, and stroma near necrosis: form tells them apart.
_LOOK_TABLE = """
    domain   eosin haze fibers grain nests nuclei radius aspect dark pallor rna
    tumor     0.42 0.15   0.1   0.20   0.8   5200    4.6   1.25 0.80   0.45 1.4
    stroma    0.55 0.03   0.5   0.10   0.0   1700    3.4   3.20 0.85   0.10 0.9
    immune    0.36 0.10   0.1   0.20   0.1  11000    2.8   1.08 0.95   0.05 1.1
    adipose   0.50 0.02   0.1   0.10   0.0   2500    2.6   2.40 0.85   0.10 0.6
    necrosis  0.50 0.07   0.1   0.35   0.1   2600    1.7   1.20 0.95   0.00 0.6"""
LOOK = pd.read_csv(StringIO(_LOOK_TABLE), sep=r"\s+", index_col="domain")
DOMAINS = list(LOOK.index)


@dataclass(frozen=True)
class Tissue:
    """Maps (height, width) of a slide, with a value for each square of `CELL_UM`."""

    shares: np.ndarray  # (n_domains, height, width): share of each domain; the sum is 1
    mask: np.ndarray  # 1 on tissue, 0 on glass
    activity: np.ndarray  # about N(0, 1)
    along: np.ndarray  # position along the fibers in µm
    across: np.ndarray  # position across the fibers in µm
    clefts: np.ndarray  # 1 in the middle of a cleft
    fat: np.ndarray  # 1 inside a fat vacuole
    thickness: np.ndarray  # of the section, about 1


def draw_tissue(rng: Generator, shape: tuple[int, int]) -> Tissue:
    """Draw the layout of a slide of this many squares."""
    # The fine part of the score makes borders ragged and lets domains infiltrate each other.
    score = np.stack(
        [draw_noise(rng, shape, 160) + 0.22 * draw_noise(rng, shape, 28) for _ in DOMAINS]
    )
    score -= score.mean(axis=(1, 2), keepdims=True)  # so that no slide lacks a domain
    shares = special.softmax(score / 0.12 / score.std(axis=(1, 2), keepdims=True), axis=0)
    y, x = np.ogrid[: shape[0], : shape[1]]
    # A complex number turns with a factor: the real part is along the fibers.
    rotated = np.exp(1j * rng.uniform(0, np.pi)) * (x + 1j * y) * CELL_UM
    # The order of these draws decides what a seed looks like.
    mask = _draw_outline(rng, shape)
    activity = draw_noise(rng, shape, 240)
    along = rotated.real + 110 * draw_noise(rng, shape, 130)
    across = rotated.imag + 110 * draw_noise(rng, shape, 130) + 5 * draw_noise(rng, shape, 22)
    clefts = np.exp(-((draw_noise(rng, shape, 30) / 0.16) ** 2))
    fat = _draw_fat(rng, shares[DOMAINS.index("adipose")])
    thickness = np.exp(0.12 * draw_noise(rng, shape, 300))
    return Tissue(shares, mask, activity, along, across, clefts, fat, thickness)


def draw_noise(rng: Generator, shape: tuple[int, int], length_um: float) -> np.ndarray:
    """Draw a map of about N(0, 1) that varies over a length.

    It is a sum of Gaussian bumps of random height, whose distance is this length.
    """
    bumps = []
    for n in shape:
        position = np.arange(n)[:, None] * CELL_UM / length_um
        centers = np.arange(-3, position.max() + 4)
        bumps.append(np.exp(-0.5 * (position - centers) ** 2).astype(np.float32))
    white = rng.standard_normal([bump.shape[1] for bump in bumps], dtype=np.float32)
    return bumps[0] @ white @ bumps[1].T / np.float32(np.sqrt(np.pi))


def sample_map(field: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Return the values of a map (..., height, width) at points (..., 2) in µm."""
    x, y = np.moveaxis((xy / CELL_UM).astype(int), -1, 0)
    return field[..., y.clip(0, field.shape[-2] - 1), x.clip(0, field.shape[-1] - 1)]


def _draw_outline(rng: Generator, shape: tuple[int, int]) -> np.ndarray:
    """Draw a rounded piece of tissue with an irregular border, all of it inside the slide."""
    y, x = (np.linspace(-1, 1, n) ** 4 for n in shape)
    wave = np.tanh(draw_noise(rng, shape, 160) + 0.4 * draw_noise(rng, shape, 20))
    return ((0.9 + 0.06 * wave - (x + y[:, None]) ** 0.25) * min(shape) / 2).clip(0, 1)


def _draw_fat(rng: Generator, adipose: np.ndarray) -> np.ndarray:
    """Draw fat vacuoles in adipose tissue.

    They are Voronoi cells of a jittered grid with rounded corners, less their walls.
    """
    pitch = 42 / CELL_UM
    grid = np.mgrid[tuple(slice(-pitch, n + pitch, pitch) for n in adipose.shape)].reshape(2, -1).T
    seeds = grid + rng.uniform(-0.36, 0.36, grid.shape) * pitch
    squares = np.argwhere(adipose > 0.05)
    distance, nearest = spatial.cKDTree(seeds).query(squares, k=4)
    gap = np.linalg.norm(seeds[nearest[:, 1:]] - seeds[nearest[:, :1]], axis=-1)
    # Distance in µm to the border with each of three neighboring vacuoles.
    wall = (distance[:, 1:] ** 2 - distance[:, :1] ** 2) / (2 * gap) * CELL_UM
    # A soft minimum of the three rounds the corners.
    inside = ((wall.clip(0.1) ** -2).sum(axis=1) ** (-1 / 2) - 1.2).clip(0, 1)
    is_vacuole = sample_map(adipose, seeds[:, ::-1] * CELL_UM) > 0.5
    fat = np.zeros(adipose.shape)
    fat[tuple(squares.T)] = inside * is_vacuole[nearest[:, 0]]
    return fat
