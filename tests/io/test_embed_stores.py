"""What `embed_stores` checks first, and what it does when a store or the manifest fails later."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import spatialdata
import torch
from torch import nn

from stp import tl
from stp.io import embed_stores, write_store
from stp.models import ImageEncoder, WrappedEncoder

KEYS = {"X_stp_genes", "X_stp_images"}


@pytest.fixture
def store(stores, tmp_path):
    """A store that only this test writes to."""
    return Path(shutil.copytree(stores[0], tmp_path / "a.zarr"))


@pytest.fixture
def good_store(stores, tmp_path):
    return Path(shutil.copytree(stores[1], tmp_path / "good.zarr"))


@pytest.fixture
def manifest(tmp_path):
    return tmp_path / "manifest.jsonl"


@pytest.fixture
def wrapped():
    """An encoder that is no vision transformer: a small convolutional network."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = (nn.Conv2d(3, 8, kernel_size=4, stride=4), nn.BatchNorm2d(8), nn.ReLU())
        cnn = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return WrappedEncoder(cnn, width=8, image_size=32, um_per_px=4.0, name="a small CNN")


def table_of(store):
    return spatialdata.read_zarr(store)["table"]


def obsm_of(store):
    return set(table_of(store).obsm)


def features_of(store, model):
    return tl.embed_images(spatialdata.read_zarr(store), model, copy=True).obsm["X_stp_images"]


def lines_of(manifest):
    return [json.loads(line) for line in manifest.read_text().splitlines()]


def delete_counts(store):
    shutil.rmtree(store / "tables" / "table" / "X")


def delete_table(store):
    shutil.rmtree(store / "tables" / "table")
    for file in (store / "zarr.json", store / "tables" / "zarr.json"):
        metadata = json.loads(file.read_text())
        metadata.pop("consolidated_metadata", None)
        file.write_text(json.dumps(metadata))


def rewrite(store, change):
    """Write a slide anew with another table."""
    sdata = spatialdata.read_zarr(store)
    copy = spatialdata.SpatialData(
        images=dict(sdata.images),
        shapes=dict(sdata.shapes),
        tables={"table": change(sdata["table"].copy())},
    )
    copy.write(store.with_name("copy.zarr"))
    shutil.rmtree(store)
    store.with_name("copy.zarr").rename(store)


def rename_genes(table):
    table.var_names = [f"unknown{number}" for number in range(table.n_vars)]
    return table


def take_logarithms(table):
    table.X = table.X.astype(np.float32).log1p()
    return table


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (shutil.rmtree, r"no store at .*a\.zarr"),
        (delete_table, r"a\.zarr is not a SpatialData store with a table 'table'"),
        (delete_counts, r"a\.zarr has no counts in the table 'table'"),
        (lambda store: rewrite(store, rename_genes), r"a\.zarr: .*unknown0"),
        (lambda store: rewrite(store, take_logarithms), r"a\.zarr: .*counts"),
    ],
    ids=["no store", "no table", "no counts", "no genes", "no raw counts"],
)
def test_a_store_that_cannot_be_embedded_is_found_before_the_first_is(
    change, message, store, good_store, stamp, manifest
):
    change(store)
    with pytest.raises(ValueError, match=message):
        embed_stores([good_store, store], stamp, manifest=manifest)
    assert not KEYS & obsm_of(good_store)
    assert not manifest.exists()


def test_an_image_that_is_too_coarse_is_found_before_the_first_store(good_store, stamp, manifest):
    config = dataclasses.replace(stamp.image_encoder.config, um_per_px=1.0)
    with pytest.raises(ValueError, match=r"good\.zarr: the image has 4 µm per pixel"):
        embed_stores(good_store, ImageEncoder(config), manifest=manifest)
    assert not manifest.exists()


def test_a_read_only_store_is_refused_unless_it_is_finished(
    store, good_store, stamp, manifest, monkeypatch
):
    embed_stores(store, stamp, manifest=manifest)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ValueError, match=r"good\.zarr cannot be written to"):
        embed_stores([good_store, store], stamp, manifest=manifest)
    assert embed_stores(store, stamp, manifest=manifest) == 0
    assert [line["status"] for line in lines_of(manifest)] == ["embedded", "skipped"]


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("/dev/full", "the manifest /dev/full cannot be written: No space left on device"),
        ("/proc/stp/manifest", "the manifest /proc/stp/manifest cannot be written"),
        ("s3://bucket/manifest", "s3://bucket/manifest is remote"),
    ],
)
def test_a_manifest_that_cannot_be_written_is_refused_before_the_first_store(
    file, message, good_store, stamp
):
    with pytest.raises(ValueError, match=message):
        embed_stores(good_store, stamp, manifest=file)
    assert not KEYS & obsm_of(good_store)


def test_a_manifest_gets_its_folder(good_store, stamp, tmp_path):
    manifest = tmp_path / "new" / "manifest.jsonl"
    assert embed_stores(good_store, stamp, manifest=manifest) == 0
    assert json.loads(manifest.read_text())["status"] == "embedded"
    assert list(manifest.parent.iterdir()) == [manifest]


