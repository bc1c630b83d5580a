"""TIFF files: the slide among their pictures, its levels and its pixels."""

import gc
import warnings
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import tifffile
from tests.images.files.ndpi_writer import write_ndpi

from stp.images.files.opening import open_file as open_arrays
from stp.images.levels import open_array

RGB = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)


def open_file(path):
    arrays, um_per_px = open_arrays(path)
    return [open_array(array) for array in arrays], um_per_px


def whole(level):
    return level.read(0, level.shape[0], 0, level.shape[1])


@pytest.mark.parametrize(
    ("name", "um_per_px", "shapes"),
    [
        ("CMU-1-Small-Region.svs", 0.499, [(2967, 2220)]),
        ("TCGA-CR-7395-01A-01-TS1.svs", None, [(3567, 4443), (1783, 2221)]),
        ("kidney-48-5.tif", None, [(901, 1493)]),
    ],
    ids=["jpeg", "jpeg 2000", "plain"],
)
def test_real_slides(name, um_per_px, shapes, real):
    path = real("wsi", name)
    levels, stated = open_file(path)
    assert stated == um_per_px
    assert [level.shape for level in levels] == shapes
    for index, level in enumerate(levels):
        expected = tifffile.imread(path, series=0, level=index)[500:700, 300:611]
        np.testing.assert_array_equal(level.read(500, 700, 300, 611), expected)
        assert expected.std() > 0


@pytest.mark.parametrize(("unit", "factor"), [("µm", 1), ("nm", 1e-3), ("mm", 1e3)])
def test_um_per_pixel_and_levels_of_ome(unit, factor, tmp_path):
    metadata = {"axes": "YXS", "PhysicalSizeX": 0.26 / factor, "PhysicalSizeXUnit": unit}
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as file:
        file.write(RGB, photometric="rgb", tile=(16, 16), subifds=1, metadata=metadata)
        file.write(RGB[::2, ::2], photometric="rgb", tile=(16, 16), subfiletype=1)
    levels, um_per_px = open_file(tmp_path / "a.ome.tif")
    assert um_per_px == pytest.approx(0.26)
    np.testing.assert_array_equal(whole(levels[0]), RGB)
    np.testing.assert_array_equal(whole(levels[1]), RGB[::2, ::2])


def test_planar_tiff_and_capital_ending(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.TIFF", np.moveaxis(RGB, -1, 0), photometric="rgb", planarconfig="separate"
    )
    ((level,), _) = open_file(str(tmp_path / "a.TIFF"))
    assert level.channels_first
    np.testing.assert_array_equal(whole(level), RGB)


def cut(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
@pytest.mark.parametrize("name", ["tiled.tif", "strip.tif", "deflated.tif"])
def test_a_truncated_tiff_is_refused_when_it_is_opened(name, share, tmp_path):
    path = tmp_path / name
    large = np.tile(RGB, (8, 8, 1))
    tiff = {
        "tiled.tif": {"tile": (64, 64)},
        "strip.tif": {},
        "deflated.tif": {"compression": "deflate"},
    }
    tifffile.imwrite(path, large, photometric="rgb", **tiff[name])
    open_file(path)
    cut(path, share)
    with pytest.raises(ValueError, match="is the file complete") as error:
        open_file(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("share", [0.001, 0.3, 0.6])
def test_a_truncated_slide_is_refused_when_it_is_opened(share, real, tmp_path):
    path = tmp_path / "slide.svs"
    path.write_bytes(real("wsi", "CMU-1-Small-Region.svs").read_bytes())
    cut(path, share)
    with pytest.raises(
        ValueError, match=r"slide\.svs cannot be read as a TIFF .*is the file complete"
    ):
        open_file(path)


def empty_tiles(path, numbers):
    with tifffile.TiffFile(path, mode="r+") as tiff:
        for tag in ("TileByteCounts", "TileOffsets"):
            values = tiff.pages[0].tags[tag]
            values.overwrite([0 if i in numbers else value for i, value in enumerate(values.value)])


@pytest.mark.parametrize("compression", ["jpeg", None])
def test_a_tile_without_bytes_is_blank(compression, tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, RGB, tile=(16, 16), photometric="rgb", compression=compression)
    expected = tifffile.imread(path)
    empty_tiles(path, {0})
    expected[:16, :16] = 255
    ((level,), _) = open_file(path)
    np.testing.assert_array_equal(whole(level), expected)


def test_a_tiff_whose_tiles_are_all_missing_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, RGB, tile=(16, 16), photometric="rgb")
    empty_tiles(path, set(range(1000)))
    with pytest.raises(
        ValueError, match=r"a\.tif cannot be read as a TIFF \(all tiles of a level are empty\)"
    ):
        open_file(path)


@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000", "deflate", "lzw", "zstd", None])
def test_tiffs_of_any_compression(compression, tmp_path):
    large = np.kron(RGB, np.ones((4, 4, 1), np.uint8))
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, large, photometric="rgb", tile=(64, 64), compression=compression)
    ((level,), _) = open_file(path)
    np.testing.assert_array_equal(level.read(5, 150, 17, 200), tifffile.imread(path)[5:150, 17:200])


