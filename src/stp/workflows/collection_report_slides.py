"""Small pictures of the slides of a collection, with their spots."""

import base64
import io
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stp.data.neighborhoods import spacing
from stp.data.store import SpotStore
from stp.images.overview import read_overview

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_SIDE = 320  # pixels of the longer side, for few slides
MIN_SIDE = 200
MAX_BYTES = 40e6  # of the pictures of all slides before they become text
BYTES_PER_PIXEL = 0.35  # of a JPEG of tissue with spots
QUALITY = 72
SMOOTH = 2  # spots are drawn on so many times as many pixels, and then reduced
SPOT_SHARE = 0.2  # radius of a spot, as a share of the distance to the next one
MIN_RADIUS = 0.7  # pixels
N_DRAWN = 4000  # spots
COLOR = (0, 82, 235, 190)
OUTSIDE_COLOR = (120, 120, 120, 110)  # of spots outside the tissue
EMPTY = (240, 240, 242)  # under spots without an image


def choose_side(n_slides: int) -> int:
    """Return the longer side of the pictures in pixels, so that the page stays below 60 MB."""
    side = np.sqrt(MAX_BYTES / max(n_slides, 1) / BYTES_PER_PIXEL)
    return int(np.clip(side, MIN_SIDE, MAX_SIDE))


def draw_slide(path: str | Path, name: str, side: int) -> str:
    """Return the picture of a store with its spots as HTML, or why there is none.

    Parameters
    ----------
    path
        Path of the store.
    name
        Name of the slide.
    side
        Longer side in pixels.
    """
    try:
        store = SpotStore(path)
        pixels = _draw(store, side)
    except (OSError, ValueError, KeyError) as error:
        return f'<p class="none">cannot be read: {escape(str(error))}</p>'
    if pixels is None:
        return '<p class="none">no image and no coordinates</p>'
    data = base64.b64encode(pixels).decode()
    text = escape(f"{name} with its spots", quote=True)
    return f'<img alt="{text}" src="data:image/jpeg;base64,{data}">'


def _draw(store: SpotStore, side: int) -> bytes | None:
    """Return a JPEG of a slide, or None if it has neither image nor coordinates."""
    from PIL import Image

    xy = store.coordinates
    image = store.pyramid
    if image is not None:
        um_per_px = max(image.levels[0].shape) * image.um_per_px / side
        picture = Image.fromarray(read_overview(image, um_per_px))
        to_pixels = 1 / um_per_px
    elif xy is not None and len(xy):
        low = xy.min(axis=0)
        extent = np.maximum(np.ptp(xy, axis=0), 1e-9)
        margin = 0.05 * extent.max()
        to_pixels = side / (extent.max() + 2 * margin)
        xy = xy - low + margin
        width, height = ((extent + 2 * margin) * to_pixels).astype(int) + 1
        picture = Image.new("RGB", (int(width), int(height)), EMPTY)
    else:
        return None
    if xy is not None and len(xy):
        in_tissue = np.isin(np.arange(len(store)), store.trainable(0))
        picture = _add_spots(picture, xy * to_pixels, in_tissue)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def _add_spots(picture: "Image", xy: np.ndarray, in_tissue: np.ndarray) -> "Image":
    """Return a picture with spots (n, 2) as half-transparent disks."""
    from PIL import Image, ImageDraw

    distance = spacing(xy) if len(xy) > 1 else 0.0
    step = -(-len(xy) // N_DRAWN)
    radius = max(SPOT_SHARE * distance * np.sqrt(step), MIN_RADIUS) * SMOOTH
    size = (picture.width * SMOOTH, picture.height * SMOOTH)
    layer = Image.new("RGBA", size, (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    for (x, y), is_inside in zip(xy[::step] * SMOOTH, in_tissue[::step], strict=True):
        box = (x - radius, y - radius, x + radius, y + radius)
        draw.ellipse(box, fill=COLOR if is_inside else OUTSIDE_COLOR)
    layer = layer.resize(picture.size, Image.Resampling.BOX)
    return Image.alpha_composite(picture.convert("RGBA"), layer).convert("RGB")
