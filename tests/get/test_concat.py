import logging

import anndata
import numpy as np
import pytest
import spatialdata

from stp import get, io, tl
from stp.tables.provenance import model_of


@pytest.fixture
def tables(slide_of):
    """Two slides whose spots have equal names."""
    return [slide_of(seed)[0] for seed in (0, 1)]


def test_spots_keep_their_order_and_have_the_slide_and_unique_names(stores):
    joined = get.concat(stores[:2])
    parts = [spatialdata.read_zarr(path)["table"] for path in stores[:2]]
    names = [f"slide{seed}_{name}" for seed in (0, 1) for name in parts[seed].obs_names]
    assert joined.obs_names.tolist() == names
    assert joined.obs["slide"].tolist() == ["slide0"] * 100 + ["slide1"] * 100
    counts = np.concatenate([part.X.toarray() for part in parts])
    np.testing.assert_array_equal(joined.X.toarray(), counts)
    centers = np.concatenate([part.obsm["spatial"] for part in parts])
    np.testing.assert_array_equal(joined.obsm["spatial"], centers)
    assert joined.var["symbol"].equals(parts[0].var["symbol"])


def test_paths_spatialdata_and_tables_are_one_thing(stores):
    whole = [spatialdata.read_zarr(path) for path in stores[:2]]
    from_paths = get.concat(stores[:2])
    for slides in (whole, [whole[0], stores[1]], [sdata["table"] for sdata in whole]):
        joined = get.concat(slides)
        assert joined.obs.equals(from_paths.obs)
        np.testing.assert_array_equal(joined.X.toarray(), from_paths.X.toarray())


def test_names_of_spots_stay_if_they_are_unique(tables):
    tables[1].obs_names = [f"other{i}" for i in range(100)]
    joined = get.concat(tables, slide_key="section")
    assert joined.obs_names.tolist() == [*tables[0].obs_names, *tables[1].obs_names]
    assert joined.obs["section"].tolist() == ["slide 0"] * 100 + ["slide 1"] * 100


def test_the_record_of_the_model_is_kept(tables, stamp):
    for table in tables:
        tl.tokenize(table, stamp, context_length=32)
        tl.embed_genes(table, stamp)
    joined = get.concat(tables)
    assert model_of(joined, "X_stp_genes_aligned")["digest"] == stamp.digest
    vectors = np.concatenate([table.obsm["X_stp_genes_aligned"] for table in tables])
    np.testing.assert_array_equal(joined.obsm["X_stp_genes_aligned"], vectors)
    assert joined.uns["stp_tokens"]["params"]["vocabulary"] == stamp.vocabulary.digest
    tl.embed_genes(joined, stamp)


def test_a_joined_reference_names_the_slides(stores, tables, record_model, tmp_path):
    rng = np.random.default_rng(0)
    joined = get.concat(stores[:2])
    joined.obsm["X_stp_genes_aligned"] = rng.normal(size=(200, 4)).astype(np.float32)
    tables[0].obsm["X_stp_images_aligned"] = rng.normal(size=(100, 4)).astype(np.float32)
    record_model(joined, "X_stp_genes")
    record_model(tables[0], "X_stp_images")
    joined.write_h5ad(tmp_path / "joined.h5ad")
    reference = anndata.read_h5ad(tmp_path / "joined.h5ad")
    tl.predict_expression(tables[0], reference, genes=["LUM"])
    references = tables[0].uns["stp_expression"]["references"]
    expected = ["slide0" if row < 100 else "slide1" for row in references["row"]]
    assert references["slide"].tolist() == expected


def test_genes_are_those_that_all_slides_have_by_whatever_name(stores, tables, caplog):
    table = tables[0][:, tables[0].var_names != "LUM"].copy()
    logger = logging.getLogger("stp")
    logger.addHandler(caplog.handler)
    try:
        joined = get.concat([stores[0], table])
    finally:
        logger.removeHandler(caplog.handler)
    assert "1 of 32 genes of slide0" in caplog.text
    assert "ENSG00000139329" not in joined.var_names and joined.n_vars == 31
    symbols = joined.var["symbol"].tolist()
    np.testing.assert_array_equal(joined[100:].X.toarray(), table[:, symbols].X.toarray())


