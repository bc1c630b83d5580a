"""Figures in the manner of the paper, on a small slide."""

import json

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from benchmarks.accuracy import paper, paper_figures, paper_sections
from benchmarks.accuracy.small_variants import SmallSettings
from tests.conftest import find_or_skip
from tests.test_benchmarks import ROOT

from stp.metrics import clustering_scores
from stp.train import AlignConfig, Phase, PretrainConfig

SHARED = ROOT.parent / "shared" / "data"
NAMES = ("genes", "images", "both")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def mapped(sdata):
    """Return the slide with labels, and with places and clusters as `add_maps` writes them."""
    table = sdata.tables["table"]
    rng = np.random.default_rng(0)
    table.obs["region"] = np.where(table.obs["array_row"] < 5, "tumor", "stroma")
    table.obs.loc[table.obs_names[:3], "region"] = "undetermined"
    paper_figures.add_labels([table], "region")
    for name in NAMES:
        table.obsm[f"X_umap_{name}"] = rng.normal(size=(table.n_obs, 2))
        clusters = (table.obs["array_row"] < 4).astype(int).astype(str)
        table.obs[f"leiden_{name}"] = clusters.astype("category")
    return sdata


def test_the_same_label_has_the_same_color_in_all_tables():
    first = anndata.AnnData(
        obs=pd.DataFrame({"label": ["b", "undetermined", "c"]}, index=list("xyz"))
    )
    second = anndata.AnnData(obs=pd.DataFrame({"label": ["a", "b", ""]}, index=list("xyz")))
    paper_figures.add_labels([first, second], "label")
    for table in (first, second):
        assert list(table.obs["label"].cat.categories) == ["a", "b", "c"]
        assert len(table.uns["label_colors"]) == 3
    assert first.obs["label"].isna().tolist() == [False, True, False]
    assert second.obs["label"].isna().tolist() == [False, False, True]


def test_maps_have_a_panel_each_and_one_legend_that_names_spots_without_a_label(mapped):
    table = mapped.tables["table"]
    figure = paper_figures.draw_maps({name: (table, name) for name in NAMES}, "region")
    assert [ax.get_title() for ax in figure.axes] == list(NAMES)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["stroma", "tumor", "no label"]
    assert legend.get_title().get_text() == "region"


def test_cluster_maps_start_with_the_labels_and_show_how_well_clusters_agree(mapped):
    table = mapped.tables["table"]
    figure = paper_figures.draw_clusters(mapped, "region")
    titles = [ax.get_title() for ax in figure.axes]
    has_label = table.obs["region"].notna()
    ari = clustering_scores(
        table.obs["region"][has_label].astype(str), table.obs["leiden_genes"][has_label]
    )["ari"]
    assert titles[:2] == ["region", f"clusters of genes, ARI {ari:.2f}"]
    without_labels = paper_figures.draw_clusters(mapped)
    assert [ax.get_title() for ax in without_labels.axes] == [f"clusters of {n}" for n in NAMES]


def test_gene_pairs_are_correlations_over_spots_in_the_same_order_of_genes(adata):
    genes = list(adata.var_names[:5])
    measured = paper_figures.normalize(adata, genes)
    rng = np.random.default_rng(0)
    adata.obsm["stp_expression"] = (measured + rng.normal(size=measured.shape)).astype(np.float32)
    adata.uns["stp_expression"] = {
        "genes": np.array(genes, dtype=object),
        "params": {},
        "units": "log1p of counts per 10,000",
    }
    figure = paper_figures.draw_gene_pairs(adata, genes)
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert sorted(names) == sorted(genes)
    order = [genes.index(name) for name in names]
    for ax, values in zip(figure.axes, (measured, adata.obsm["stp_expression"]), strict=False):
        drawn = np.asarray(ax.images[0].get_array())
        for row in range(5):
            for column in range(5):
                pair = values[:, order[row]], values[:, order[column]]
                assert drawn[row, column] == pytest.approx(np.corrcoef(*pair)[0, 1], abs=1e-5)


def test_a_gene_that_does_not_vary_correlates_with_none():
    matrix = paper_figures.correlate(np.array([[0.0, 1], [1, 1], [2, 1]]))
    np.testing.assert_array_equal(matrix, [[1, 0], [0, 0]])


def test_ablations_show_the_mean_and_the_range_of_each_row(tmp_path):
    rows = [
        {"method": "all", "recall@5": {"mean": 0.3, "range": [0.2, 0.4]}},
        {"method": "none", "recall@5": 0.1, "PCC-V": 0.5},
        {"method": "empty"},
    ]
    record = {"command": "x", "commit": "x", "machine": "x", "date": "x", "values": rows}
    (tmp_path / "rows.json").write_text(json.dumps(record))
    figure = paper_figures.draw_ablations(rows, ["recall@5", "PCC-V"])
    recall, pcc = figure.axes
    assert [label.get_text() for label in recall.get_yticklabels()] == ["all", "none"]
    drawn = [line.get_xydata().tolist() for line in recall.lines]
    assert drawn == [[[0.2, 0], [0.4, 0]], [[0.3, 0]], [[0.1, 1]]]
    assert [line.get_xydata().tolist() for line in pcc.lines] == [[[0.5, 1]]]
    command = ["ablations", "--folder", str(tmp_path), "--results", str(tmp_path / "rows.json")]
    assert paper.main([*command, "--columns", "recall@5"]) == ["ablations"]
    assert {path.suffix for path in (tmp_path / "figures").iterdir()} == {".png", ".svg"}


def test_a_column_that_no_row_has_is_an_error(tmp_path):
    command = ["ablations", "--folder", str(tmp_path), "--columns", "recall@50"]
    with pytest.raises(KeyError, match="no row has 'recall@50'; columns are .*recall@5"):
        paper.main(command)
    assert not list(tmp_path.iterdir())


@pytest.mark.extended
def test_a_spot_without_an_embedding_has_neither_place_nor_cluster(embedded):
    table = embedded.tables["table"]
    table.obsm["X_stp_genes"][4] = np.nan
    paper_figures.add_map(table, "X_stp_genes", "genes")
    is_missing = np.arange(table.n_obs) == 4
    np.testing.assert_array_equal(np.isnan(table.obsm["X_umap_genes"]).all(axis=1), is_missing)
    np.testing.assert_array_equal(table.obs["leiden_genes"].isna(), is_missing)


@pytest.mark.extended
@pytest.mark.parametrize(
    ("tissue", "data", "figures"),
    [
        ("bulb", "mob_st", ["embeddings", "clusters", "gene_pairs"]),
        ("her2st", "her2st", ["labeled_genes", "embeddings", "clusters", "gene_pairs"]),
    ],
)
def test_figures_of_sections_are_written_as_png_and_svg(tmp_path, tissue, data, figures):
    folder = find_or_skip(SHARED / data, "sections of this collection")
    settings = SmallSettings(
        pretrain=PretrainConfig(phases=(Phase(batch_size=54),)),
        align=AlignConfig(epochs=1, batch_size=48, projection_width=16, trained="images"),
    )
    names = paper_sections.draw_section_figures(tissue, folder, tmp_path, settings=settings)
    assert names == [f"{tissue}_{name}" for name in figures]
    written = {path.name for path in (tmp_path / "figures").iterdir()}
    assert written == {f"{name}.{suffix}" for name in names for suffix in ("png", "svg")}
