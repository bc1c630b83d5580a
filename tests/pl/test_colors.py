"""Colors that have to be told apart, seen as people with each kind of color vision see them."""

import matplotlib as mpl
import numpy as np
import pytest
from colorspacious import cspace_convert

from stp.pl import _colors

VISIONS = [None, "deuteranomaly", "protanomaly", "tritanomaly"]


def seen(colors, vision):
    """Return what is seen, where one unit is about the smallest difference noticed: CAM02-UCS (n, 3)."""
    rgb = np.array([mpl.colors.to_rgb(color) for color in colors])
    if vision:
        rgb = cspace_convert(
            rgb, {"name": "sRGB1+CVD", "cvd_type": vision, "severity": 100}, "sRGB1"
        ).clip(0, 1)
    return cspace_convert(rgb, "sRGB1", "CAM02-UCS")


def nearest(colors, vision):
    """Return the distance of the two colors that are most alike."""
    points = seen(colors, vision)
    apart = np.linalg.norm(points[:, None] - points, axis=-1)
    return apart[np.triu_indices(len(colors), 1)].min()


@pytest.mark.parametrize("vision", VISIONS)
def test_ten_categories_are_told_apart(vision):
    assert nearest(_colors.of_categories(10), vision) > 14
    assert (
        nearest(mpl.color_sequences["tab10"], "protanomaly") < 2
    )  # what would fail: matplotlib's own ten


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("name", ["magma", "Blues"])
def test_maps_run_from_dark_to_light_for_everyone(name, vision):
    lightness = seen(mpl.colormaps[name](np.linspace(0, 1, 64)), vision)[:, 0]
    assert (np.abs(np.sum(np.sign(np.diff(lightness)))) == 63) and np.ptp(lightness) > 60


@pytest.mark.parametrize("n", [3, 11, 26, 90, 200])
def test_there_is_a_color_for_each_of_any_number(n):
    colors = _colors.of_categories(n)
    assert len(colors) == n
    assert len(set(colors)) == (n if n <= 102 else 1)  # as in scanpy: gray where there are too many
