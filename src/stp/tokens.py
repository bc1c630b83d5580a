"""Rank the genes of each spot into tokens, and mask them for pretraining; arrays in, arrays out."""

from typing import TYPE_CHECKING

import numpy as np

from stp._keys import PAD

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


def to_vocabulary(counts: "csr_matrix", index: np.ndarray, n_genes: int) -> "csr_matrix":
    """Bring the columns of counts into the order of a vocabulary; columns of one gene are summed.

    Parameters
    ----------
    counts
        (n, n_columns) CSR.
    index
        (n_columns,) vocabulary index of each column, -1 where unmapped.
    n_genes
        Length of the vocabulary.

    Returns
    -------
    (n, n_genes) CSR with sorted indices and no zeros.
    """
    from scipy.sparse import csr_matrix

    kept = index >= 0
    to_gene = csr_matrix(
        (np.ones(kept.sum(), dtype=counts.dtype), (np.flatnonzero(kept), index[kept])), shape=(len(index), n_genes)
    )
    mapped = (counts @ to_gene).tocsr()
    mapped.sort_indices()
    mapped.eliminate_zeros()
    return mapped


def rank_genes(counts: "csr_matrix", divisors: np.ndarray, *, context_length: int, n_special: int) -> np.ndarray:
    """Order the detected genes of each spot by count / mean, highest first (paper, Algorithm 1).

    Scaling a spot to 10,000 counts is a positive factor and cannot change the order, so it is left out. Ties are
    broken by ascending vocabulary index, which makes the tokens the same on every machine.

    Parameters
    ----------
    counts
        (n, n_genes) CSR in the order of the vocabulary, with sorted indices and no zeros.
    divisors
        (n_genes,) mean count of each gene over the spots that detect it.
    context_length
        Width of the result: the number of genes kept per spot.
    n_special
        Token of gene 0.

    Returns
    -------
    (n, context_length) uint16, padded with 0.
    """
    lengths = np.diff(counts.indptr)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    keys = counts.data.astype(np.float64) / divisors[counts.indices]
    order = np.lexsort((counts.indices, -keys, rows))
    position = np.arange(len(rows)) - np.repeat(counts.indptr[:-1], lengths)
    kept = position < context_length
    tokens = np.full((len(lengths), context_length), PAD, dtype=np.uint16)
    tokens[rows[kept], position[kept]] = counts.indices[order[kept]] + n_special
    return tokens


def mask_tokens(
    tokens: np.ndarray, rng: np.random.Generator, *, fraction: float, mask_id: int, gene_ids: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Choose tokens to predict: of those 80 % are masked, 10 % replaced by a random gene, 10 % kept (paper, A.3.1).

    Parameters
    ----------
    tokens
        (length,) tokens of one spot, without padding.
    rng
        Source of the choice.
    fraction
        Share of tokens to predict; at least one.
    mask_id
        Token that hides a gene.
    gene_ids
        First gene token and the one after the last: the range of random genes.

    Returns
    -------
    Inputs (length,) and the chosen positions (length,) as bool.
    """
    inputs, chosen = tokens.copy(), np.zeros(len(tokens), dtype=bool)
    if not len(tokens):
        return inputs, chosen
    positions = rng.permutation(len(tokens))[: max(1, round(fraction * len(tokens)))]
    chosen[positions] = True
    fate = rng.random(len(positions))
    inputs[positions[fate < 0.8]] = mask_id
    replaced = positions[(fate >= 0.8) & (fate < 0.9)]
    inputs[replaced] = rng.integers(*gene_ids, size=len(replaced))
    return inputs, chosen
