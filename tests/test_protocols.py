"""The paper's protocols as one command, on small slides of three patients."""

import shutil

import numpy as np
import pandas as pd
import pytest
import spatialdata
import torch
from benchmarks.accuracy import leakage, predictions, protocols, slides, tables

from stp.io import from_anndata, write_store
from stp.models import GeneEncoder, GeneEncoderConfig, ImageEncoderConfig, Stamp
from stp.train import AlignConfig, Phase, PretrainConfig, align, pretrain


def label(adata):
    """Name each spot by its more abundant genes, epithelial or stromal; some have no label."""
    counts = adata.X.toarray()
    tumor = counts[:, :4].sum(axis=1) > counts[:, 4:8].sum(axis=1)
    return np.where(
        np.arange(adata.n_obs) % 20 == 0, "undetermined", np.where(tumor, "tumor", "stroma")
    )


@pytest.fixture(scope="module")
def labeled(tmp_path_factory, slide_of):
    """Stores of four slides of three patients with images, and one with counts alone."""
    folder = tmp_path_factory.mktemp("labeled")
    for seed, name in enumerate(("A1", "A2", "B1", "C1", "D1")):
        adata, image = slide_of(seed)
        adata.obs["region"], adata.obs["patient"] = label(adata), name[0]
        adata.obs["one"] = "same"
        sdata = adata if name == "D1" else from_anndata(adata, image, um_per_px=1.0, name=name)
        write_store(sdata, folder / f"{name}.zarr", patch_um_per_px=4.0)
    return folder


@pytest.fixture(scope="module")
def model(labeled, tiny_config, vocabulary):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        stamp = Stamp(tiny_config, vocabulary)
    stamp.save_pretrained(labeled / "stamp")
    for patient in "ABCD":
        stamp.gene_encoder.save_pretrained(labeled / f"without_{patient}")
    return labeled / "stamp"


def run(task, labeled, names, model, folder, *more):
    stores = [str(labeled / f"{name}.zarr") for name in names]
    return protocols.main(
        [task, "--stores", *stores, "--model", str(model), "--folder", str(folder), *more]
    )


def test_clustering_scores_every_column_that_a_slide_allows(labeled, model, tmp_path):
    scores = run(
        "clustering",
        labeled,
        ["A1", "D1"],
        model,
        tmp_path,
        "--label-key",
        "region",
        "--seeds",
        "0",
        "1",
    )
    assert set(scores["metric"]) >= {
        "ari",
        "nmi",
        "homogeneity",
        "completeness",
        "silhouette",
        "calinski_harabasz",
    }
    methods = scores.groupby("slide")["method"].agg(set)
    assert methods["A1"] == {
        "STAMP_G",
        "STAMP_V",
        "STAMP_F",
        "raw backbone",
        "PCA",
        "PCA fitted on other slides",
    }
    assert methods["D1"] == {"STAMP_G", "PCA", "PCA fitted on other slides"}, (
        "no image, no column of images"
    )
    assert (scores.groupby(["method", "slide", "metric"]).size() == 2).all()
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "scores.csv"), scores, check_dtype=False)
    assert {"table.csv", "differences.csv", "table.md", "scores.png", "settings.json"} <= {
        path.name for path in tmp_path.iterdir()
    }
    assert "stamp names no slides that it was trained on" in (tmp_path / "table.md").read_text()


def test_the_probe_leaves_out_slides_and_notes_what_folds_share(labeled, model, tmp_path):
    scores = run("probe", labeled, ["A1", "A2", "B1"], model, tmp_path, "--label-key", "region")
    accuracy = scores[scores["metric"] == "balanced_accuracy"].pivot(
        index="slide", columns="method", values="value"
    )
    assert list(accuracy.index) == ["A1", "A2", "B1"]
    assert {"PCA", "PCA, the paper's probe", "STAMP_G, the paper's probe"} <= set(accuracy)
    assert accuracy["PCA"].min() > 0.7, "the classes are in the counts, the same on all slides"
    text = (tmp_path / "table.md").read_text()
    assert "A1: patient A is in training, too" in text and "B1: patient" not in text
    assert (tmp_path / "confusion PCA.png").exists()
    assert (tmp_path / "confusion PCA, the paper's probe.png").exists()