def test_stores_are_embedded_though_the_manifest_fails_later(good_store, stamp, manifest, caplog):
    """The first patch that the model sees puts a folder in place of the manifest."""
    stamp.image_encoder.register_forward_pre_hook(lambda *_: manifest.mkdir(exist_ok=True))
    with pytest.raises(OSError, match=r"1 lines of the manifest .* could not be written"):
        embed_stores(good_store, stamp, manifest=manifest)
    assert obsm_of(good_store) >= KEYS
    assert '"status": "embedded"' in caplog.text


def test_a_model_may_be_given_by_its_folder(good_store, stamp, manifest, tmp_path):
    stamp.save_pretrained(tmp_path / "model")
    assert embed_stores(good_store, tmp_path / "model", manifest=manifest) == 0
    assert obsm_of(good_store) >= KEYS
    with pytest.raises(ValueError, match="expected a model, its folder or its name, got dict"):
        embed_stores(good_store, {}, manifest=manifest)


def test_no_stores_are_an_error(stamp, manifest):
    with pytest.raises(ValueError, match="there are no stores to embed"):
        embed_stores([], stamp, manifest=manifest)


def test_a_store_without_an_image_is_embedded_by_its_genes(adata, stamp, tmp_path, manifest):
    write_store(adata, tmp_path / "counts.zarr")
    assert embed_stores(tmp_path / "counts.zarr", stamp, manifest=manifest) == 0
    assert json.loads(manifest.read_text())["written"] == ["X_stp_genes"]


def test_a_wrapped_encoder_embeds_stores_and_skips_them_until_its_weights_change(
    store, good_store, wrapped, manifest
):
    both = [store, good_store]
    expected = {path: features_of(path, wrapped) for path in both}
    assert embed_stores(both, wrapped, manifest=manifest) == 0
    for path in both:
        table = table_of(path)
        np.testing.assert_array_equal(table.obsm["X_stp_images"], expected[path])
        assert table.uns["X_stp_images"]["model"]["name"] == "a small CNN"
    assert embed_stores(both, wrapped, manifest=manifest) == 0
    old_digest = wrapped.digest
    with torch.no_grad():
        wrapped.module[0].weight += 1
    assert embed_stores(both, wrapped, manifest=manifest) == 0
    lines = lines_of(manifest)
    statuses = ["embedded", "embedded", "skipped", "skipped", "embedded", "embedded"]
    assert [line["status"] for line in lines] == statuses
    digests = [line["model"]["digest"] for line in lines]
    assert digests == [old_digest] * 4 + [wrapped.digest] * 2
    assert wrapped.digest != old_digest
    for path in both:
        features = table_of(path).obsm["X_stp_images"]
        np.testing.assert_array_equal(features, features_of(path, wrapped))
        assert not np.allclose(features, expected[path])


def test_the_embeddings_of_a_wrapped_encoder_have_the_record_of_one_model(
    store, good_store, wrapped, stamp, manifest
):
    embed_stores([store, good_store], wrapped, manifest=manifest)
    table, reference = table_of(store), table_of(good_store)
    tl.fuse(table, use_reps="X_stp_images")
    np.testing.assert_array_equal(table.obsm["X_stp_fused"], table.obsm["X_stp_images"])
    reps = {"use_rep": "X_stp_images", "reference_rep": "X_stp_images"}
    tl.predict_expression(table, reference, genes=table.var_names[:3], n_neighbors=5, **reps)
    tl.regress_expression(table, reference, genes=table.var_names[:3], key_added="regressed")
    expected = {"name": "a small CNN", "class": "WrappedEncoder", "digest": wrapped.digest}
    for key in ("X_stp_fused", "stp_expression", "regressed"):
        assert table.uns[key]["model"].items() >= expected.items()
    embed_stores(good_store, stamp, manifest=manifest)
    with pytest.raises(ValueError, match=r"embeddings of different models do not mix.*a small CNN"):
        tl.predict_expression(table, table_of(good_store), genes=table.var_names[:3], **reps)
    embed_stores(good_store, wrapped, manifest=manifest)
    assert "X_stp_images_aligned" not in obsm_of(good_store)


def test_a_store_without_an_image_is_refused_by_an_encoder_of_images(
    adata, wrapped, tmp_path, manifest
):
    write_store(adata, tmp_path / "counts.zarr")
    with pytest.raises(ValueError, match=r"counts\.zarr has no image, and a small CNN reads"):
        embed_stores(tmp_path / "counts.zarr", wrapped, manifest=manifest)


def test_a_torch_module_has_to_be_wrapped(good_store, wrapped, manifest):
    with pytest.raises(ValueError, match=r"got Sequential; .* wrap them in stp\.models\.Wrapped"):
        embed_stores(good_store, wrapped.module, manifest=manifest)
