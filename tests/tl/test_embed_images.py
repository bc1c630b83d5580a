import dataclasses
import logging

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import spatialdata
import torch
from spatialdata.transformations import remove_transformation

from stp import io, tl
from stp.models import ImageEncoder

KEYS = ("X_stp_images", "X_stp_images_aligned")


@pytest.fixture
def native(tiny_config):
    """An encoder whose patches are plain slices of the slide: 32 px at 1 um per pixel."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ImageEncoder(dataclasses.replace(tiny_config.image, um_per_px=1.0)).eval()


def table_of(sdata):
    return sdata.tables["table"]


def test_each_spot_gets_the_patch_around_it(sdata, image, native):
    assert tl.embed_images(sdata, native) is None
    centers = table_of(sdata).obsm["spatial"]
    corners = np.floor(centers - 16 + 0.5).astype(int)
    patches = np.stack([image[y : y + 32, x : x + 32] for x, y in corners])
    with torch.no_grad():
        expected = native(torch.from_numpy(patches)).numpy()
    features = table_of(sdata).obsm["X_stp_images"]
    assert (features.dtype, features.shape) == (np.float32, (100, 32))
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)
    assert np.ptp(expected, axis=0).max() > 0.1, "patches must differ for this to test anything"


def test_stamp_gives_features_and_aligned_unit_vectors(sdata, stamp):
    tl.embed_images(sdata, stamp)
    features, aligned = (table_of(sdata).obsm[key] for key in KEYS)
    assert features.dtype == aligned.dtype == np.float32
    assert features.shape == aligned.shape == (100, 32)
    np.testing.assert_allclose(np.linalg.norm(aligned, axis=1), 1, rtol=1e-5)
    tl.embed_images(sdata, stamp.image_encoder, key_added="encoder")
    np.testing.assert_array_equal(table_of(sdata).obsm["encoder"], features)
    assert "encoder_aligned" not in table_of(sdata).obsm


def test_parameters_and_origin_are_recorded(sdata, stamp):
    tl.embed_images(sdata, stamp)
    origin = {"image_key": "slide_full_image", "coordinate_system": "um", "um_per_px": 1.0}
    assert table_of(sdata).uns["X_stp_images"]["params"] == {
        "allow_upsampling": False,
        "min_counts": 0,
        "in_tissue_key": None,
        "n_embedded": 100,
        "precision": "fp32",
        "size": 32,
        "um_per_px": 4.0,
        "regions": {
            "slide": origin | {"scale_source": "the coordinate system um", "other_scales": {}}
        },
    }


def test_spots_with_few_counts_or_outside_the_tissue_get_nan(sdata, stamp, capsys):
    table = table_of(sdata)
    tl.embed_images(sdata, stamp, key_added="all")
    umis = np.asarray(table.X.sum(axis=1)).ravel()
    limit = int(np.median(umis))
    table.obs["in_tissue"] = (np.arange(100) % 4 > 0).astype(int)
    expected = (umis >= limit) & (np.arange(100) % 4 > 0)
    tl.embed_images(sdata, stamp, min_counts=limit, in_tissue_key="in_tissue")
    for key, whole in zip(KEYS, ("all", "all_aligned"), strict=True):
        values = table.obsm[key]
        assert np.isnan(values[~expected]).all()
        np.testing.assert_allclose(
            values[expected], table.obsm[whole][expected], rtol=1e-4, atol=1e-5
        )
    n_poor = np.count_nonzero((umis < limit) & (np.arange(100) % 4 > 0))
    left_out = 100 - np.count_nonzero(expected)
    assert (
        f"{left_out} of 100 spots ({left_out}.0%) are not embedded and get NaN: 25 are outside the "
        f"tissue, {n_poor} have fewer than {limit} counts." in capsys.readouterr().err
    )
    assert table.uns["X_stp_images"]["params"]["n_embedded"] == np.count_nonzero(expected)
    # Where a patch lies is known for all spots.
    assert table.obs["X_stp_images_inside"].equals(table.obs["all_inside"])


def test_antibodies_do_not_count_as_counts_of_genes(sdata, stamp):
    table = table_of(sdata)
    table.var["feature_types"] = "Antibody Capture"
    table.var.iloc[0, 0] = "Gene Expression"
    tl.embed_images(sdata, stamp, min_counts=5)
    is_embedded = np.isfinite(table.obsm["X_stp_images"]).all(axis=1)
    np.testing.assert_array_equal(is_embedded, table.X[:, 0].toarray().ravel() >= 5)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"min_counts": -1}, ValueError, "min_counts must not be negative, but it is -1"),
        ({"min_counts": 10**6}, ValueError, "no spot is left to embed: of 100, 100 have fewer"),
        ({"in_tissue_key": "tissue"}, KeyError, "pass in_tissue_key= one of"),
        ({"in_tissue_key": "array_row"}, ValueError, "which is neither 0 nor 1"),
    ],
)
def test_a_choice_of_spots_that_cannot_be_is_refused(options, error, message, sdata, stamp):
    with pytest.raises(error, match=message):
        tl.embed_images(sdata, stamp, **options)
    assert "X_stp_images" not in table_of(sdata).obsm


def test_patches_of_many_small_bins_are_warned_about(native):
    n = 100
    row, col = (axis.ravel() for axis in np.mgrid[:n, :n])
    adata = anndata.AnnData(
        scipy.sparse.csr_matrix((n * n, 1), dtype=np.float32),
        obs=pd.DataFrame({"array_row": row, "array_col": col}).set_axis(map(str, range(n * n))),
        obsm={"spatial": np.column_stack([col, row]) * 4.0 + 50},
    )
    sdata = io.from_anndata(adata, np.full((500, 500, 3), 150, np.uint8), um_per_px=1.0)
    expected = r"a patch of 32 µm every 4 µm: about 64 patches.*aggregate_bins\(sdata, size_um=16\)"
    with pytest.warns(UserWarning, match=expected):
        tl.embed_images(sdata, native, batch_size=1024)


@pytest.mark.parametrize("batch_size", [1, 33, 600])
def test_batch_size_does_not_change_results(sdata, stamp, batch_size):
    tl.embed_images(sdata, stamp)
    tl.embed_images(sdata, stamp, batch_size=batch_size, key_added="other")
    obsm = table_of(sdata).obsm
    np.testing.assert_allclose(obsm["other"], obsm["X_stp_images"], rtol=1e-4, atol=1e-5)


def test_memory_of_pixels_does_not_change_results(sdata, stamp):
    tl.embed_images(sdata, stamp)
    tl.embed_images(sdata, stamp, batch_size=20, max_bytes=8 * 2**20, key_added="other")
    obsm = table_of(sdata).obsm
    np.testing.assert_allclose(obsm["other"], obsm["X_stp_images"], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="max_bytes=1000 is too little"):
        tl.embed_images(sdata, stamp, max_bytes=1000, key_added="third")


def test_out_of_memory_halves_the_batch_and_goes_on(sdata, native, caplog, monkeypatch):
    tl.embed_images(sdata, native)
    sizes = []
    encode = native.encode

    def limited(images, patches=None):
        sizes.append(len(images))
        if len(images) > 10:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(images, patches)

    monkeypatch.setattr(native, "encode", limited)
    monkeypatch.setattr(logging.getLogger("stp"), "propagate", True)
    tl.embed_images(sdata, native, batch_size=32, key_added="other")
    assert sizes[:3] == [32, 16, 8]
    assert max(sizes[2:]) == 8
    assert "going on with batches of 8 patches" in caplog.text
    obsm = table_of(sdata).obsm
    np.testing.assert_allclose(obsm["other"], obsm["X_stp_images"], rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(native, "encode", lambda images: limited(images.repeat(11, 1, 1, 1)))
    with pytest.raises(torch.OutOfMemoryError):
        tl.embed_images(sdata, native, batch_size=4)


def test_rows_are_joined_by_instance_and_follow_the_table(sdata, stamp):
    tl.embed_images(sdata, stamp)
    expected = table_of(sdata).obsm["X_stp_images"]
    rows = np.random.default_rng(0).permutation(100)[:60]
    sdata.tables["table"] = table_of(sdata)[rows].copy()
    tl.embed_images(sdata, stamp)
    np.testing.assert_allclose(
        table_of(sdata).obsm["X_stp_images"], expected[rows], rtol=1e-4, atol=1e-5
    )


def test_spots_at_the_border_are_flagged_and_padded_with_white(adata, image, native):
    adata.obsm["spatial"][0] = [10, 300]  # the patch reaches 6 px to the left
    sdata = io.from_anndata(adata, image, um_per_px=1.0)
    tl.embed_images(sdata, native)
    inside = table_of(sdata).obs["X_stp_images_inside"]
    assert inside.dtype == bool
    assert np.flatnonzero(~inside).tolist() == [0]
    patch = np.full((1, 32, 32, 3), 255, np.uint8)
    patch[0, :, 6:] = image[284:316, :26]
    with torch.no_grad():
        expected = native(torch.from_numpy(patch))[0].numpy()
    np.testing.assert_allclose(
        table_of(sdata).obsm["X_stp_images"][0], expected, rtol=1e-4, atol=1e-5
    )


def test_a_table_over_two_slides_is_embedded_slide_by_slide(adata, image, stamp):
    pictures = {"one": image, "two": 255 - image}
    slides = {
        name: io.from_anndata(adata, pixels, um_per_px=1.0, name=name)
        for name, pixels in pictures.items()
    }
    for slide in slides.values():
        tl.embed_images(slide, stamp)
    expected = np.concatenate([table_of(slide).obsm["X_stp_images"] for slide in slides.values()])
    for name, slide in slides.items():
        table_of(slide).obs_names = [f"{name}_{spot}" for spot in table_of(slide).obs_names]
    both = spatialdata.concatenate(list(slides.values()), concatenate_tables=True)
    both.tables["table"] = table_of(both)[::-1].copy()
    tl.embed_images(both, stamp)  # both share a coordinate system
    np.testing.assert_allclose(
        table_of(both).obsm["X_stp_images"], expected[::-1], rtol=1e-4, atol=1e-5
    )
    regions = table_of(both).uns["X_stp_images"]["params"]["regions"]
    keys = {region: origin["image_key"] for region, origin in regions.items()}
    assert keys == {"one": "one_full_image", "two": "two_full_image"}


def test_copy_returns_the_table_and_leaves_the_original(sdata, stamp):
    result = tl.embed_images(sdata, stamp, copy=True, key_added="mine")
    assert (
        {"mine", "mine_aligned"} <= set(result.obsm)
        and "mine_inside" in result.obs
        and "mine" in result.uns
    )
    original = table_of(sdata)
    assert not {"mine", "mine_aligned", "mine_inside"} & {
        *original.obsm,
        *original.obs,
        *original.uns,
    }


def test_another_table_is_annotated(sdata, stamp):
    sdata.tables["few"] = table_of(sdata)[:7].copy()
    tl.embed_images(sdata, stamp, table_key="few")
    assert sdata.tables["few"].obsm["X_stp_images"].shape == (7, 32)
    assert "X_stp_images" not in table_of(sdata).obsm


# ---- bad input: one clear error each


def test_an_anndata_is_refused_with_the_remedy(adata, stamp):
    with pytest.raises(TypeError, match=r"pass a SpatialData; stp\.io\.from_anndata"):
        tl.embed_images(adata, stamp)


def test_a_missing_image_is_refused(sdata, stamp):
    del sdata.images["slide_full_image"]
    with pytest.raises(
        KeyError, match=r"has no image; stp\.io\.from_anndata\(adata, image\) adds one"
    ):
        tl.embed_images(sdata, stamp)


def test_an_image_of_another_name_is_refused(sdata, stamp):
    with pytest.raises(
        KeyError, match=r"no image 'hires'; pass image_key= one of \['slide_full_image'\]"
    ):
        tl.embed_images(sdata, stamp, image_key="hires")


def test_several_images_are_listed(sdata, stamp):
    sdata.images["second"] = sdata.images["slide_full_image"]
    with pytest.raises(
        ValueError, match=r"several images fit .* one of \['slide_full_image', 'second'\]"
    ):
        tl.embed_images(sdata, stamp)
    tl.embed_images(sdata, stamp, image_key="second")
    assert (
        table_of(sdata).uns["X_stp_images"]["params"]["regions"]["slide"]["image_key"] == "second"
    )


@pytest.fixture
def unscaled(sdata):
    """A slide without a physical scale."""
    for element in (sdata.images["slide_full_image"], sdata.shapes["slide"]):
        remove_transformation(element, "um")
    table_of(sdata).obs = table_of(sdata).obs.drop(columns=["array_row", "array_col"])
    return sdata


def test_no_physical_scale_is_refused_unless_given(unscaled, sdata, stamp):
    with pytest.raises(ValueError, match="no physical scale: pass um_per_px="):
        tl.embed_images(unscaled, stamp)
    tl.embed_images(unscaled, stamp, um_per_px=1.0)
    assert (
        table_of(unscaled).uns["X_stp_images"]["params"]["regions"]["slide"]["scale_source"]
        == "um_per_px"
    )


def test_a_scale_that_overrules_others_is_used_and_all_are_recorded(sdata, stamp, tmp_path):
    with pytest.warns(UserWarning, match=r"um_per_px=2 is used although the coordinate system um"):
        tl.embed_images(sdata, stamp, um_per_px=2.0)
    sdata.write(tmp_path / "a.zarr")
    for data in (sdata, spatialdata.read_zarr(tmp_path / "a.zarr")):
        region = table_of(data).uns["X_stp_images"]["params"]["regions"]["slide"]
        assert (region["um_per_px"], region["scale_source"]) == (2.0, "um_per_px")
        assert region["other_scales"] == pytest.approx(
            {"the coordinate system um": 1.0, "the spot lattice": 1.0}
        )


def test_an_image_too_coarse_is_refused_unless_allowed_and_recorded(sdata, tiny_config):
    fine = ImageEncoder(dataclasses.replace(tiny_config.image, um_per_px=0.5))
    with pytest.raises(ValueError, match="the image has 1 µm per pixel, patches of 0.5 are wanted"):
        tl.embed_images(sdata, fine)
    assert "X_stp_images" not in table_of(sdata).obsm
    tl.embed_images(sdata, fine, allow_upsampling=True)
    assert table_of(sdata).uns["X_stp_images"]["params"]["allow_upsampling"] is True


def test_features_that_are_not_finite_are_an_error(sdata, stamp):
    stamp.name = "mine"
    with torch.no_grad():
        stamp.patch_projection.weight.fill_(np.inf)
    with pytest.raises(
        ValueError,
        match=r"features that mine computed in fp32 are NaN or infinite in row 0, 1, 2 and 97 more"
        ", so nothing was written; check the weights of the model",
    ):
        tl.embed_images(sdata, stamp, batch_size=100)
    table = table_of(sdata)
    assert not set(KEYS) & {*table.obsm, *table.uns}
    assert "X_stp_images_inside" not in table.obs


def test_what_embeds_no_images_is_refused_with_the_way_to_wrap_it(sdata, stamp):
    for model in (torch.nn.Conv2d(3, 8, 3), stamp.gene_encoder, "stamp"):
        with pytest.raises(TypeError, match=f"got {type(model).__name__}; wrap .*WrappedEncoder"):
            tl.embed_images(sdata, model)
    assert not table_of(sdata).obsm.keys() & {"X_stp_images"}
