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
WORD = 64  # bits
ZERO, ONE, FOUR, SIX, EIGHT = (np.uint64(n) for n in (0, 1, 4, 6, 8))


class RankTable(NamedTuple):
    """The pairs of gene and count that are known beforehand, in the order of count / divisor; ties by gene."""

    divisors: np.ndarray  # (n_genes,) float64
    last: np.ndarray  # (n_genes,) uint16: the highest count of each gene among them
    first: (
        np.ndarray
    )  # (n_genes,) uint32: pair (gene, count) is entry first + count of `bits`, modulo 2**32
    bits: np.ndarray  # (n_pairs,) uint32: the place in the order, as byte << 8 | bit in the byte
    genes: np.ndarray  # (n_pairs + padding,) uint16: by place
    keys: np.ndarray  # (n_pairs,) float64, descending: by place


def rank_table(divisors: np.ndarray) -> RankTable:
    """Sort the pairs that slides are made of: counts up to about five times the mean of their gene."""
    divisors = np.asarray(divisors, np.float64)
    last, most = np.maximum(np.ceil(5 * divisors) - 1, 2), 2**16 - 1
    while most > 2 and np.minimum(last, most).sum() > MAX_PAIRS:
        most = most // 2
    last = np.minimum(last, most).astype(np.uint16)
    first = (np.cumsum(last, dtype=np.int64) - last - 1).astype(np.uint32)
    genes = np.repeat(np.arange(len(last), dtype=np.uint16), last)
    counts = np.arange(len(genes), dtype=np.uint32) - np.repeat(first, last)
    keys = counts / np.repeat(divisors, last)
    order = _descending(keys)
    place = np.arange(len(order), dtype=np.uint32)
    bits = np.empty(len(order), np.uint32)
    bits[order] = place >> 3 << 8 | 1 << (place & 7)
    # The bit after the last of an empty word is read, and not used.
    return RankTable(divisors, last, first, bits, np.pad(genes[order], (0, 2 * WORD)), keys[order])


