"""Order the genes of each spot by count / mean, hardly comparing keys: exact, fast, and the same on every CPU.

Nearly every count is small, so nearly all pairs (gene, count) of a slide are known before it is read. They are sorted
once. A spot then marks the places of its pairs in a bitmap and reads the marks in order, however many keys tie. Pairs
that are not known beforehand are compared, and merged in.
"""

from typing import NamedTuple

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

MAX_PAIRS = 2**20  # known beforehand: a bitmap of 128 kB
ZERO, ONE, TWO, SIX, SIXTY_THREE = (np.uint64(n) for n in (0, 1, 2, 6, 63))


class RankTable(NamedTuple):
    """The pairs of gene and count that are known beforehand, in the order of count / divisor; ties by gene."""

    divisors: np.ndarray  # (n_genes,) float64
    last: np.ndarray  # (n_genes,) int32: the highest count of each gene among them
    first: np.ndarray  # (n_genes,) int32: pair (gene, count) is entry first + count of `place`
    place: np.ndarray  # (n_pairs,) uint32: in the order
    genes: np.ndarray  # (n_pairs,) uint16: by place
    keys: np.ndarray  # (n_pairs,) float64, descending: by place


def rank_table(divisors: np.ndarray) -> RankTable:
    """Sort the pairs that slides are made of: counts up to about three times the mean of their gene."""
    n_genes = len(divisors)
    last = np.minimum(np.ceil(3 * divisors) + 2, max(2, MAX_PAIRS // max(n_genes, 1))).astype(np.int32)
    first = (np.cumsum(last) - last - 1).astype(np.int32)
    genes = np.repeat(np.arange(n_genes, dtype=np.uint16), last)
    keys = (np.arange(len(genes)) - first[genes]) / divisors[genes]
    order = np.argsort(-keys, kind="stable")
    place = np.empty(len(order), np.uint32)
    place[order] = np.arange(len(order), dtype=np.uint32)
    return RankTable(np.asarray(divisors, np.float64), last, first, place, genes[order], keys[order])


@intrinsic
def _trailing_zeros(typing, word):
    """Return the position of the lowest bit that is set; 64 where none is."""

    def build(context, builder, signature, arguments):
        return builder.cttz(arguments[0], context.get_constant(types.boolean, False))

    return types.uint64(types.uint64), build


@intrinsic
def _population(typing, word):
    """Return how many bits are set."""

    def build(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), build


@njit(nogil=True, cache=True)
def rank_rows(indptr, columns, counts, index, table, n_special, tokens, n_tokens, unmapped, mapped):
    """Write the tokens of the rows of a CSR; returns the position of a value that is no count, or -1.

    `index` gives the gene of each column, or -1, and `table` is a RankTable as a plain tuple. To be filled: the number
    of tokens of each row, the UMIs of columns without a gene (`unmapped`, by column) and of all others (`mapped`, by
    row). Columns of a row may come in any order and more than once; so may those of a gene.
    """
    divisors, last, first, place, genes, keys = table
    column_first, column_last = _by_column(index, first, last)
    marks = np.zeros(len(place) // 64 + 1, np.uint64)
    places = np.empty(tokens.shape[1] + 64, np.uint32)
    odd = np.empty(np.max(indptr[1:] - indptr[:-1]), np.int64)
    odd_keys = np.empty(len(odd))
    sums = np.zeros(len(divisors), np.int64)
    for row in range(len(tokens)):
        begin, end = indptr[row], indptr[row + 1]
        n_odd, mapped[row] = _mark(begin, end, columns, counts, column_first, column_last, place, marks, odd)
        rest, wrong = _sum(odd[:n_odd], columns, counts, index, sums, unmapped, mapped[row:])
        if wrong >= 0:
            return wrong
        rest = _mark_sums(rest, odd_keys, sums, divisors, first, last, place, marks)
        n = _drain(marks, places, tokens.shape[1])
        n_tokens[row] = _write(places[:n], rest, odd_keys, genes, keys, n_special, tokens[row])
    return -1


@njit(nogil=True, cache=True)
def _by_column(index, first, last):
    """Bring `first` and `last` from genes to columns; 0 is the last count of those that share or lack a gene."""
    n_columns = np.zeros(len(first), np.int64)
    for gene in index:
        if gene >= 0:
            n_columns[gene] += 1
    column_first, column_last = np.zeros(len(index), np.int32), np.zeros(len(index), np.int32)
    for column, gene in enumerate(index):
        if gene >= 0 and n_columns[gene] == 1:
            column_first[column], column_last[column] = first[gene], last[gene]
    return column_first, column_last


@njit(nogil=True, cache=True)
def _mark(begin, end, columns, counts, first, last, place, marks, odd):
    """Mark the known pairs of a row; returns the number of others, whose positions go to `odd`, and the UMIs marked.

    A row whose columns do not ascend may hold one twice: then it has no known pairs.
    """
    n_odd, umis, least, ascends = ZERO, np.int64(0), np.uint64(0), True
    for k in range(np.uint64(begin), np.uint64(end)):
        column, value = columns[k], counts[k]
        count = np.int32(value)
        ascends &= column >= least
        least = np.uint64(column) + ONE
        if 0 < count <= last[column] and count == value:
            at = place[np.uint32(first[column] + count)]
            marks[np.uint64(at) >> SIX] |= ONE << (np.uint64(at) & SIXTY_THREE)
            umis += count
        else:
            odd[n_odd] = k
            n_odd += ONE
    if ascends:
        return np.int64(n_odd), umis
    marks[:] = 0
    for k in range(begin, end):
        odd[k - begin] = k
    return np.int64(end - begin), np.int64(0)


@njit(nogil=True, cache=True)
def _sum(odd, columns, counts, index, sums, unmapped, mapped):
    """Add up the counts at these positions by gene; returns the genes, and a position that holds no count or -1."""
    n = 0
    for k in odd:
        column, value = columns[k], counts[k]
        count = np.int64(value)
        if count != value or count < 0:
            return odd[:0], k
        gene = index[column]
        if gene < 0:
            unmapped[column] += count
        elif count > 0:
            if sums[gene] == 0:
                odd[n] = gene
                n += 1
            sums[gene] += count
            mapped[0] += count
    return odd[:n], np.int64(-1)


@njit(nogil=True, cache=True)
def _mark_sums(rest, rest_keys, sums, divisors, first, last, place, marks):
    """Mark those sums that are known pairs; returns the other genes in their order, their keys in `rest_keys`."""
    n = 0
    for gene in rest:
        if sums[gene] <= last[gene]:
            at = np.uint64(place[first[gene] + sums[gene]])
            marks[at >> SIX] |= ONE << (at & SIXTY_THREE)
        else:
            rest[n], rest_keys[n] = gene, sums[gene] / divisors[gene]
            n += 1
        sums[gene] = 0
    _sort(rest[:n], rest_keys)
    return rest[:n]


@njit(nogil=True, cache=True)
def _sort(genes, keys):
    """Shell sort in place: descending keys, ties by gene."""
    gap = 1
    while gap < len(genes) // 3:
        gap = 3 * gap + 1
    while gap:
        for i in range(gap, len(genes)):
            gene, key, j = genes[i], keys[i], i
            while j >= gap and (keys[j - gap] < key or (keys[j - gap] == key and genes[j - gap] > gene)):
                genes[j], keys[j] = genes[j - gap], keys[j - gap]
                j -= gap
            genes[j], keys[j] = gene, key
        gap //= 3


@njit(nogil=True, cache=True)
def _drain(marks, places, wanted):
    """Read the first marks in order, and clear them all; returns how many were read, at most 63 too many."""
    n, word = ZERO, ZERO
    while word < len(marks) and n < wanted:
        bits, base, at = marks[word], word << SIX, n + TWO
        n += _population(bits)
        word += ONE
        # Two at once, wanted or not: a branch for each would cost more than they do.
        places[at - TWO] = base | _trailing_zeros(bits)
        bits &= bits - ONE
        places[at - ONE] = base | _trailing_zeros(bits)
        bits &= bits - ONE
        while bits:
            places[at] = base | _trailing_zeros(bits)
            bits &= bits - ONE
            at += ONE
    marks[:] = 0
    return n


@njit(nogil=True, cache=True)
def _write(places, rest, rest_keys, genes, keys, n_special, tokens):
    """Merge the known pairs and the rest into the tokens of a row; returns their number."""
    n, done, width = ZERO, ZERO, np.uint64(len(tokens))
    for i, gene in enumerate(rest):
        key = rest_keys[i]
        while done < len(places) and n < width:
            at = places[done]
            if keys[at] < key or (keys[at] == key and genes[at] > gene):
                break
            tokens[n] = genes[at] + n_special
            n, done = n + ONE, done + ONE
        if n < width:
            tokens[n] = np.uint16(gene) + n_special
            n += ONE
    left = min(np.uint64(len(places)) - done, width - n)
    for i in range(left):
        tokens[n + i] = genes[places[done + i]] + n_special
    return n + left
