"""Colors can be distinguished with each kind of color vision."""

import matplotlib as mpl
import numpy as np
import pytest
from colorspacious import cspace_convert

from stp.pl import _colors

VISIONS = [None, "deuteranomaly", "protanomaly", "tritanomaly"]


def perceive(colors, vision):
    """Return perceived colors (n, 3) in CAM02-UCS; one unit is the smallest visible difference."""
    rgb = np.array([mpl.colors.to_rgb(color) for color in colors])
    if vision:
        rgb = cspace_convert(
            rgb, {"name": "sRGB1+CVD", "cvd_type": vision, "severity": 100}, "sRGB1"
        ).clip(0, 1)
    return cspace_convert(rgb, "sRGB1", "CAM02-UCS")


def smallest_distance(colors, vision):
    """Return the distance of the two most similar colors."""
    points = perceive(colors, vision)
    distances = np.linalg.norm(points[:, None] - points, axis=-1)
    return distances[np.triu_indices(len(colors), 1)].min()


@pytest.mark.parametrize("vision", VISIONS)
def test_ten_categories_can_be_told_apart(vision):
    assert smallest_distance(_colors.of_categories(10), vision) > 14


@pytest.mark.parametrize("vision", VISIONS)
def test_missing_values_differ_from_ten_categories(vision):
    gray = perceive([_colors.MISSING], vision)
    distances = np.linalg.norm(perceive(_colors.of_categories(10), vision) - gray, axis=1)
    assert distances.min() > 10


def test_ten_colors_of_matplotlib_cannot_be_told_apart():
    assert smallest_distance(mpl.color_sequences["tab10"], "protanomaly") < 2


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("name", ["magma", "Blues"])
def test_maps_run_from_dark_to_light_for_everyone(name, vision):
    lightness = perceive(mpl.colormaps[name](np.linspace(0, 1, 64)), vision)[:, 0]
    steps = np.sign(np.diff(lightness))
    assert abs(steps.sum()) == 63, "lightness must rise or fall at every step"
    assert np.ptp(lightness) > 60


@pytest.mark.parametrize("n", [3, 11, 26, 90, 200])
def test_there_is_a_color_for_each_of_any_number(n):
    colors = _colors.of_categories(n)
    assert len(colors) == n
    assert len(set(colors)) == n


@pytest.mark.parametrize("n", [3, 10, 11, 26, 90, 200])
def test_no_category_is_gray(n):
    rgb = np.array([mpl.colors.to_rgb(color) for color in _colors.of_categories(n)])
    assert np.ptp(rgb, axis=1).min() > 0.14
    assert np.ptp(mpl.colors.to_rgb(_colors.MISSING)) == 0
