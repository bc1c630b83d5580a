"""Rank the genes of each spot by count / divisor: exact, fast, and the same on every CPU.

Most counts are small, so nearly all pairs (gene, count) of a slide are known before it is read.
A `RankTable` has them in order. A spot marks the places of its pairs in a bitmap and reads the
marks in order, without comparing keys. Its few larger counts are sorted and merged in.
"""

import numpy as np
from numba import types
from numba.extending import intrinsic

from stp._kernels import compile_kernel
from stp.genes.rank_table import WORD_BITS

# Numba makes a float of a uint64 and a plain integer, so these are uint64 as well.
ZERO, ONE, FOUR, SIX, EIGHT = (np.uint64(n) for n in (0, 1, 4, 6, 8))


@intrinsic
def _count_trailing_zeros(typing, word):
    """Return the position of the lowest bit that is set, or 64 if none is."""

    def build(context, builder, signature, arguments):
        return builder.cttz(arguments[0], context.get_constant(types.boolean, False))

    return types.uint64(types.uint64), build


@intrinsic
def _count_bits(typing, word):
    """Return the number of bits that are set."""

    def build(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), build


# A worked example. Genes A, B and C have divisors 1/8, 1/4 and 1/2, and the table has the counts 1
# and 2 of each. Their keys, count / divisor, are A1 = 8, A2 = 16, B1 = 4, B2 = 8, C1 = 2, C2 = 4:
#
#     place   0    1    2    3    4    5
#     pair    A2   A1   B2   B1   C2   C1
#     key     16   8    8    4    4    2       (ties by gene: A1 before B2, B1 before C2)
#
# A spot counts A = 1, B = 3 and C = 2.
# `_mark_pairs` marks A1 and C2, so the bitmap is 010010. B3 is not in the table and remains.
# `_sum_genes` adds up what remains by gene, B = 3; `_mark_sums` computes its key, 3 / (1/4) = 12.
# `_list_words` finds that the first word of the bitmap is the only one with marks.
# `_merge` reads the mark at place 1, key 8. As 12 is larger, B comes first, then A. The mark at
# place 4 is C. `_read_marks` has no word left and clears the bitmap. The ranks are B, A, C.
@compile_kernel()
def rank_rows(indptr, columns, counts, index, table, n_special, tokens, n_tokens, unmapped, mapped):
    """Write the tokens of the rows of a CSR; return the position of a value that is no count or -1.

    Parameters
    ----------
    indptr, columns, counts
        The CSR. Columns of a row may come in any order and more than once.
    index
        Gene of each column, -1 if it has none. Several columns may have one gene.
    table, n_special
        A `RankTable` as a plain tuple, and the token of gene 0 (uint16).
    tokens, n_tokens
        Filled with the tokens of each row (n_rows, context_length), and their number.
    unmapped, mapped
        Filled with the UMIs of each column without a gene, and those of each row in genes.
    """
    divisors, last, first, bits, genes, keys = table
    limit = tokens.shape[1]  # genes to rank
    column_first, column_last = _look_up_columns(index, first, last)
    words = np.zeros(len(bits) // WORD_BITS + 1, np.uint64)
    marks = words.view(np.uint8)
    word_list = np.empty(len(words), np.uint32)
    remaining = np.empty(np.max(indptr[1:] - indptr[:-1]), np.int64)
    large_keys = np.empty(len(remaining) + 1)
    ranked = np.empty(limit + 2 * WORD_BITS + len(remaining), np.uint16)  # may exceed the limit
    sums = np.zeros(len(divisors), np.int64)
    for row in range(len(tokens)):
        begin, end = indptr[row], indptr[row + 1]
        spot_columns = columns[begin:end]
        spot_counts = counts[begin:end]
        n_remaining, mapped[row] = _mark_pairs(
            spot_columns, spot_counts, column_first, column_last, bits, marks, remaining
        )
        n_remaining, umis, bad_position = _sum_genes(
            remaining, n_remaining, spot_columns, spot_counts, index, sums, unmapped
        )
        if bad_position >= 0:
            return begin + bad_position
        mapped[row] += umis
        n_large = _mark_sums(
            remaining, n_remaining, large_keys, sums, divisors, first, last, bits, marks
        )
        n_words = _list_words(words, word_list)
        n_ranked, next_word = _merge(
            words, word_list, n_words, remaining, n_large, large_keys, genes, keys, limit, ranked
        )
        n_ranked = _read_marks(words, word_list, next_word, n_words, n_ranked, genes, limit, ranked)
        n_ranked = min(n_ranked, limit)
        for i in range(n_ranked):
            tokens[row, i] = ranked[i] + n_special
        n_tokens[row] = n_ranked
    return -1


@compile_kernel()
def _look_up_columns(index, first, last):
    """Return `first` and `last` of each column; `last` is 0 if it shares or lacks a gene."""
    n_columns = np.zeros(len(first), np.int64)
    for gene in index:
        if gene >= 0:
            n_columns[gene] += 1
    column_first = np.zeros(len(index), first.dtype)
    column_last = np.zeros(len(index), last.dtype)
    for column, gene in enumerate(index):
        if gene >= 0 and n_columns[gene] == 1:
            column_first[column], column_last[column] = first[gene], last[gene]
    return column_first, column_last


@compile_kernel()
def _is_plain(columns, counts):
    """Return whether columns ascend, so that none comes twice, and all values are whole."""
    # In 32 bits and without a branch, so that the compiler takes many values at once.
    is_wrong = np.uint32(0)
    for k in range(ONE, np.uint64(len(columns))):
        is_wrong = np.uint32(is_wrong | np.uint32(columns[k] <= columns[k - ONE]))
    for k in range(np.uint64(len(counts))):
        is_fraction = np.uint32(counts.dtype.type(np.int32(counts[k])) != counts[k])
        is_wrong = np.uint32(is_wrong | is_fraction)
    return is_wrong == 0


@compile_kernel()
def _mark_pairs(columns, counts, first, last, bits, marks, remaining):
    """Mark the pairs of a spot that are in the table, and write the other positions to `remaining`.

    Return the number of these positions and the UMIs of the marked pairs.
    """
    n_remaining = ZERO
    umis = ZERO
    plain = _is_plain(columns, counts)
    for k in range(np.uint64(len(columns))):
        column = columns[k]
        count = np.uint64(np.int64(counts[k]))
        # 0 - 1 and negative numbers wrap around to a large number, which no `last` reaches.
        if plain and count - ONE < last[column]:
            bit = bits[np.uint32(first[column] + count)]
            marks[np.uint64(bit) >> EIGHT] |= np.uint8(bit)
            umis += count
        else:
            remaining[n_remaining] = k
            n_remaining += ONE
    return np.int64(n_remaining), np.int64(umis)


@compile_kernel()
def _sum_genes(remaining, n_remaining, columns, counts, index, sums, unmapped):
    """Add up the counts at the remaining positions by gene; `remaining` then lists these genes.

    Return the number of genes, their UMIs, and the position of a value that is no count, or -1.
    """
    n_genes = 0
    umis = 0
    for i in range(n_remaining):
        k = remaining[i]
        column, value = columns[k], counts[k]
        count = np.int64(value)
        if count != value or count < 0:
            return n_genes, umis, k
        gene = index[column]
        if gene < 0:
            unmapped[column] += count
        elif count > 0:
            if sums[gene] == 0:
                remaining[n_genes] = gene
                n_genes += 1
            sums[gene] += count
            umis += count
    return n_genes, umis, np.int64(-1)


@compile_kernel()
def _mark_sums(remaining, n_remaining, large_keys, sums, divisors, first, last, bits, marks):
    """Mark the sums that the table has as pairs, and sort the genes of the larger sums by key.

    `remaining` then lists these genes, and `large_keys` their keys. Return their number.
    """
    n_large = 0
    for i in range(n_remaining):
        gene = remaining[i]
        if sums[gene] <= last[gene]:
            bit = bits[np.uint32(first[gene] + sums[gene])]
            marks[bit >> EIGHT] |= np.uint8(bit)
        else:
            remaining[n_large] = gene
            large_keys[n_large] = sums[gene] / divisors[gene]
            n_large += 1
        sums[gene] = 0
    _sort(remaining, n_large, large_keys)
    large_keys[n_large] = -1.0  # below all keys, so that `_merge` need not look for the end
    return n_large


@compile_kernel()
def _sort(genes, n_genes, keys):
    """Sort in place by descending key, ties by ascending gene (Shell sort)."""
    gap = 1
    while gap < n_genes // 3:
        gap = 3 * gap + 1
    while gap:
        for i in range(gap, n_genes):
            gene, key = genes[i], keys[i]
            j = i
            while j >= gap and (
                keys[j - gap] < key or (keys[j - gap] == key and genes[j - gap] > gene)
            ):
                genes[j], keys[j] = genes[j - gap], keys[j - gap]
                j -= gap
            genes[j], keys[j] = gene, key
        gap //= 3


@compile_kernel()
def _list_words(words, word_list):
    """List the words of the bitmap that have marks, and return their number."""
    n_words = ZERO
    # Without a branch: a word that has no marks is overwritten by the next.
    for word in range(np.uint64(len(words))):
        word_list[n_words] = word
        n_words += np.uint64(words[word] != ZERO)
    return np.int64(n_words)


# The same example: one word has marks, at places 1 and 4; `large` is [B], `large_keys` [12, -1].
#
#     mark at place 1: A, key 8    large_keys[0] = 12 is larger, so B is written; next_large = 1
#                                  large_keys[1] = -1 is smaller, so A is written
#     mark at place 4: C, key 4    large_keys[1] = -1 is smaller, so C is written
#
# If the key of B were 8, a tie, the lower gene A would come first. If it were 1, below all marks,
# the last loop would write it: A, C, B. If another word had marks, the first loop would end before
# it, as no large gene is left, and `_read_marks` would read it without comparing keys.
@compile_kernel()
def _merge(words, word_list, n_words, large, n_large, large_keys, genes, keys, limit, ranked):
    """Read words in order and merge large genes in, until all of these are written.

    Return the number of ranked genes and the position in `word_list` of the next word to read.
    """
    n_ranked = 0
    next_large = 0
    next_word = ZERO
    while next_word < n_words and next_large < n_large and n_ranked < limit:
        word = np.uint64(word_list[next_word])
        next_word += ONE
        bits = words[word]
        while bits:
            place = word << SIX | _count_trailing_zeros(bits)
            bits &= bits - ONE  # clears the lowest bit that is set
            while large_keys[next_large] > keys[place] or (
                large_keys[next_large] == keys[place] and large[next_large] < genes[place]
            ):
                ranked[n_ranked] = large[next_large]
                n_ranked += 1
                next_large += 1
            ranked[n_ranked] = genes[place]
            n_ranked += 1
    while next_word == n_words and next_large < n_large:
        ranked[n_ranked] = large[next_large]
        n_ranked += 1
        next_large += 1
    return n_ranked, next_word


@compile_kernel()
def _read_marks(words, word_list, next_word, n_words, n_ranked, genes, limit, ranked):
    """Read the other words, clear the bitmap, and return the number of genes, up to 63 too many."""
    n_read = np.uint64(n_ranked)
    i = next_word
    while i < n_words and n_read < limit:
        word = np.uint64(word_list[i])
        bits = words[word]
        base = word << SIX
        start = n_read
        n_read += _count_bits(bits)
        i += ONE
        # Four at once, then eight, needed or not: a branch for each would cost more than they do.
        for j in range(FOUR):
            ranked[start + j] = genes[base + _count_trailing_zeros(bits)]
            bits &= bits - ONE
        start += FOUR
        while bits:
            for j in range(EIGHT):
                ranked[start + j] = genes[base + _count_trailing_zeros(bits)]
                bits &= bits - ONE
            start += EIGHT
    words[:] = 0
    return np.int64(n_read)
