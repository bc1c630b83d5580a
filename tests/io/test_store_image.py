import numpy as np
import pytest
import shapely
import spatialdata
import zarr
from tests.io.conftest import table, write_in_chunks

import stp
from stp.data.store import SpotStore
from stp.images.pyramid import ImagePyramid
from stp.io import from_anndata, write_store


def interrupt(monkeypatch, after):
    """Stop the writing of pixels after some shards, and list those that are begun."""
    stream = ImagePyramid.stream
    begun = []

    def stop_after(self, *args, batch_size, **options):
        for shard in stream(self, *args, batch_size=batch_size, **options):
            if batch_size == 1:  # not what is read before any pixel is written
                begun.append(shard)
                if len(begun) > after:
                    raise KeyboardInterrupt
            yield shard

    monkeypatch.setattr(ImagePyramid, "stream", stop_after)
    return begun


@pytest.mark.parametrize("overwrite", [False, True])
def test_killed_half_way_leaves_the_path_as_it_was(marked_slide, overwrite, tmp_path, monkeypatch):
    path = tmp_path / "a.zarr"
    if overwrite:
        write_store(table([[7]], ["ACTB"]), path)
    interrupt(monkeypatch, after=1)
    with pytest.raises(KeyboardInterrupt):
        write_in_chunks(marked_slide, path, 0.7)
    assert path.exists() == overwrite
    assert any(tmp_path.glob(".*")), "the failure came after writing had begun"
    if overwrite:
        assert spatialdata.read_zarr(path)["table"].X.sum() == 7
    monkeypatch.undo()
    write_store(marked_slide, path, patch_um_per_px=0.7, overwrite=overwrite)
    assert len(SpotStore(path)) == marked_slide["table"].n_obs
    assert list(tmp_path.iterdir()) == [path]


def pixels_of(path):
    image = zarr.open_group(path, mode="r")["images/image"]
    return [image[level["path"]][:] for level in image.attrs["ome"]["multiscales"][0]["datasets"]]


def test_a_call_that_was_stopped_goes_on(marked_slide, tmp_path, monkeypatch):
    begun = interrupt(monkeypatch, after=99)
    write_in_chunks(marked_slide, tmp_path / "whole.zarr", 0.7)
    assert len(begun) == 4
    monkeypatch.undo()
    interrupt(monkeypatch, after=3)
    with pytest.raises(KeyboardInterrupt):
        write_in_chunks(marked_slide, tmp_path / "a.zarr", 0.7)
    monkeypatch.undo()
    begun = interrupt(monkeypatch, after=99)
    write_in_chunks(marked_slide, tmp_path / "a.zarr", 0.7)
    assert len(begun) == 1
    levels = pixels_of(tmp_path / "a.zarr")
    for level, expected in zip(levels, pixels_of(tmp_path / "whole.zarr"), strict=True):
        np.testing.assert_array_equal(level, expected)
    assert "stp_unfinished" not in zarr.open_group(tmp_path / "a.zarr", mode="r").attrs


@pytest.mark.parametrize("change", ["image", "counts", "scale", "value", "column"])
def test_a_store_begun_from_other_data_is_begun_anew(
    marked_slide, bare_slide, change, tmp_path, monkeypatch
):
    marked_slide["table"].obs["patient"] = "P1"
    interrupt(monkeypatch, after=3)
    with pytest.raises(KeyboardInterrupt):
        write_in_chunks(marked_slide, tmp_path / "a.zarr", 0.7)
    monkeypatch.undo()
    begun = interrupt(monkeypatch, after=99)
    if change == "image":
        gray = np.full((901, 1102, 3), 90, np.uint8)
        marked_slide = from_anndata(bare_slide[0], gray, um_per_px=0.7)
    elif change == "counts":
        marked_slide["table"].X = marked_slide["table"].X * 2
    elif change == "value":
        marked_slide["table"].obs["patient"] = "P2"
    elif change == "column":
        marked_slide["table"].obs = marked_slide["table"].obs.rename(columns={"patient": "donor"})
    write_in_chunks(marked_slide, tmp_path / "a.zarr", 0.75 if change == "scale" else 0.7)
    assert len(begun) == 4


