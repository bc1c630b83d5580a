import csv
import gzip
from collections import Counter

import anndata
import numpy as np
import pandas as pd
import pytest

from stp import Vocabulary
from stp.genes.names import GeneNames
from stp.genes.species import guess_species
from stp.genes.spelling import strip_version, to_r_name

ERBB2 = "ENSG00000141736"


@pytest.fixture(scope="module")
def human():
    return Vocabulary.default()


def explain_first(human, *names):
    """Return symbol, rule and note of the first of these names, which are those of one table."""
    return tuple(human.explain(names)[["symbol", "rule", "note"]].iloc[0])


@pytest.mark.parametrize(
    ("name", "symbol", "rule"),
    [
        (ERBB2, "ERBB2", "id"),
        (f"{ERBB2}.14", "ERBB2", "id"),
        ("ERBB2", "ERBB2", "symbol"),
        ("MT-CO1", "MT-CO1", "symbol"),
        ("NKX2-1", "NKX2-1", "symbol"),
        ("HER2", "ERBB2", "alias"),
        ("C9orf3", "AOPEP", "alias"),
        ("SEPT9", "SEPTIN9", "alias"),
        ("ENSG00000285053", "TBCE", "alias"),
        ("ENSG00000285053.2", "TBCE", "alias"),
        ("HLA.A", "HLA-A", "R name"),
        ("MT.CO1", "MT-CO1", "R name"),
        ("NKX2.1", "NKX2-1", "alias"),
        ("c1orf112", "C1orf112", "case"),
        ("C1ORF112", "C1orf112", "case"),
        ("erbb2", "ERBB2", "case"),
        ("her2", "ERBB2", "case"),
        ("mt-co1", "MT-CO1", "case"),
    ],
)
def test_a_name_alone_is_recognized(human, name, symbol, rule):
    assert explain_first(human, name) == (symbol, rule, "")


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("GRCh38_ERBB2", "genome prefix"),
        ("GRCh38_____ERBB2", "genome prefix"),
        ("GRCh38-ERBB2", "genome prefix"),  # Seurat turns underscores into dashes
        ("hg19_HER2", "genome prefix"),
        (f"GRCh38_{ERBB2}", "genome prefix"),
        (f"GRCh38_{ERBB2}.14", "genome prefix"),
        (f"GRCh38_{ERBB2}_ERBB2", "genome prefix"),
        (f"{ERBB2}_ERBB2", "joined name"),
        (f"{ERBB2}.14_HER2", "joined name"),
        (f"{ERBB2}|ERBB2|ab12cd3", "joined name"),
        (f"ERBB2_{ERBB2}", "joined name"),
        (f"ERBB2 ({ERBB2})", "joined name"),
        (f"ERBB2;{ERBB2}", "joined name"),
        (str(ERBB2.encode()), "bytes"),
        (str(b"ERBB2"), "bytes"),
        (str(b"GRCh38_ERBB2"), "bytes"),
    ],
)
def test_a_name_inside_a_longer_name_is_recognized(human, name, rule):
    assert explain_first(human, name) == ("ERBB2", rule, "")


@pytest.mark.parametrize(
    ("name", "rule", "note"),
    [
        ("mm10___Erbb2", "mouse", ""),
        ("GRCm39_Erbb2", "mouse", ""),
        ("mm10_ERBB2", "mouse", ""),
        ("rn7_Erbb2", "rat", ""),
        ("ENSMUSG00000062312_Erbb2", "mouse", ""),
        ("ENSMUSG00000062312", "mouse", ""),
        ("ENSRNOG00000006450.7", "rat", ""),
        (f"{ERBB2}_KRT8", "ambiguous", "ERBB2 or KRT8"),
        (f"DEPRECATED_{ERBB2}|ERBB2|ab12cd3", "control", ""),
        ("GRCh38_MALAT1", "non-coding", ""),
        ("GRCh38_FUBAR", "unknown", ""),
        ("ADT_CD3E", "not a gene", ""),
        ("CD3E_TotalSeqB", "not a gene", ""),
        ("Hashtag1", "not a gene", ""),
    ],
)
def test_a_longer_name_that_is_no_gene_has_a_reason(human, name, rule, note):
    assert explain_first(human, name, "EPCAM") == ("", rule, note)


