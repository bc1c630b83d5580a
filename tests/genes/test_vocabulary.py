import csv
import gzip
import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

import stp.genes.vocabulary
from stp.genes.special_tokens import MASK_ID, N_SPECIAL, PAD, PAD_ID
from stp.genes.vocabulary import Vocabulary

MITOCHONDRIAL = {
    "MT-ND1": "ENSG00000198888",
    "MT-ND2": "ENSG00000198763",
    "MT-ND3": "ENSG00000198840",
    "MT-ND4": "ENSG00000198886",
    "MT-ND4L": "ENSG00000212907",
    "MT-ND5": "ENSG00000198786",
    "MT-ND6": "ENSG00000198695",
    "MT-CO1": "ENSG00000198804",
    "MT-CO2": "ENSG00000198712",
    "MT-CO3": "ENSG00000198938",
    "MT-ATP6": "ENSG00000198899",
    "MT-ATP8": "ENSG00000228253",
    "MT-CYB": "ENSG00000198727",
}


@pytest.fixture(scope="module")
def human():
    return Vocabulary.default()


@pytest.fixture
def small():
    aliases = {"OLD": ("G2",), "BOTH": ("G1", "G3"), "B": ("G3",), "G1": ("G2",)}
    return Vocabulary(["G1", "G2", "G3"], ["A", "B", ""], aliases=aliases)


def genes_of(vocabulary, names):
    return [vocabulary.gene_ids[i] if i >= 0 else None for i in vocabulary.encode(names)]


def test_default_ids_ascend_and_are_unique(human):
    ids = human.gene_ids.tolist()
    assert all(before < after for before, after in zip(ids, ids[1:], strict=False))
    assert all(len(gene) == 15 and gene.startswith("ENSG") and gene[4:].isdigit() for gene in ids)
    assert 19_000 < len(human) < 21_000
    assert human.means is None
    file = Path(stp.genes.vocabulary.__file__).with_name("human_genes.parquet")
    assert file.stat().st_size < 1_000_000
    assert len(repr(human)) < 120


def test_default_symbols_are_known_and_unique(human):
    assert "" not in human.symbols
    assert len(set(human.symbols)) == len(human)
    assert human.encode(human.symbols).tolist() == list(range(len(human)))
    assert human.encode(human.gene_ids).tolist() == list(range(len(human)))


def test_mitochondrial_genes_have_the_names_of_hgnc(human):
    assert genes_of(human, MITOCHONDRIAL) == list(MITOCHONDRIAL.values())
    assert {symbol for symbol in human.symbols if symbol.startswith("MT-")} == set(MITOCHONDRIAL)


def test_mitochondrial_aliases_only_where_unambiguous(human):
    # COX1 and COX3 are also aliases of PTGS1, COX2 of PTGS2, ND1 of IVNS1ABP.
    assert genes_of(human, ["COX1", "COX2", "COX3", "ND1"]) == [None] * 4
    assert genes_of(human, ["MTCO1", "CYTB", "ND4L"]) == [
        MITOCHONDRIAL[s] for s in ("MT-CO1", "MT-CYB", "MT-ND4L")
    ]
    assert genes_of(human, ["PTGS1", "PTGS2"]) == ["ENSG00000095303", "ENSG00000073756"]


def test_default_encodes(human):
    expected = {
        "ERBB2": "ENSG00000141736",
        "ENSG00000141736": "ENSG00000141736",
        "ENSG00000141736.14": "ENSG00000141736",
        "HER2": "ENSG00000141736",
        "ATP5E": "ENSG00000124172",  # previous symbol
        "GBA": "ENSG00000177628",  # a pseudogene has the same alias
        "ENSG00000285053": "ENSG00000284770",  # second id of TBCE
        "ENSG00000288701.1": "ENSG00000130723",  # later id of PRRC2B
        "AR": "ENSG00000169083",  # an alias of AREG
        "TAZ": "ENSG00000102125",  # an alias of TAFAZZIN and WWTR1; the former bore it
        "SHFM1": None,  # an alias of DLX5 and SEM1
        "XIST": None,  # not coding
        "erbb2": None,  # the right spelling, ERBB2, is here too
        "krt18": "ENSG00000111057",
        "ERBB2.1": "ENSG00000141736",  # a second ERBB2, made unique
        "KRT8.1": None,  # only ids have versions, and there is no KRT8 here
        "": None,
    }
    assert dict(zip(expected, genes_of(human, expected), strict=True)) == expected
    assert set(human.aliases["SHFM1"]) == {"ENSG00000105880", "ENSG00000127922"}


@pytest.mark.parametrize("name", ["GRCh38-3.0.0_features_33538", "GRCh38-2020-A_features_36601"])
def test_default_agrees_with_10x_references(human, real, name):
    with gzip.open(real("genes", f"tenx_{name}.tsv.gz"), "rt") as file:
        rows = [row[:2] for row in csv.reader(file, delimiter="\t") if row[0].startswith("ENSG")]
    ids, symbols = zip(*rows, strict=True)
    by_id = human.encode(ids)
    by_symbol = human.encode(symbols)
    has_gene = by_id >= 0
    own = np.isin(ids, human.gene_ids.astype(str))
    assert has_gene.sum() > 19_250
    assert own[has_gene].mean() >= 0.98
    assert (human.symbols[by_id[own]] == np.array(symbols, object)[own]).mean() > 0.96
    assert (by_symbol[own] == by_id[own]).mean() > 0.99
    # Names that moved to another gene between Ensembl 93 and NCBI's 2022: HSPA14, LRTOMT, ...
    assert (own & (by_symbol >= 0) & (by_symbol != by_id)).sum() <= 5


