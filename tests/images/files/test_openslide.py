"""Slides that OpenSlide reads, window by window."""

import sys
from multiprocessing.reduction import ForkingPickler

import numpy as np
import PIL.Image
import pytest
from tests.images.files.openslide_writers import (
    picture,
    write_bif,
    write_dicom,
    write_mrxs,
    write_trestle,
    write_vms,
)

import stp
from stp.images.files.opening import open_file

STITCHED = picture(64 + 3 * 56, 64 + 4 * 56)  # of tiles of 64 pixels that overlap by 8
PLAIN = picture(256, 384)


@pytest.mark.parametrize("write", [write_bif, write_trestle])
@pytest.mark.parametrize("name", ["slide.bif", "slide.tif", "slide"])
def test_overlapping_tiles_are_stitched(write, name, tmp_path):
    write(tmp_path / name, STITCHED, overlap=8, um_per_px=0.5)
    (level,), um_per_px = open_file(tmp_path / name)
    assert um_per_px == pytest.approx(0.5)
    assert (level.shape, level.dtype) == (STITCHED.shape, np.uint8)
    np.testing.assert_array_equal(level[:, :, :3], STITCHED)
    np.testing.assert_array_equal(level[40:140, 50:51, 1:], STITCHED[40:140, 50:51, 1:])


def test_a_mirax_slide_is_read_with_its_levels(tmp_path):
    write_mrxs(tmp_path / "slide.mrxs", PLAIN, 0.25)
    (fine, coarse), um_per_px = open_file(tmp_path / "slide.mrxs")
    assert um_per_px == 0.25
    np.testing.assert_array_equal(fine[:, :, :3], PLAIN)
    np.testing.assert_array_equal(coarse[:, :, :3], PLAIN[::2, ::2])
    np.testing.assert_array_equal(coarse[13:77, 21:90, :3], PLAIN[::2, ::2][13:77, 21:90])


def test_what_was_not_scanned_is_white(tmp_path):
    write_mrxs(tmp_path / "slide.mrxs", PLAIN, 0.25, missing={7})  # second row, second column
    (fine, _), _ = open_file(tmp_path / "slide.mrxs")
    expected = PLAIN.copy()
    expected[64:128, 64:128] = 255
    np.testing.assert_array_equal(fine[:, :, :3], expected)


def test_a_vms_slide_is_read(tmp_path):
    write_vms(tmp_path / "slide.vms", PLAIN, 0.5)
    (level, *_), um_per_px = open_file(tmp_path / "slide.vms")
    assert um_per_px == pytest.approx(0.5)
    difference = np.abs(level[:, :, :3].astype(int) - PLAIN)
    assert difference.max() <= 6  # JPEG


@pytest.mark.parametrize("number", [0, 1])
def test_a_dicom_slide_is_read_from_any_of_its_files(number, tmp_path):
    rgb = picture(300, 410)  # tiles at the right and lower edge are cut
    path = write_dicom(tmp_path, rgb, 0.25)[number]
    (fine, coarse), um_per_px = open_file(path.rename(path.with_suffix("")))
    assert um_per_px == pytest.approx(0.25)
    np.testing.assert_array_equal(fine[:, :, :3], rgb)
    np.testing.assert_array_equal(coarse[:, :, :3], rgb[::2, ::2])


def test_patches_of_a_dicom_slide_are_those_of_its_array(tmp_path):
    rgb = picture(300, 410)
    path, _ = write_dicom(tmp_path, rgb, 0.25)
    centers = np.array([[60.0, 50.0], [200.0, 150.0], [405.0, 3.0], [333.0, 280.0]])
    from_file = stp.images.ImagePyramid.from_path(path)
    from_array = stp.images.ImagePyramid.from_array(rgb, 0.25)
    for um_per_px in (0.25, 0.3):
        patches = from_file.read(centers, size=56, um_per_px=um_per_px)
        expected = from_array.read(centers, size=56, um_per_px=um_per_px)
        np.testing.assert_array_equal(patches, expected)


def test_tiles_of_a_mirax_slide_lie_on_its_tissue(tmp_path):
    rgb = np.full((256, 384, 3), 240, dtype=np.uint8)
    rgb[:, 192:] = (180, 80, 150)
    write_mrxs(tmp_path / "slide.mrxs", rgb, 0.5)
    sdata = stp.io.read_wsi(tmp_path / "slide.mrxs", tile_um=32)
    x = sdata.tables["table"].obsm["spatial"][:, 0]
    assert len(x) == 12
    assert x.min() > 192


def test_an_array_pickles_without_its_handle(tmp_path):
    write_mrxs(tmp_path / "slide.mrxs", PLAIN, 0.25)
    (level, _), _ = open_file(tmp_path / "slide.mrxs")
    assert level.opened is None  # until it is read
    np.testing.assert_array_equal(level[3:9, 5:60, :3], PLAIN[3:9, 5:60])
    again = ForkingPickler.loads(ForkingPickler.dumps(level))
    assert (again.opened, again.shape, again.chunks) == (None, level.shape, (256, 256, 3))
    np.testing.assert_array_equal(again[3:9, 5:60, :3], PLAIN[3:9, 5:60])


