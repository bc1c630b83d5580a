"""Parts of `stp evaluate`: which stores are used, what a model says of its training, baselines."""

import anndata
import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA

import stp
from stp.data.store import SpotStore
from stp.tl._leiden import cluster_agreement
from stp.workflows.evaluation_baselines import expression_of, fit_components, share_genes
from stp.workflows.evaluation_labels import score_clusters
from stp.workflows.evaluation_leaks import TrainingRecord
from stp.workflows.evaluation_options import EvaluationOptions, choose_sides
from stp.workflows.evaluation_tables import COLOR, LABEL, SpotTable


@pytest.fixture
def collection(stores):
    table = pd.DataFrame(
        {
            "name": [path.stem for path in stores],
            "path": [str(path) for path in stores],
            "digest": [SpotStore(path).digest for path in stores],
            "patient": ["A", "B", "C"],
            "split": ["train", "train", "test"],
        }
    )
    return stp.io.Collection(table, stores[0].parent)


@pytest.fixture
def tables(stores):
    sides = ("train", "train", "test")
    return [
        SpotTable(path.stem, "", side, path, len(SpotStore(path)), 0, is_in_um=True)
        for side, path in zip(sides, stores, strict=True)
    ]


def test_a_limit_on_stores_is_stated(collection):
    sides = choose_sides(collection, EvaluationOptions(max_stores=1, seed=3), needs_image=True)
    assert len(sides.train) == len(sides.scored) == 1
    assert sides.left_out == (
        "1 of 2 stores of 'train': max_stores is 1, and the others were chosen at random with "
        "seed 3.",
    )
    again = choose_sides(collection, EvaluationOptions(max_stores=1, seed=3), needs_image=True)
    assert again.train.table["name"].tolist() == sides.train.table["name"].tolist()


def test_a_store_with_a_problem_is_left_out_and_stated(collection):
    table = collection.table.assign(problem=["no spots", "", ""])
    with pytest.warns(UserWarning, match="left out"):
        sides = choose_sides(
            stp.io.Collection(table, collection.folder), EvaluationOptions(), needs_image=True
        )
    assert sides.train.table["name"].tolist() == ["slide1"]
    assert "Stores of 'train' that cannot be used: slide0" in sides.left_out[0]


@pytest.mark.parametrize(
    ("line", "named", "others"),
    [
        ("pretrain: 9 spots of C2.zarr, C3.zarr", ["C2.zarr", "C3.zarr"], ["C4.zarr", "2.zarr"]),
        (
            "align: 9 spots of C2.zarr; weights chosen on 9 spots of C5.zarr",
            ["C2.zarr", "C5.zarr"],
            ["C3.zarr"],
        ),
        (
            "align: 9 spots of 30 stores of the collection 0a (split: train): a.zarr, b.zarr and "
            "28 more; weights chosen on 9 spots of c.zarr",
            ["a.zarr", "b.zarr", "c.zarr"],
            ["28", "train"],
        ),
    ],
)
def test_file_names_in_a_card_are_found(line, named, others):
    record = TrainingRecord(lines=(line,))
    assert all(map(record.mentions, named))
    assert not any(map(record.mentions, others))


def test_components_are_those_of_all_training_spots(tables):
    genes = share_genes(tables)
    positions, mean, components = fit_components(tables, genes)
    train = np.concatenate([expression_of(table, genes, positions) for table in tables[:2]])
    expected = PCA(len(positions), svd_solver="full").fit(train)
    np.testing.assert_allclose(mean, train.mean(axis=0), atol=1e-5)
    alike = np.abs((components[:, :5] * expected.components_[:5].T).sum(axis=0))
    np.testing.assert_allclose(alike, 1, atol=1e-3)
    np.testing.assert_allclose(genes.variance[positions], train.var(axis=0), rtol=1e-4)


def test_the_most_variable_and_the_most_expressed_genes_are_scored(tables):
    genes = share_genes(tables)
    positions, scored = genes.choose()
    everything = np.concatenate(
        [expression_of(table, genes, np.arange(len(genes.names))) for table in tables[:2]]
    )
    expected = stp.metrics.scored_genes(everything, 100)
    np.testing.assert_array_equal(positions[scored.variable], expected.variable)
    np.testing.assert_array_equal(positions[scored.expressed], expected.expressed)


def test_clusters_of_separate_groups_agree_with_their_labels():
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b"], 40)
    embedding = rng.normal(size=(80, 4)) + 50 * (labels == "b")[:, None]
    scores = cluster_agreement(embedding, labels, seeds=[0])
    assert scores["ari_matched"] == scores["nmi_matched"] == pytest.approx(1)


def test_color_and_texture_are_clustered_in_one_unit(tables):
    rng = np.random.default_rng(0)
    table = next(table for table in tables if table.side != "train")
    labels = np.repeat(["a", "b"], 40)
    # The labels are in one column; the other has a thousand times its spread, and is noise.
    pixels = np.column_stack([rng.normal(size=80) * 0.05 + (labels == "b"), rng.normal(size=80)])
    obs = {LABEL: labels, "slide": table.name, "is_scored": True}
    spots = anndata.AnnData(obs=pd.DataFrame(obs, index=[f"spot{n}" for n in range(80)]))
    spots.obsm[COLOR] = pixels * [1, 1000]
    (row,) = score_clusters(spots, tables, "region", 0).rows.to_dict("records")
    assert row["method"] == "color_and_texture"
    assert row["ari_matched"] > 0.3  # without one unit, about 0
