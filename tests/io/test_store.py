import logging
import re

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import spatialdata
import zarr
from spatialdata.models import TableModel
from spatialdata.transformations import get_transformation
from tests.io.conftest import table, write_in_chunks

from stp import Vocabulary
from stp.data.store import SpotStore, names_digest
from stp.images.pyramid import ImagePyramid
from stp.images.slides import find_slides
from stp.io import write_store

ERBB2, ACTB = "ENSG00000141736", "ENSG00000075624"


def test_a_store_opens_in_spatialdata(stores, adata):
    sdata = spatialdata.read_zarr(stores[0])
    assert (list(sdata.images), list(sdata.shapes), list(sdata.tables)) == (
        ["image"],
        ["slide0"],
        ["table"],
    )
    default = Vocabulary.default()
    ids = default.gene_ids[default.encode(adata.var_names)]
    written = sdata["table"]
    np.testing.assert_array_equal(written[:, ids].X.toarray(), adata.X.toarray())
    assert written.var.loc[ids, "symbol"].tolist() == adata.var_names.tolist()
    assert written.obs_names.tolist() == adata.obs_names.tolist()
    pd.testing.assert_frame_equal(written.obs[["array_row", "array_col"]], adata.obs)
    (slide,) = find_slides(sdata, written)
    assert (slide.region, slide.image_key, slide.coordinate_system) == ("slide0", "image", "um")
    np.testing.assert_allclose(slide.centers, written.obsm["spatial"])


def test_counts_are_by_ensembl_id_and_those_of_one_gene_are_summed(tmp_path):
    # HER2 is an alias of ERBB2; a version suffix is ignored; other genes keep their names.
    names = ["HER2", "XIST", "ERBB2", "ACTB", f"{ERBB2}.14", "my gene"]
    write_store(table([[1, 2, 3, 4, 5, 1], [0, 0, 0, 7, 0, 0]], names), tmp_path / "a.zarr")
    written = spatialdata.read_zarr(tmp_path / "a.zarr")["table"]
    assert written.to_df().to_dict("list") == {
        ERBB2: [9, 0],
        ACTB: [4, 7],
        "XIST": [2, 0],
        "my gene": [1, 0],
    }
    assert written.var["symbol"].to_dict() == {
        ERBB2: "ERBB2",
        ACTB: "ACTB",
        "XIST": "XIST",
        "my gene": "my gene",
    }
    assert scipy.sparse.isspmatrix_csr(written.X)


def test_genes_without_an_id_are_not_one_gene(tmp_path):
    adata = table([[20, 2, 3]], ["ACTB", "x", "y"])
    adata.var["gene_ids"] = [ACTB, None, np.nan]
    write_store(adata, tmp_path / "a.zarr", gene_ids_key="gene_ids")
    assert spatialdata.read_zarr(tmp_path / "a.zarr")["table"].to_df().iloc[0].to_dict() == {
        ACTB: 20,
        "x": 2,
        "y": 3,
    }


def read(path):
    return spatialdata.read_zarr(path)["table"]


def test_antibodies_and_control_probes_are_left_out(tmp_path):
    names = ["ACTB", "ERBB2", "ERBB2-1", "NegControlProbe_0001", "DEPRECATED_ACTB"]
    adata = table([[5, 3, 900, 70, 60]], names)
    adata.var["feature_types"] = (
        ["Gene Expression"] * 2 + ["Antibody Capture"] * 1 + ["Gene Expression"] * 2
    )
    write_store(adata, tmp_path / "a.zarr")
    written = read(tmp_path / "a.zarr")
    assert written.to_df().iloc[0].to_dict() == {ACTB: 5, ERBB2: 3}
    assert written.var["umis"].to_dict() == {ACTB: 5, ERBB2: 3}


def test_a_store_of_two_species_has_the_human_genes(tmp_path):
    adata = table([[5, 30, 9, 4]], ["ACTB", "ERBB2", "Actb", "mm10___Erbb2"])
    with pytest.warns(UserWarning, match="only 72.9% of UMIs .*mouse or rat 18.8%, mouse 8.3%"):
        write_store(adata, tmp_path / "a.zarr")
    assert read(tmp_path / "a.zarr").to_df().iloc[0].to_dict() == {ACTB: 5, ERBB2: 30}


def test_a_store_of_two_species_is_refused_if_the_other_has_most_counts(tmp_path):
    adata = table([[5, 30, 90, 4]], ["ACTB", "ERBB2", "Actb", "Erbb2"])
    with pytest.raises(ValueError, match="only 27.1% of UMIs .*mouse or rat 72.9%"):
        write_store(adata, tmp_path / "a.zarr")
    assert not list(tmp_path.iterdir())


