"""µm per pixel in the tags of TIFF files."""

import numpy as np
import pytest
import tifffile
from tests.images.files.ndpi_writer import write_ndpi

import stp
from stp.images.files.opening import open_file

RGB = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
OME = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
APERIO = "Aperio Image Library v12\r\n60x40 [0,0 60x40] (256x256) JPEG/RGB Q=70"


def scale_of(path, rgb=RGB, **tags):
    tifffile.imwrite(path, rgb, photometric="rgb", metadata=None, **tags)
    return open_file(path)[1]


def ome_xml(attributes, before="", image=""):
    """Return OME-XML of one image of the size of `RGB`."""
    size = 'SizeX="60" SizeY="40" SizeC="3" SizeZ="1" SizeT="1"'
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>{before}<OME xmlns="{OME}"><Image ID="Image:0">'
        f'<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" {size} {attributes}>'
        '<Channel ID="Channel:0:0" SamplesPerPixel="3"/><TiffData IFD="0" PlaneCount="1"/>'
        f"</Pixels></Image>{image}</OME>"
    ).encode()


def ome_size(x, y=None, unit=None):
    """Return the attributes of a size along x, and along y if it is given."""
    sizes = {"X": x} if y is None else {"X": x, "Y": y}
    texts = [f'PhysicalSize{axis}="{size}"' for axis, size in sizes.items()]
    if unit is not None:
        texts += [f'PhysicalSize{axis}Unit="{unit}"' for axis in sizes]
    return " ".join(texts)


def close_to(um_per_px):
    return None if um_per_px is None else pytest.approx(um_per_px, rel=1e-6)


@pytest.mark.parametrize(
    ("tags", "um_per_px"),
    [
        ({"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}, 0.5),
        ({"resolution": (50_800, 50_800), "resolutionunit": "INCH"}, 0.5),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, None),
        ({"resolution": (20_000, 20_000), "resolutionunit": "NONE"}, None),
        ({"resolution": ((0, 1), (20_000, 1)), "resolutionunit": "CENTIMETER"}, None),
        ({"resolution": (10**9, 10**9), "resolutionunit": "CENTIMETER"}, None),
        ({}, None),
    ],
    ids=["per cm", "per inch", "of a screen", "no unit", "zero", "finer than light", "nothing"],
)
def test_um_per_pixel_of_resolution_tags(tags, um_per_px, tmp_path):
    assert scale_of(tmp_path / "a.tif", **tags) == close_to(um_per_px)


@pytest.mark.parametrize(
    ("fields", "um_per_px"),
    [
        ("|AppMag = 40|MPP = 0.2520|Left = 1", 0.252),
        ("|AppMag = 40", 0.25),
        ("|MPP = 2.52e-1", 0.252),
        ("|MPP = 0,2520", 0.252),
        ("|MPP=0.252", 0.252),
        ("|Title = MPP = 9.9 test|AppMag = 40|MPP = 0.252", 0.252),
        ("|Title = MPP = 9.9|AppMag = 20", 0.5),
        ("|Title = MPP = 9.9", None),
        ("|OriginalMPP = 9.9|MPP = 0.252", 0.252),
        ("|MPP = 0", None),
        ("|MPP = -0.25", None),
        ("|MPP = nan", None),
        ("|MPP = 1_0", None),
        ("|MPP = unknown|AppMag = 20", 0.5),
        ("|AppMag = 0", None),
    ],
)
def test_um_per_pixel_of_aperio(fields, um_per_px, tmp_path):
    assert scale_of(tmp_path / "a.svs", description=APERIO + fields) == close_to(um_per_px)


@pytest.mark.parametrize(
    ("unit", "um"),
    [
        ("m", 1e6),
        ("dm", 1e5),
        ("cm", 1e4),
        ("mm", 1e3),
        ("\u00b5m", 1),
        ("\u03bcm", 1),
        (None, 1),  # OME's own default
        ("nm", 1e-3),
        ("pm", 1e-6),
        ("\u00c5", 1e-4),
        ("\u212b", 1e-4),
        ("in", 25_400),
        ("thou", 25.4),
        ("pt", 25_400 / 72),
        ("pixel", None),
        ("reference frame", None),
        ("furlong", None),
        ("Mm", None),  # a megameter
    ],
)
def test_um_per_pixel_of_the_units_of_ome(unit, um, tmp_path):
    size = f"{0.26 / (um or 1):.12g}"
    description = ome_xml(ome_size(size, size, unit))
    um_per_px = None if um is None else 0.26
    assert scale_of(tmp_path / "a.ome.tif", description=description) == close_to(um_per_px)


@pytest.mark.parametrize(
    ("attributes", "um_per_px"),
    [
        (ome_size("2.5E-1", "2.5e-1"), 0.25),
        (ome_size("0,25", "0,25"), 0.25),
        (ome_size(".25"), 0.25),
        (ome_size("0.25", "0.2502"), 0.2501),  # scanners measure both
        (ome_size("0", "0"), None),
        (ome_size("-0.25", "-0.25"), None),
        (ome_size("0.25", "0"), None),
        (ome_size("INF", "INF"), None),
        (ome_size("NaN", "NaN"), None),
        (ome_size("1.234,5"), None),
        (ome_size("2.5e-7", "2.5e-7"), None),  # meters without their unit
        ("", None),
    ],
)
def test_um_per_pixel_of_the_numbers_of_ome(attributes, um_per_px, tmp_path):
    description = ome_xml(attributes)
    assert scale_of(tmp_path / "a.ome.tif", description=description) == close_to(um_per_px)


def test_a_number_in_an_annotation_of_ome_is_no_scale(tmp_path):
    text = '<![CDATA[|MPP = 9.9| PhysicalSizeX="9.9"]]>'
    image = f"<StructuredAnnotations><XMLAnnotation ID='A:0'><Value>{text}</Value></XMLAnnotation>"
    description = ome_xml("", image=image + "</StructuredAnnotations>")
    assert scale_of(tmp_path / "a.ome.tif", description=description) is None


def test_resolution_tags_count_if_ome_has_no_scale(tmp_path):
    tags = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}
    description = ome_xml(ome_size("1", "1", "pixel"))
    assert scale_of(tmp_path / "a.ome.tif", description=description, **tags) == close_to(0.5)