def test_a_file_array_pickles_without_its_handle(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb", tile=(16, 16))
    ((array,), _) = open_arrays(tmp_path / "a.tif")
    np.testing.assert_array_equal(array[3:9, 5:60], RGB[3:9, 5:60])
    again = ForkingPickler.loads(ForkingPickler.dumps(array))
    assert (again.opened, again.shape, again.chunks, again.ndim) == (
        None,
        (40, 60, 3),
        (16, 16, 3),
        3,
    )
    np.testing.assert_array_equal(again[3:9, 5:60], RGB[3:9, 5:60])


def test_a_file_is_closed_with_the_last_array_of_it(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb", tile=(16, 16))
    arrays, _ = open_arrays(tmp_path / "a.tif")
    np.testing.assert_array_equal(arrays[0][3:9, 5:60], RGB[3:9, 5:60])
    with warnings.catch_warnings(record=True) as messages:
        warnings.simplefilter("always", ResourceWarning)
        del arrays
        gc.collect()
    assert not [str(message.message) for message in messages]


def test_16_bit_tiff_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", RGB.astype(np.uint16), photometric="rgb")
    with pytest.raises(
        ValueError, match="8 bits per channel, got uint16; convert the image to uint8 first"
    ):
        open_file(tmp_path / "a.tif")


SLIDE = np.random.default_rng(1).integers(0, 256, (128, 192, 3)).astype(np.uint8)
MACRO = np.random.default_rng(2).integers(0, 256, (100, 70, 3)).astype(np.uint8)
TILES = {"photometric": "rgb", "tile": (32, 32), "metadata": None}
OME = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


def ome_image(number, name, rgb, um_per_px=None, channels=None, size_c=3, size_z=1, data=None):
    """Return the OME-XML of one image."""
    height, width = rgb.shape[:2]
    scale = "" if um_per_px is None else f'PhysicalSizeX="{um_per_px}" PhysicalSizeY="{um_per_px}"'
    channels = channels or '<Channel ID="C:0" SamplesPerPixel="3"/>'
    data = f'<TiffData IFD="{number}" PlaneCount="1"/>' if data is None else data
    return (
        f'<Image ID="Image:{number}" Name="{name}"><Pixels ID="Pixels:{number}" Type="uint8" '
        f'DimensionOrder="XYCZT" SizeX="{width}" SizeY="{height}" SizeC="{size_c}" '
        f'SizeZ="{size_z}" SizeT="1" {scale}>{channels}{data}</Pixels></Image>'
    )


def write_ome(path, images, pictures, **options):
    """Write pictures, the first with the OME-XML of all images."""
    text = f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{OME}">{"".join(images)}</OME>'
    with tifffile.TiffWriter(path) as tiff:
        for number, picture in enumerate(pictures):
            description = None if number else text.encode()
            tiff.write(picture, description=description, **{**TILES, **options})


def write_named(path, named):
    """Write an OME-TIFF of pictures and their scale by name."""
    images = [
        ome_image(number, name, picture, um_per_px)
        for number, (name, (picture, um_per_px)) in enumerate(named.items())
    ]
    write_ome(path, images, [picture for picture, _ in named.values()])


def write_scn(path, named, views_um):
    """Write a Leica SCN of pictures by name, with the sides of their views in µm."""
    parts = []
    for number, (name, picture) in enumerate(named.items()):
        height, width = picture.shape[:2]
        size = f'sizeX="{width}" sizeY="{height}"'
        view = " ".join(
            f'size{axis}="{side * 1000:.0f}"'
            for axis, side in zip("XY", views_um[name], strict=True)
        )
        dimension = f'<dimension {size} r="0" ifd="{number}"/>'
        parts.append(
            f'<image name="{name}"><pixels {size}>{dimension}</pixels><view {view}/></image>'
        )
    xmlns = "http://www.leica-microsystems.com/scn/2010/10/01"
    text = f'<scn xmlns="{xmlns}"><collection name="c">{"".join(parts)}</collection></scn>'
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for number, picture in enumerate(named.values()):
            tiff.write(picture, description=None if number else text, **TILES)


def assert_is_slide(path, um_per_px=None):
    levels, stated = open_file(path)
    np.testing.assert_array_equal(whole(levels[0]), SLIDE)
    assert stated == (None if um_per_px is None else pytest.approx(um_per_px))


@pytest.mark.parametrize("order", [("overview", "scan"), ("scan", "overview")])
def test_the_scan_of_a_leica_slide_is_read_with_the_scale_of_its_view(order, tmp_path):
    views = {"overview": (26_000, 76_000), "scan": (192 * 0.25, 128 * 0.25)}
    pictures = {"overview": MACRO, "scan": SLIDE}
    write_scn(tmp_path / "a.scn", {name: pictures[name] for name in order}, views)
    assert_is_slide(tmp_path / "a.scn", 0.25)


def test_a_leica_overview_that_is_larger_than_the_scan_is_not_read(tmp_path):
    large = np.tile(MACRO, (3, 3, 1))
    views = {"a": (210 * 16, 300 * 16), "b": (192 * 0.25, 128 * 0.25)}
    write_scn(tmp_path / "a.scn", {"a": large, "b": SLIDE}, views)
    assert_is_slide(tmp_path / "a.scn", 0.25)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_each_image_of_ome_has_its_own_scale(place, tmp_path):
    images = [("tissue", (MACRO, 1.5)), ("detail", (MACRO[:50], 0.1))]
    images.insert(place, ("scan", (SLIDE, 0.25)))
    write_named(tmp_path / "a.ome.tif", dict(images))
    assert_is_slide(tmp_path / "a.ome.tif", 0.25)


def test_images_of_ome_without_pixels_do_not_shift_the_scales(tmp_path):
    images = [
        ome_image(0, "lost", MACRO, 9.0, data=""),
        ome_image(0, "macro", MACRO, 7.0),
        ome_image(1, "scan", SLIDE, 0.25),
    ]
    write_ome(tmp_path / "a.ome.tif", images, [MACRO, SLIDE])
    assert_is_slide(tmp_path / "a.ome.tif", 0.25)


@pytest.mark.parametrize(
    "name",
    ["macro", "Label", "macro image", "label_image", "Thumbnail", "SlidePreview", "a.svs [macro]"]
    + ["Slide 3 - overview", "Macro 1"],
)
def test_labels_macros_and_previews_are_no_slides_even_if_they_are_larger(name, tmp_path):
    large = np.tile(MACRO, (3, 3, 1))
    write_named(tmp_path / "a.ome.tif", {name: (large, None), "scan": (SLIDE, 0.25)})
    assert_is_slide(tmp_path / "a.ome.tif", 0.25)
    write_named(tmp_path / "b.ome.tif", {name: (large, 0.25)})
    with pytest.raises(ValueError, match=r"b\.ome\.tif has no slide but only '.*' \(210 x 300\)"):
        open_file(tmp_path / "b.ome.tif")


@pytest.mark.parametrize("name", ["macrophages", "label-free H&amp;E", "Previewed by me", ""])
def test_names_that_only_begin_like_those_of_macros_are_slides(name, tmp_path):
    write_named(tmp_path / "a.ome.tif", {name: (SLIDE, 0.25)})
    assert_is_slide(tmp_path / "a.ome.tif", 0.25)


@pytest.mark.parametrize("description", ["Macro", "label 70x100", "Thumbnail", "Label Image"])
def test_a_label_in_a_plain_tiff_is_neither_slide_nor_level(description, tmp_path):
    half = np.ascontiguousarray(SLIDE[::2, ::2]) // 2
    for name, pictures in (("a", [(half, description), (SLIDE, None)]),) + (
        ("b", [(SLIDE, None), (half, description)]),
    ):
        with tifffile.TiffWriter(tmp_path / f"{name}.tif") as tiff:
            for picture, text in pictures:
                tiff.write(picture, description=text, **TILES)
        levels, _ = open_file(tmp_path / f"{name}.tif")
        assert [level.shape for level in levels] == [(128, 192)]
        np.testing.assert_array_equal(whole(levels[0]), SLIDE)


def test_the_largest_image_of_a_plain_tiff_is_read_with_its_levels(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for picture in (MACRO, SLIDE, SLIDE[::2, ::2], SLIDE[::4, ::4], MACRO[:30]):
            tiff.write(picture, **TILES)
    levels, _ = open_file(tmp_path / "a.tif")
    assert len(levels) == 3
    for factor, level in zip((1, 2, 4), levels, strict=True):
        np.testing.assert_array_equal(whole(level), SLIDE[::factor, ::factor])
    again = ForkingPickler.loads(ForkingPickler.dumps(levels[1].array))
    np.testing.assert_array_equal(again[:, :, :], SLIDE[::2, ::2])


@pytest.mark.parametrize("name", ["a.qptiff", "a.tif"])
def test_the_slide_of_qptiff_is_read_with_its_levels(name, tmp_path):
    large = np.tile(MACRO, (3, 3, 1))
    with tifffile.TiffWriter(tmp_path / name) as tiff:
        for picture in (SLIDE, MACRO[:50], SLIDE[::2, ::2], large, MACRO[:30]):
            tiff.write(
                picture,
                **TILES,
                software="PerkinElmer-QPI",
                description="<PerkinElmer-QPI-ImageDescription/>",
                resolution=(40_000, 40_000),
                resolutionunit="CENTIMETER",
            )
    assert_is_slide(tmp_path / name, 0.25)
    assert len(open_file(tmp_path / name)[0]) == 2


def test_the_macro_of_ndpi_is_not_read(tmp_path):
    large = np.tile(MACRO, (3, 3, 1))
    write_ndpi(tmp_path / "a.ndpi", [(SLIDE, 20), (large, -1)], 0.5)
    assert_is_slide(tmp_path / "a.ndpi", 0.5)


def test_images_of_one_size_are_refused_by_their_names(tmp_path):
    write_named(
        tmp_path / "a.ome.tif",
        {"left": (SLIDE, 0.25), "macro": (MACRO, None), "right": (SLIDE, 0.25)},
    )
    message = r"a\.ome\.tif has 2 images of one size: 'left' \(192 x 128\), 'right' .*; export the"
    with pytest.raises(ValueError, match=message):
        open_file(tmp_path / "a.ome.tif")


def test_other_scans_at_the_scale_of_the_slide_are_named_in_a_warning(tmp_path):
    write_named(
        tmp_path / "a.ome.tif",
        {"small": (MACRO, 0.25), "large": (SLIDE, 0.25), "macro": (MACRO, 9)},
    )
    with pytest.warns(UserWarning, match=r"only 'large' \(192 x 128\) is read, not 'small' \(70 x"):
        assert_is_slide(tmp_path / "a.ome.tif", 0.25)


def test_stacks_are_refused_by_what_they_are(tmp_path):
    stack = np.stack([SLIDE, SLIDE, SLIDE])
    gray = stack[..., 0]
    tifffile.imwrite(tmp_path / "plain.tif", stack, photometric="rgb", metadata=None)
    tifffile.imwrite(tmp_path / "gray.tif", gray, photometric="minisblack", metadata=None)
    tifffile.imwrite(tmp_path / "imagej.tif", stack, imagej=True, metadata={"axes": "ZYXS"})
    tifffile.imwrite(tmp_path / "time.tif", stack, imagej=True, metadata={"axes": "TYXS"})
    tifffile.imwrite(tmp_path / "a.ome.tif", stack, photometric="rgb", metadata={"axes": "ZYXS"})
    tifffile.imwrite(tmp_path / "shaped.tif", gray, photometric="minisblack")
    for name, message in (
        ("plain.tif", "3 images of one size"),
        ("imagej.tif", "3 focal planes of one size"),
        ("time.tif", "3 time points of one size"),
        ("a.ome.tif", "3 focal planes of one size"),
        ("gray.tif", "expected an RGB image, but .* several images of one channel"),
        ("shaped.tif", "expected an RGB image, but .* several images of one channel"),
    ):
        with pytest.raises(ValueError, match=message):
            open_file(tmp_path / name)


def write_planes(path, names):
    """Write an OME-TIFF of one plane for each channel."""
    planes = [SLIDE[..., number % 3] for number in range(len(names))]
    channels = "".join(
        f'<Channel ID="C:{number}" Name="{name}" SamplesPerPixel="1"/>'
        for number, name in enumerate(names)
    )
    data = "".join(
        f'<TiffData IFD="{number}" FirstC="{number}" PlaneCount="1"/>'
        for number in range(len(names))
    )
    image = ome_image(0, "scan", SLIDE, 0.25, channels, len(names), data=data)
    write_ome(path, [image], planes, photometric="minisblack")


@pytest.mark.parametrize(
    "names",
    [
        ("Red", "Green", "Blue"),
        ("R", "G", "B"),
        ("", "", ""),
        ("Channel 0", "Channel 1", "Channel 2"),
    ],
)
def test_three_planes_of_ome_are_an_rgb_image(names, tmp_path):
    write_planes(tmp_path / "a.ome.tif", names)
    assert_is_slide(tmp_path / "a.ome.tif", 0.25)


@pytest.mark.parametrize(
    "names", [("DAPI", "CD3", "CD8"), ("DAPI", "CD3", "CD8", "PanCK"), ("DAPI", "CD3")]
)
def test_channels_of_fluorescence_are_refused_by_name(names, tmp_path):
    write_planes(tmp_path / "a.ome.tif", names)
    with pytest.raises(ValueError, match=f"expected an RGB image.* has {', '.join(names)}; pass"):
        open_file(tmp_path / "a.ome.tif")


def test_a_small_picture_next_to_fluorescence_is_not_read_as_the_slide(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for channel in range(4):
            tiff.write(SLIDE[..., channel % 3], photometric="minisblack", metadata=None)
        tiff.write(MACRO[:50], photometric="rgb", metadata=None)
    with pytest.raises(ValueError, match=r"expected an RGB image, but image 1 \(192 x 128\)"):
        open_file(tmp_path / "a.tif")


def ome_file(uuid, name):
    """Return the TiffData of pixels in a file."""
    return f'<TiffData IFD="0" PlaneCount="1"><UUID FileName="{name}">{uuid}</UUID></TiffData>'


def test_one_of_several_files_of_ome_is_refused(tmp_path):
    images = [
        ome_image(number, name, SLIDE, 0.25, data=ome_file(f"urn:uuid:{number}", f"{name}.ome.tif"))
        for number, name in enumerate(("a", "b"))
    ]
    companion = '<BinaryOnly MetadataFile="a.companion.ome" UUID="urn:uuid:0"/>'
    for name in ("a", "b"):
        write_ome(tmp_path / f"{name}.ome.tif", images, [SLIDE])
    write_ome(tmp_path / "c.ome.tif", [companion], [SLIDE])
    for name, message in (
        (
            "a",
            r"is one of 2 files of an OME-TIFF \(a\.ome\.tif, b\.ome\.tif\); convert",
        ),
        (
            "c",
            r"is one of several files of an OME-TIFF, which a\.companion\.ome describes",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            open_file(tmp_path / f"{name}.ome.tif")


def test_an_ome_tiff_that_was_renamed_is_read(tmp_path):
    image = ome_image(0, "scan", SLIDE, 0.25, data=ome_file("urn:uuid:7", "old.ome.tif"))
    write_ome(tmp_path / "new.ome.tif", [image], [SLIDE])
    assert_is_slide(tmp_path / "new.ome.tif", 0.25)


def test_planes_that_are_missing_are_refused(tmp_path):
    channels = "".join(f'<Channel ID="C:{number}" SamplesPerPixel="1"/>' for number in range(3))
    data = '<TiffData IFD="0" FirstC="0" PlaneCount="2"/>'
    image = ome_image(0, "scan", SLIDE, 0.25, channels, data=data)
    planes = [SLIDE[..., 0], SLIDE[..., 1]]
    write_ome(tmp_path / "a.ome.tif", [image], planes, photometric="minisblack")
    with pytest.raises(ValueError, match="has only a part of its image"):
        open_file(tmp_path / "a.ome.tif")


def test_damaged_tags_are_one_error_that_names_the_file(tmp_path):
    """Whatever byte is wrong: the file opens, or the error names it."""
    rng = np.random.default_rng(0)
    write_named(tmp_path / "a.ome.tif", {"scan": (RGB, 0.25)})
    content = (tmp_path / "a.ome.tif").read_bytes()
    n_errors = 0
    for _ in range(100):
        damaged = bytearray(content)
        for position in rng.integers(4, 600, 3):
            damaged[position] = rng.integers(0, 256)
        (tmp_path / "b.tif").write_bytes(damaged)
        try:
            open_arrays(tmp_path / "b.tif")
        except ValueError as error:
            n_errors += 1
            assert str(tmp_path / "b.tif") in str(error)
    assert n_errors > 20