MOUSE_IDS = ["ENSMUSG00000029580", "ENSMUSG00000062312"]


def test_genes_of_another_species_need_their_vocabulary(tmp_path):
    adata = table([[5, 3]], ["Actb", "Erbb2"])
    with pytest.raises(ValueError, match="those of mouse or rat.*another species as vocabulary="):
        write_store(adata, tmp_path / "a.zarr")
    mouse = Vocabulary.from_genes(MOUSE_IDS, ["Actb", "Erbb2"])
    write_store(adata, tmp_path / "a.zarr", vocabulary=mouse)
    assert read(tmp_path / "a.zarr").to_df().iloc[0].to_dict() == dict(
        zip(MOUSE_IDS, [5, 3], strict=True)
    )
    store = SpotStore(tmp_path / "a.zarr")
    assert store.species == "mouse"
    assert store.gene_umis.tolist() == [5, 3]


def test_a_store_has_most_umis_in_the_vocabulary(tmp_path):
    with pytest.raises(ValueError, match=r"only 40\.0% of UMIs .*unknown 60\.0%"):
        write_store(table([[2, 3]], ["ACTB", "my gene"]), tmp_path / "a.zarr")


def test_layers_and_columns_of_names(tmp_path):
    adata = table(np.log1p([[1, 2]]), ["a", "b"], layers={"counts": np.array([[3, 4]])})
    adata.var["ids"] = [ACTB, ERBB2]
    write_store(adata, tmp_path / "a.zarr", layer="counts", gene_ids_key="ids")
    assert spatialdata.read_zarr(tmp_path / "a.zarr")["table"].to_df().iloc[0].to_dict() == {
        ACTB: 3,
        ERBB2: 4,
    }


def test_log_counts_are_refused_and_nothing_is_written(sdata, tmp_path):
    sdata["table"].layers["counts"] = sdata["table"].X.copy()
    sdata["table"].X = np.log1p(sdata["table"].X)
    with pytest.raises(ValueError, match="not a raw count.*pass layer='counts'"):
        write_store(sdata, tmp_path / "a.zarr", patch_um_per_px=4.0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("patch_um_per_px", "region_scale"), [(0.7, 3), (1.4, 2), (1.0, 3)])
def test_the_image_has_the_wanted_scales(
    marked_slide, bare_slide, tmp_path, patch_um_per_px, region_scale
):
    write_store(
        marked_slide,
        tmp_path / "a.zarr",
        patch_um_per_px=patch_um_per_px,
        region_scale=region_scale,
    )
    sdata = spatialdata.read_zarr(tmp_path / "a.zarr")
    pyramid = ImagePyramid.from_spatialdata(sdata, "image")
    assert pyramid.um_per_px == pytest.approx(patch_um_per_px)
    (height, width), (small_height, small_width) = (level.shape for level in pyramid.levels)
    assert (height, width) == (small_height * region_scale, small_width * region_scale)
    assert 901 * 0.7 <= height * patch_um_per_px < 901 * 0.7 + region_scale * patch_um_per_px
    assert 1102 * 0.7 <= width * patch_um_per_px < 1102 * 0.7 + region_scale * patch_um_per_px
    to_um = get_transformation(sdata["image"], "um").to_affine_matrix(("x", "y"), ("x", "y"))
    np.testing.assert_allclose(to_um, np.diag([patch_um_per_px, patch_um_per_px, 1]))
    attributes = dict(sdata.attrs["stp_store"])
    assert attributes.pop("digest") != attributes.pop("spots_digest")
    assert attributes == {
        "version": 3,
        "name": "a",
        "genes": names_digest(sdata["table"].var_names),
        "species": "human",
        "vocabulary": Vocabulary.default().digest,
        "unit": "um",
        "patch_um_per_px": patch_um_per_px,
        "scale_source": "the coordinate system um",
    }


@pytest.mark.parametrize("patch_um_per_px", [0.7, 1.0, 1.4])
@pytest.mark.parametrize("chunk", [64, 256])
def test_spots_are_on_their_pixels(marked_slide, bare_slide, tmp_path, patch_um_per_px, chunk):
    write_in_chunks(marked_slide, tmp_path / "a.zarr", patch_um_per_px, chunk)
    store = SpotStore(tmp_path / "a.zarr")
    np.testing.assert_allclose(store.coordinates, bare_slide[1] * 0.7)
    for level, shape in zip(store.pyramid.levels, (1, 3), strict=True):
        scale = patch_um_per_px * shape
        picture = level.read(0, level.shape[0], 0, level.shape[1]).astype(float) - 40
        tall, wide = (int(n * 0.7 / scale) for n in (901, 1102))
        picture = picture[:tall, :wide].clip(0)  # less the white beyond the border
        y, x = (np.arange(n) + 0.5 for n in picture.shape[:2])
        for center in store.coordinates / scale:
            near = np.ix_(np.abs(y - center[1]) < 20 / scale, np.abs(x - center[0]) < 20 / scale)
            weight = picture[near][..., 0]
            bright = [(weight * x[near[1]]).sum(), (weight * y[near[0]]).sum()] / weight.sum()
            np.testing.assert_allclose(bright, center, atol=0.25)
        red, green, blue = picture.reshape(-1, 3).sum(axis=0)
        assert red > green > blue  # RGB