def test_pixels_that_are_not_square_are_refused(tmp_path):
    write_mrxs(tmp_path / "slide.mrxs", PLAIN, 0.25)
    settings = tmp_path / "slide" / "Slidedat.ini"
    text = settings.read_text().replace("PIXEL_Y=0.25", "PIXEL_Y=0.5")
    settings.write_text(text)
    with pytest.raises(ValueError, match=r"slide\.mrxs has pixels that are not square"):
        open_file(tmp_path / "slide.mrxs")


@pytest.mark.parametrize("kind", ["bif", "trestle", "mrxs", "vms", "dicom"])
def test_without_openslide_a_slide_is_refused_with_the_remedy(kind, tmp_path, monkeypatch):
    path = tmp_path / f"slide.{kind}"
    names = {"bif": "Ventana", "trestle": "Trestle", "mrxs": "MIRAX", "vms": "VMS"}
    if kind == "dicom":
        path, _ = write_dicom(tmp_path, PLAIN, 0.5)
    elif kind in ("bif", "trestle"):
        {"bif": write_bif, "trestle": write_trestle}[kind](path, STITCHED, 8, 0.5)
    else:
        {"mrxs": write_mrxs, "vms": write_vms}[kind](path, PLAIN, 0.5)
    monkeypatch.setitem(sys.modules, "openslide", None)
    name = names.get(kind, "DICOM")
    with pytest.raises(ImportError, match=rf"{name}.*pip install 'stp-spatial\[openslide\]'"):
        open_file(path)


def test_a_preview_without_its_mirax_folder_is_refused(tmp_path):
    write_mrxs(tmp_path / "slide.mrxs", PLAIN, 0.25)
    (tmp_path / "slide" / "Slidedat.ini").rename(tmp_path / "Slidedat.ini")
    with pytest.raises(ValueError, match=r"slide\.mrxs is only the preview of a MIRAX slide"):
        open_file(tmp_path / "slide.mrxs")


def test_a_renamed_preview_of_a_mirax_slide_is_refused(tmp_path):
    write_mrxs(tmp_path / "slide.mrxs", PLAIN, 0.25)
    (tmp_path / "slide.mrxs").rename(tmp_path / "slide.jpg")
    with pytest.raises(
        ValueError, match=r"slide\.jpg is only the preview.* rename it to slide\.mr"
    ):
        open_file(tmp_path / "slide.jpg")


def test_a_picture_next_to_a_mirax_slide_is_read_as_a_picture(tmp_path):
    write_mrxs(tmp_path / "slide.mrxs", PLAIN, 0.25)
    PIL.Image.fromarray(PLAIN).save(tmp_path / "slide.jpg")
    (level,), um_per_px = open_file(tmp_path / "slide.jpg")
    assert (level.shape, um_per_px) == (PLAIN.shape, None)


@pytest.mark.parametrize("file", ["Data0000.dat", "Index.dat"])
def test_an_incomplete_mirax_slide_is_refused(file, tmp_path):
    write_mrxs(tmp_path / "slide.mrxs", PLAIN, 0.25)
    (tmp_path / "slide" / file).unlink()
    with pytest.raises(ValueError, match=r"slide\.mrxs is a MIRAX slide that OpenSlide cannot"):
        open_file(tmp_path / "slide.mrxs")


def test_damaged_pixels_are_an_error_that_names_the_file(tmp_path):
    write_mrxs(tmp_path / "slide.mrxs", PLAIN, 0.25)
    data = tmp_path / "slide" / "Data0000.dat"
    content = bytearray(data.read_bytes())
    content[:2000] = bytes(2000)
    data.write_bytes(content)
    (level, _), _ = open_file(tmp_path / "slide.mrxs")
    with pytest.raises(ValueError, match=r"slide\.mrxs has pixels that OpenSlide cannot read"):
        level[0:64, 0:64, :3]


def test_a_dicom_file_that_is_no_slide_is_refused(tmp_path):
    path, _ = write_dicom(tmp_path, PLAIN, 0.25)
    kind_of_slide = b"1.2.840.10008.5.1.4.1.1.77.1.6"
    path.write_bytes(path.read_bytes().replace(kind_of_slide, kind_of_slide[:-1] + b"4"))
    with pytest.raises(ValueError, match="is a DICOM file that OpenSlide cannot read"):
        open_file(path)


def test_a_folder_of_dicom_files_is_refused_with_the_remedy(tmp_path):
    write_dicom(tmp_path, PLAIN, 0.25)
    with pytest.raises(FileNotFoundError, match="it has DICOM files: give one of them"):
        open_file(tmp_path)


def test_a_ventana_slide_without_its_stitching_is_refused(tmp_path):
    path = tmp_path / "slide.bif"
    write_bif(path, STITCHED, 8, 0.5)
    path.write_bytes(path.read_bytes().replace(b"EncodeInfo", b"DecodeInfo"))
    with pytest.raises(ValueError, match="is a Ventana BIF slide that OpenSlide cannot read"):
        open_file(path)