def _descending(keys: np.ndarray) -> np.ndarray:
    """Sort stably as `argsort(-keys, kind="stable")` does, in a third of the time: by sorts that need not be stable."""
    order = np.argsort(-keys)
    keys = keys[order]
    n_before = np.zeros(len(keys), np.int64)  # keys that differ
    np.cumsum(keys[1:] != keys[:-1], out=n_before[1:])
    return np.sort(n_before << 32 | order) & (2**32 - 1)


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
    divisors, last, first, bits, genes, keys = table
    column_first, column_last = _by_column(index, first, last)
    words = np.zeros(len(bits) // WORD + 1, np.uint64)
    marks, marked, wanted = words.view(np.uint8), np.empty(len(words), np.uint32), tokens.shape[1]
    odd = np.empty(np.max(indptr[1:] - indptr[:-1]), np.int64)
    odd_keys = np.empty(len(odd) + 1)
    ranked = np.empty(
        wanted + 2 * WORD + len(odd), np.uint16
    )  # what is written too many stays in here
    sums = np.zeros(len(divisors), np.int64)
    for row in range(len(tokens)):
        begin, end = indptr[row], indptr[row + 1]
        spot_columns, spot_counts = columns[begin:end], counts[begin:end]
        n_odd, mapped[row] = _mark(
            spot_columns, spot_counts, column_first, column_last, bits, marks, odd
        )
        n_odd, umis, wrong = _sum(odd, n_odd, spot_columns, spot_counts, index, sums, unmapped)
        if wrong >= 0:
            return begin + wrong
        mapped[row] += umis
        n_odd = _mark_sums(odd, n_odd, odd_keys, sums, divisors, first, last, bits, marks)
        n_marked = _marked(words, marked)
        n, done = _merge(words, marked, n_marked, odd, n_odd, odd_keys, genes, keys, wanted, ranked)
        n = min(_drain(words, marked, done, n_marked, n, genes, wanted, ranked), wanted)
        for i in range(n):
            tokens[row, i] = ranked[i] + n_special
        n_tokens[row] = n
    return -1


@njit(nogil=True, cache=True)
def _by_column(index, first, last):
    """Bring `first` and `last` from genes to columns; 0 is the last count of those that share or lack a gene."""
    n_columns = np.zeros(len(first), np.int64)
    for gene in index:
        if gene >= 0:
            n_columns[gene] += 1
    column_first, column_last = np.zeros(len(index), first.dtype), np.zeros(len(index), last.dtype)
    for column, gene in enumerate(index):
        if gene >= 0 and n_columns[gene] == 1:
            column_first[column], column_last[column] = first[gene], last[gene]
    return column_first, column_last


@njit(nogil=True, cache=True)
def _is_plain(columns, counts):
    """Tell whether columns ascend, so that none comes twice, and all values are whole."""
    wrong = np.uint32(
        0
    )  # in 32 bits, and without a branch, so that the compiler takes many at once
    for k in range(ONE, np.uint64(len(columns))):
        wrong = np.uint32(wrong | np.uint32(columns[k] <= columns[k - ONE]))
    for k in range(np.uint64(len(counts))):
        wrong = np.uint32(wrong | np.uint32(counts.dtype.type(np.int32(counts[k])) != counts[k]))
    return wrong == 0


@njit(nogil=True, cache=True)
def _mark(columns, counts, first, last, bits, marks, odd):
    """Mark the known pairs of a spot; returns how many are not, their positions in `odd`, and the UMIs marked."""
    n_odd, umis = ZERO, ZERO
    plain = _is_plain(columns, counts)
    for k in range(np.uint64(len(columns))):
        column, count = columns[k], np.uint64(np.int64(counts[k]))
        if plain and count - ONE < last[column]:  # 0 and what is negative wrap around
            bit = bits[np.uint32(first[column] + count)]
            marks[np.uint64(bit) >> EIGHT] |= np.uint8(bit)
            umis += count
        else:
            odd[n_odd] = k
            n_odd += ONE
    return np.int64(n_odd), np.int64(umis)


@njit(nogil=True, cache=True)
def _sum(odd, n_odd, columns, counts, index, sums, unmapped):
    """Add up the counts at these positions by gene; `odd` then lists the genes.

    Returns the number of genes, their UMIs, and a position that holds no count or -1.
    """
    n, umis = 0, 0
    for i in range(n_odd):
        k = odd[i]
        column, value = columns[k], counts[k]
        count = np.int64(value)
        if count != value or count < 0:
            return n, umis, k
        gene = index[column]
        if gene < 0:
            unmapped[column] += count
        elif count > 0:
            if sums[gene] == 0:
                odd[n] = gene
                n += 1
            sums[gene] += count
            umis += count
    return n, umis, np.int64(-1)


@njit(nogil=True, cache=True)
def _mark_sums(rest, n_rest, rest_keys, sums, divisors, first, last, bits, marks):
    """Mark those sums that are known pairs; returns the number of others, in their order, keys in `rest_keys`."""
    n = 0
    for i in range(n_rest):
        gene = rest[i]
        if sums[gene] <= last[gene]:
            bit = bits[np.uint32(first[gene] + sums[gene])]
            marks[bit >> EIGHT] |= np.uint8(bit)
        else:
            rest[n], rest_keys[n] = gene, sums[gene] / divisors[gene]
            n += 1
        sums[gene] = 0
    _sort(rest, n, rest_keys)
    rest_keys[n] = -1.0  # after all others
    return n


@njit(nogil=True, cache=True)
def _sort(genes, n, keys):
    """Shell sort in place: descending keys, ties by gene."""
    gap = 1
    while gap < n // 3:
        gap = 3 * gap + 1
    while gap:
        for i in range(gap, n):
            gene, key, j = genes[i], keys[i], i
            while j >= gap and (
                keys[j - gap] < key or (keys[j - gap] == key and genes[j - gap] > gene)
            ):
                genes[j], keys[j] = genes[j - gap], keys[j - gap]
                j -= gap
            genes[j], keys[j] = gene, key
        gap //= 3


@njit(nogil=True, cache=True)
def _marked(words, marked):
    """List the words that hold marks: two thirds of those of rare counts are empty; returns how many."""
    n = ZERO
    for word in range(np.uint64(len(words))):
        marked[n] = word
        n += np.uint64(words[word] != ZERO)
    return np.int64(n)


@njit(nogil=True, cache=True)
def _merge(words, marked, n_marked, rest, n_rest, rest_keys, genes, keys, wanted, ranked):
    """Read words in order, the rest merged in, until that is read; returns the numbers of genes and of words."""
    n, i, done = 0, 0, ZERO
    while done < n_marked and i < n_rest and n < wanted:
        word, done = np.uint64(marked[done]), done + ONE
        bits = words[word]
        while bits:
            at = word << SIX | _trailing_zeros(bits)
            bits &= bits - ONE
            while rest_keys[i] > keys[at] or (rest_keys[i] == keys[at] and rest[i] < genes[at]):
                ranked[n] = rest[i]
                n, i = n + 1, i + 1
            ranked[n] = genes[at]
            n += 1
    while done == n_marked and i < n_rest:
        ranked[n] = rest[i]
        n, i = n + 1, i + 1
    return n, done


@njit(nogil=True, cache=True)
def _drain(words, marked, done, n_marked, n, genes, wanted, ranked):
    """Read words in order after n genes, and clear all; returns the number of genes, at most 63 too many."""
    n, i = np.uint64(n), done
    while i < n_marked and n < wanted:
        word = np.uint64(marked[i])
        bits, base, at = words[word], word << SIX, n
        n += _population(bits)
        i += ONE
        # Four at once, then eight, wanted or not: a branch for each would cost more than they do.
        for j in range(FOUR):
            ranked[at + j] = genes[base + _trailing_zeros(bits)]
            bits &= bits - ONE
        at += FOUR
        while bits:
            for j in range(EIGHT):
                ranked[at + j] = genes[base + _trailing_zeros(bits)]
                bits &= bits - ONE
            at += EIGHT
    words[:] = 0
    return np.int64(n)