@pytest.mark.parametrize(
    ("um_per_px", "tolerance"), [(4.0, 2.0), (12.0, 2.0)], ids=["patches", "regions"]
)
def test_patches_of_the_store_are_those_of_the_source(sdata, stores, um_per_px, tolerance):
    source = ImagePyramid.from_spatialdata(sdata, "slide_full_image")
    store = SpotStore(stores[0])
    # Centers on whole pixels of the level, where no rounding comes between.
    centers = np.floor(store.coordinates / um_per_px) * um_per_px
    window = {"size": 16, "um_per_px": um_per_px}
    inside = source.inside(centers, **window)
    assert inside.sum() >= 50
    of_source = source.read(centers[inside], **window).astype(int)
    of_store = store.pyramid.read(centers[inside], **window)
    difference = np.abs(of_source - of_store)
    assert difference.mean() < tolerance
    shifted = source.read(centers[inside] + um_per_px, **window).astype(int)
    assert np.abs(shifted - of_store)[..., :2].mean() > 2 * difference[..., :2].mean()


def test_a_store_has_small_chunks(stores):
    image = zarr.open_group(stores[0], mode="r")["images/image"]
    for level in image.attrs["ome"]["multiscales"][0]["datasets"]:
        array = image[level["path"]]
        assert array.chunks == tuple(map(min, (3, 256, 256), array.shape))


def test_too_coarse_an_image_is_refused(marked_slide, tmp_path):
    with pytest.raises(ValueError, match=r"has 0\.7 µm per pixel, patches of 0\.5 are wanted"):
        write_store(marked_slide, tmp_path / "a.zarr")
    assert list(tmp_path.iterdir()) == []


def test_spots_without_an_image(adata, tmp_path):
    write_store(adata, tmp_path / "lattice.zarr")  # µm from the lattice
    np.testing.assert_allclose(
        SpotStore(tmp_path / "lattice.zarr").coordinates, adata.obsm["spatial"]
    )
    adata.obs = adata.obs[[]]
    write_store(adata, tmp_path / "given.zarr", um_per_px=0.5)
    np.testing.assert_allclose(
        SpotStore(tmp_path / "given.zarr").coordinates, adata.obsm["spatial"] / 2
    )
    write_store(adata, tmp_path / "unknown.zarr")
    unknown = spatialdata.read_zarr(tmp_path / "unknown.zarr")
    assert unknown.attrs["stp_store"]["unit"] == ""
    assert set(get_transformation(unknown["unknown"], get_all=True)) == {"global"}


def test_rows_of_a_shuffled_table_keep_their_spots(sdata, adata, tmp_path):
    order = np.random.default_rng(0).permutation(adata.n_obs)[:40]
    sdata.tables["table"] = sdata["table"][order].copy()
    write_store(sdata, tmp_path / "a.zarr", patch_um_per_px=4.0)
    np.testing.assert_allclose(
        SpotStore(tmp_path / "a.zarr").coordinates, adata.obsm["spatial"][order]
    )


def test_several_regions_are_refused(sdata, tmp_path):
    second = sdata["table"].copy()
    second.obs["stp_region"] = pd.Categorical(["slide"] * 50 + ["other"] * 50)
    del second.uns["spatialdata_attrs"]
    sdata.shapes["other"] = sdata["slide"]
    sdata.tables["table"] = TableModel.parse(
        second, region=["slide", "other"], region_key="stp_region", instance_key="stp_spot"
    )
    with pytest.raises(
        ValueError,
        match=r"one slide is needed, but the table covers the regions \['slide', 'other'\]",
    ):
        write_store(sdata, tmp_path / "a.zarr", patch_um_per_px=4.0)


def test_an_existing_path_is_kept_unless_overwritten(tmp_path):
    path = tmp_path / "a.zarr"
    write_store(table([[1]], ["ACTB"]), path)
    with pytest.raises(FileExistsError, match="pass overwrite=True"):
        write_store(table([[2]], ["ACTB"]), path)
    assert spatialdata.read_zarr(path)["table"].X.sum() == 1
    write_store(table([[2]], ["ACTB"]), path, overwrite=True)
    assert spatialdata.read_zarr(path)["table"].X.sum() == 2
    assert list(tmp_path.iterdir()) == [path]


