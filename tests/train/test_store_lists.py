import json
import warnings

import pandas as pd
import pytest
import zarr

import stp
from stp.cli.recipe import read_recipe
from stp.data.store import SpotStore
from stp.io import from_anndata, write_store

GENE = stp.models.GeneEncoderConfig(context_length=16, width=16, depth=1, n_heads=2, ffn_width=16)
CONFIG = stp.train.PretrainConfig(
    phases=(stp.train.Phase(batch_size=16),), min_genes=1, device="cpu"
)


@pytest.fixture
def collection(stores):
    table = pd.DataFrame(
        {
            "name": [path.stem for path in stores],
            "path": [path.name for path in stores],
            "digest": [SpotStore(path).digest for path in stores],
            "patient": ["A", "B", "A"],
            "organ": ["breast", "breast", "lung"],
            "split": ["train", "train", "validation"],
        }
    )
    return stp.io.Collection(table, stores[0].parent)


def pretrain(stores, folder, vocabulary, validation=()):
    return stp.train.pretrain(
        stores, folder, vocabulary=vocabulary, model=GENE, config=CONFIG, validation=validation
    )


def settings_of(folder):
    return json.loads((folder / "training.json").read_text())


def test_a_collection_trains_as_the_list_of_its_stores(collection, stores, vocabulary, tmp_path):
    part = collection.select({"organ": "breast"}, split="train")
    model = pretrain(part, tmp_path / "a", vocabulary)
    expected = pretrain(stores[:2], tmp_path / "b", vocabulary)
    assert model.digest == expected.digest
    settings = settings_of(tmp_path / "a")
    assert settings["stores"] == settings_of(tmp_path / "b")["stores"]
    where = {"organ": ["breast"], "split": ["train"]}
    record = {"digest": collection.digest, "where": where, "n_stores": 2}
    assert settings["collections"] == {"train": record}
    assert "collections" not in settings_of(tmp_path / "b")
    (line,) = model.card.trained_on
    assert f"2 stores of the collection {collection.digest[:12]} (organ: breast; split: tr" in line
    assert "slide0.zarr, slide1.zarr" in line
    # A run goes on with the same stores from a list.
    assert pretrain(stores[:2], tmp_path / "a", vocabulary).digest == model.digest


def test_patients_on_both_sides_are_named(collection, vocabulary, tmp_path):
    train = collection.select(split="train")
    with pytest.warns(UserWarning, match=r"of one patient are trained on and validated with \(A\)"):
        pretrain(train, tmp_path, vocabulary, validation=collection.select(split="validation"))


def test_patients_of_stores_in_lists_are_named(slide_of, vocabulary, tmp_path):
    paths = []
    for seed, patient in enumerate(["A", "B", "A"]):
        adata, image = slide_of(seed)
        adata.obs["patient"] = pd.Categorical([patient] * adata.n_obs)
        paths.append(tmp_path / f"{seed}.zarr")
        write_store(from_anndata(adata, image, um_per_px=1.0), paths[-1], patch_um_per_px=4.0)
    assert SpotStore(paths[1]).patients == {"B"}
    zarr.open_group(paths[1]).attrs["stp_metadata"] = {"patient": "C"}
    assert SpotStore(paths[1]).patients == {"C"}
    with pytest.warns(UserWarning, match=r"validated with \(A\)"):
        pretrain(paths[:1], tmp_path / "run", vocabulary, validation=paths[2:])
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="stores of one patient")
        pretrain(paths[:1], tmp_path / "other", vocabulary, validation=paths[1:2])


def test_a_split_that_is_not_used_is_noticed(collection, vocabulary, tmp_path):
    with pytest.warns(UserWarning, match=r"all sides are trained on \(train: 2, validation: 1\)"):
        pretrain(collection, tmp_path, vocabulary)


def test_stores_with_a_problem_are_not_trained_on(collection, vocabulary, tmp_path):
    collection.table["problem"] = ["", "few genes", ""]
    with pytest.warns(UserWarning, match=r"1 of 2 stores are left out.*1 store: few genes") as seen:
        pretrain(collection.select(split="train"), tmp_path, vocabulary)
    assert sum("left out" in str(warning.message) for warning in seen) == 1
    assert len(settings_of(tmp_path)["stores"]) == 1


