"""The digest of a store is that of its content, and of nothing else."""

import shutil

import numpy as np
import pytest
import scipy.sparse
import spatialdata
import zarr
from tests.io.conftest import table, write_in_chunks
from tests.io.test_store_image import interrupt

from stp.data.store import SpotStore
from stp.io import from_anndata, write_results, write_store


def digest_of(path):
    return SpotStore(path).digest


def make_changed(bare_slide, change):
    """Return a slide with a change of its content, or with none."""
    adata = bare_slide[0].copy()
    counts = adata.X.toarray()
    counts[3] = [5, 6]
    image = np.full((901, 1102, 3), 40, np.uint8)
    if change == "one pixel":
        image[800, 1000, 2] += 1  # on the last shard, far from all spots
    elif change == "one count":
        counts[3, 1] += 1
    elif change == "two counts exchanged":
        counts[3] = [6, 5]
    elif change == "one coordinate":
        adata.obsm["spatial"][3, 1] += 0.25
    elif change == "a gene":
        adata.var_names = ["ACTB", "KRT8"]
    elif change == "tissue":
        adata.obs["in_tissue"] = [0, *[1] * (adata.n_obs - 1)]
    adata.X = scipy.sparse.csr_matrix(counts)
    return from_anndata(adata, image, um_per_px=0.7)


def test_one_slide_has_one_digest_wherever_it_is_written(marked_slide, tmp_path):
    write_in_chunks(marked_slide, tmp_path / "a.zarr", 0.7)
    write_in_chunks(marked_slide, tmp_path / "other name.zarr", 0.7)
    marked_slide.write(tmp_path / "source.zarr")
    write_in_chunks(spatialdata.read_zarr(tmp_path / "source.zarr"), tmp_path / "b.zarr", 0.7)
    assert len(digest_of(tmp_path / "a.zarr")) == 64
    shutil.copytree(tmp_path / "a.zarr", tmp_path / "copy.zarr")
    (tmp_path / "link.zarr").symlink_to(tmp_path / "a.zarr")
    others = ("other name", "b", "copy", "link")
    digests = [digest_of(tmp_path / f"{name}.zarr") for name in others]
    assert digests == [digest_of(tmp_path / "a.zarr")] * 4


@pytest.mark.parametrize(
    "change",
    ["one pixel", "one count", "two counts exchanged", "one coordinate", "a gene", "tissue"],
)
def test_any_other_content_has_another_digest(bare_slide, change, tmp_path):
    write_in_chunks(make_changed(bare_slide, None), tmp_path / "a.zarr", 0.7)
    write_in_chunks(make_changed(bare_slide, change), tmp_path / "b.zarr", 0.7)
    assert digest_of(tmp_path / "a.zarr") != digest_of(tmp_path / "b.zarr")


def test_other_scales_have_another_digest(marked_slide, tmp_path):
    for name, um_per_px, region_scale in [("a", 0.7, 3), ("b", 0.75, 3), ("c", 0.7, 2)]:
        write_store(
            marked_slide,
            tmp_path / f"{name}.zarr",
            patch_um_per_px=um_per_px,
            region_scale=region_scale,
        )
    assert len({digest_of(tmp_path / f"{name}.zarr") for name in "abc"}) == 3


@pytest.mark.parametrize("n_shards", [0, 1, 3])
def test_a_call_that_was_stopped_ends_with_the_digest_of_one_that_was_not(
    marked_slide, n_shards, tmp_path, monkeypatch
):
    write_in_chunks(marked_slide, tmp_path / "whole.zarr", 0.75)
    interrupt(monkeypatch, after=n_shards)
    with pytest.raises(KeyboardInterrupt):
        write_in_chunks(marked_slide, tmp_path / "a.zarr", 0.75)
    monkeypatch.undo()
    write_in_chunks(marked_slide, tmp_path / "a.zarr", 0.75)
    assert digest_of(tmp_path / "a.zarr") == digest_of(tmp_path / "whole.zarr")


def test_the_order_of_genes_in_the_source_does_not_count(tmp_path):
    counts = np.random.default_rng(0).poisson(2, (20, 3))
    names = ["ACTB", "ERBB2", "KRT8"]
    write_store(table(counts, names), tmp_path / "a.zarr")
    write_store(table(counts[:, ::-1], names[::-1]), tmp_path / "b.zarr")
    dense = table(counts, names)
    dense.X = counts.astype(np.int64)
    write_store(dense, tmp_path / "c.zarr")
    assert len({digest_of(tmp_path / f"{name}.zarr") for name in "abc"}) == 1


def test_results_and_notes_do_not_change_the_digest(marked_slide, tmp_path):
    write_in_chunks(marked_slide, tmp_path / "a.zarr", 0.7)
    before = digest_of(tmp_path / "a.zarr")
    sdata = spatialdata.read_zarr(tmp_path / "a.zarr")
    sdata["table"].obs["cluster"] = "1"
    sdata["table"].obsm["X_stp"] = np.ones((sdata["table"].n_obs, 2), np.float32)
    write_results(sdata)
    assert digest_of(tmp_path / "a.zarr") == before
    sdata["table"].obs["note"] = "seen"
    write_in_chunks(sdata, tmp_path / "again.zarr", 0.7)
    assert digest_of(tmp_path / "again.zarr") == before


def test_the_digest_is_read_without_pixels(marked_slide, tmp_path):
    write_in_chunks(marked_slide, tmp_path / "a.zarr", 0.7)
    before = digest_of(tmp_path / "a.zarr")
    shutil.rmtree(tmp_path / "a.zarr" / "images" / "image" / "s0" / "c")
    assert digest_of(tmp_path / "a.zarr") == before


def test_a_part_of_a_store_does_not_pass_for_the_store(marked_slide, tmp_path):
    write_in_chunks(marked_slide, tmp_path / "a.zarr", 0.7)
    SpotStore(tmp_path / "a.zarr").check_spots()
    part = spatialdata.read_zarr(tmp_path / "a.zarr")
    part.tables["table"] = part["table"][:10].copy()
    part.write(tmp_path / "part.zarr")
    with pytest.raises(ValueError, match=r"spots of .*part\.zarr changed after.*overwrite=True"):
        SpotStore(tmp_path / "part.zarr").check_spots()


def test_a_store_that_is_being_written_is_not_read(marked_slide, tmp_path, monkeypatch):
    interrupt(monkeypatch, after=1)
    with pytest.raises(KeyboardInterrupt):
        write_in_chunks(marked_slide, tmp_path / "a.zarr", 0.7)
    (unfinished,) = tmp_path.glob(".a.zarr*")
    assert "digest" not in zarr.open_group(unfinished, mode="r").attrs["stp_store"]
    with pytest.raises(ValueError, match="is not a training store"):
        SpotStore(unfinished)
