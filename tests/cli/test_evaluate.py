"""`stp evaluate`: scores equal those of the public functions, and leaks are refused."""

import json
import re
import shutil

import numpy as np
import pytest
import spatialdata
from sklearn.metrics import balanced_accuracy_score
from tests.evaluations import LABEL, edit_collection, write_case
from tests.slides import make_slide

import stp
from stp.cli.main import main
from stp.data.store import SpotStore


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_case(tmp_path_factory.mktemp("evaluation"))


@pytest.fixture(scope="module")
def report(file):
    """Evaluate the Stamp with labels, once, and return the JSON file."""
    out = file.with_name("report.json")
    arguments = ["--out", file.with_name("report.html"), "--json", out, "--label", LABEL]
    assert evaluate(file, *arguments, "--max-spots", 70) == 0
    return out


@pytest.fixture(scope="module")
def result(report):
    return json.loads(report.read_text())


@pytest.fixture(scope="module")
def tables(file, result):
    """Embed the spots that were used, by the public functions."""
    model = stp.models.Stamp.from_pretrained(file.with_name("stamp"))
    tables = {}
    for number, store in enumerate(result["stores"]):
        sdata = spatialdata.read_zarr(file.with_name(f"{store['name']}.zarr"))
        order = np.random.default_rng([0, number]).permutation(sdata.tables["table"].n_obs)
        table = sdata.tables["table"][np.sort(order[:70])].copy()
        sdata.tables["table"] = table
        stp.tl.tokenize(sdata, model)
        stp.tl.embed_genes(sdata, model, progress=False)
        stp.tl.embed_images(sdata, model, progress=False)
        stp.tl.fuse(sdata)
        tables[store["name"]] = table
    return tables


def evaluate(file, *arguments, model=None):
    model = model or file.with_name("stamp")
    return main(["evaluate", str(file), "--model", str(model), *map(str, arguments)])


def refuse(capsys, file, *arguments, **options):
    """Return the error of a call that must fail before it writes anything."""
    out = file.with_name("refused.html")
    with pytest.raises(SystemExit, match="2"):
        evaluate(file, "--out", out, *arguments, **options)
    assert not out.exists()
    return capsys.readouterr().err


def scores(result, part, method, slide=None):
    """Return the scores of a method on a slide, or their means."""
    rows = result["scores"][part]["slides" if slide else "means"]
    return next(r for r in rows if r["method"] == method and (slide or r["n_slides"]) in r.values())


def test_retrieval_is_that_of_the_public_function(result, tables):
    for slide in ("c0", "d0"):
        stp.tl.score_retrieval(tables[slide])
        expected = tables[slide].uns["stp_retrieval_scores"]["scores"]
        for k in (1, 5, 10):
            name = f"recall_at_{k}"
            assert scores(result, "retrieval", "retrieval", slide)[name] == pytest.approx(
                expected[f"recall@{k}"], abs=1e-9
            )
            assert scores(result, "retrieval", "chance", slide)[name] == pytest.approx(k / 70)


def test_expression_is_that_of_the_public_functions(result, tables):
    references = [tables["a0"], tables["b0"]]
    genes = list(tables["a0"].var_names)
    for slide in ("c0", "d0"):
        table = tables[slide]
        for method, predict, rep in (
            ("expression_by_retrieval", stp.tl.predict_expression, "X_stp_images_aligned"),
            ("ridge_on_images", stp.tl.regress_expression, "X_stp_images"),
        ):
            predict(table, references, genes=genes, use_rep=rep)
            stp.tl.score_expression(table, references)
            expected = table.uns["stp_expression_scores"]["scores"]
            found = scores(result, "expression", method, slide)
            assert found["pcc_v"] == pytest.approx(expected["PCC-V"], abs=1e-4)
            assert found["pcc_e"] == pytest.approx(expected["PCC-E"], abs=1e-4)
            assert found["mse"] == pytest.approx(expected["MSE"], rel=1e-4)
        assert scores(result, "expression", "mean_profile", slide)["pcc_v"] == 0
    means = scores(result, "expression", "ridge_on_images")
    rows = [scores(result, "expression", "ridge_on_images", slide) for slide in ("c0", "d0")]
    assert means["mse"] == pytest.approx(np.mean([row["mse"] for row in rows]))
    assert not any(row["method"] == "position" for row in result["scores"]["expression"]["means"])


