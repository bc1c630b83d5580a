"""What `tokenize` reports about the genes of a table: in uns, in the log and in warnings."""

import logging

import anndata
import numpy as np
import pandas as pd
import pytest

from stp import Vocabulary, tl
from stp._log import logger


@pytest.fixture
def log_lines():
    """Collect the lines of the logger of stp, which does not pass them to other loggers."""
    lines = []
    handler = logging.Handler()
    handler.emit = lambda entry: lines.append((entry.levelname, entry.getMessage()))
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


@pytest.fixture(scope="module")
def human():
    default = Vocabulary.default()
    return Vocabulary(
        default.gene_ids,
        default.symbols,
        means=np.full(len(default), 2.0),
        aliases=default.aliases,
        corpus=("x",),
    )


def untidy():
    """Make one spot with names of many kinds; UMIs sum to 1000."""
    umis = {
        **{
            "ERBB2": 700,
            "ENSG00000119888.5": 100,
            "HER2": 30,
            "HLA.A": 20,
            "krt8": 10,
            "ERBB2-1": 10,
        },
        **{
            "SHFM1": 60,
            "MALAT1": 40,
            "C6orf48": 10,
            "AC000000.1": 10,
            "FUBAR": 5,
            "1-Mar": 5,
            "STRA13": 0,
        },
    }
    counts = np.array([list(umis.values()), [0] * len(umis)], np.float32)
    counts[1, 0] = 0
    return anndata.AnnData(counts[:1], var=pd.DataFrame(index=list(umis)))


RULES = {
    **{
        "symbol": (1, 0.7),
        "id": (1, 0.1),
        "alias": (1, 0.03),
        "R name": (1, 0.02),
        "case": (1, 0.01),
        "duplicate": (1, 0.01),
    },
    **{
        "ambiguous": (2, 0.06),
        "non-coding": (2, 0.05),
        "unnamed locus": (1, 0.01),
        "unknown": (1, 0.005),
    },
    "spreadsheet date": (1, 0.005),
}
UNMAPPED = {
    "SHFM1": ("ambiguous", "DLX5 or SEM1", 0.06),
    "MALAT1": ("non-coding", "", 0.04),
    "C6orf48": ("non-coding", "SNHG32", 0.01),
    "AC000000.1": ("unnamed locus", "", 0.01),
    "FUBAR": ("unknown", "", 0.005),
    "1-Mar": ("spreadsheet date", "", 0.005),
    "STRA13": ("ambiguous", "BHLHE40 or CENPX", 0.0),
}


def tokenized(table, vocabulary, **arguments):
    with pytest.warns(UserWarning, match="choice of the panel"):
        tl.tokenize(table, vocabulary, context_length=16, **arguments)
    return table.uns["stp_tokens"]


def as_tuples(frame):
    return {
        name: tuple(row) for name, row in zip(frame.index, frame.to_numpy().tolist(), strict=True)
    }


def assert_reports(report):
    assert list(report["rules"]) == ["names", "umis"]
    assert as_tuples(report["rules"]) == {rule: pytest.approx(row) for rule, row in RULES.items()}
    assert report["rules"]["names"].is_monotonic_decreasing
    assert list(report["unmapped"]) == ["rule", "note", "umis"]
    assert report["unmapped"].index.tolist() == list(UNMAPPED)
    for (rule, note, umis), row in zip(
        as_tuples(report["unmapped"]).values(), UNMAPPED.values(), strict=True
    ):
        assert (rule, note, pytest.approx(umis)) == row
    assert report["coverage"] == pytest.approx(0.87)
    assert report["n_genes"] == 6


def test_the_report_shows_the_rule_of_each_name(human):
    assert_reports(tokenized(untidy(), human))


@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
def test_the_report_survives_the_disk(human, ending, tmp_path):
    table = untidy()
    tokenized(table, human)
    path = tmp_path / f"a.{ending}"
    getattr(table, f"write_{ending}")(path)
    assert_reports(getattr(anndata, f"read_{ending}")(path).uns["stp_tokens"])


@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
def test_a_report_without_unmapped_names_survives_the_disk(adata, vocabulary, ending, tmp_path):
    tl.tokenize(adata, vocabulary)
    path = tmp_path / f"a.{ending}"
    getattr(adata, f"write_{ending}")(path)
    back = getattr(anndata, f"read_{ending}")(path).uns["stp_tokens"]
    assert back["unmapped"].empty
    assert as_tuples(back["rules"]) == {"symbol": (32, 1)}


def test_the_heaviest_hundred_and_all_ambiguous_names_are_listed(human):
    names = ["ERBB2", "SHFM1", *(f"FUBAR{i}X" for i in range(150))]
    counts = np.concatenate([[100_000, 1], np.arange(150) + 10]).astype(np.float32)
    report = tokenized(anndata.AnnData(counts[None], var=pd.DataFrame(index=names)), human)
    assert report["unmapped"].index.tolist() == [f"FUBAR{i}X" for i in range(149, 49, -1)] + [
        "SHFM1"
    ]
    assert report["rules"].loc["unknown", "names"] == 150


def test_repeated_names_are_reported_one_by_one(human):
    table = anndata.AnnData(
        np.array([[90, 3, 7]], np.float32), var=pd.DataFrame(index=["ERBB2", "FUBAR", "FUBAR"])
    )
    unmapped = tokenized(table, human)["unmapped"]
    assert (unmapped.index.tolist(), unmapped["umis"].tolist()) == (["FUBAR"] * 2, [0.07, 0.03])


