"""The map from an image to its copy, and points that do not depend on the angle."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from stp.images import ImagePyramid
from stp.images.copies import (
    Similarity,
    describe_copy,
    fit_similarity,
    is_same_tissue,
    overlap,
    similar_points,
)
from stp.images.keypoints import find_keypoints


def picture(seed, height=700, width=900):
    noise = np.random.default_rng(seed).normal(size=(height, width))
    blobs = 9 * gaussian_filter(noise, 6) + 2 * gaussian_filter(noise, 1)
    return np.clip(150 + 70 * blobs[..., None] + [20, -30, 10], 0, 255).astype(np.uint8)


def pyramid(pixels, um_per_px=4.0):
    return ImagePyramid.from_array(np.ascontiguousarray(pixels), um_per_px)


@pytest.mark.parametrize("is_mirrored", [False, True])
def test_a_similarity_is_recovered_among_wrong_pairs(is_mirrored):
    rng = np.random.default_rng(0)
    places = rng.uniform(0, 5000, 30) + 1j * rng.uniform(0, 5000, 30)
    truth = Similarity(1.1 * np.exp(0.7j), 300 - 200j, is_mirrored)
    others = truth(places)
    others[:12] = rng.uniform(0, 5000, 12) + 1j * rng.uniform(0, 5000, 12)
    similarity, follows = fit_similarity(places, others)
    assert follows.tolist() == [False] * 12 + [True] * 18
    assert similarity.is_mirrored == is_mirrored
    assert similarity.factor == pytest.approx(truth.factor)
    assert similarity.shift == pytest.approx(truth.shift)


def test_pairs_at_random_follow_no_similarity():
    rng = np.random.default_rng(1)
    for _ in range(20):
        places, others = rng.uniform(0, 5000, (2, 40)) + 1j * rng.uniform(0, 5000, (2, 40))
        similarity, _ = fit_similarity(places[:10], others[:10])
        assert similarity is None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda pixels: np.rot90(pixels, -1), "rotated clockwise by 90°"),
        (lambda pixels: pixels[:, ::-1], "mirrored"),
        (lambda pixels: np.rot90(pixels[:, ::-1], 1), "mirrored, rotated clockwise by 270°"),
        (lambda pixels: pixels[3:353, 5:905], "cropped to 50% of the area"),
    ],
)
def test_a_copy_is_described(change, expected):
    pixels = picture(0)
    image, copied = pyramid(pixels), pyramid(change(pixels))
    places, others = similar_points(find_keypoints(image), find_keypoints(copied))
    similarity, follows = fit_similarity(places, others)
    assert is_same_tissue(image, copied, places[follows], similarity)
    share, share_of_larger = overlap(image, copied, similarity)
    assert share == pytest.approx(1, abs=0.01)
    assert describe_copy(similarity, share_of_larger) == expected


def test_other_tissue_at_the_same_places_is_no_copy():
    identity = Similarity(1 + 0j, 0j, False)
    places = np.array([500 + 500j, 1500 + 900j, 2200 + 1800j])
    image = pyramid(picture(0))
    assert is_same_tissue(image, image, places, identity)
    assert not is_same_tissue(image, pyramid(picture(1)), places, identity)


def test_glass_has_no_points():
    glass = find_keypoints(pyramid(np.full((300, 400, 3), 240, np.uint8)))
    tissue = find_keypoints(pyramid(picture(0)))
    assert len(glass.centers) == 0 < len(tissue.centers)
    for first, second in ((glass, tissue), (tissue, glass)):
        assert len(similar_points(first, second)[0]) == 0


def test_the_border_is_no_detail():
    """Stores fill the last row and column with white, which two slides have in common."""
    slides = [picture(seed, 707, 905) for seed in (0, 1)]
    framed = []
    for pixels in slides:
        pixels[-3:], pixels[:, -1:] = 255, 255
        framed.append(find_keypoints(pyramid(pixels)))
    for points in framed:
        assert len(points.centers) > 50
        assert points.centers.min() >= 11.5 * 16
        assert np.all(points.centers <= np.array([905, 707]) * 4 - 11 * 16)
    similarity, _ = fit_similarity(*similar_points(*framed))
    assert similarity is None
