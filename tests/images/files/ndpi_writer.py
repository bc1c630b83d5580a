"""A writer of small NDPI slides: TIFF files whose positions have 64 bits."""

import struct

SHORT, LONG, RATIONAL, FLOAT, ASCII = 3, 4, 5, 11, 2
HAMAMATSU = b"Hamamatsu\0"


def write_ndpi(path, pages, um_per_px=None):
    """Write pictures and their magnification, the slide first; the macro has magnification -1."""
    content = bytearray(struct.pack("<4sQ", b"II*\0", 0))
    pointer = 4  # position of the pointer to the next page
    for rgb, magnification in pages:
        pixels = len(content)
        content += rgb.tobytes()
        maker = len(content)
        content += HAMAMATSU
        bits = len(content)
        content += struct.pack("<3H", 8, 8, 8)
        resolution = len(content)
        content += struct.pack("<2I", round(1e8 / (um_per_px or 1)), 10_000)
        height, width = rgb.shape[:2]
        tags = [
            (256, LONG, 1, width),
            (257, LONG, 1, height),
            (258, SHORT, 3, bits),
            (259, SHORT, 1, 1),
            (262, SHORT, 1, 2),
            (271, ASCII, len(HAMAMATSU), maker),
            (273, LONG, 1, pixels),
            (277, SHORT, 1, 3),
            (278, LONG, 1, height),
            (279, LONG, 1, rgb.size),
        ]
        if um_per_px is not None:
            tags += [(282, RATIONAL, 1, resolution), (283, RATIONAL, 1, resolution)]
            tags += [(296, SHORT, 1, 3)]
        bits_of_float = struct.unpack("<I", struct.pack("<f", magnification))[0]
        tags += [(65420, LONG, 1, 1), (65421, FLOAT, 1, bits_of_float)]
        struct.pack_into("<Q", content, pointer, len(content))
        content += struct.pack("<H", len(tags))
        for tag in tags:
            content += struct.pack("<HHII", *tag)
        pointer = len(content)
        content += bytes(8 + 4 * len(tags))  # the next page, and the upper half of each value
    path.write_bytes(content)