def test_a_mouse_vocabulary_has_the_genome_of_mouse():
    mouse = Vocabulary.from_genes(["ENSMUSG00000062312"], ["Erbb2"])
    explained = mouse.explain(["mm10___Erbb2", "GRCh38_ERBB2", ERBB2])
    assert explained["rule"].tolist() == ["genome prefix", "human", "human"]


@pytest.mark.parametrize(
    ("name", "right", "rule"),
    [
        ("Actb", "ACTB", "mouse or rat"),
        ("mt-Co1", "MT-CO1", "mouse or rat"),
        ("actb", "ACTB", "other case"),
        ("Trp53", "TP53", "mouse or rat"),
    ],
)
def test_the_right_spelling_in_the_table_leaves_no_other_case(human, name, right, rule):
    explained = human.explain([name, right])
    assert explained["rule"].tolist() == [rule, "symbol"]
    assert explained["note"].iloc[0] == right


def test_many_symbols_of_mouse_are_not_taken_for_human_genes(human):
    symbols = list(human.symbols[:400])
    mouse = [symbol.capitalize() for symbol in human.symbols[500:520] if "orf" not in symbol]
    explained = human.explain(symbols + mouse)
    assert (explained.loc[mouse, "gene_id"] == "").all()
    assert (explained.loc[symbols, "gene_id"] != "").all()


def test_the_error_says_what_to_strip(human):
    with pytest.raises(ValueError, match=r"all names begin with 'sample1_': strip it"):
        human.recognize(["sample1_ERBB2", "sample1_KRT8"])
    with pytest.raises(ValueError, match=r"all names end with '_sample1': strip it"):
        human.recognize(["ERBB2_sample1", "KRT8_sample1"])


@pytest.mark.parametrize(
    ("name", "base", "expected"),
    [
        ("RPL41-1", "RPL41", ("RPL41", "duplicate", "")),
        ("RPL41.1", "RPL41", ("RPL41", "duplicate", "")),
        ("RPL41-12", "RPL41", ("RPL41", "duplicate", "")),
        ("HLA-A-1", "HLA-A", ("HLA-A", "duplicate", "")),
        ("HLA.A.1", "HLA.A", ("HLA-A", "duplicate", "")),
        ("HER2.1", "HER2", ("ERBB2", "duplicate", "")),
        ("SHFM1-1", "SHFM1", ("", "ambiguous", "DLX5 or SEM1")),
        ("C6orf48-1", "C6orf48", ("", "non-coding", "SNHG32")),
        ("FUBAR-1", "FUBAR", ("", "unknown", "")),
        ("NKX2-1", "NKX2", ("NKX2-1", "symbol", "")),  # no duplicate of anything
        ("NKX2.1", "NKX2", ("NKX2-1", "alias", "")),
        ("HLA.DRB1", "HLA", ("HLA-DRB1", "R name", "")),
    ],
)
def test_a_duplicate_is_recognized_if_the_table_has_the_name_that_it_repeats(
    human, name, base, expected
):
    assert explain_first(human, name, base) == expected


@pytest.mark.parametrize("name", ["RPL41-1", "RPL41.1", "HLA-A-1", "SHFM1-1"])
def test_a_duplicate_alone_is_unknown(human, name):
    assert explain_first(human, name, "KRT8") == ("", "unknown", "")


