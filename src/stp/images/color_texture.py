"""Color and texture of patches: features without a model, as a baseline."""

import numpy as np

SCALES_PIXELS = (1, 2, 4)  # at which texture is measured


def color_and_texture(patches: np.ndarray) -> np.ndarray:
    """Describe patches (n, size, size, 3) by mean and spread of color, and of edges at 3 scales."""
    from scipy.ndimage import gaussian_filter, sobel

    pixels = patches.astype(np.float32)
    columns = [
        pixels.mean(axis=(1, 2)),
        pixels.std(axis=(1, 2)),
        *np.percentile(pixels, (10, 90), axis=(1, 2)),
    ]
    gray = pixels.mean(axis=-1)
    for scale in SCALES_PIXELS:
        smooth = gaussian_filter(gray, (0, scale, scale))
        edges = np.hypot(sobel(smooth, axis=1), sobel(smooth, axis=2))
        columns.append(edges.mean(axis=(1, 2))[:, None])
        columns.append(edges.std(axis=(1, 2))[:, None])
    return np.hstack(columns)
