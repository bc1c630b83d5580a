"""Pairs of stores with the same image, or with copies of one image."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from stp.images.copies import (
    MIN_POINTS,
    MIN_SIMILARITY,
    Similarity,
    describe_copy,
    fit_similarity,
    is_same_tissue,
    overlap,
    similar_points,
)
from stp.images.keypoints import Keypoints
from stp.images.measures import pixels_digest
from stp.images.pyramid import ImagePyramid
from stp.tl._duplicate_counts import Duplicate
from stp.tl._store_signatures import Signature

EQUAL_IMAGE = "equal image"
COPY = "rotated or cropped copy"
BLOCK_STORES = 32  # whose points are compared with all others at a time


def image_candidates(signatures: Sequence[Signature]) -> list[tuple[int, int]]:
    """Return the pairs of stores whose images have points in common, in order."""
    rows = [row for row, signature in enumerate(signatures) if signature.keypoints is not None]
    pairs = _equal_small_images(signatures, rows) + _similar_images(signatures, rows)
    return sorted(set(pairs))


def compare_images(first: Signature, second: Signature) -> Duplicate | None:
    """Return what the images of two stores share, or None."""
    image = first.store.pyramid
    other = second.store.pyramid
    if image is None or other is None or first.keypoints is None or second.keypoints is None:
        return None
    if first.keypoints.digest == second.keypoints.digest and _has_equal_pixels(image, other):
        return Duplicate(EQUAL_IMAGE, 1.0, "all pixels of the coarser level are equal")
    places, other_places = similar_points(first.keypoints, second.keypoints)
    similarity, follows = fit_similarity(places, other_places)
    if similarity is None or not is_same_tissue(image, other, places[follows], similarity):
        return None
    return _describe(image, other, similarity)


def _describe(image: ImagePyramid, other: ImagePyramid, similarity: Similarity) -> Duplicate:
    share, share_of_larger = overlap(image, other, similarity)
    return Duplicate(COPY, share, describe_copy(similarity, share_of_larger))


def _has_equal_pixels(image: ImagePyramid, other: ImagePyramid) -> bool:
    """Return whether the coarser levels of two stores are equal."""
    return pixels_digest(image.levels[-1]) == pixels_digest(other.levels[-1])


def _equal_small_images(
    signatures: Sequence[Signature], rows: Sequence[int]
) -> list[tuple[int, int]]:
    """Return the pairs whose small images are equal."""
    by_digest: dict[str, list[int]] = {}
    pairs = []
    for row in rows:
        earlier = by_digest.setdefault(_keypoints(signatures[row]).digest, [])
        pairs += [(other, row) for other in earlier]
        earlier.append(row)
    return pairs


def _similar_images(signatures: Sequence[Signature], rows: Sequence[int]) -> list[tuple[int, int]]:
    """Return the pairs that have enough similar points."""
    blocks = [rows[start : start + BLOCK_STORES] for start in range(0, len(rows), BLOCK_STORES)]
    pairs = []
    for number, block in enumerate(blocks):
        for others in blocks[number:]:
            n_similar = _count_similar(signatures, block, others)
            for image, other in np.argwhere(n_similar >= MIN_POINTS):
                if block[image] < others[other]:
                    pairs.append((block[image], others[other]))
    return pairs


def _count_similar(
    signatures: Sequence[Signature], rows: Sequence[int], others: Sequence[int]
) -> np.ndarray:
    """Return how many points of each image (n,) have a similar one in each other image: (n, m)."""
    features, starts = _stack_features(signatures, rows)
    other_features, other_starts = _stack_features(signatures, others)
    if not len(features) or not len(other_features):
        return np.zeros((len(rows), len(others)), int)
    is_similar = features @ other_features.T > MIN_SIMILARITY
    has_similar = np.zeros((len(features), len(others)), bool)
    for column, start in enumerate(other_starts[:-1]):
        has_similar[:, column] = is_similar[:, start : other_starts[column + 1]].any(axis=1)
    return np.stack([has_similar[low:high].sum(axis=0) for low, high in pairwise(starts)])


def _stack_features(
    signatures: Sequence[Signature], rows: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the features of the points of all images, and where each image begins and ends."""
    features = [_keypoints(signatures[row]).features for row in rows]
    starts = np.concatenate([[0], np.cumsum([len(part) for part in features])])
    return np.concatenate(features), starts


def _keypoints(signature: Signature) -> Keypoints:
    assert signature.keypoints is not None  # only stores with an image are compared
    return signature.keypoints