def test_the_probe_is_that_of_the_public_function(result, tables):
    for name, table in tables.items():
        table.obs["group"] = name if name in ("a0", "b0") else "scored"
        table.obs["slide"] = name
    joined = stp.get.concat(list(tables.values()))
    joined.obs.loc[joined.obs[LABEL] == "", LABEL] = None
    for method, rep in (("genes", "X_stp_genes"), ("fused", "X_stp_fused")):
        stp.tl.linear_probe(joined, LABEL, group_key="group", use_rep=rep)
        for slide in ("c0", "d0"):
            obs = joined.obs[(joined.obs["slide"] == slide) & joined.obs[LABEL].notna()]
            expected = balanced_accuracy_score(obs[LABEL], obs["stp_probe"].astype(str))
            found = scores(result, "linear_probe", method, slide)
            assert found["balanced_accuracy"] == pytest.approx(expected, abs=0.02)
            assert found["n_spots"] == len(obs)
            constant = scores(result, "linear_probe", "largest_class", slide)
            assert constant["balanced_accuracy"] == 0.5
    notes = " ".join(result["scores"]["linear_probe"]["notes"])
    train = joined.obs.loc[joined.obs["group"] != "scored", LABEL].value_counts()
    assert f"stroma ({train['stroma']})" in notes and f"tumor ({train['tumor']})" in notes


def test_json_and_report_have_the_same_numbers(file, result):
    page = file.with_name("report.html").read_text()
    titles = {"retrieval": 3, "expression": 4, "linear_probe": 2, "clusters": 4}
    assert list(result["scores"]) == list(titles)
    shown = iter(re.findall(r'class="number"><span class="who">[^<]*</span>(?:<b>)?([^<]*)', page))
    for part, n_metrics in titles.items():
        for level, count in (("means", "n_slides"), ("slides", "n_spots")):
            for row in result["scores"][part][level]:
                values = list(row.values())[-n_metrics:]
                assert [next(shown) for _ in values] == [f"{value:.3f}" for value in values]
                assert next(shown) == f"{row[count]:,}"
    kinds = {row["kind"] for part in result["scores"].values() for row in part["means"]}
    assert kinds == {"model", "baseline"}


def test_what_decides_the_numbers_is_recorded(file, result):
    collection = stp.io.read_collection(file)
    stamp = stp.models.Stamp.from_pretrained(file.with_name("stamp"))
    assert result["model"] == {"name": "stamp", "class": "Stamp", "digest": stamp.digest}
    assert result["collection"] == collection.digest
    assert [(s["name"], s["side"]) for s in result["stores"]] == [
        ("a0", "train"),
        ("b0", "train"),
        ("c0", "test"),
        ("d0", "test"),
    ]
    assert [store["n_spots_left_out"] for store in result["stores"]] == [30] * 4
    assert any("120 spots of 4 slides: max_spots is 70" in line for line in result["left_out"])
    assert result["settings"]["seed"] == 0
    page = file.with_name("report.html").read_text()
    for text in (stamp.digest, collection.digest, *result["left_out"], *result["not_checked"]):
        assert text in page.replace("&#x27;", "'")
    assert result["leaks"] == []
    assert "does not record its training slides" in " ".join(result["not_checked"])


def test_stores_are_not_changed(file, result):
    for name in ("a0", "c0"):
        table = spatialdata.read_zarr(file.with_name(f"{name}.zarr")).tables["table"]
        assert "X_stp_genes" not in table.obsm
    stp.io.read_collection(file).check_stores()


def test_a_collection_without_a_split_is_refused(file, capsys):
    new = edit_collection(file, file.with_name("no_split.parquet"), split=None)
    assert "`stp split` makes one" in refuse(capsys, new)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "tset"], "no row has 'tset' in 'split' (did you mean 'test'?)"),
        (["--split", "train"], "has the references, so it cannot be scored"),
        (["--label", "regon"], "has obs['regon'] (did you mean 'region'?)"),
        (["--label", "tissue"], "has 1 classes on the side 'train'"),
        (["--by", "donor"], "no column 'donor'"),
        (["--max-spots", "0"], "max_spots must be positive, not 0"),
        (["--json", "scores.parquet"], "does not end in .json"),
        (["--json", "nowhere/scores.json"], "there is no folder nowhere"),
    ],
)
def test_wrong_options_are_refused(file, arguments, message, capsys):
    assert message in refuse(capsys, file, *arguments)


def test_a_patient_on_both_sides_is_refused(file, capsys):
    new = edit_collection(
        file, file.with_name("patients.parquet"), patient=["A", "B", "A", "D", ""]
    )
    error = refuse(capsys, new)
    assert "- Patient A on both sides: 'train' and 'test'." in error
    assert "--allow-leaks" in error


def test_a_slide_that_trained_the_model_is_refused(file, capsys):
    digests = stp.io.read_collection(file).table.set_index("name")["digest"]
    patients = ["A", "B", "C", "D", "D"]
    new = edit_collection(file, file.with_name("seen.parquet"), patient=patients)
    folder = copy_stamp(file, "trained")
    settings = {"stage": "align", "stores": [digests["a0"], digests["c0"]], "validation": []}
    (folder / "training.json").write_text(json.dumps(settings))
    assert "- c0: the model was trained on this slide" in refuse(capsys, new, model=folder)
    settings["stores"] = [digests["a0"], digests["e0"]]
    (folder / "training.json").write_text(json.dumps(settings))
    error = refuse(capsys, new, model=folder)
    assert "- d0: the model has seen other slides of patient D." in error
    assert "c0" not in error