def test_a_store_may_be_written_over_its_own_source(stores, tmp_path):
    path = tmp_path / "a.zarr"
    spatialdata.read_zarr(stores[0]).write(path)
    write_store(spatialdata.read_zarr(path), path, patch_um_per_px=8.0, overwrite=True)
    store = SpotStore(path)
    assert store.pyramid.um_per_px == 8.0
    np.testing.assert_allclose(store.coordinates, SpotStore(stores[0]).coordinates)


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_no_store_is_never_overwritten(kind, tmp_path):
    path = tmp_path / "thesis"
    if kind == "folder":
        path.mkdir()
        (path / "chapter.txt").write_text("long work")
    else:
        path.write_text("long work")
    with pytest.raises(FileExistsError, match="is no store, so it is not replaced"):
        write_store(table([[1]], ["ACTB"]), path, overwrite=True)
    assert (path / "chapter.txt" if kind == "folder" else path).read_text() == "long work"


def test_what_a_store_was_made_from_is_recorded_and_its_size_told(
    marked_slide, tmp_path, caplog, monkeypatch
):
    marked_slide.write(tmp_path / "source.zarr")
    marked_slide = spatialdata.read_zarr(tmp_path / "source.zarr")
    monkeypatch.setattr(logging.getLogger("stp"), "propagate", True)
    with caplog.at_level(logging.INFO, "stp"):
        write_store(marked_slide, tmp_path / "a.zarr", patch_um_per_px=0.7)
    assert re.search(
        r"Wrote a\.zarr: 35 spots, [\d.]+ MB, [\d.]+ times the size of its source", caplog.text
    )
    source = spatialdata.read_zarr(tmp_path / "a.zarr").attrs["stp_source"]
    assert source.pop("stp")
    assert source == {
        "path": str(tmp_path / "source.zarr"),
        "region": "slide",
        "image_key": "slide_full_image",
        "coordinate_system": "um",
        "um_per_px": pytest.approx(0.7),
        "other_scales": {},
        "scale_source": "um_per_px",
        "shapes": [[901, 1102]],
    }


def test_several_slides_are_refused_without_an_image_too(marked_slide, tmp_path):
    del marked_slide.images["slide_full_image"]
    both = spatialdata.concatenate({"a": marked_slide, "b": marked_slide}, concatenate_tables=True)
    with pytest.raises(
        ValueError,
        match=r"one slide is needed, but the table covers the regions \['slide-a', 'slide-b'\]",
    ):
        write_store(both, tmp_path / "a.zarr")
    assert list(tmp_path.iterdir()) == []


def test_spots_without_an_image_are_in_um_where_shapes_are(marked_slide, bare_slide, tmp_path):
    del marked_slide.images["slide_full_image"], marked_slide["table"].obsm["spatial"]
    marked_slide.tables["table"] = marked_slide["table"][::-1].copy()
    write_store(marked_slide, tmp_path / "a.zarr")
    assert spatialdata.read_zarr(tmp_path / "a.zarr").attrs["stp_store"]["unit"] == "um"
    np.testing.assert_allclose(
        SpotStore(tmp_path / "a.zarr").coordinates, bare_slide[1][::-1] * 0.7
    )


@pytest.mark.parametrize(
    ("name", "region"),
    [("C2", "C2"), (None, "my_slide"), ("image", "image_1")],
)
def test_spots_have_the_name_of_the_slide(adata, image, tmp_path, name, region):
    from stp.io import from_anndata

    slide = from_anndata(adata, image, um_per_px=1.0, name=name)
    write_store(slide, tmp_path / "my slide.zarr", patch_um_per_px=4.0)
    store = spatialdata.read_zarr(tmp_path / "my slide.zarr")
    assert list(store.shapes) == [region]
    assert store.attrs["stp_store"]["name"] == region
    (only,) = find_slides(store, store["table"])
    assert (only.region, only.image_key) == (region, "image")
    write_store(store, tmp_path / "copy.zarr", patch_um_per_px=4.0)
    assert list(spatialdata.read_zarr(tmp_path / "copy.zarr").shapes) == [region]


def test_symbols_are_stored_if_names_are_ids(tmp_path):
    unknown = "ENSG00000229807"  # of XIST, which the vocabulary does not have
    adata = table([[5, 3, 2]], [ACTB, f"{ERBB2}.4", unknown])
    adata.var["gene_symbols"] = ["my actin", "ERBB2", "XIST"]
    write_store(adata, tmp_path / "a.zarr")
    symbols = read(tmp_path / "a.zarr").var["symbol"].to_dict()
    assert symbols == {ACTB: "ACTB", ERBB2: "ERBB2", unknown: "XIST"}