def test_patients_are_left_out_whole_each_by_a_model_of_its_own(
    labeled, model, tmp_path, monkeypatch
):
    opened = []
    monkeypatch.setattr(
        slides, "open_model", lambda path: opened.append(path) or GeneEncoder.from_pretrained(path)
    )
    pattern = model.parent / "without_{patient}"
    more = ("--label-key", "region", "--by", "patient", "--test", "A1", "B1")
    scores = run("probe", labeled, ["A1", "A2", "B1"], pattern, tmp_path, *more)
    assert set(scores["slide"]) == {"A1", "B1"}
    assert [path.rsplit("_", 1)[1] for path in opened] == ["A", "B"]
    assert "is in training, too" not in (tmp_path / "table.md").read_text()


def test_a_single_slide_has_five_folds(labeled, model, tmp_path):
    for folds in ("random", "blocks"):
        scores = run(
            "probe",
            labeled,
            ["C1"],
            model.parent / "without_A",
            tmp_path,
            "--label-key",
            "region",
            "--folds",
            folds,
        )
        assert scores["slide"].nunique() == 5
        assert "C1: the only slide" in (tmp_path / "table.md").read_text()


def test_expression_is_predicted_next_to_baselines(labeled, model, tmp_path):
    scores = run(
        "expression",
        labeled,
        ["A1", "A2", "B1", "D1"],
        model,
        tmp_path,
        "--genes",
        "10",
        "--test",
        "A1",
    )
    wide = scores.pivot(index="method", columns="metric", values="value")
    assert set(wide.index) == set(predictions.METHODS)
    assert wide.loc["mean profile", "PCC-V"] == 0
    assert wide["MSE"].notna().all() and "PCC-V, chosen on test" in wide
    text = (tmp_path / "table.md").read_text()
    assert "D1 has no image and is left out" in text and "A1: patient A is in training, too" in text


@pytest.mark.parametrize(
    ("names", "more", "error", "message"),
    [
        (
            ["A1", "B1"],
            ["--label-key", "layer"],
            KeyError,
            r"1 has no obs\['layer'\]; choose --label-key from",
        ),
        (
            ["A1", "B1"],
            ["--label-key", "one"],
            ValueError,
            "has fewer than two classes of enough spots",
        ),
        (["A1", "A1"], ["--label-key", "region"], ValueError, "would be on both sides of a split"),
        (
            ["A1", "A2"],
            ["--label-key", "region", "--by", "patient"],
            ValueError,
            "all slides are of patient A",
        ),
        (
            ["A1", "B1"],
            ["--label-key", "region", "--test", "Z9"],
            ValueError,
            r"no slide \['Z9'\]; choose --test from",
        ),
    ],
    ids=["no label", "one class", "slide twice", "one patient", "unknown slide"],
)
def test_what_cannot_be_scored_raises_an_error(
    labeled, model, tmp_path, names, more, error, message
):
    with pytest.raises(error, match=message):
        run("probe", labeled, names, model, tmp_path, *more)
    assert not (tmp_path / "scores.csv").exists()


def test_a_slide_in_both_sides_raises_an_error(labeled):
    both = slides.read_sections([labeled / "A1.zarr", labeled / "B1.zarr"], "patient")
    with pytest.raises(ValueError, match="slide B1 is on both sides of the split"):
        leakage.find_leaks(both, both[1:])


def test_copies_of_training_slides_are_noted(labeled, tmp_path):
    one, other = slides.read_sections([labeled / "A1.zarr", labeled / "B1.zarr"], "patient")
    assert leakage.find_leaks([one], [other]) == []
    shutil.copytree(labeled / "A1.zarr", tmp_path / "copy.zarr")
    copied = slides.Section("copy", "Z", spatialdata.read_zarr(tmp_path / "copy.zarr"))
    assert leakage.find_leaks([other, one], [copied]) == [
        "copy: equal counts with A1 of training, share 100% (100 equal spots on 32 shared genes)",
        "copy: equal image with A1 of training, share 100% (all pixels of the coarser level are "
        "equal)",
    ]