def test_a_patient_is_recognized_by_a_training_store_outside_the_collection(file, capsys):
    adata, image = make_slide(40)
    adata.obs["patient"] = "C"
    path = file.with_name("elsewhere.zarr")
    sdata = stp.io.from_anndata(adata, image, um_per_px=1.0, name="elsewhere")
    stp.io.write_store(sdata, path, patch_um_per_px=4.0)
    settings = {
        "stage": "align",
        "stores": [SpotStore(path).digest],
        "validation": [],
        "paths": {"stores": [str(path)], "validation": []},
    }
    folder = copy_stamp(file, "outside")
    (folder / "training.json").write_text(json.dumps(settings))
    assert "- c0: the model has seen other slides of patient C." in refuse(
        capsys, file, model=folder
    )


def test_a_slide_that_the_card_names_is_refused(file, capsys):
    line = "pretrain: 90 spots of a0.zarr, b0.zarr; weights chosen on 99 spots of d0.zarr"
    folder = copy_stamp(file, "named", line)
    error = refuse(capsys, file, model=folder)
    assert "- d0: the card of the model names d0.zarr as a training store." in error
    assert "c0" not in error


def test_near_duplicates_on_both_sides_are_refused(file, capsys):
    copy = file.with_name("copy.zarr")
    sdata = spatialdata.read_zarr(file.with_name("a0.zarr"))
    sdata.tables["table"] = sdata.tables["table"][:90].copy()
    stp.io.write_store(sdata, copy, patch_um_per_px=4.0)
    table = stp.io.read_collection(file).table
    paths = [*table["path"][:2], "copy.zarr", *table["path"][3:]]
    digests = [*table["digest"][:2], SpotStore(copy).digest, *table["digest"][3:]]
    new = edit_collection(file, file.with_name("copies.parquet"), path=paths, digest=digests)
    error = refuse(capsys, new)
    assert "copy.zarr and a0.zarr of 'train': equal counts" in error


def test_leaks_are_scored_only_if_asked_and_shown(file, capsys):
    new = edit_collection(
        file,
        file.with_name("allowed.parquet"),
        patient=["A", "B", "A", "D", "E"],
        split=["train", "validation", "test", "validation", "validation"],
    )
    out = file.with_name("allowed.html")
    arguments = ["--allow-leaks", "--no-duplicates", "--max-spots", "30"]
    assert evaluate(new, "--out", out, "--json", *arguments) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["leaks"] == [
        "Patient A on both sides: 'train' and 'test'.",
        "c0: the model has seen other slides of patient A.",
    ]
    assert "Near-duplicates between the sides were not searched." in result["not_checked"]
    assert set(result["scores"]) == {"retrieval", "expression"}
    assert "pass --label" in " ".join(result["not_evaluated"])
    methods = [row["method"] for row in result["scores"]["expression"]["means"]]
    assert methods[-2:] == ["mean_profile", "position"]
    assert "These leaks were found, so scores are too good" in out.read_text()


def test_an_encoder_of_genes_is_scored_by_labels(file, capsys):
    stamp = stp.models.Stamp.from_pretrained(file.with_name("stamp"))
    folder = file.with_name("genes")
    stamp.gene_encoder.save_pretrained(folder)
    error = refuse(capsys, file, model=folder)
    assert "reads no images, so it is evaluated by labels alone; pass --label" in error
    arguments = ["--json", "--label", LABEL, "--no-duplicates", "--max-spots", 40]
    assert evaluate(file, "--out", file.with_name("g.html"), *arguments, model=folder) == 0
    result = json.loads(capsys.readouterr().out)
    methods = [row["method"] for row in result["scores"]["clusters"]["means"]]
    assert list(result["scores"]) == ["linear_probe", "clusters"]
    assert methods == ["genes", "components_of_expression"]
    assert [line.partition(":")[0] for line in result["not_evaluated"]] == [
        "Retrieval",
        "Expression",
    ]


def test_an_encoder_of_images_is_scored_by_regression(file, capsys):
    stamp = stp.models.Stamp.from_pretrained(file.with_name("stamp"))
    folder = file.with_name("images")
    stamp.image_encoder.save_pretrained(folder)
    arguments = ["--json", "--no-duplicates", "--max-spots", 40]
    assert evaluate(file, "--out", file.with_name("i.html"), *arguments, model=folder) == 0
    result = json.loads(capsys.readouterr().out)
    assert list(result["scores"]) == ["expression"]
    methods = [row["method"] for row in result["scores"]["expression"]["means"]]
    assert methods == ["ridge_on_images", "ridge_on_color_and_texture", "mean_profile"]


def copy_stamp(file, name, *trained_on):
    """Copy the Stamp, with other lines in its card."""
    folder = file.with_name(name)
    shutil.copytree(file.with_name("stamp"), folder)
    if trained_on:
        config = json.loads((folder / "config.json").read_text())
        config["card"]["trained_on"] = trained_on
        (folder / "config.json").write_text(json.dumps(config))
    return folder