def test_predictions_of_different_genes_are_left_out(tables):
    for table, genes in zip(tables, (["A", "B"], ["B", "A"]), strict=True):
        table.obsm["stp_expression"] = table.obsm["same"] = np.ones((100, 2), np.float32)
        table.uns["stp_expression"] = {"genes": genes, "units": "u"}
        table.uns["same"] = {"genes": ["A", "B"], "units": "u"}
    joined = get.concat(tables)
    assert "stp_expression" not in joined.obsm
    assert list(joined.uns["same"]["genes"]) == ["A", "B"] and "same" in joined.obsm


def test_neighbors_of_a_prediction_are_left_out(tables):
    """They are rows of a table of each slide, and would be rows of another."""
    for table in tables:
        table.obsm["mine"] = np.ones((100, 1), np.float32)
        table.obsm["mine_neighbors"] = np.zeros((100, 3), np.int32)
        table.uns["mine"] = {"genes": ["A"], "references": table.obs[["array_row"]]}
    assert set(get.concat(tables).obsm) == {"spatial", "mine"}


def other_models(tables, record_model):
    for table, digest in zip(tables, "01", strict=True):
        table.obsm["X_stp_genes"] = np.ones((100, 2), np.float32)
        record_model(table, "X_stp_genes", digest=digest * 64)


def other_vocabularies(tables, record_model):
    for table, digest in zip(tables, "ab", strict=True):
        table.obsm["stp_tokens"] = np.ones((100, 2), np.uint16)
        table.uns["stp_tokens"] = {"params": {"vocabulary": digest}}


def other_widths(tables, record_model):
    for width, table in enumerate(tables, start=2):
        table.obsm["X_pca"] = np.ones((100, width))


def other_column(tables, record_model):
    tables[0].obs["slide"] = "mine"


def repeated_spots(tables, record_model):
    tables[1].obs_names = ["a", *tables[1].obs_names[1:-1], "a"]


def lost_counts(tables, record_model):
    tables[1].X = None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_models, "embeddings of different models do not mix: X_stp_genes of slide 0 by"),
        (other_vocabularies, r"obsm\['stp_tokens'\] of slide 0, slide 1 was made with different"),
        (other_widths, r"obsm\['X_pca'\] .* different number: 2 in slide 0, 3 in slide 1"),
        (other_column, r"obs\['slide'\] of slide 0 has 'mine', .*pass slide_key= a new column"),
        (repeated_spots, "several spots of slide 1 have the name 'a'"),
        (lost_counts, "slide 1 has no X and the other slides have"),
    ],
)
def test_slides_that_do_not_fit_are_refused(tables, record_model, change, message):
    change(tables, record_model)
    with pytest.raises(ValueError, match=message):
        get.concat(tables)


def test_a_slide_is_not_passed_twice(tables, stores):
    for slide in (tables[0], stores[0]):
        with pytest.raises(ValueError, match="a slide is passed twice"):
            get.concat([slide, slide])
    with pytest.raises(ValueError, match="there is no slide: the list is empty"):
        get.concat([])


def test_slides_of_one_name_stay_two_slides(slide_of):
    slides = []
    for seed in (0, 1):
        table, image = slide_of(seed)
        slides.append(io.from_anndata(table, image, um_per_px=1.0, name="tumor"))
    names = get.concat(slides).obs["slide"].cat.categories.tolist()
    assert names == ["tumor (slide 0)", "tumor (slide 1)"]


def test_names_that_collide_with_the_slide_before_them_are_refused():
    slides = {"a": ["x", "b_1"], "a_b": ["x", "1"]}
    parts = []
    for slide, names in slides.items():
        part = anndata.AnnData(np.ones((2, 1), np.float32))
        part.obs_names = names
        part.obs["region"] = slide
        part.obs["spot"] = [0, 1]
        part.uns["spatialdata_attrs"] = {
            "region": slide,
            "region_key": "region",
            "instance_key": "spot",
        }
        parts.append(part)
    with pytest.raises(ValueError, match="several spots would be named 'a_b_1'"):
        get.concat(parts)


def test_tokens_are_padded_to_those_of_the_widest_slide(tables, stamp):
    tables[0].X[:, 20:] = 0
    for table in tables:
        table.X.eliminate_zeros()
        tl.tokenize(table, stamp)
    first, second = (table.obsm["stp_tokens"] for table in tables)
    assert first.shape[1] < second.shape[1]
    joined = get.concat(tables).obsm["stp_tokens"]
    assert joined.dtype == np.uint16
    np.testing.assert_array_equal(joined[:100, : first.shape[1]], first)
    assert not joined[:100, first.shape[1] :].any()
    np.testing.assert_array_equal(joined[100:], second)