def test_slides_and_patients_that_the_model_saw_at_any_stage_are_noted(
    labeled, vocabulary, tmp_path
):
    size = GeneEncoderConfig(context_length=16, width=16, depth=1, n_heads=2, ffn_width=16)
    config = PretrainConfig(phases=(Phase(batch_size=32),), min_genes=1)
    genes = pretrain(
        [labeled / "A1.zarr", labeled / "C1.zarr"],
        tmp_path / "genes",
        vocabulary=vocabulary,
        model=size,
        config=config,
    )
    backbone = {"patch_size": 4, "depth": 1, "embed_dim": 16, "num_heads": 2}
    image = ImageEncoderConfig("vit_tiny_patch16_224", backbone, image_size=16, um_per_px=7.0)
    config = AlignConfig(epochs=1, batch_size=32, accumulate=1, min_genes=1, projection_width=8)
    align(
        [labeled / "C1.zarr"],
        tmp_path / "stamp",
        validation=[labeled / "B1.zarr"],
        gene_encoder=genes,
        image_encoder=image,
        config=config,
    )
    tested = slides.read_sections(
        [labeled / f"{name}.zarr" for name in ("A1", "A2", "B1", "D1")], "patient"
    )
    notes = [
        "A1: model stamp was trained on this slide, so its scores are transductive",
        "A2: model stamp was trained on other slides of patient A",
        "B1: model stamp was trained on this slide, so its scores are transductive",
    ]
    assert leakage.seen_by_model(tmp_path / "stamp", tested, "patient") == notes
    (tmp_path / "stamp" / "training.json").unlink()
    assert leakage.seen_by_model(tmp_path / "stamp", tested, "patient") == notes, (
        "the card alone, as of a model shared"
    )
    (tmp_path / "stamp" / "config.json").write_text(
        '{"card": {"trained_on": ["pretrain: 9 spots of Z1.zarr"]}}'
    )
    assert leakage.seen_by_model(tmp_path / "stamp", tested, "patient") == [
        "model stamp was trained on Z1.zarr, too, whose patient is unknown"
    ]


def long(values):
    """Scores of one slide per patient."""
    rows = [
        ("m", f"{p}1", p, seed, "ari", value + seed / 100)
        for p, value in values.items()
        for seed in (-1, 1)
    ]
    return pd.DataFrame(rows, columns=["method", "slide", "patient", "seed", "metric", "value"])


def test_few_patients_are_shown_one_by_one_and_more_by_an_interval():
    few = tables.over_patients(long({"A": 0.1, "B": 0.3}), ["m", "absent"])
    assert few.loc["m", "ari"] == "0.200 (A 0.100, B 0.300; n = 2)"
    assert few.loc["absent", "ari"] == ""
    many = tables.over_patients(
        long(dict(zip("ABCDEF", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], strict=True))), ["m"]
    )
    assert many.loc["m", "ari"].startswith("0.350 [0.2") and many.loc["m", "ari"].endswith(
        "], n = 6"
    )
    low, high = tables.bootstrap(np.arange(100.0))
    assert low == pytest.approx(49.5 - 1.96 * 2.89, abs=0.5) and high == pytest.approx(
        49.5 + 1.96 * 2.89, abs=0.5
    )


def test_differences_are_paired_by_slide():
    ours, base = long({"A": 0.4, "B": 0.3}), long({"B": 0.2, "A": 0.1}).assign(method="PCA")
    paired = tables.differences(pd.concat([ours, base]), "PCA")["ari"]
    assert paired.to_dict() == pytest.approx({("m", "A", "A1"): 0.3, ("m", "B", "B1"): 0.1})


def test_the_papers_form_has_mean_and_deviation_over_slides():
    table = tables.paper_table(long({"A": 0.1, "B": 0.3}), ["m", "absent"])
    assert list(table.loc["m"]) == ["0.200 ± 0.141", 2]
    assert "| absent |  |  |" in tables.markdown(table)