def test_stores_that_were_written_anew_stop_training_before_work(collection, vocabulary, tmp_path):
    collection.table.loc[1, "digest"] = "0" * 64
    with pytest.raises(ValueError, match="slide1 was written anew after the table was made"):
        pretrain(collection, tmp_path / "run", vocabulary)
    assert not (tmp_path / "run").exists()


def test_the_path_of_a_table_is_not_a_list(vocabulary, tmp_path):
    with pytest.raises(TypeError, match=r"pass stp\.io\.read_collection\(path\)"):
        pretrain("stores/collection.parquet", tmp_path, vocabulary)


def test_features_of_a_collection_are_trained_on(slide_of, stamp, tmp_path):
    rows = []
    for seed, patient in enumerate("AAB"):
        adata, image = slide_of(seed)
        path = tmp_path / f"slide{seed}.zarr"
        write_store(from_anndata(adata, image, um_per_px=1.0), path, patch_um_per_px=4.0)
        rows.append([path.stem, path.name, SpotStore(path).digest, patient])
    table = pd.DataFrame(rows, columns=["name", "path", "digest", "patient"])
    collection = stp.io.Collection(table, tmp_path)
    assert stp.io.embed_stores(collection, stamp, manifest=tmp_path / "embedded.jsonl") == 0
    train = collection.select({"name": ["slide0", "slide2"]})
    config = stp.train.AdaptConfig(epochs=1, batch_size=8, device="cpu")
    with pytest.warns(UserWarning, match=r"validated with \(A\)"):
        model = stp.train.adapt(
            train,
            tmp_path / "adapted",
            model=stamp,
            config=config,
            validation=collection.select({"name": "slide1"}),
        )
    records = settings_of(tmp_path / "adapted")["collections"]
    assert records["validation"]["where"] == {"name": ["slide1"]}
    assert train.describe() in model.card.trained_on[-1]
    genes = list(slide_of(0)[0].var_names[:3])
    head_config = stp.train.RegressionConfig(epochs=1, batch_size=8, device="cpu")
    head = stp.train.fit_expression_head(train, tmp_path / "head", genes=genes, config=head_config)
    assert train.describe() in head.card.trained_on[-1]
    collection.table.loc[0, "digest"] = "0" * 64
    with pytest.raises(ValueError, match="slide0 was written anew"):
        stp.io.embed_stores(collection, stamp, manifest=tmp_path / "embedded.jsonl")
    with pytest.raises(ValueError, match="slide0 was written anew"):
        stp.train.adapt(collection, tmp_path / "new", model=stamp, config=config)


RECIPE = """
stores = {collection = "collection.parquet", where = {organ = ["breast"]}, split = "train"}
validation = {collection = ".", split = "validation"}
output_dir = "out"
"""


@pytest.fixture
def recipe(collection, stores, tmp_path):
    collection.table["path"] = [str(path) for path in stores]
    stp.io.Collection(collection.table, tmp_path).write(tmp_path)

    def read(text):
        (tmp_path / "recipe.toml").write_text(text)
        return read_recipe(tmp_path / "recipe.toml", "pretrain").keywords

    return read


def test_a_recipe_selects_from_a_collection(recipe, stores):
    arguments = recipe(RECIPE)
    assert list(arguments["stores"]) == stores[:2]
    assert list(arguments["validation"]) == stores[2:]
    expected = stp.Vocabulary.default().fit(stores[:2])
    assert arguments["vocabulary"].digest == expected.digest
    assert arguments["vocabulary"].collection["where"] == {"organ": ["breast"], "split": ["train"]}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("where =", "were =", r"stores has unknown keys \['were'\] \(did you mean 'where'\?\)"),
        ('collection = ".", ', "", "validation is a table without a collection"),
        ('["breast"]', '"brest"', r"'brest' in 'organ' \(did you mean 'breast'\?\)"),
        ('{organ = ["breast"]}', '"breast"', "where must be a table, not 'breast'"),
        ('split = "train"', 'split = "trian"', "did you mean 'train'"),
        ('split = "train"', "split = 1", "split must be str, not 1"),
        ("collection.parquet", "nowhere.parquet", "there is no collection at"),
    ],
)
def test_wrong_tables_of_a_recipe_are_refused(recipe, old, new, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        recipe(RECIPE.replace(old, new))
