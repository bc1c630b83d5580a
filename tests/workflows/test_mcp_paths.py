"""The folder of the server for agents: what a path, a link or a file leads to."""

import h5py
import numpy as np
import pytest
import tifffile

from stp.workflows.mcp_paths import OutsideError, Root, require_name

OME = """<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">
<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="16" SizeY="16" SizeC="2" SizeZ="1"
SizeT="1"><TiffData IFD="0" FirstC="0" PlaneCount="1"><UUID FileName="a.tif">urn:uuid:1</UUID>
</TiffData><TiffData IFD="0" FirstC="1" PlaneCount="1"><UUID FileName="{}">urn:uuid:2</UUID>
</TiffData></Pixels></Image></OME>"""


@pytest.fixture
def root(tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "outside").mkdir()
    return Root((tmp_path / "inside").resolve())


def refuse(call, *arguments, message="leads outside"):
    with pytest.raises(OutsideError, match=message):
        call(*arguments, "it")


def test_a_path_through_a_link_means_what_the_system_means(root):
    (root.folder / "deep" / "er").mkdir(parents=True)
    (root.folder / "link").symlink_to(root.folder / "deep" / "er")
    assert root.path("link/../file", "it") == root.folder / "deep" / "file"
    (root.folder / "self").symlink_to(root.folder)
    refuse(root.path, "self/../outside/file")


def test_links_are_followed_through_folders_inside(root, tmp_path):
    (root.folder / "store").mkdir()
    (root.folder / "other").mkdir()
    (root.folder / "store" / "link").symlink_to(root.folder / "other")
    (root.folder / "other" / "back").symlink_to(root.folder / "store")
    root.check_tree(root.folder / "store", "it")
    (root.folder / "other" / "out").symlink_to(tmp_path / "outside")
    refuse(Root(root.folder).check_tree, root.folder / "store")


def test_a_linked_file_is_looked_into_whatever_its_ending(root, tmp_path):
    with h5py.File(root.folder / "data.bin", "w") as file:
        file["feats"] = h5py.ExternalLink(tmp_path / "outside" / "a.h5", "feats")
    (root.folder / "store").mkdir()
    (root.folder / "store" / "link").symlink_to(root.folder / "data.bin")
    for path in (root.folder / "data.bin", root.folder / "store"):
        refuse(Root(root.folder).check_tree, path, message="has parts in other files")


def test_links_within_an_hdf5_file_are_allowed(root):
    with h5py.File(root.folder / "data.h5", "w") as file:
        file["a/feats"] = np.ones(3)
        file["b"] = h5py.SoftLink("/a/feats")
        file["c"] = file["a"]
    root.check_tree(root.folder / "data.h5", "it")


@pytest.mark.parametrize("name", ["../outside/b.tif", "/b.tif", "&#46;&#46;/outside/b.tif"])
def test_files_that_an_ome_tiff_names_are_inside(root, name):
    for other, is_inside in ((name, False), ("b.tif", True)):
        tifffile.imwrite(
            root.folder / "a.tif", np.zeros((16, 16), np.uint8), description=OME.format(other)
        )
        if is_inside:
            root.check_slide(root.folder / "a.tif", "it")
        else:
            refuse(root.check_slide, root.folder / "a.tif")


def test_files_that_tifffile_would_read_are_those_that_are_checked(root, tmp_path):
    """Show that the check is needed: the pixels of the other file are read."""
    tifffile.imwrite(tmp_path / "outside" / "b.tif", np.full((16, 16), 7, np.uint8))
    description = OME.format("../outside/b.tif")
    tifffile.imwrite(
        root.folder / "a.tif", np.zeros((16, 16), np.uint8), description=description, metadata=None
    )
    with tifffile.TiffFile(root.folder / "a.tif") as tiff:
        assert tiff.series[0].asarray().max() == 7


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        ("vms", "[Virtual Microscope Specimen]\nImageFile=../outside/a.jpg\n"),
        ("vmu", "ImageFile = /a.jpg\n"),
        ("vms", "ImageFile=..\\outside\\a.jpg\r\n"),
    ],
)
def test_files_that_a_text_file_of_a_slide_names_are_inside(root, suffix, text):
    file = root.folder / f"a.{suffix}"
    file.write_text(text)
    refuse(root.check_slide, file)
    file.write_text("Date=2020/01/02\nImageFile=a.jpg\nSite=https://host/a\n")
    Root(root.folder).check_slide(file, "it")


def test_the_folder_of_a_mirax_slide_is_checked(root, tmp_path):
    slide = root.folder / "a.mrxs"
    slide.touch()
    folder = root.folder / "a"
    folder.mkdir()
    (folder / "Slidedat.ini").write_text("FILE_0 = Data0000.dat\n")
    root.check_slide(slide, "it")
    (folder / "Slidedat.ini").write_text("FILE_0 = ../../outside/Data0000.dat\n")
    refuse(Root(root.folder).check_slide, slide)
    (folder / "Slidedat.ini").write_text("FILE_0 = Data0000.dat\n")
    (folder / "Data0000.dat").symlink_to(tmp_path / "outside" / "Data0000.dat")
    refuse(Root(root.folder).check_slide, slide)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "a\0"])
def test_names_have_no_characters_of_a_path(name):
    refuse(require_name, name, message="is no name")
    assert require_name("X_stp_images", "it") == "X_stp_images"