def test_default_knows_the_hallmark_genes(human, real):
    lines = real("genesets", "hallmark_v7.0_46of50sets.gmt").read_text().splitlines()
    names = sorted({name for line in lines for name in line.split("\t")[2:]})
    assert (human.encode(names) >= 0).mean() > 0.99


def test_default_covers_a_breast_tumor(human, real):
    adata = anndata.read_h5ad(real("her2st", "C4.h5ad"))
    total = np.asarray(adata.X.sum(axis=0)).ravel()
    has_gene = human.encode(adata.var_names) >= 0
    assert total[has_gene].sum() / total.sum() > 0.99
    assert has_gene[np.argsort(-total)[:100]].mean() > 0.98


def test_ids_beat_symbols_and_symbols_beat_aliases(small):
    assert small.encode(["G1", "B", "OLD"]).tolist() == [0, 1, 1]


def test_unknown_and_ambiguous_names_stay_unmapped(small):
    encoded = small.encode(np.array(["BOTH", "A", "nothing", ""]))
    assert encoded.tolist() == [-1, 0, -1, -1]
    assert encoded.dtype == np.int64
    assert Vocabulary.from_genes(["G1", "G2"], ["A", "A"]).encode(["A", "G2"]).tolist() == [-1, 1]


def test_from_genes_keeps_order_and_strips_versions():
    vocabulary = Vocabulary.from_genes(
        ["ENSMUSG00000029580.15", "WBGene00000001", "ENSG00000141736.1"]
    )
    assert vocabulary.gene_ids.tolist() == [
        "ENSMUSG00000029580",
        "WBGene00000001",
        "ENSG00000141736",
    ]
    assert vocabulary.encode(["ENSMUSG00000029580.3", "WBGene00000001.3"]).tolist() == [0, -1]


def test_tokens_fit_into_uint16(small):
    assert (PAD, MASK_ID, PAD_ID, N_SPECIAL) == (0, 0, 1, 30)
    assert (len(small), small.n_genes, small.n_special, small.n_tokens) == (3, 3, 30, 33)
    assert Vocabulary.from_genes(map(str, range(65_505))).n_tokens == 2**16 - 1
    with pytest.raises(ValueError, match="65505"):
        Vocabulary.from_genes(map(str, range(65_506)))


def test_genes_are_checked():
    with pytest.raises(ValueError, match="ENSG00000141736"):
        Vocabulary.from_genes(["ENSG00000141736.1", "G2", "ENSG00000141736.2"])
    with pytest.raises(ValueError, match="symbols"):
        Vocabulary.from_genes(["G1", "G2"], ["A"])
    with pytest.raises(ValueError, match="G9"):
        Vocabulary(["G1"], ["A"], aliases={"X": ("G9",)})


def test_recognize_returns_the_rule_of_each_name(small):
    recognized = small.recognize(["BOTH", "A", "OLD", "g2", "nothing", "G3.1", "G3"])
    assert recognized.index.tolist() == [-1, 0, 1, -1, -1, 2, 2]
    assert recognized.rule.tolist() == [
        "ambiguous",
        "symbol",
        "alias",
        "unknown",
        "unknown",
        "duplicate",
        "id",
    ]
    assert recognized.note.tolist() == ["A or G3", "", "", "", "", "", ""]


@pytest.mark.parametrize(
    ("names", "species"),
    [
        (["ENSMUSG00000029580", "ENSMUSG00000020932.14"], "mouse"),
        (["Actb", "Krt8", "Epcam", "mt-Co1"], "mouse or rat"),
        (["ENSRNOG00000034254"], "rat"),
        (["ENSDARG00000037746"], "zebrafish"),
        (["Actb", "Krt8", "Epcam", "EPCAM"], "mouse or rat"),  # human genes were added
    ],
    ids=["mouse ids", "mouse symbols", "rat ids", "zebrafish ids", "mixed"],
)
def test_genes_of_another_species_are_an_error(human, names, species):
    message = (
        rf"the genes are those of {species} \({names[0]}.*\), the vocabulary is of human; "
        r".*Vocabulary\.from_genes"
    )
    with pytest.raises(ValueError, match=message):
        human.recognize(names)
    assert len(human.encode(names)) == len(names)  # which raises no error


def test_human_genes_are_an_error_for_a_vocabulary_of_mouse():
    mouse = Vocabulary.from_genes(["ENSMUSG00000029580", "ENSMUSG00000045394"], ["Actb", "Epcam"])
    with pytest.raises(ValueError, match="those of human .* the vocabulary is of mouse"):
        mouse.recognize(["ENSG00000141736", "ENSG00000119888"])
    assert mouse.recognize(["Actb", "Epcam", "Krt8"]).index.tolist() == [0, 1, -1]
    with pytest.raises(ValueError, match="no gene of the table is in the vocabulary"):
        mouse.recognize(["ACTB", "EPCAM"])