def test_one_line_of_the_log_sums_it_up(human, log_lines):
    tokenized(untidy(), human)
    assert log_lines == [
        (
            "INFO",
            "Tokenized 1 spot: 6 of 13 genes recognized (87 % of UMIs), median 4 tokens per spot. "
            "Most expressed genes that were not recognized: SHFM1 (ambiguous), "
            "MALAT1 (non-coding), C6orf48 (non-coding), AC000000.1 (unnamed locus), "
            "FUBAR (unknown)",
        )
    ]


def test_the_log_names_no_genes_if_all_were_recognized(adata, vocabulary, log_lines):
    tl.tokenize(adata, vocabulary)
    median = np.median(adata.obs["stp_tokens_n"])
    ((_, line),) = log_lines
    assert line == (
        "Tokenized 100 spots: 32 of 32 genes recognized (100 % of UMIs), "
        f"median {median:.0f} tokens per spot"
    )


def test_the_log_names_the_slides(adata, vocabulary, log_lines):
    adata.obs["region"] = pd.Categorical(np.where(np.arange(adata.n_obs) < 40, "C2", "C3"))
    adata.obs["spot"] = np.arange(adata.n_obs)
    attrs = {"region": ["C2", "C3"], "region_key": "region", "instance_key": "spot"}
    adata.uns["spatialdata_attrs"] = attrs
    tl.tokenize(adata, vocabulary)
    ((_, line),) = log_lines
    assert line.startswith("Tokenized 100 spots of C2, C3: ")


def test_the_log_shows_symbols_of_ids(log_lines):
    ids = [f"ENSMUSG{number:011d}" for number in range(40)]
    adata = anndata.AnnData(np.ones((3, 40), np.float32))
    adata.var_names = ids
    adata.var["symbol"] = [f"Gene{number}" for number in range(40)]
    tl.tokenize(adata, Vocabulary.from_genes(ids[:39], adata.var["symbol"][:39]).fit([adata]))
    assert log_lines[-1][1].endswith("not recognized: Gene39 (other gene)")


def test_the_log_of_a_table_without_spots(adata, vocabulary, log_lines):
    tl.tokenize(adata[:0].copy(), vocabulary)
    ((_, line),) = log_lines
    assert line.startswith("Tokenized 0 spots: 32 of 32 genes recognized")


def test_the_log_can_be_silenced(adata, vocabulary, log_lines):
    logger.setLevel("WARNING")
    try:
        tl.tokenize(adata, vocabulary)
    finally:
        logger.setLevel("INFO")
    assert log_lines == []


def coded(human, n_genes, n_detected):
    """Make five spots that measure some genes and detect fewer."""
    counts = np.zeros((5, n_genes), np.float32)
    counts[:, :n_detected] = 3
    return anndata.AnnData(counts, var=pd.DataFrame(index=human.gene_ids[:n_genes]))


def test_a_small_panel_is_warned_of(human):
    message = (
        f"the table measures 999 of the {len(human)} genes: "
        "ranks among so few depend on the choice of the panel"
    )
    with pytest.warns(UserWarning, match=message) as caught:
        tl.tokenize(coded(human, 999, 300), human)
    assert [warning.filename for warning in caught if warning.category is UserWarning] == [__file__]


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize(("n_genes", "n_detected"), [(1000, 100), (5000, 101)])
def test_a_table_of_many_genes_and_deep_spots_is_not_warned_of(human, n_genes, n_detected):
    tl.tokenize(coded(human, n_genes, n_detected), human)


@pytest.mark.filterwarnings("error::UserWarning")
def test_half_of_a_small_vocabulary_is_no_small_panel(vocabulary):
    tl.tokenize(coded(vocabulary, 16, 2), vocabulary)
    with pytest.raises(UserWarning, match="the table measures 15 of the 32 genes"):
        tl.tokenize(coded(vocabulary, 15, 2), vocabulary)


def test_columns_of_one_gene_do_not_enlarge_a_panel(vocabulary):
    table = coded(vocabulary, 16, 2)
    table.var_names = [*vocabulary.gene_ids[:15], vocabulary.symbols[0]]
    with pytest.warns(UserWarning, match="measures 15 of the 32 genes"):
        tl.tokenize(table, vocabulary)


def test_shallow_spots_are_warned_of(human):
    with pytest.warns(
        UserWarning, match="the median spot has 99 genes, so its ranks are mostly ties"
    ) as caught:
        tl.tokenize(coded(human, 1000, 99), human)
    assert [warning.filename for warning in caught if warning.category is UserWarning] == [__file__]


@pytest.mark.filterwarnings("error::UserWarning")
def test_a_short_context_does_not_make_spots_shallow(human):
    tl.tokenize(coded(human, 2000, 900), human, context_length=50)


UNMAPPED_UMIS = {"MALAT1": 12, "RP11-34P13.7": 10, "SHFM1": 5, "FUBAR": 3}


@pytest.mark.parametrize("factor", [1, 3])
def test_low_coverage_is_explained_by_the_heaviest_reasons(human, factor):
    table = anndata.AnnData(
        np.array([[70, *(factor * umis for umis in UNMAPPED_UMIS.values())]], np.float32),
        var=pd.DataFrame(index=["ERBB2", *UNMAPPED_UMIS]),
    )
    total = 70 + factor * 30
    shares = [f"{factor * umis / total:.1%}" for umis in UNMAPPED_UMIS.values()]
    message = (
        rf"only {70 / total:.1%} of UMIs are in genes of the vocabulary "
        rf"\(not in it: non-coding {shares[0]}, unnamed locus {shares[1]}, "
        rf"ambiguous {shares[2]}\); check species, gene names and gene_ids_key="
    )
    if factor == 1:
        with (
            pytest.warns(UserWarning, match="choice of the panel"),
            pytest.warns(UserWarning, match=message),
        ):
            tl.tokenize(table, human)
    else:
        with pytest.raises(ValueError, match=message):
            tl.tokenize(table, human)
        assert not table.obsm and not table.uns
