"""Warn if the spots of a slide show glass, as with swapped coordinates or another image."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from stp._log import warn
from stp.images.levels import with_gaps
from stp.images.pyramid import ImagePyramid
from stp.images.slides import Slide
from stp.images.tissue import is_stained
from stp.tables.in_tissue import IN_TISSUE, is_outside_tissue

if TYPE_CHECKING:
    from anndata import AnnData

N_SAMPLED = 256  # spots that are looked at
SPOT_UM = 100.0  # side of what is looked at
SPOT_PIXELS = 8
MIN_STAINED = 0.5  # share of the pixels of a spot that is on tissue
FEW = 0.5  # less than this share of the spots on tissue is unusual
# Swapped coordinates put 64 to 86 % of the spots on tissue where right ones put 98 to 100 %.
BETTER = 0.1  # so many more spots on tissue show that x and y are swapped


def warn_if_on_glass(table: "AnnData", slide: Slide) -> None:
    """Warn if spots show glass, and say if swapping x and y would put them on tissue.

    Parameters
    ----------
    table
        Table of the spots. Those that `obs["in_tissue"]` puts outside the tissue do not count.
    slide
        Spots and image.
    """
    centers = slide.centers
    if IN_TISSUE in table.obs:
        centers = centers[~is_outside_tissue(table.obs[IN_TISSUE].iloc[slide.rows])]
    if not len(centers):
        return
    step = -(-len(centers) // N_SAMPLED)
    pixels = slide.pyramid.to_pixels(centers[::step])
    image = replace(slide.pyramid, levels=with_gaps(slide.pyramid.levels), affine=np.eye(3))
    share = share_on_tissue(image, pixels)
    if share > 1 - BETTER:
        return
    share_if_swapped = share_on_tissue(image, pixels[:, ::-1])
    fact = f"only {share:.0%} of the spots of {slide.region} show stained tissue"
    if share_if_swapped >= share + BETTER:
        warn(
            f"{fact}; with x and y swapped, {share_if_swapped:.0%} would. Look at the slide with "
            "stp.pl.patches(sdata), and swap the two columns of the coordinates if they are wrong"
        )
    elif share < FEW:
        warn(
            f"{fact}, the others glass; likely causes: the image is that of another slide, or it "
            "is shifted or mirrored. Look at it with stp.pl.patches(sdata)"
        )


def share_on_tissue(image: ImagePyramid, pixels: np.ndarray) -> float:
    """Return the share of places (n, 2) whose surroundings are mostly stained."""
    spots = image.read(
        pixels, size=SPOT_PIXELS, um_per_px=SPOT_UM / SPOT_PIXELS, allow_upsampling=True
    )
    stained_share = is_stained(spots).mean(axis=(1, 2))
    return float((stained_share >= MIN_STAINED).mean())
