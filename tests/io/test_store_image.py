import numpy as np
import pytest
import spatialdata
import zarr
from tests.io.conftest import table

import stp
import stp.io._store
from stp.data.store import SpotStore
from stp.images.pyramid import ImagePyramid
from stp.io import from_anndata, write_store


def interrupted(monkeypatch, after):
    """Stop the writing of pixels after some shards, and count those that are begun."""
    stream, begun = ImagePyramid.stream, []

    def stopped(self, *args, batch_size, **how):
        for one in stream(self, *args, batch_size=batch_size, **how):
            if batch_size == 1:  # not what is read before any pixel is written
                begun.append(one)
                if len(begun) > after:
                    raise KeyboardInterrupt
            yield one

    monkeypatch.setattr(stp.io._store, "CHUNK", 64)
    monkeypatch.setattr(ImagePyramid, "stream", stopped)
    return begun


@pytest.mark.parametrize("overwrite", [False, True])
def test_killed_half_way_leaves_the_path_as_it_was(shot, overwrite, tmp_path, monkeypatch):
    path = tmp_path / "a.zarr"
    if overwrite:
        write_store(table([[7]], ["ACTB"]), path)
    interrupted(monkeypatch, after=1)
    with pytest.raises(KeyboardInterrupt):
        write_store(shot, path, patch_um_per_px=0.7, overwrite=overwrite)
    assert path.exists() == overwrite
    assert any(tmp_path.glob(".*")), "the failure came after writing had begun"
    if overwrite:
        assert spatialdata.read_zarr(path)["table"].X.sum() == 7
    monkeypatch.undo()
    write_store(shot, path, patch_um_per_px=0.7, overwrite=overwrite)
    assert len(SpotStore(path)) == shot["table"].n_obs
    assert list(tmp_path.iterdir()) == [path]


def pixels_of(path):
    image = zarr.open_group(path, mode="r")["images/image"]
    return [image[level["path"]][:] for level in image.attrs["ome"]["multiscales"][0]["datasets"]]


