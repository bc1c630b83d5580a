"""A file is what its content says, whatever its name."""

import gzip
import zipfile

import h5py
import numpy as np
import PIL.Image
import pytest
import tifffile

from stp.images.files.opening import open_file

RGB = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)


def pixels(path):
    (array, *_), _ = open_file(path)
    return np.asarray(array[:, :, :3])


@pytest.mark.parametrize(
    "name", ["a.bif", "a.qptiff", "a.svslide", "a.tf8", "a.jpg", "a.png", "a.mrxs", "a.dcm", "a"]
)
@pytest.mark.parametrize("is_bigtiff", [False, True])
@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_a_tiff_is_read_as_one_whatever_its_name(name, is_bigtiff, byte_order, tmp_path):
    path = tmp_path / name
    tifffile.imwrite(path, RGB, photometric="rgb", bigtiff=is_bigtiff, byteorder=byte_order)
    np.testing.assert_array_equal(pixels(path), RGB)


@pytest.mark.parametrize("name", ["a.svs", "a.tif", "a.ndpi", "a"])
def test_a_png_is_read_as_one_whatever_its_name(name, tmp_path):
    PIL.Image.fromarray(RGB).save(tmp_path / name, format="PNG")
    np.testing.assert_array_equal(pixels(tmp_path / name), RGB)


def test_a_jpeg_named_svs_is_read_as_jpeg(tmp_path):
    smooth = np.tile(np.arange(60, dtype=np.uint8)[:, None], (40, 1, 3))
    PIL.Image.fromarray(smooth).save(tmp_path / "a.svs", format="JPEG", quality=95)
    assert np.abs(pixels(tmp_path / "a.svs").astype(int) - smooth).max() <= 3


KINDS = {
    "pdf": (b"%PDF-1.7\n", "a PDF document.* export the picture in it"),
    "czi": (b"ZISRAWFILE\0\0", "a Zeiss CZI file.* convert the slide to one OME-TIFF"),
    "ets": (b"SIS\0@\0", r"a part \(ETS\) of an Olympus VSI slide"),
    "lif": (b"\x70\0\0\0\x2a\0", "a Leica LIF file"),
    "nd2": (b"\xda\xce\xbe\x0a", "a Nikon ND2 file"),
    "nrrd": (b"NRRD0004\n", "an NRRD file"),
    "jp2": (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 file"),
    "svslide": (b"SQLite format 3\0", "an SQLite file, as Sakura slides are"),
    "zvi": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a file of OLE format"),
    "isyntax": (b'<DataObject ObjectType="DPUfsImport">', "a Philips iSyntax slide"),
    "html": (b"\n<!DOCTYPE html><html>", "a web page.* download the file again"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS.* git lfs pull"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["slide.svs", "slide.jpg", "slide"])
def test_a_file_of_another_kind_is_refused_with_its_kind_and_the_remedy(kind, name, tmp_path):
    magic, message = KINDS[kind]
    (tmp_path / name).write_bytes(magic + b"\0" * 1000)
    with pytest.raises(ValueError, match=f"is {message}") as error:
        open_file(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)


def test_archives_and_hdf5_files_that_programs_wrote_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb")
    content = (tmp_path / "a.tif").read_bytes()
    with zipfile.ZipFile(tmp_path / "zip.tif", "w") as archive:
        archive.writestr("a.tif", content)
    with gzip.open(tmp_path / "gzip.tif", "wb") as file:
        file.write(content)
    with h5py.File(tmp_path / "hdf5.tif", "w") as file:
        file["image"] = RGB
    for name, message in (
        ("zip", "is a ZIP archive.* unpack it"),
        ("gzip", "is compressed with gzip.* unpack it"),
        ("hdf5", "is an HDF5 file"),
    ):
        with pytest.raises(ValueError, match=message):
            open_file(tmp_path / f"{name}.tif")


@pytest.mark.parametrize("content", [b"", b"spot,x,y\n1,2,3\n"], ids=["empty", "text"])
@pytest.mark.parametrize("ending", ["tif", "svs", "jpg", "png", "csv"])
def test_a_file_that_is_no_image_is_refused_by_name(ending, content, tmp_path):
    path = tmp_path / f"slide.{ending}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is no image that can be read") as error:
        open_file(path)
    assert str(path) in str(error.value)
    assert ("is empty" in str(error.value)) == (content == b"")


def test_no_file(tmp_path):
    for path in (tmp_path / "slide.tif", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"no image at {path}"):
            open_file(path)


def test_a_folder_is_refused_with_the_file_to_give(tmp_path):
    for name, file, content, message in (
        ("slide", "Slidedat.ini", b"[GENERAL]\n", r"a MIRAX slide: give the file slide\.mrxs"),
        ("store.zarr", "zarr.json", b"{}", r"read a SpatialData zarr with spatialdata\.read_zarr"),
        ("empty", None, b"", "it is a folder; give the path of one file"),
    ):
        (tmp_path / name).mkdir()
        if file is not None:
            (tmp_path / name / file).write_bytes(content)
        with pytest.raises(FileNotFoundError, match=message):
            open_file(tmp_path / name)


@pytest.mark.parametrize(
    "url", ["https://example.org/slide.svs", "s3://bucket/slide.svs", "https:/example.org/a.svs"]
)
def test_a_url_is_refused_with_the_remedy(url):
    with pytest.raises(ValueError, match=rf"{url} is a URL; download the image"):
        open_file(url)


@pytest.mark.parametrize("url", ["file:///data/slide.svs", "file:/data/slide.svs"])
def test_a_url_of_a_local_file_is_refused_with_the_remedy(url):
    with pytest.raises(ValueError, match="is a URL; give the path of the file alone"):
        open_file(url)


def test_the_overview_of_an_olympus_slide_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.vsi", RGB, photometric="rgb")
    (tmp_path / "_b_" / "stack1").mkdir(parents=True)
    (tmp_path / "_b_" / "stack1" / "frame_t.ets").write_bytes(b"SIS\0")
    tifffile.imwrite(tmp_path / "b.tif", RGB, photometric="rgb")
    for name in ("a.vsi", "b.tif"):
        with pytest.raises(ValueError, match=rf"{name} is the overview of an Olympus VSI slide"):
            open_file(tmp_path / name)