@pytest.mark.parametrize(
    ("name", "reason", "note"),
    [
        ("SHFM1", "ambiguous", "DLX5 or SEM1"),
        ("C6orf48", "non-coding", "SNHG32"),
        ("7SK", "non-coding", "RN7SK"),
        ("MALAT1", "non-coding", ""),
        ("XIST", "non-coding", ""),
        ("MT-RNR1", "non-coding", ""),
        ("LINC99999", "non-coding", ""),
        ("MIR99999", "non-coding", ""),
        ("SNORD999", "non-coding", ""),
        ("ERBB2-AS9", "non-coding", ""),
        ("ERBB2.AS9", "non-coding", ""),
        ("GAPDHP1", "pseudogene", ""),
        ("EEF1A1P5", "pseudogene", ""),
        ("HLA.DRB6", "pseudogene", "HLA-DRB6"),
        ("IGHV3-23", "segment or locus", ""),
        ("RP11-34P13.7", "unnamed locus", ""),
        ("RP11.34P13.7", "unnamed locus", ""),
        ("AC000000.1", "unnamed locus", ""),
        ("AL627309.1", "unnamed locus", ""),
        ("CTB-50L17.10", "unnamed locus", ""),
        ("CTD-2116N17.1", "unnamed locus", ""),
        ("LA16c-306E5.2", "unnamed locus", ""),
        ("CH507-9B2.9", "unnamed locus", ""),
        ("XXbac-BPG308K3.6", "unnamed locus", ""),
        ("LOC100130417", "unnamed locus", ""),
        ("NegControlProbe_0001", "control", ""),
        ("NegControlCodeword_0500", "control", ""),
        ("UnassignedCodeword_0001", "control", ""),
        ("BLANK_0001", "control", ""),
        ("Blank-12", "control", ""),
        ("antisense_ADCY4", "control", ""),
        ("ERCC-00002", "control", ""),
        ("1-Mar", "spreadsheet date", ""),
        ("15-Sep", "spreadsheet date", ""),
        ("1-Dec", "spreadsheet date", ""),
        ("FUBAR", "unknown", ""),
        ("ENSG99999999999", "unknown", ""),
        ("", "no name", ""),
        ("nan", "no name", ""),  # a missing name, as str has it
        ("NA", "no name", ""),  # and as R has it
    ],
)
def test_a_name_that_is_no_gene_of_the_vocabulary_has_a_reason(human, name, reason, note):
    assert explain_first(human, name) == ("", reason, note)


HUMAN_IDS = [f"ENSG9999999999{i}" for i in range(4)]


def test_the_first_rule_that_applies_decides():
    ids = HUMAN_IDS
    symbols = [ids[1], "A-B", "old", ""]
    first, _, third, fourth = ids
    aliases = {
        "A-B": (first,),
        "old": (first,),
        "A.B": (fourth,),
        "X": (third, fourth),
        "OLD": (fourth,),
        "a-b": (third,),
    }
    gene_names = GeneNames(ids, symbols, aliases)
    recognized = gene_names.recognize(
        [
            ids[1],
            "A-B",
            "old",
            "A.B",
            "X",
            "OLD",
            "Old",
            "a-b",
            "A-b",
            "A_B",
            "g4",
            "A-B-1",
            "A.B.1",
        ]
    )
    assert list(zip(recognized.index.tolist(), recognized.rule, strict=True)) == [
        (1, "id"),
        (1, "symbol"),
        (2, "symbol"),
        (3, "alias"),  # not the R name of A-B
        (-1, "ambiguous"),
        (3, "alias"),  # not another case of old
        (-1, "mouse or rat"),  # the right spelling is in the table too
        (2, "alias"),
        (-1, "other case"),
        (-1, "unknown"),
        (-1, "unknown"),
        (1, "duplicate"),
        (3, "duplicate"),
    ]
    assert recognized.note[4] == f"old or {fourth}"
    assert (recognized.index.dtype, recognized.rule.shape, recognized.note.shape) == (
        np.int64,
        (13,),
        (13,),
    )


def test_one_spelling_of_several_symbols_is_ambiguous():
    gene_names = GeneNames(HUMAN_IDS[:3], ["A-B", "A B", "a-b"], {})
    recognized = gene_names.recognize(["A.B", "A-b", "A-B"])
    assert recognized.index.tolist() == [-1, -1, 0]
    assert recognized.note.tolist() == ["A-B or A B", "A-B or a-b", ""]
    assert recognized.rule.tolist() == ["ambiguous", "ambiguous", "symbol"]


def test_no_names_are_recognized_as_none():
    recognized = GeneNames(["G1"], ["A"], {}).recognize([])
    assert [len(array) for array in recognized] == [0, 0, 0]


def test_only_human_vocabularies_give_reasons_from_the_list_of_human_genes():
    gene_names = GeneNames(["ENSMUSG00000029580"], ["Actb"], {})
    assert gene_names.recognize(["GAPDHP1", "MALAT1"]).rule.tolist() == ["unknown", "unknown"]


