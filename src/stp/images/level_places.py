"""Where each level of an image lies on the finest: its corner, and the size of its pixels."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stp._log import warn
from stp.images.levels import Level

COMPARED_PIXELS = 32  # side of the windows in which two levels are compared for the corner
FACTOR_PIXELS = 64  # side of the windows in which they are compared for the factor
LEAST_PIXELS = 8
BLOCK_PIXELS = 1024  # side of what is read of the finer level
N_POSITIONS = 8  # of such windows along each side of a level; those with most contrast are used
N_WINDOWS = 6
MIN_CONTRAST = 2.0  # standard deviation of a window that shows anything
MIN_CORRELATION = 0.5  # between a level and the finer one; 0.7 and more if the factor is right
POWERS = tuple(float(2**power) for power in range(1, 12))


def factor_between(full: int, reduced: int) -> float:
    """Return how many pixels of one level make a pixel of a coarser one, from one of their sides.

    It is a whole number if that explains both sides, with the last pixels cut off or padded.
    """
    factor = round(full / reduced)
    is_explained = factor > 0 and reduced in (full // factor, -(-full // factor))
    return float(factor) if is_explained else full / reduced


def level_factor(finest: Level, level: Level) -> tuple[float, float]:
    """Return the size of a pixel of a level as x, y in pixels of the finest level."""
    if level.factor is not None:
        return level.factor
    (full_height, full_width), (height, width) = finest.shape, level.shape
    return factor_between(full_width, width), factor_between(full_height, height)


def place_levels(levels: tuple[Level, ...]) -> tuple[Level, ...]:
    """Return the levels, finest first, each with its corner and the size of its pixels.

    If one whole factor explains both sides, it is the size. A coarser level then lacks the pixels
    that remain: spatialdata drops the first pixels, the makers of TIFFs the last. Comparing two
    levels shows which.

    Other levels were padded, cropped or resized. Comparing their pixels with those of a finer level
    shows the factor. A level that fits with no factor is left out, and a warning names it.
    """
    finest = replace(levels[0], factor=(1.0, 1.0))
    result = [finest]
    drops_first = None
    for level in levels[1:]:
        x_factor, y_factor = level_factor(finest, replace(level, factor=None))
        finer = result[-1]
        if x_factor != y_factor or x_factor % 1:
            result += _place_by_content(finest, finer, level)
            continue
        placed = replace(level, origin=finer.origin, factor=(x_factor, y_factor))
        factor = factor_between(finer.shape[0], level.shape[0])
        remainder = np.array(finer.shape[::-1]) - factor * np.array(level.shape[::-1])
        if factor % 1 or (remainder < 0).any() or not remainder.any():
            result.append(placed)
            continue
        if drops_first is None:
            drops_first = _drops_first(finer, level, int(factor), remainder.astype(int))
        x, y = finer.origin + drops_first * remainder * np.array(finer.factor)
        result.append(replace(placed, origin=(float(x), float(y))))
    return tuple(result)


def _drops_first(fine: Level, coarse: Level, factor: int, remainder: np.ndarray) -> bool:
    """Return whether the coarse level lacks the first pixels of the fine one, not the last.

    `remainder` is the number of pixels that it lacks, as x, y.
    """
    size = min(COMPARED_PIXELS, *coarse.shape)
    corners = ((0, 0), tuple(remainder))  # as x, y: of a level that lacks the last, the first
    differences = np.zeros(2)
    for y in np.linspace(0, coarse.shape[0] - size, 3).astype(int):
        for x in np.linspace(0, coarse.shape[1] - size, 3).astype(int):
            expected = coarse.read(y, y + size, x, x + size)
            for index, (dx, dy) in enumerate(corners):
                top = y * factor + dy
                left = x * factor + dx
                block = fine.read(top, top + size * factor, left, left + size * factor)
                squares = block.astype(np.float32).reshape(size, factor, size, factor, 3)
                differences[index] += np.abs(squares.mean(axis=(1, 3)) - expected).sum()
    return bool(differences[1] < differences[0])


def _place_by_content(finest: Level, finer: Level, level: Level) -> list[Level]:
    """Return the level with the factor with which it shows the same as a finer one, if any does."""
    n_finer = max(finer.shape[0] / level.shape[0], finer.shape[1] / level.shape[1])
    size = max(LEAST_PIXELS, min(FACTOR_PIXELS, int(BLOCK_PIXELS / n_finer)))
    windows = _windows_with_contrast(level, size)
    factors = _candidate_factors(finest, finer, level)
    correlations = [_correlation(finer, level, windows, factor) for factor in factors]
    best = int(np.argmax(correlations))
    if correlations[best] >= MIN_CORRELATION:
        return [replace(level, origin=finer.origin, factor=factors[best])]
    height, width = level.shape
    warn(
        f"the image level of {width} x {height} pixels is not used, because at no factor it shows "
        f"the same as the finest, {finest.shape[1]} x {finest.shape[0]}"
    )
    return []


def _candidate_factors(finest: Level, finer: Level, level: Level) -> list[tuple[float, float]]:
    """List the sizes that a pixel of the level may have, as x, y in pixels of the finest level.

    They are whole numbers near the ratios of the sizes, powers of two and multiples of the finer
    level's factor; then the ratios themselves.
    """
    y_ratio, x_ratio = (full / n for full, n in zip(finest.shape, level.shape, strict=True))
    low, high = sorted((x_ratio, y_ratio))
    of_finer = max(finer.factor or (1.0, 1.0))
    numbers = {float(rounded(ratio)) for ratio in (low, high) for rounded in (np.floor, np.ceil)}
    numbers |= {of_finer * multiple for multiple in (2, 3, 4)} | set(POWERS)
    # Cropping or padding to whole tiles may halve or double the sides of a level.
    numbers = {number for number in numbers if max(1.0, low / 2) < number < 2.5 * high}
    same = [(number, number) for number in sorted(numbers | {low, high})]
    return [*same, (x_ratio, y_ratio)]


def _windows_with_contrast(level: Level, size: int) -> list[tuple[int, int, np.ndarray]]:
    """List windows of a level, as x, y and pixels, that show much and lie far from its corner."""
    size = min(size, *level.shape)
    rows = np.unique(np.linspace(0, level.shape[0] - size, N_POSITIONS).astype(int))
    columns = np.unique(np.linspace(0, level.shape[1] - size, N_POSITIONS).astype(int))
    windows = [(x, y, level.read(y, y + size, x, x + size)) for y in rows for x in columns]
    contrasts = np.array([pixels.std(axis=(0, 1)).max() for _, _, pixels in windows])
    if contrasts.max() < MIN_CONTRAST:
        return []
    with_contrast = [windows[i] for i in np.flatnonzero(contrasts > contrasts.max() / 2)]
    farthest = [
        max(with_contrast, key=lambda window: window[0]),
        max(with_contrast, key=lambda window: window[1]),
        *sorted(with_contrast, key=lambda window: -window[0] - window[1]),
    ]
    places = {(x, y): (x, y, pixels) for x, y, pixels in farthest}
    return list(places.values())[:N_WINDOWS]


def _correlation(
    fine: Level,
    coarse: Level,
    windows: Sequence[tuple[int, int, np.ndarray]],
    factor: tuple[float, float],
) -> float:
    """Return how well windows of the coarse level correlate with the fine one for a factor.

    Parameters
    ----------
    fine
        A level whose place is known.
    coarse
        A coarser level.
    windows
        Windows of the coarse level, as x, y and pixels.
    factor
        Size of a pixel of the coarse level as x, y in pixels of the finest level.
    """
    steps = np.array(factor) / np.array(fine.factor)
    height, width = coarse.shape
    padding = coarse.read(height - 1, height, width - 1, width)[0, 0]
    products = np.zeros(3)
    for x, y, pixels in windows:
        expected = _shrink(fine, np.array([x, y]) * steps, steps, pixels.shape[:2], padding)
        a = pixels - pixels.mean(axis=(0, 1))
        b = expected - expected.mean(axis=(0, 1))
        products += ((a * b).sum(), (a * a).sum(), (b * b).sum())
    both, of_coarse, of_fine = products
    return float(both / np.sqrt(max(of_coarse * of_fine, 1e-9)))


def _shrink(
    level: Level, corner: np.ndarray, steps: np.ndarray, shape: tuple[int, int], color: np.ndarray
) -> np.ndarray:
    """Return pixels (height, width, 3) that are averages of a level.

    Parameters
    ----------
    level
        Level to read.
    corner
        Upper left corner as x, y in pixels of the level.
    steps
        Size of a returned pixel as x, y in pixels of the level.
    shape
        Height and width of what is returned.
    color
        RGB of what lies outside the level.
    """
    import PIL.Image

    low = np.floor(corner).astype(int)
    high = np.ceil(corner + steps * shape[::-1]).astype(int)
    block = np.empty((high[1] - low[1], high[0] - low[0], 3), np.uint8)
    block[:] = color
    right, bottom = np.minimum(high, level.shape[::-1])
    left, top = low
    if left < right and top < bottom:
        block[: bottom - top, : right - left] = level.read(top, bottom, left, right)
    box = (*(corner - low), *np.minimum(corner - low + steps * shape[::-1], high - low))
    picture = PIL.Image.fromarray(block)
    return np.asarray(picture.resize(shape[::-1], PIL.Image.Resampling.HAMMING, box=box), float)
