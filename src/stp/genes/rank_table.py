"""Pairs of gene and count, sorted once for all spots of a slide."""

from typing import NamedTuple

import numpy as np

MAX_PAIRS = 2**20  # in the table, which makes a bitmap of 128 kB
MAX_COUNT = 2**16 - 1  # of a pair in the table
WORD_BITS = 64  # of a word of the bitmap


class RankTable(NamedTuple):
    """Pairs of gene and count, sorted by descending count / divisor; ties by ascending gene.

    The place of a pair is its position in that order. The kernel takes this as a plain tuple.
    """

    # (n_genes,) float64
    divisors: np.ndarray
    # (n_genes,) uint16: the table has the pairs of a gene with counts from 1 to this one.
    last: np.ndarray
    # (n_genes,) uint32: pair (gene, count) is entry first + count of `bits`, modulo 2**32.
    first: np.ndarray
    # (n_pairs,) uint32: the place of a pair in the bitmap, as byte << 8 | bit in the byte.
    bits: np.ndarray
    # (n_pairs + padding,) uint16: the gene at each place.
    genes: np.ndarray
    # (n_pairs,) float64: count / divisor at each place, descending.
    keys: np.ndarray


def rank_table(divisors: np.ndarray) -> RankTable:
    """Sort the pairs that slides consist of: counts up to about five times the mean of their gene.

    Parameters
    ----------
    divisors
        What counts of each gene are divided by, (n_genes,).
    """
    divisors = np.asarray(divisors, np.float64)
    wide_last = np.maximum(np.ceil(5 * divisors) - 1, 2)
    max_count = MAX_COUNT
    while max_count > 2 and np.minimum(wide_last, max_count).sum() > MAX_PAIRS:
        max_count = max_count // 2
    last = np.minimum(wide_last, max_count).astype(np.uint16)
    first = (np.cumsum(last, dtype=np.int64) - last - 1).astype(np.uint32)
    genes = np.repeat(np.arange(len(last), dtype=np.uint16), last)
    counts = np.arange(len(genes), dtype=np.uint32) - np.repeat(first, last)
    keys = counts / np.repeat(divisors, last)
    order = _sort_descending(keys)
    places = np.arange(len(order), dtype=np.uint32)
    bits = np.empty(len(order), np.uint32)
    bits[order] = places >> 3 << 8 | 1 << (places & 7)
    # The kernel reads beyond the last mark, so genes are padded.
    padded_genes = np.pad(genes[order], (0, 2 * WORD_BITS))
    return RankTable(divisors, last, first, bits, padded_genes, keys[order])


def _sort_descending(keys: np.ndarray) -> np.ndarray:
    """Return the order of `argsort(-keys, kind="stable")`, in a third of the time.

    The first sort need not be stable, because the second brings ties into order.
    """
    order = np.argsort(-keys)
    keys = keys[order]
    n_larger_keys = np.zeros(len(keys), np.int64)  # without repeats
    np.cumsum(keys[1:] != keys[:-1], out=n_larger_keys[1:])
    return np.sort(n_larger_keys << 32 | order) & (2**32 - 1)