def test_symbols_of_the_vocabularys_own_species_are_accepted():
    fly = Vocabulary.from_genes(["FBgn0000042", "FBgn0000055"], ["Act5C", "Adh"])
    assert fly.recognize(["Adh", "Act5C"]).index.tolist() == [1, 0]
    rat = Vocabulary.from_genes(["ENSRNOG00000034254"], ["Actb"])
    assert rat.recognize(["Actb", "Krt8"]).index.tolist() == [0, -1]


def test_names_of_which_none_is_known_are_an_error(small):
    message = (
        "no gene of the table is in the vocabulary: the table has x, y, "
        "the vocabulary G1, G2, G3; .*gene_ids_key="
    )
    with pytest.raises(ValueError, match=message):
        small.recognize(["x", "y"])


def test_explain_has_a_row_for_every_name(small):
    frame = small.explain(np.array(["OLD", "BOTH", "G3", "OLD"], object))
    assert frame.index.tolist() == ["OLD", "BOTH", "G3", "OLD"]
    assert frame.to_dict("list") == {
        "gene_id": ["G2", "", "G3", "G2"],
        "symbol": ["B", "", "", "B"],
        "rule": ["alias", "ambiguous", "id", "alias"],
        "note": ["", "A or G3", "", ""],
    }
    assert small.explain([]).empty


def test_digest_covers_what_decides_tokens(small):
    fitted = replace(small, means=[1.0, 2.0, np.nan])
    others = [
        small,
        replace(fitted, means=[1.0, np.nextafter(2, 3), np.nan]),
        replace(fitted, round_means=True),
        replace(fitted, gene_ids=["G2", "G1", "G3"]),
    ]
    assert len({fitted.digest, *(other.digest for other in others)}) == 5
    irrelevant = {"aliases": {}, "symbols": [""] * 3, "n_detected": [1, 1, 0], "corpus": ("x",)}
    assert fitted.digest == replace(fitted, **irrelevant).digest
    assert fitted.digest == replace(fitted, means=[1.0, 2.0, -np.nan]).digest


def test_digest_stays_what_it_was(small):
    # A digest in old tokens must stay valid: the bytes it covers are written out here.
    means = np.array([1.0, 2.5, np.nan], "<f8").tobytes()
    expected = hashlib.sha256(b"G1\nG2\nG3\0means" + means + b"\0exact").hexdigest()
    assert replace(small, means=[1.0, 2.5, np.nan]).digest == expected


def test_arrays_cannot_be_changed(small):
    means = np.ones(3)
    fitted = replace(small, means=means)
    means[0] = 7
    assert fitted.means[0] == 1
    for array in (fitted.gene_ids, fitted.symbols, fitted.means):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = array[1]
    fitted.divisors()[0] = 7
    assert fitted.means[0] == 1


def assert_same(result, expected):
    for name in ("gene_ids", "symbols", "means", "n_detected"):
        np.testing.assert_array_equal(getattr(result, name), getattr(expected, name))
    for name in ("aliases", "round_means", "corpus", "digest"):
        assert getattr(result, name) == getattr(expected, name)


def test_round_trip(small, human, tmp_path):
    fitted = replace(
        small, means=[1 / 3, 2.0, np.nan], n_detected=[3, 1, 0], round_means=True, corpus=("a", "b")
    )
    for vocabulary in (small, fitted, human):
        vocabulary.save(tmp_path / "vocabulary.parquet")
        loaded = Vocabulary.load(tmp_path / "vocabulary.parquet")
        assert_same(loaded, vocabulary)
        assert loaded.gene_ids.dtype == object


def test_loading_another_file_is_an_error_that_names_it(tmp_path):
    (tmp_path / "text.parquet").write_text("no parquet at all")
    parquet.write_table(pa.table({"gene_ids": ["G1"]}), tmp_path / "other.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1" + bytes(100) + b"\x10\0\0\0PAR1")
    for name in ("text.parquet", "other.parquet", "broken.parquet", "."):
        with pytest.raises(ValueError, match="no vocabulary") as error:
            Vocabulary.load(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)
    with pytest.raises(FileNotFoundError):
        Vocabulary.load(tmp_path / "absent.parquet")


def test_loading_a_changed_file_is_an_error(small, tmp_path):
    path = tmp_path / "vocabulary.parquet"
    replace(small, means=[1.0, 2.0, 3.0]).save(path)
    whole = parquet.read_table(path)
    parquet.write_table(whole.set_column(2, "means", pa.array([1.0, 2.0, 4.0])), path)
    with pytest.raises(ValueError, match="damaged"):
        Vocabulary.load(path)


def test_import_needs_numpy_alone():
    libraries = {"anndata", "pandas", "pyarrow", "scipy", "torch"}
    code = f"import sys, stp.genes.vocabulary; print({libraries} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"
