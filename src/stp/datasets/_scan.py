"""The image of a synthetic slide: an H&E-like stain, scanned at any resolution."""

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike
from scipy import ndimage, sparse

from stp.datasets._nuclei import Nuclei, render_nuclei
from stp.datasets._tissue import CELL_UM, LOOK, Tissue, draw_noise

_FIBER_PIXELS = 1024  # side of the noise that makes fibers


@dataclass(frozen=True)
class Stain:
    """Colors of a stain, and of the light of a scanner.

    Parameters
    ----------
    absorbance
        How much red, green and blue light (2, 3) hematoxylin and eosin absorb, for a density of 1.
    light
        Red, green and blue (3,) of glass.
    """

    absorbance: ArrayLike
    light: ArrayLike


def draw_stain(rng: Generator) -> Stain:
    """Draw a stain and a light."""
    absorbance = np.array([[0.65, 0.70, 0.29], [0.16, 0.88, 0.40]])
    absorbance += 0.05 * rng.standard_normal((2, 3))
    norm = np.linalg.norm(absorbance, axis=1, keepdims=True)
    absorbance *= rng.lognormal(0, 0.25, (2, 1)) / norm
    light = 242 + 3 * rng.standard_normal(3, dtype=np.float32)
    return Stain(absorbance, light)


def vary_stain(rng: Generator, stain: Stain) -> Stain:
    """Return a stain of the same hospital, whose strength differs a little."""
    return Stain(np.asarray(stain.absorbance) * rng.lognormal(0, 0.05, (2, 1)), stain.light)


def scan_slide(
    rng: Generator,
    tissue: Tissue,
    nuclei: Nuclei,
    shape: tuple[int, int],
    um_per_px: float,
    *,
    stain: Stain | None = None,
) -> np.ndarray:
    """Stain and scan a slide: uint8 RGB (3, y, x). By default the stain is drawn."""
    enlarge = partial(_enlarge, shape=shape, um_per_px=um_per_px)
    look = {column: np.tensordot(LOOK[column], tissue.shares, axes=1) for column in LOOK}
    grain = draw_noise(rng, tissue.mask.shape, 3)
    solid = (1 - tissue.fat) * (1 - 0.8 * look["nests"] * tissue.clefts)
    section = enlarge(tissue.mask * tissue.thickness)
    ground = enlarge(solid * np.exp(look["grain"] * grain))
    # Fibers: smooth noise, looked up along and across them, so that it bends and stretches too.
    white = rng.standard_normal((_FIBER_PIXELS, _FIBER_PIXELS), dtype=np.float32)
    noise = ndimage.gaussian_filter(white, (16, 8), mode="wrap")
    along = (enlarge(tissue.along) / 3).astype(int) % _FIBER_PIXELS
    across = (enlarge(tissue.across) / 0.4).astype(int) % _FIBER_PIXELS
    fibers = np.exp(enlarge(look["fibers"]) * noise[along, across] / noise.std())
    ink = render_nuclei(nuclei, shape, um_per_px) * enlarge(1 + 0.15 * grain)
    eosin = ground * fibers * enlarge(look["eosin"]) * (1 - 0.4 * ink.clip(0, 1))
    hematoxylin = ink + ground * enlarge(look["haze"])
    stain = draw_stain(rng) if stain is None else stain
    return _transmit(rng, section * hematoxylin, section * eosin, stain)


def _enlarge(field: np.ndarray, shape: tuple[int, int], um_per_px: float) -> np.ndarray:
    """Interpolate a map linearly at the pixel centers of an image."""
    # One axis, then the other: the transpose brings the next axis to the front.
    for n in shape:
        position = ((np.arange(n) + 0.5) * um_per_px / CELL_UM - 0.5).clip(0, len(field) - 1.001)
        low = position.astype(int)
        pixel = np.arange(n)
        shares = np.r_[1 - position + low, position - low].astype(np.float32)
        entries = (shares, (np.r_[pixel, pixel], np.r_[low, low + 1]))
        weights = sparse.csr_array(entries, (n, len(field)))
        field = (weights @ field.astype(np.float32)).T
    return field


def _transmit(
    rng: Generator, hematoxylin: np.ndarray, eosin: np.ndarray, stain: Stain
) -> np.ndarray:
    """Turn optical densities (y, x) into RGB by the law of Beer and Lambert."""
    image = np.empty((3, *eosin.shape), dtype=np.uint8)
    absorbance = np.asarray(stain.absorbance, dtype=np.float32)
    light = np.asarray(stain.light, dtype=np.float32)
    for channel, (h, e) in enumerate(absorbance.T):
        transmitted = light[channel] * np.exp(-h * hematoxylin - e * eosin)
        noise = 2 * rng.standard_normal(eosin.shape, dtype=np.float32)
        image[channel] = (transmitted + noise).clip(0, 255)
    return image