@pytest.mark.parametrize(
    "tags",
    [
        {"description": ome_xml(ome_size("0.25", "0.5"))},
        {"description": ome_xml(ome_size("0.25", "0.26"))},
        {
            "description": ome_xml(
                'PhysicalSizeX="0.25" PhysicalSizeY="0.25" PhysicalSizeYUnit="mm"'
            )
        },
        {"resolution": (40_000, 20_000), "resolutionunit": "CENTIMETER"},
    ],
)
def test_pixels_that_are_not_square_are_refused_even_if_the_user_gives_a_scale(tags, tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, RGB, photometric="rgb", metadata=None, **tags)
    for um_per_px in (None, 0.25):
        with pytest.raises(ValueError, match=r"a\.tif has pixels that are not square: 0\.25 µm"):
            stp.images.ImagePyramid.from_path(path, um_per_px=um_per_px)


@pytest.mark.parametrize(
    "before",
    [
        '<!DOCTYPE OME [<!ENTITY a "0.25">]>',
        '<!DOCTYPE OME [<!ENTITY a "aa"><!ENTITY b "&a;&a;&a;&a;">]>',
        '<!DOCTYPE OME [<!ENTITY a SYSTEM "file:///etc/hostname">]>',
    ],
)
def test_xml_with_entities_is_refused(before, tmp_path):
    description = ome_xml(ome_size("0.25"), before=before)
    with pytest.raises(ValueError, match=r"a\.ome\.tif has entities in its XML"):
        scale_of(tmp_path / "a.ome.tif", description=description)


def test_damaged_xml_is_no_source(tmp_path):
    description = ome_xml(ome_size("0.25")).replace(b"<Channel", b"<<Channel")
    assert scale_of(tmp_path / "a.ome.tif", description=description) is None


@pytest.mark.parametrize(("unit", "um"), [("micron", 1), ("\\u00B5m", 1), ("mm", 1000)])
def test_um_per_pixel_of_imagej(unit, um, tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif",
        RGB,
        imagej=True,
        resolution=(um / 0.5, um / 0.5),
        metadata={"unit": unit, "axes": "YXS"},
    )
    assert open_file(tmp_path / "a.tif")[1] == close_to(0.5)


def philips_xml(spacing):
    levels = "".join(
        '<DataObject ObjectType="PixelDataRepresentation"><Attribute Name="DICOM_PIXEL_SPACING">'
        f'"{y * factor}" "{x * factor}"</Attribute></DataObject>'
        for factor in (1, 2)
        for y, x in [spacing]
    )
    return (
        '<?xml version="1.0" encoding="UTF-8" ?><DataObject ObjectType="DPUfsImport">'
        '<Attribute Name="PIM_DP_SCANNED_IMAGES"><Array>'
        '<DataObject ObjectType="DPScannedImage">'
        '<Attribute Name="PIM_DP_IMAGE_TYPE">WSI</Attribute>'
        '<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE">'
        f"<Array>{levels}</Array></Attribute></DataObject></Array></Attribute></DataObject>"
    )


def write_philips(path, spacing):
    levels = np.kron(RGB, np.ones((4, 4, 1), np.uint8)), np.kron(RGB, np.ones((2, 2, 1), np.uint8))
    with tifffile.TiffWriter(path) as tiff:
        for number, level in enumerate(levels):
            tiff.write(
                level,
                photometric="rgb",
                tile=(32, 32),
                software="Philips DP v1.0",
                metadata=None,
                description="" if number else philips_xml(spacing),
                subfiletype=number,
            )
        tiff.write(RGB, photometric="rgb", description="Macro -offset=(0,0)", metadata=None)


def test_um_per_pixel_of_philips(tmp_path):
    write_philips(tmp_path / "a.tiff", (0.0002502, 0.0002498))  # mm along y, then along x
    levels, um_per_px = open_file(tmp_path / "a.tiff")
    assert um_per_px == close_to(0.25)
    assert [level.shape for level in levels] == [(160, 240, 3), (80, 120, 3)]
    write_philips(tmp_path / "b.tiff", (0.0005, 0.00025))
    with pytest.raises(ValueError, match="not square: 0.25 µm along x and 0.5 along y"):
        open_file(tmp_path / "b.tiff")


@pytest.mark.parametrize("name", ["a.ndpi", "a.tif", "a"])
@pytest.mark.parametrize(("um_per_px", "expected"), [(0.25, 0.25), (None, 0.5)])
def test_um_per_pixel_of_ndpi_is_that_of_its_tags_or_of_its_lens(
    name, um_per_px, expected, tmp_path
):
    large = np.kron(RGB, np.ones((4, 4, 1), np.uint8))
    write_ndpi(tmp_path / name, [(large, 20), (large[::2, ::2], 10), (RGB, -1)], um_per_px)
    levels, um = open_file(tmp_path / name)
    assert um == close_to(expected)
    np.testing.assert_array_equal(levels[0][:, :, :], large)
    assert len(levels) == 2
