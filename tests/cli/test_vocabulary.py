import gzip

import pandas as pd
import pytest

import stp
from stp.cli.main import main
from stp.data.store import SpotStore
from stp.genes.gene_file import read_genes


@pytest.fixture
def collection(stores, tmp_path):
    table = pd.DataFrame(
        {
            "name": [path.stem for path in stores],
            "path": [str(path) for path in stores],
            "digest": [SpotStore(path).digest for path in stores],
            "split": ["train", "test", "train"],
        }
    )
    collection = stp.io.Collection(table, tmp_path)
    collection.write(tmp_path / "collection.parquet")
    return collection


def fit(folder, *arguments, out="human.parquet"):
    status = main(
        ["vocabulary", str(folder / "collection.parquet"), "--out", str(folder / out), *arguments]
    )
    assert status == 0
    return stp.Vocabulary.load(folder / out)


def test_means_are_of_the_training_side(collection, stores, tmp_path, capsys):
    vocabulary = fit(tmp_path)
    assert "The means are of the 2 of 3 stores with split = 'train'." in capsys.readouterr().out
    assert vocabulary.digest == stp.Vocabulary.default().fit([stores[0], stores[2]]).digest
    assert vocabulary.corpus == ("slide0.zarr", "slide2.zarr")
    assert vocabulary.collection == {
        "digest": collection.digest,
        "where": {"split": ["train"]},
        "n_stores": 2,
    }


def test_without_a_split_the_means_are_of_all_stores(collection, stores, tmp_path, capsys):
    del collection.table["split"]
    collection.write(tmp_path)
    vocabulary = fit(tmp_path)
    assert "no split, so the means are of all 3 stores" in capsys.readouterr().out
    assert vocabulary.digest == stp.Vocabulary.default().fit(stores).digest


def test_stores_of_other_species_are_left_out(collection, stores, tmp_path, capsys):
    collection.table["species"] = ["Homo sapiens", "human", "mouse"]
    collection.write(tmp_path)
    vocabulary = fit(tmp_path)
    assert "The genes are of human, which leaves out 1 store." in capsys.readouterr().out
    assert vocabulary.digest == stp.Vocabulary.default().fit([stores[0]]).digest
    assert vocabulary.collection["where"] == {"split": ["train"], "species": ["Homo sapiens"]}


def test_the_genes_of_a_file_are_fitted(collection, stores, tmp_path):
    default = stp.Vocabulary.default()
    is_in_stores = default.fit(stores).n_detected > 0
    genes = list(zip(default.gene_ids[is_in_stores], default.symbols[is_in_stores], strict=True))
    rows = [f"{gene_id}\t{symbol}\tGene Expression" for gene_id, symbol in genes]
    rows.append("CD3\tCD3\tAntibody Capture")
    with gzip.open(tmp_path / "features.tsv.gz", "wt") as file:
        file.write("\n".join(rows))
    vocabulary = fit(tmp_path, "--genes", str(tmp_path / "features.tsv.gz"))
    assert vocabulary.gene_ids.tolist() == [gene_id for gene_id, _ in genes]
    expected = stp.Vocabulary.from_genes(*zip(*genes, strict=True)).fit([stores[0], stores[2]])
    assert vocabulary.digest == expected.digest
    again = fit(tmp_path, "--genes", str(tmp_path / "human.parquet"), out="again.parquet")
    assert again.digest == vocabulary.digest


@pytest.mark.parametrize(
    "text",
    [
        "ENSMUSG00000029580.3\tActb\nENSMUSG00000057666\tGapdh\n",
        "gene_id,symbol\nENSMUSG00000029580,Actb\n\nENSMUSG00000057666,Gapdh\n",
        "# genes\nENSMUSG00000029580, Actb\r\nENSMUSG00000057666, Gapdh\r\n",
    ],
)
def test_genes_are_read_from_tables(text, tmp_path):
    (tmp_path / "genes.txt").write_text(text)
    vocabulary = read_genes(tmp_path / "genes.txt")
    assert vocabulary.gene_ids.tolist() == ["ENSMUSG00000029580", "ENSMUSG00000057666"]
    assert vocabulary.symbols.tolist() == ["Actb", "Gapdh"]
    assert vocabulary.species == "mouse"


def test_ids_alone_are_enough(tmp_path):
    (tmp_path / "genes.txt").write_text("ENSMUSG00000029580\nENSMUSG00000057666\n")
    assert read_genes(tmp_path / "genes.txt").symbols.tolist() == ["", ""]


def test_a_file_that_is_no_vocabulary_is_not_replaced(collection, tmp_path, capsys):
    before = (tmp_path / "collection.parquet").read_bytes()
    with pytest.raises(SystemExit, match="2"):
        fit(tmp_path, out="collection.parquet")
    assert "is no vocabulary, so it is not replaced" in capsys.readouterr().err
    assert (tmp_path / "collection.parquet").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--genes", "nowhere.txt"], "there is no file nowhere.txt"),
        (["--workers", "0"], "--workers must be positive, not 0"),
        (["--workers", "2", "--scheduler", "tcp://x:1"], "--scheduler or --workers, not both"),
        (["--table-key", "bins"], "table 'bins'"),
    ],
)
def test_wrong_options_are_one_line(collection, tmp_path, arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        fit(tmp_path, *arguments)
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "human.parquet").exists()


def test_empty_gene_files_are_refused(tmp_path):
    (tmp_path / "genes.txt").write_text("gene_id\n")
    with pytest.raises(ValueError, match="has no genes"):
        read_genes(tmp_path / "genes.txt")
    (tmp_path / "genes.gz").write_text("no gzip")
    with pytest.raises(ValueError, match="is no table of genes"):
        read_genes(tmp_path / "genes.gz")
