"""Which channels of an image are red, green and blue, by their names."""

import re
from collections.abc import Sequence

from stp.images.files.colors import ColorConversion

LETTERS = {"red": "r", "green": "g", "blue": "b", "alpha": "a"}
# Names that only number the channels, as "0", "c0", "Channel 1" or "Channel:0:1".
NUMBER = re.compile(r"(?:c|ch|channel|band)?[ _:.-]*(?:\d+:)*(\d+)", re.IGNORECASE)


def conversion_by_names(names: Sequence[object], owner: str) -> ColorConversion:
    """Return how channels with these names become RGB.

    Channels that are only numbered are red, green, blue and, if there are four, alpha.

    Parameters
    ----------
    names
        Name of each channel.
    owner
        The image in words, for the error.

    Raises
    ------
    ValueError
        The names are neither numbers nor those of the colors.
    """
    letters = _letters(names)
    if has_color_names(names):
        alpha = letters.index("a") if letters.count("a") == 1 else None
        order = (letters.index("r"), letters.index("g"), letters.index("b"))
        return ColorConversion(order, alpha)
    if has_no_names(names):
        return ColorConversion(alpha=3 if len(names) == 4 else None)
    raise ValueError(
        f"{owner} has the channels {', '.join(map(str, names))}, not red, green and blue; give the "
        "H&E image, or name the channels r, g and b if these are its colors"
    )


def has_color_names(names: Sequence[object]) -> bool:
    """Return whether one channel each is named red, green and blue, in any order."""
    letters = _letters(names)
    return all(letters.count(letter) == 1 for letter in "rgb")


def has_no_names(names: Sequence[object]) -> bool:
    """Return whether the channels are only numbered, in ascending order."""
    matches = [NUMBER.fullmatch(str(name).strip()) for name in names]
    numbers = [int(match[1]) for match in matches if match]
    return numbers in (list(range(len(names))), list(range(1, len(names) + 1)))


def _letters(names: Sequence[object]) -> list[str]:
    """Return each name in lower case, and those of colors as their first letters."""
    lower = [str(name).strip().lower() for name in names]
    return [LETTERS.get(name, name) for name in lower]