@pytest.mark.parametrize(
    "name",
    ["CD3E", "ENSG00000198851", "ENSG00000198851.9", "HLA.A", "SEPT9", "GRCh38_CD3E"],
    ids=["symbol", "id", "version", "R name", "alias", "prefix"],
)
def test_a_gene_that_a_small_vocabulary_lacks_is_another_gene(human, name):
    few = Vocabulary.from_genes([ERBB2], ["ERBB2"])
    assert explain_first(few, name, "ERBB2") == ("", "other gene", "")
    assert explain_first(human, name, "ERBB2")[1] != "other gene"


def test_names_of_other_kinds_are_no_other_genes():
    few = Vocabulary.from_genes([ERBB2], ["ERBB2"])
    names = ["MALAT1", "FUBAR", "ENSG99999999999", "my gene", "", "ENSMUSG00000062312"]
    rules = ["non-coding", "unknown", "unknown", "unknown", "no name", "mouse"]
    assert few.explain(["ERBB2", *names])["rule"].tolist() == ["symbol", *rules]


def test_other_genes_of_mouse_and_fly_show_by_their_form():
    mouse = Vocabulary.from_genes(["ENSMUSG00000029580"], ["Actb"])
    names = ["Actb", "Gapdh", "mt-Co1", "ENSMUSG00000020932.14", "GAPDH", "42"]
    rules = ["symbol", "other gene", "other gene", "other gene", "unknown", "unknown"]
    assert mouse.explain(names)["rule"].tolist() == rules
    fly = Vocabulary.from_genes(["FBgn0000055"], ["Adh"])
    rules = ["symbol", "other gene", "unknown"]
    assert fly.explain(["Adh", "FBgn0000008", "Act5C"])["rule"].tolist() == rules


def test_a_gene_is_no_other_gene_if_the_vocabulary_lacks_only_its_name():
    """The genes are there, by ids alone or by symbols alone, so the names are to be checked."""
    human = Vocabulary.from_genes([ERBB2, "ENSG00000198851"])
    assert human.explain(["ERBB2", "HER2", "CD3E", "CD3D"])["rule"].tolist() == [
        "unknown",
        "unknown",
        "unknown",
        "other gene",
    ]
    with pytest.raises(ValueError, match=r"no gene of the table is in the vocabulary"):
        human.recognize(["ERBB2", "HER2", "CD3E", "CD3D"])
    mouse = Vocabulary.from_genes(["ENSMUSG00000029580"])
    assert mouse.explain(["Actb"])["rule"].tolist() == ["unknown"]


def test_a_vocabulary_without_a_gene_of_the_table_says_so():
    few = Vocabulary.from_genes([ERBB2], ["ERBB2"])
    message = (
        r"the vocabulary knows 1 genes .* none of them is in the table, which has others \(CD3"
    )
    with pytest.raises(ValueError, match=message):
        few.recognize(["CD3D", "CD3E", "my gene"])


@pytest.mark.parametrize(
    ("species", "names"),
    [
        ("human", [ERBB2, "ENSG00000119888.5"]),
        ("mouse", ["ENSMUSG00000029580", "ENSMUSG00000020932.14"]),
        ("rat", ["ENSRNOG00000034254"]),
        ("zebrafish", ["ENSDARG00000037746"]),
        ("zebrafish", [*["actb1", "krt4"] * 20, "si:ch211-117m20.5", "zgc:171686"]),
        ("fruit fly", ["FBgn0000042"]),
        ("macaque", ["ENSMMUG00000021234", "ENSMFAG00000021234"]),
        ("mouse or rat", ["Actb", "Krt8", "mt-Co1", "A2m", "1700001C02Rik"]),
        ("mouse or rat", ["Actb", "Krt8", "LOC100125362", "RT1-A"][:3]),
        (None, ["EPCAM", "KRT8", "C1orf112", "HLA-A"]),
        (None, ["actb1", "krt4"]),
        (None, ["gene1", "gene2"]),
        (None, []),
    ],
    ids=str,
)
def test_most_names_show_the_species(species, names):
    assert guess_species(names) == species


