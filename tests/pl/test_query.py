"""A drawn query: the pixels of the best and worst tiles, the scores on the tissue, the genes."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import spatialdata
import tifffile
from matplotlib.colors import to_hex
from tests.scored_tiles import TILE_UM, score_slide

from stp import io, pl, tl


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def slides(adata, image, record_model):
    """A slide to search and a reference, whose vectors point to one side with ERBB2."""
    slides = []
    for name in ("query", "reference"):
        sdata = io.from_anndata(adata.copy(), image, um_per_px=1.0, name=name)
        table = sdata["table"]
        angle = np.linspace(0.2, 1.4, table.n_obs)
        vectors = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
        table.obsm["X_stp_images_aligned"] = table.obsm["X_stp_genes_aligned"] = vectors
        record_model(table, "X_stp_images", "X_stp_genes")
        counts = table.X.toarray()
        counts[:, table.var_names == "ERBB2"] = np.arange(table.n_obs)[:, None]
        counts[:, table.var_names == "LUM"] = np.arange(table.n_obs)[::-1, None]
        table.X = counts
        slides.append(sdata)
    return slides


def test_best_and_worst_tiles_are_the_pixels_of_their_spots(slides, image):
    query, reference = slides
    tl.query_by_genes(query, {"ERBB2": 1, "LUM": -1}, reference=reference, n_neighbors=3)
    table = query["table"]
    score = table.obs["stp_query"].to_numpy()
    figure = pl.query(query, n=3)
    map_ax, *tiles, genes = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"][:8]
    near = np.flatnonzero(~table.obs["stp_query_far"])
    order = near[np.argsort(-score[near], kind="stable")]
    chosen = [*order[:3], *order[::-1][:3]]
    for ax, row in zip(tiles, chosen, strict=True):
        assert ax.get_title() == f"{score[row]:+.3f}"
        x, y = table.obsm["spatial"][row].astype(int)
        side = ax.images[0].get_extent()[1]
        assert side == pytest.approx(query["query"]["radius"].iloc[0] * 2)
        drawn = ax.images[0].get_array()[112, 112].astype(float)
        assert np.abs(drawn[:2] - image[y, x, :2]).max() < 8  # blue is noise
    assert tiles[0].get_ylabel() == "highest" and tiles[3].get_ylabel() == "lowest"
    colors = map_ax.collections[0].get_array()
    np.testing.assert_allclose(colors, score)
    labels = [text.get_text() for text in genes.get_yticklabels()]
    widths = {label: bar.get_width() for label, bar in zip(labels, genes.patches, strict=True)}
    entry = table.uns["stp_query"]["genes"]
    for gene, width in widths.items():
        assert width == pytest.approx(entry.loc[gene, "highest"] - entry.loc[gene, "lowest"])
    assert widths["ERBB2"] > 0 > widths["LUM"]
    faces = {
        label: to_hex(bar.get_facecolor()) for label, bar in zip(labels, genes.patches, strict=True)
    }
    assert faces["ERBB2"] != faces["LUM"]
    assert figure.get_suptitle() == "Query: ERBB2, −LUM"


def test_far_tiles_are_outlined_and_not_among_the_best(slides):
    query, reference = slides
    tl.query_by_genes(query, ["ERBB2"], reference=reference, n_neighbors=3)
    table = query["table"]
    table.obs["stp_query_far"] = False
    best = table.obs["stp_query"].to_numpy().argmax()
    table.obs.loc[table.obs_names[best], "stp_query_far"] = True
    figure = pl.query(query, n=2, title="mine")
    scores = table.obs["stp_query"].to_numpy()
    assert figure.axes[1].get_title() == f"{np.delete(scores, best).max():+.3f}"
    assert len(figure.axes[0].collections) == 2
    assert figure.get_suptitle() == "mine"


def test_the_spots_behind_a_tile_are_drawn(slides):
    query, reference = slides
    tl.query_by_genes(query, ["ERBB2"], reference=reference, n_neighbors=3)
    table = query["table"]
    figure = pl.retrieval(query, reference, table.obs_names[7], key="stp_query", n_shown=2)
    entry = table.uns["stp_query"]["references"].iloc[table.obsm["stp_query_neighbors"][7][:2]]
    assert figure.axes[0].get_title() == f"{table.obs_names[7]}\nlooks like"
    for ax, (_, spot), cosine in zip(
        figure.axes[1:], entry.iterrows(), table.obsm["stp_query_similarity"][7], strict=False
    ):
        assert ax.get_title().split("\n") == [
            spot["spot"],
            "reference",
            f"cosine {cosine:.2f}",
            f"program {spot['program']:+.1f} SD",
        ]


def test_the_spots_of_a_query_by_image_are_drawn(slides):
    query, reference = slides
    tile, other = query["table"].obs_names[[4, 5]]
    tl.query_by_image(query, tile, reference=reference, n_spots=6)
    figure = pl.retrieval(query, reference, tile, key="stp_image_query", n_shown=1)
    assert figure.axes[1].get_title().split("\n") == [tile, "reference", "cosine 1.00"]
    with pytest.raises(ValueError, match=f"is a query by '{tile}', not by '{other}'"):
        pl.retrieval(query, reference, other, key="stp_image_query")


def test_a_tile_store_is_drawn_from_its_slide(slides, record_model, tmp_path):
    _, reference = slides
    score_slide(tmp_path)
    tiles = spatialdata.read_zarr(tmp_path / "tiles.zarr")
    table = tiles["table"]
    angle = np.linspace(0.3, 1.3, table.n_obs)
    vectors = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    table.obsm["X_stp_images_aligned"] = vectors
    record_model(table, "X_stp_images")
    tl.query_by_genes(tiles, ["ERBB2"], reference=reference, n_neighbors=3)
    figure = pl.query(tiles, n=1)
    near = np.where(table.obs["stp_query_far"], np.nan, table.obs["stp_query"])
    x, y = (table.obsm["spatial"][np.nanargmax(near)] - 56).round().astype(int)
    pixels = tifffile.imread(tmp_path / "slide.tif")[y : y + 112, x : x + 112].astype(float)
    shown = np.asarray(figure.axes[1].images[0].get_array()).astype(float)
    # Each pixel of the slide is drawn as two by two.
    means = shown.reshape(112, 2, 112, 2, 3).mean(axis=(1, 3))
    assert np.abs(means - pixels).mean() < 12
    assert figure.axes[1].images[0].get_extent() == [0, TILE_UM, TILE_UM, 0]


def test_what_cannot_be_drawn_is_an_error(slides):
    query, reference = slides
    with pytest.raises(KeyError, match=r"run stp\.tl\.query_by_genes"):
        pl.query(query)
    tl.query_by_genes(query, ["ERBB2"], reference=reference)
    with pytest.raises(ValueError, match="n is the number of tiles in a row"):
        pl.query(query, n=0)
    with pytest.raises(TypeError, match="pass the SpatialData of the tiles"):
        pl.query(query["table"])