def test_a_slide_may_be_black_where_no_spot_lies(marked_slide, tmp_path):
    picture = np.moveaxis(marked_slide["slide_full_image"].to_numpy(), 0, -1).copy()
    picture[700:, 800:] = 0
    picture[:20, :20] = 0
    below = marked_slide["table"][marked_slide["table"].obsm["spatial"][:, 1] < 650].copy()
    slide = from_anndata(below, picture, um_per_px=0.7)
    slide.images["slide_full_image"] = slide["slide_full_image"].chunk({"y": 100, "x": 100})
    slide.write(tmp_path / "source.zarr")  # which leaves out black chunks
    slide = spatialdata.read_zarr(tmp_path / "source.zarr")
    write_in_chunks(slide, tmp_path / "a.zarr", 0.7, chunk_pixels=16)
    fine = pixels_of(tmp_path / "a.zarr")[0]
    np.testing.assert_array_equal(np.moveaxis(fine, 0, -1)[:901, :1102], picture)
    shards = [file for file in (tmp_path / "a.zarr/images/image/s0/c").rglob("*") if file.is_file()]
    assert len(shards) == 7 * 8, "black shards of a store are told from missing ones"
    assert stp.pl.patches(slide)
    slide.tables["table"] = slide["table"].copy()
    shapes = slide.shapes["slide"]
    shapes.loc[shapes.index[-1], "geometry"] = shapely.Point(950, 820)
    with pytest.raises(
        ValueError,
        match="no pixels where spots are: its chunk at x = [89]00, y = [78]00 is missing",
    ):
        write_store(slide, tmp_path / "b.zarr", patch_um_per_px=0.7)
    assert not list(tmp_path.glob("*b.zarr*"))


def test_levels_are_the_slide_and_its_rounded_mean(marked_slide, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (901, 1102, 3)).astype(np.uint8)
    marked_slide = from_anndata(marked_slide["table"], noise, um_per_px=0.7, name="noise")
    write_in_chunks(marked_slide, tmp_path / "a.zarr", 0.7)
    fine, coarse = pixels_of(tmp_path / "a.zarr")
    np.testing.assert_array_equal(np.moveaxis(fine, 0, -1)[:901, :1102], noise)
    assert (fine[:, 901:] == 255).all() and (fine[:, :, 1102:] == 255).all()
    mean = fine.reshape(3, coarse.shape[1], 3, coarse.shape[2], 3).astype(float).mean(axis=(2, 4))
    np.testing.assert_array_equal(coarse, np.floor(mean + 0.5))


def test_no_border_between_shards(marked_slide, tmp_path):
    smooth = (
        np.add.outer(np.arange(901) * 0.1, np.arange(1102) * 0.1)[..., None]
        .repeat(3, -1)
        .astype(np.uint8)
    )
    noise = smooth + np.random.default_rng(0).integers(0, 50, smooth.shape, dtype=np.uint8)
    marked_slide = from_anndata(marked_slide["table"], noise, um_per_px=0.7, name="noise")
    whole = {}
    for chunk in (64, 1024):
        write_in_chunks(marked_slide, tmp_path / f"{chunk}.zarr", 1.0, chunk)
        whole[chunk] = pixels_of(tmp_path / f"{chunk}.zarr")
    for slide, other in zip(whole[64], whole[1024], strict=True):
        assert np.abs(slide.astype(int) - other).max() <= 1


def test_shards_and_compression(marked_slide, tmp_path):
    write_in_chunks(marked_slide, tmp_path / "a.zarr", 0.7)
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    fine, coarse = (group["images/image"][level] for level in ("s0", "s1"))
    assert (fine.chunks, fine.shards) == ((3, 64, 64), (3, 576, 576))
    assert (coarse.chunks, coarse.shards) == ((3, 64, 64), (3, 192, 192))
    for array in (fine, coarse, group["tables/table/X/data"], group["tables/table/X/indices"]):
        assert "zstd" in str(array.compressors).lower()
