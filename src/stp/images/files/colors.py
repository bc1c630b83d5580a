"""RGB pixels of arrays with other channels: transparent, YCbCr, or in another order."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

BLANK = 255  # white, and each channel of a tile that a scanner left out
CHUNK_PIXELS = 512  # side of the parts in which an array in memory is converted
BLOCK_ROWS = 64  # rows that are converted at a time, so that few numbers of 16 bits are in memory

# What each value of the chroma planes adds to red and blue, and takes from green: ITU-R BT.601.
CHROMA = np.arange(256) - 128.0
RED_OF_CR = np.round(1.402 * CHROMA).astype(np.int16)
BLUE_OF_CB = np.round(1.772 * CHROMA).astype(np.int16)
FRACTION_BITS = 6  # of the two parts of green, which are rounded together
GREEN_OF_CB = np.round(0.344136 * CHROMA * 64).astype(np.int16)
GREEN_OF_CR = np.round(0.714136 * CHROMA * 64 + 32).astype(np.int16)


@dataclass(frozen=True)
class ColorConversion:
    """How the channels of an image become RGB.

    Parameters
    ----------
    order
        Positions of the channels red, green and blue, or Y, Cb and Cr.
    alpha
        Position of the channel that is 0 for transparent pixels and 255 for opaque ones; None if
        there is none.
    is_premultiplied
        Whether the colors are already multiplied by the alpha channel.
    is_ycbcr
        Whether the colors are Y, Cb and Cr.
    """

    order: tuple[int, int, int] = (0, 1, 2)
    alpha: int | None = None
    is_premultiplied: bool = False
    is_ycbcr: bool = False

    def convert(self, pixels: np.ndarray) -> np.ndarray:
        """Return the colors (y, x, 3) of pixels (y, x, channels), both uint8."""
        colors = pixels[..., :3] if self.order == (0, 1, 2) else pixels[..., self.order]
        if self.is_ycbcr:
            colors = ycbcr_to_rgb(colors)
        if self.alpha is None:
            return colors
        return on_white(colors, pixels[..., self.alpha], self.is_premultiplied)


@dataclass
class RgbArray:
    """An array whose channels become RGB when it is read.

    Parameters
    ----------
    source
        Array of uint8 with the axes y, x, c or c, y, x.
    conversion
        How its channels become RGB.
    channels_first
        Whether the axes are c, y, x.
    """

    source: Any
    conversion: ColorConversion
    channels_first: bool = False

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype:
        """Type of a value."""
        return np.dtype(np.uint8)

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis, in the order of the source."""
        return self._with_three_channels(self.source.shape, 3)

    @property
    def chunks(self) -> tuple[Any, ...]:
        """What is decoded as a whole, as the source has it: a size or all sizes of each axis."""
        sizes = getattr(self.source, "chunks", None)
        if not sizes:
            return tuple(min(CHUNK_PIXELS, length) for length in self.shape)
        return self._with_three_channels(sizes, (3,) if isinstance(sizes[0], tuple) else 3)

    @cached_property
    def empty_color(self) -> np.ndarray:
        """The color (3,) that a chunk without pixels becomes, whose values are read as 0."""
        channels = self.source.shape[0 if self.channels_first else -1]
        return self.conversion.convert(np.zeros((1, 1, channels), np.uint8))[0, 0]

    def __getitem__(self, key: Any) -> np.ndarray:
        slices = list(key) if isinstance(key, tuple) else [key]
        slices += [slice(None)] * (3 - len(slices))
        channel_axis = 0 if self.channels_first else 2
        channels = slices[channel_axis]
        slices[channel_axis] = slice(None)
        pixels = np.asarray(self.source[tuple(slices)])
        if not self.channels_first:
            return self.conversion.convert(pixels)[..., channels]
        return np.moveaxis(self.conversion.convert(np.moveaxis(pixels, 0, -1)), -1, 0)[channels]

    def _with_three_channels(self, of_axes: tuple[Any, ...], channels: Any) -> tuple[Any, ...]:
        """Return the values of the axes, with another one for the channels."""
        if self.channels_first:
            return (channels, *of_axes[1:])
        return (*of_axes[:-1], channels)


def convert_colors(array: Any, conversion: ColorConversion, channels_first: bool) -> Any:
    """Return an array that is read as RGB: the array itself if that is what its channels are."""
    n_channels = array.shape[0 if channels_first else -1]
    if conversion == ColorConversion() and n_channels == 3:
        return array
    return RgbArray(array, conversion, channels_first)


def on_white(colors: np.ndarray, alpha: np.ndarray, is_premultiplied: bool = False) -> np.ndarray:
    """Return transparent colors on a white background.

    Parameters
    ----------
    colors
        Pixels (y, x, 3) uint8.
    alpha
        Opacity (y, x) of each pixel: 0 for transparent and 255 for opaque.
    is_premultiplied
        Whether the colors are already multiplied by `alpha`.
    """
    if alpha.min(initial=255) == 255:
        return colors
    result = np.empty(colors.shape, np.uint8)
    for top in range(0, len(colors), BLOCK_ROWS):
        block = colors[top : top + BLOCK_ROWS]
        opacity = alpha[top : top + BLOCK_ROWS, :, None].astype(np.uint16)
        if is_premultiplied:
            result[top : top + BLOCK_ROWS] = np.minimum(block + (255 - opacity), 255)
        else:
            darkness = (255 - block.astype(np.uint16)) * opacity + 128
            # This is the division by 255, rounded to the nearest number.
            result[top : top + BLOCK_ROWS] = 255 - ((darkness + (darkness >> 8)) >> 8)
    return result


def ycbcr_to_rgb(planes: np.ndarray) -> np.ndarray:
    """Return the RGB of Y, Cb and Cr (y, x, 3), each from 0 to 255 as in JPEG.

    A pixel that is 255 in each channel is white: it is of a tile that a scanner left out.
    """
    rgb = np.empty(planes.shape, np.uint8)
    for top in range(0, len(planes), BLOCK_ROWS):
        y, cb, cr = np.moveaxis(planes[top : top + BLOCK_ROWS], -1, 0)
        luma = y.astype(np.int16)
        block = rgb[top : top + BLOCK_ROWS]
        block[..., 0] = np.clip(luma + RED_OF_CR[cr], 0, 255)
        green = (GREEN_OF_CB[cb] + GREEN_OF_CR[cr]) >> FRACTION_BITS
        block[..., 1] = np.clip(luma - green, 0, 255)
        block[..., 2] = np.clip(luma + BLUE_OF_CB[cb], 0, 255)
    is_blank = (planes[..., 0] == BLANK) & (planes[..., 1] == BLANK) & (planes[..., 2] == BLANK)
    rgb[is_blank] = BLANK
    return rgb


def gray_error(path: Path) -> ValueError:
    """Return the error of an image with one channel."""
    return ValueError(f"expected an RGB image, but {path} is grayscale; pass the H&E image")