def test_a_call_that_was_stopped_goes_on(shot, tmp_path, monkeypatch):
    begun = interrupted(monkeypatch, after=99)
    write_store(shot, tmp_path / "whole.zarr", patch_um_per_px=0.7)
    assert len(begun) == 4
    monkeypatch.undo()
    interrupted(monkeypatch, after=3)
    with pytest.raises(KeyboardInterrupt):
        write_store(shot, tmp_path / "a.zarr", patch_um_per_px=0.7)
    monkeypatch.undo()
    begun = interrupted(monkeypatch, after=99)
    write_store(shot, tmp_path / "a.zarr", patch_um_per_px=0.7)
    assert len(begun) == 1
    for one, other in zip(
        pixels_of(tmp_path / "a.zarr"), pixels_of(tmp_path / "whole.zarr"), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert "stp_unfinished" not in zarr.open_group(tmp_path / "a.zarr", mode="r").attrs


@pytest.mark.parametrize("what", ["image", "counts", "scale", "value", "column"])
def test_what_was_begun_with_something_else_is_begun_anew(
    shot, bare_slide, what, tmp_path, monkeypatch
):
    shot["table"].obs["patient"] = "P1"
    interrupted(monkeypatch, after=3)
    with pytest.raises(KeyboardInterrupt):
        write_store(shot, tmp_path / "a.zarr", patch_um_per_px=0.7)
    monkeypatch.undo()
    begun = interrupted(monkeypatch, after=99)
    if what == "image":
        shot = from_anndata(bare_slide[0], np.full((901, 1102, 3), 90, np.uint8), um_per_px=0.7)
    elif what == "counts":
        shot["table"].X = shot["table"].X * 2
    elif what == "value":
        shot["table"].obs["patient"] = "P2"
    elif what == "column":
        shot["table"].obs = shot["table"].obs.rename(columns={"patient": "donor"})
    write_store(shot, tmp_path / "a.zarr", patch_um_per_px=0.75 if what == "scale" else 0.7)
    assert len(begun) == 4


def test_a_slide_may_be_black_where_no_spot_lies(shot, tmp_path, monkeypatch):
    picture = np.moveaxis(shot["slide_full_image"].to_numpy(), 0, -1).copy()
    picture[700:, 800:], picture[:20, :20] = 0, 0
    below = shot["table"][shot["table"].obsm["spatial"][:, 1] < 650].copy()
    one = from_anndata(below, picture, um_per_px=0.7)
    one.images["slide_full_image"] = one["slide_full_image"].chunk({"y": 100, "x": 100})
    one.write(tmp_path / "source.zarr")  # which leaves out black chunks
    one = spatialdata.read_zarr(tmp_path / "source.zarr")
    monkeypatch.setattr(stp.io._store, "CHUNK", 16)
    write_store(one, tmp_path / "a.zarr", patch_um_per_px=0.7)
    fine = pixels_of(tmp_path / "a.zarr")[0]
    np.testing.assert_array_equal(np.moveaxis(fine, 0, -1)[:901, :1102], picture)
    shards = [file for file in (tmp_path / "a.zarr/images/image/s0/c").rglob("*") if file.is_file()]
    assert len(shards) == 7 * 8, "black shards of a store are told from missing ones"
    assert stp.pl.patches(one)
    one.tables["table"] = one["table"].copy()
    one.shapes["slide"].geometry = one.shapes["slide"].geometry.translate(700, 250)
    with pytest.raises(
        ValueError,
        match="no pixels where spots are: its chunk at x = [89]00, y = [78]00 is missing",
    ):
        write_store(one, tmp_path / "b.zarr", patch_um_per_px=0.7)
    assert not list(tmp_path.glob("*b.zarr*"))


def test_levels_are_the_slide_and_its_rounded_mean(shot, tmp_path, monkeypatch):
    monkeypatch.setattr(stp.io._store, "CHUNK", 64)
    noise = np.random.default_rng(0).integers(0, 256, (901, 1102, 3)).astype(np.uint8)
    shot = from_anndata(shot["table"], noise, um_per_px=0.7, name="noise")
    write_store(shot, tmp_path / "a.zarr", patch_um_per_px=0.7)
    fine, coarse = pixels_of(tmp_path / "a.zarr")
    np.testing.assert_array_equal(np.moveaxis(fine, 0, -1)[:901, :1102], noise)
    assert (fine[:, 901:] == 255).all() and (fine[:, :, 1102:] == 255).all()
    mean = fine.reshape(3, coarse.shape[1], 3, coarse.shape[2], 3).astype(float).mean(axis=(2, 4))
    np.testing.assert_array_equal(coarse, np.floor(mean + 0.5))


def test_no_border_between_shards(shot, tmp_path, monkeypatch):
    smooth = (
        np.add.outer(np.arange(901) * 0.1, np.arange(1102) * 0.1)[..., None]
        .repeat(3, -1)
        .astype(np.uint8)
    )
    noise = smooth + np.random.default_rng(0).integers(0, 50, smooth.shape, dtype=np.uint8)
    shot = from_anndata(shot["table"], noise, um_per_px=0.7, name="noise")
    whole = {}
    for chunk in (64, 1024):
        monkeypatch.setattr(stp.io._store, "CHUNK", chunk)
        write_store(shot, tmp_path / f"{chunk}.zarr", patch_um_per_px=1.0)
        whole[chunk] = pixels_of(tmp_path / f"{chunk}.zarr")
    for one, other in zip(whole[64], whole[1024], strict=True):
        assert np.abs(one.astype(int) - other).max() <= 1


def test_shards_and_compression(shot, tmp_path, monkeypatch):
    monkeypatch.setattr(stp.io._store, "CHUNK", 64)
    write_store(shot, tmp_path / "a.zarr", patch_um_per_px=0.7)
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    fine, coarse = (group["images/image"][level] for level in ("s0", "s1"))
    assert (fine.chunks, fine.shards) == ((3, 64, 64), (3, 576, 576))
    assert (coarse.chunks, coarse.shards) == ((3, 64, 64), (3, 192, 192))
    for array in (fine, coarse, group["tables/table/X/data"], group["tables/table/X/indices"]):
        assert "zstd" in str(array.compressors).lower()
