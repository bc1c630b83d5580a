"""Ranks against the keys that the authors' code computes on section C4."""

from types import SimpleNamespace

import anndata
import numpy as np
import pytest
import scipy.sparse as sp

from stp import Vocabulary
from stp.genes.rank_table import rank_table
from stp.genes.tokens import rank_genes
from stp.models.published.release_files import read_symbols

N_SPOTS, N_SPECIAL = 24, 30
TIE = 1e-6  # relative; their keys carry rounding errors


@pytest.fixture(scope="module")
def spots(golden, real):
    """Return the first spots of C4, the authors' genes with their means, and their keys."""
    assets = golden.parent / "assets"
    id_of = read_symbols(assets / "gene_name_id_dict.pkl")
    genes = anndata.read_h5ad(assets / "model.h5ad", backed="r").var_names
    vocabulary = Vocabulary(
        genes, [""] * len(genes), means=np.load(assets / "Visium_mean.npy"), round_means=True
    )
    adata = anndata.read_h5ad(real("her2st", "C4.h5ad"))[:N_SPOTS]
    return SimpleNamespace(
        counts=sp.csr_matrix(adata.X),
        index=vocabulary.encode([id_of.get(name, "absent") for name in adata.var_names]),
        vocabulary=vocabulary,
        keys=sp.load_npz(golden / "scores_C4.npz").toarray(),
    )


@pytest.fixture(scope="module", params=[100, 1500, 10_000])
def tokens(spots, request):
    table = rank_table(spots.vocabulary.divisors())
    ranked = rank_genes(
        spots.counts,
        spots.index,
        table,
        context_length=request.param,
        n_special=spots.vocabulary.n_special,
    )
    return ranked.tokens.astype(int)


def test_tokens_are_in_the_order_of_the_authors_keys(spots, tokens):
    for row, keys in zip(tokens, spots.keys, strict=True):
        genes = row[row > 0] - N_SPECIAL
        assert len(genes) == min(np.count_nonzero(keys), len(row))
        assert len(np.unique(genes)) == len(genes)
        assert (keys[genes] > 0).all()
        assert (keys[genes[1:]] <= keys[genes[:-1]] * (1 + TIE)).all()


def test_tokens_hold_every_gene_above_the_tie_at_the_cut(spots, tokens):
    for row, keys in zip(tokens, spots.keys, strict=True):
        genes = row[row > 0] - N_SPECIAL
        above = np.flatnonzero(keys > keys[genes].min() * (1 + TIE))
        assert np.isin(above, genes).all()


def test_ties_of_the_authors_keys_come_in_ascending_order_here(spots, tokens):
    for row, keys in zip(tokens, spots.keys, strict=True):
        genes = row[row > 0] - N_SPECIAL
        tied = keys[genes[1:]] >= keys[genes[:-1]] * (1 - TIE)
        assert tied.any()
        assert (np.diff(genes)[tied] > 0).all()