def test_human_symbols_look_like_no_other_species(human):
    assert guess_species(human.symbols) is None
    assert guess_species(human.gene_ids) == "human"


@pytest.mark.parametrize(
    ("name", "in_r"),
    [
        ("HLA-A", "HLA.A"),
        ("MT-CO1", "MT.CO1"),
        ("5S_rRNA", "X5S_rRNA"),
        ("7SK", "X7SK"),
        ("RP11-34P13.7", "RP11.34P13.7"),
        ("a b", "a.b"),
        ("a_b", "a_b"),
        ("_x", "X_x"),
        (".a", ".a"),
        (".1a", "X.1a"),
        ("-1", "X.1"),
        ("1-Mar", "X1.Mar"),
        ("", "X"),
        ("ABC", "ABC"),
    ],
)
def test_r_names_are_spelled_as_make_names_does(name, in_r):
    assert to_r_name(name) == in_r


def test_only_ensembl_ids_have_versions():
    names = [
        f"{ERBB2}.14",
        ERBB2,
        "ENSMUSG00000029580.15",
        "RPL41.1",
        "WBGene00000001.3",
        f"{ERBB2}.14_PAR_Y",
    ]
    assert [strip_version(name) for name in names] == [
        *(ERBB2, ERBB2, "ENSMUSG00000029580"),
        *("RPL41.1", "WBGene00000001.3", f"{ERBB2}.14_PAR_Y"),
    ]


# ---- real tables


@pytest.fixture(scope="module")
def her2(human, real):
    """Return the names of all sections by falling UMIs, explained."""
    umis = Counter()
    for path in sorted(real("her2st").glob("*.h5ad")):
        adata = anndata.read_h5ad(path)
        sums = np.asarray(adata.X.sum(axis=0)).ravel().astype(int)
        umis.update(dict(zip(adata.var_names, sums, strict=True)))
    umis = pd.Series(umis).sort_values(ascending=False)
    return human.explain(umis.index).assign(umis=umis / umis.sum())


def test_the_most_expressed_names_of_breast_tumors_are_understood(her2):
    top = her2.iloc[:500]
    assert top.index[top["rule"] == "unknown"].tolist() == []
    assert top.index[top["gene_id"] == ""].tolist() == ["AP000769.1"]


def test_unknown_names_of_breast_tumors_have_next_to_no_umis(her2):
    unknown = her2[her2["rule"] == "unknown"]
    assert len(unknown) <= 10, unknown
    assert unknown["umis"].sum() < 1e-4, unknown
    assert her2.loc[her2["gene_id"] == "", "umis"].sum() < 0.004


@pytest.mark.parametrize("name", ["GRCh38-3.0.0_features_33538", "GRCh38-2020-A_features_36601"])
def test_symbols_of_10x_references_are_understood(human, real, name):
    with gzip.open(real("genes", f"tenx_{name}.tsv.gz"), "rt") as file:
        symbols = [row[1] for row in csv.reader(file, delimiter="\t") if row[0].startswith("ENSG")]
    rules = human.explain(symbols)["rule"]
    assert rules.index[rules == "unknown"].size <= 5, rules.index[rules == "unknown"].tolist()


def test_names_that_r_has_changed_are_understood(human, real):
    adata = anndata.read_h5ad(real("other_st", "pdac_a_st.h5ad"))
    umis = np.asarray(adata.X.sum(axis=0)).ravel() / adata.X.sum()
    explained = human.explain(adata.var_names).assign(umis=umis)
    symbols = set(human.symbols)
    with_dots = [name for name in explained.index if "." in name]
    coding = [name for name in with_dots if name.replace(".", "-") in symbols]
    families = Counter(name.split(".")[0] for name in coding)
    assert families["MT"] == 13
    assert families["HLA"] >= 18
    assert explained.loc[coding, "symbol"].tolist() == [name.replace(".", "-") for name in coding]
    assert set(explained.loc[coding, "rule"]) <= {"R name", "alias"}
    mt_or_hla = [name for name in coding if name.split(".")[0] in ("MT", "HLA")]
    assert set(explained.loc[mt_or_hla, "rule"]) == {"R name"}
    unknown = explained[explained["rule"] == "unknown"]
    assert unknown["umis"].sum() < 1e-3, unknown
