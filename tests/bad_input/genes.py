"""Counts and genes."""

import numpy as np
import scanpy as sc
from tests.bad_input.case import refused

import stp


@refused(ValueError, "not a raw count.*start from the raw counts")
def counts_were_normalized(adata, vocabulary):
    """Genes are ranked by raw counts; these were normalized, log-transformed or scaled.

    Keep the counts before: `adata.layers["counts"] = adata.X.copy()`, then pass `layer="counts"`.
    """
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    stp.tl.tokenize(adata, vocabulary)


@refused(KeyError, "no layer 'counts'; pass layer= one of")
def the_layer_is_not_there(adata, vocabulary):
    """The table has no such layer.

    Pass one of those that the message lists; without `layer=` it is X.
    """
    stp.tl.tokenize(adata, vocabulary, layer="counts")


@refused(ValueError, "no means to rank genes by")
def the_vocabulary_has_no_means(adata):
    """Genes are ranked by count over their mean in a corpus, and the vocabulary that is shipped has no corpus.

    Compute means on your slides, `Vocabulary.default().fit(tables)`, or take the vocabulary of a model: pass the
    model. See [](howto/vocabulary.md).
    """
    stp.tl.tokenize(adata, stp.Vocabulary.default())


@refused(ValueError, "the genes are those of mouse")
def genes_are_of_another_species(adata):
    """A human model cannot read mouse genes, and orthologs are not guessed.

    Make a vocabulary of the species and train with that: [](howto/vocabulary.md).
    """
    adata.var_names = [f"ENSMUSG{index:011d}" for index in range(adata.n_vars)]
    stp.Vocabulary.default().fit([adata])


@refused(ValueError, "no gene of the table is in the vocabulary.*pass gene_ids_key=")
def names_are_not_those_of_genes(adata, vocabulary):
    """`var_names` hold numbers, probes or anything else.

    If a column of `var` has ids or symbols, name it: `gene_ids_key="gene_ids"`. See [](howto/gene-names.md).
    """
    adata.var["gene_ids"] = adata.var_names
    adata.var_names = [f"probe{index}" for index in range(adata.n_vars)]
    stp.tl.tokenize(adata, vocabulary)


@refused(ValueError, r"only \d+\.\d% of UMIs are in genes of the vocabulary")
def most_counts_are_in_unknown_genes(adata, vocabulary):
    """More than half of all UMIs are in genes that the vocabulary does not have, so that ranks would mean little.

    `Vocabulary.explain(names)` shows what each name is taken for; check species and names. See [](howto/gene-names.md).
    """
    heaviest = np.argsort(-adata.X.sum(axis=0).A1)[:100]
    names = adata.var_names.to_numpy().copy()
    names[heaviest] = [f"probe{index}" for index in heaviest]
    adata.var_names = names
    stp.tl.tokenize(adata, vocabulary)


@refused(ValueError, r"call \.to_memory\(\) first")
def a_backed_table_is_to_be_copied(adata, vocabulary):
    """`copy=True` would read the whole file.

    Leave `copy` out, or call `adata.to_memory()` first.
    """
    adata.write_h5ad("counts.h5ad")
    backed = sc.read_h5ad("counts.h5ad", backed="r")
    stp.tl.tokenize(backed, vocabulary, copy=True)
