"""Ink is distinguished from stains, and masks become polygons exactly at the edges of pixels."""

import numpy as np
import pytest
import shapely

from stp.images import mask_to_polygons
from stp.images.tissue import is_ink, is_stained, share_in_polygons

# Optical densities of red, green and blue light: Ruifrok and Johnston, 2001.
HEMATOXYLIN = np.array([0.65, 0.70, 0.29])
EOSIN = np.array([0.07, 0.99, 0.11])
DAB = np.array([0.27, 0.57, 0.78])

INKS = {
    "royal blue": (30, 40, 140),
    "blue": (30, 70, 170),
    "light blue": (90, 130, 200),
    "dark green": (10, 60, 40),
    "green": (20, 120, 70),
    "light green": (60, 160, 70),
    "turquoise": (0, 100, 110),
    "black": (20, 20, 22),
}


def stain(density):
    """Return the color (..., 3) of glass under stains of this optical density."""
    return np.clip(245 * 10.0 ** -np.asarray(density), 0, 255).round().astype(np.uint8)


def mixtures(*stains):
    """Return colors (n, 3) of stains in all amounts, from pale to very dark."""
    amounts = np.stack(np.meshgrid(*[np.linspace(0, 1, 21)] * len(stains)), -1)
    densities = (amounts.reshape(-1, len(stains)) @ np.stack(stains)).reshape(-1, 3)
    return stain(densities[densities.max(axis=1) > 0.1])


@pytest.mark.parametrize(
    "stains",
    [(HEMATOXYLIN, EOSIN), (HEMATOXYLIN, DAB), (1.2 * HEMATOXYLIN,), (1.3 * DAB,)],
    ids=["H&E", "IHC", "dark nuclei", "dark DAB"],
)
def test_no_mixture_of_stains_is_ink(stains):
    colors = mixtures(*stains)
    assert is_stained(colors).all()
    assert not is_ink(colors).any(), colors[is_ink(colors)]


@pytest.mark.parametrize("ink", INKS)
def test_ink_on_glass_is_no_tissue(ink):
    color = np.array(INKS[ink])
    for opacity in (1, 0.85, 0.7):  # the edge of a stroke is mixed with glass
        mixed = (opacity * color + (1 - opacity) * 243).round().astype(np.uint8)
        assert is_ink(mixed) or not is_stained(mixed), mixed


@pytest.mark.parametrize("ink", INKS)
def test_ink_on_tissue_is_no_tissue(ink):
    tissue = mixtures(0.4 * HEMATOXYLIN, 0.4 * EOSIN)
    color = (0.95 * np.array(INKS[ink]) + 0.05 * tissue).round().astype(np.uint8)
    assert (is_ink(color) | ~is_stained(color)).mean() > 0.9


@pytest.mark.parametrize("color", [(200, 30, 40), (60, 40, 160)], ids=["red", "violet"])
def test_red_and_violet_ink_look_like_stains(color):
    assert is_stained(np.array(color)) and not is_ink(np.array(color))


def test_glass_is_neither_stained_nor_ink():
    glass = np.array([[255, 255, 255], [243, 244, 243], [240, 235, 240], [225, 225, 225]])
    assert not is_stained(glass).any()
    assert not is_ink(glass).any()


# ---- polygons


def draw(polygons, shape):
    """Return a mask (y, x) of the pixels whose center lies in polygons."""
    x, y = np.meshgrid(np.arange(shape[1]) + 0.5, np.arange(shape[0]) + 0.5)
    return shapely.contains_xy(shapely.union_all(polygons), x, y)


MASKS = {
    "a pixel": np.eye(1, dtype=bool),
    "corners that touch": np.eye(3, dtype=bool),
    "everything": np.ones((4, 5), bool),
    "noise": np.random.default_rng(0).random((40, 30)) > 0.5,
    "a hole with an island": np.pad(np.pad([[1]], 1), 2, constant_values=1),
    "labels": np.array([[0, 1, 2], [2, 2, 0]]),
    "255": np.array([[0, 255]], np.uint8),
    "floats": np.array([[0.0, 1.0]]),
}


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("factor", [1, 4])
def test_polygons_are_the_mask_pixel_by_pixel(name, factor):
    mask = np.asarray(MASKS[name])
    polygons = mask_to_polygons(mask, 0.5 * factor, slide_um_per_px=0.5)
    assert all(polygon.geom_type == "Polygon" and polygon.is_valid for polygon in polygons)
    large = (mask != 0).repeat(factor, axis=0).repeat(factor, axis=1)
    np.testing.assert_array_equal(draw(polygons, large.shape), large)
    assert sum(polygon.area for polygon in polygons) == large.sum()


def test_polygons_have_the_corners_of_the_mask():
    mask = np.zeros((10, 10), bool)
    mask[2:7, 1:9] = True
    mask[4, 4:6] = False
    (polygon,) = mask_to_polygons(mask, 8.0, slide_um_per_px=0.25)
    outside = {(32, 64), (288, 64), (288, 224), (32, 224)}
    assert set(polygon.exterior.coords) == outside
    (hole,) = polygon.interiors
    assert set(hole.coords) == {(128, 128), (192, 128), (192, 160), (128, 160)}


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((4, 4)), r"the mask of shape \(4, 4\) has no tissue"),
        (np.zeros((4, 4, 3)), r"a mask has the axes y and x, not the shape \(4, 4, 3\)"),
        (np.full((4, 4), 0.3), r"float64 with values between; choose a threshold first"),
        (np.full((4, 4), np.nan), "choose a threshold first"),
    ],
    ids=["empty", "color", "probabilities", "NaN"],
)
def test_what_is_no_mask_is_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        mask_to_polygons(mask, 8.0, slide_um_per_px=0.5)


def test_scales_must_be_positive():
    for scales in ((0, 1), (8, -1), (np.nan, 1), (8, np.inf)):
        with pytest.raises(ValueError, match="um_per_px must be positive, not"):
            mask_to_polygons(np.eye(2), scales[0], slide_um_per_px=scales[1])


def test_the_share_of_a_tile_is_counted_pixel_by_pixel():
    rng = np.random.default_rng(1)
    mask = rng.random((48, 60)) > 0.4
    polygons = mask_to_polygons(mask, 1.0, slide_um_per_px=1.0)
    x, y = np.arange(6, 60, 12), np.arange(6, 48, 12)
    expected = mask.reshape(4, 12, 5, 12).mean(axis=(1, 3))
    np.testing.assert_allclose(share_in_polygons(polygons, x, y, 12), expected)
    # Polygons that overlap count once.
    doubled = [*polygons, shapely.box(0, 0, 12, 12)]
    expected[0, 0] = 1
    np.testing.assert_allclose(share_in_polygons(doubled, x, y, 12), expected)


def test_a_mask_finer_than_its_slide_is_warned_of():
    mask = np.ones((4, 6), bool)
    with pytest.warns(UserWarning, match="finer than the slide with 8; are um_per_px and slide_um"):
        mask_to_polygons(mask, 0.25, slide_um_per_px=8.0)
