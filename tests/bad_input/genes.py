"""Counts and genes."""

import numpy as np
import scanpy as sc
from tests.bad_input.case import refused

import stp


@refused(ValueError, "not a raw count.*start from the raw counts")
def counts_were_normalized(adata, vocabulary):
    """Genes are ranked by raw counts. These counts were normalized, log-transformed or scaled.

    Store the counts before normalization with `adata.layers["counts"] = adata.X.copy()`. Then pass
    `layer="counts"`.
    """
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    stp.tl.tokenize(adata, vocabulary)


@refused(KeyError, "no layer 'counts'; pass layer= one of")
def the_layer_does_not_exist(adata, vocabulary):
    """The table has no such layer.

    Pass one of the layers that the message lists. Without `layer=`, `X` is used.
    """
    stp.tl.tokenize(adata, vocabulary, layer="counts")


@refused(ValueError, "no means to rank genes by")
def the_vocabulary_has_no_means(adata):
    """Genes are ranked by their count divided by their mean in a corpus. The default vocabulary has
    no corpus and no means.

    Compute means on your slides with `Vocabulary.default().fit(tables)`, or pass a model to use its
    vocabulary. See [](howto/vocabulary.md).
    """
    stp.tl.tokenize(adata, stp.Vocabulary.default())


@refused(ValueError, "the genes are those of mouse")
def genes_are_of_another_species(adata):
    """A human model cannot read mouse genes. `stp` does not map orthologs.

    Make a vocabulary of the species and train with it. See [](howto/vocabulary.md).
    """
    adata.var_names = [f"ENSMUSG{index:011d}" for index in range(adata.n_vars)]
    stp.Vocabulary.default().fit([adata])


@refused(ValueError, "no gene of the table is in the vocabulary.*pass gene_ids_key=")
def var_names_are_not_gene_names(adata, vocabulary):
    """`var_names` are numbers, probes or other names.

    If a column of `var` has gene ids or symbols, name it: `gene_ids_key="gene_ids"`. See
    [](howto/gene-names.md).
    """
    adata.var["gene_ids"] = adata.var_names
    adata.var_names = [f"probe{index}" for index in range(adata.n_vars)]
    stp.tl.tokenize(adata, vocabulary)


@refused(ValueError, r"only \d+\.\d% of UMIs are in genes of the vocabulary")
def most_counts_are_in_unknown_genes(adata, vocabulary):
    """More than half of all UMIs are in genes that are not in the vocabulary. Ranks of the other
    genes would mean little.

    Check the species and the gene names. `Vocabulary.explain(names)` shows which gene each name
    maps to. See [](howto/gene-names.md).
    """
    heaviest = np.argsort(-adata.X.sum(axis=0).A1)[:100]
    names = adata.var_names.to_numpy().copy()
    names[heaviest] = [f"probe{index}" for index in heaviest]
    adata.var_names = names
    stp.tl.tokenize(adata, vocabulary)


@refused(ValueError, r"this vocabulary knows 20 genes; they hold \d+\.\d % of the UMIs")
def the_vocabulary_lacks_most_genes_of_the_table(adata, vocabulary):
    """The names are right, but the vocabulary has few genes. Most UMIs are in others. The same is
    said of a model that was trained on few genes.

    Use a vocabulary or a model of more genes. Or add the genes to a model with
    {func}`stp.models.grow`, and train it on slides that have them.
    """
    index = vocabulary.encode(adata.var_names)[:20]
    few = stp.Vocabulary.from_genes(vocabulary.gene_ids[index], vocabulary.symbols[index])
    few.fit([adata])


@refused(ValueError, r"adata\.raw holds counts: pass adata\.raw\.to_adata\(\)")
def the_counts_are_in_raw(adata, vocabulary):
    """`X` was normalized, and `.raw` holds the raw counts.

    Pass `adata.raw.to_adata()`. In a SpatialData, replace the table by it.
    """
    adata.raw = adata.copy()
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    stp.tl.tokenize(adata, vocabulary)


@refused(ValueError, "no row of var is a gene.*Antibody Capture")
def a_table_has_antibodies_alone(adata, vocabulary):
    """`var["feature_types"]` says that no row is a gene.

    Pass the table with gene expression.
    """
    adata.var["feature_types"] = "Antibody Capture"
    stp.tl.tokenize(adata, vocabulary)


@refused(ValueError, "gene_ids.*holds genes of human.*var_names those of mouse or rat")
def ids_and_names_are_of_different_species(adata, vocabulary):
    """`var["gene_ids"]` and `var_names` are genes of different species, for example orthologs.

    Choose by `gene_ids_key="gene_ids"`, or by `gene_ids_key=None` for `var_names`.
    """
    default = stp.Vocabulary.default()
    adata.var["gene_ids"] = default.gene_ids[default.encode(adata.var_names)]
    adata.var_names = [name.capitalize() for name in adata.var_names]
    stp.tl.tokenize(adata, vocabulary)


@refused(ValueError, "all names begin with 'sample1_': strip it")
def gene_names_have_a_prefix(adata, vocabulary):
    """All names begin with the same text, which is no genome that `stp` knows.

    Strip it with `adata.var_names = adata.var_names.str.removeprefix("sample1_")`.
    """
    adata.var_names = [f"sample1_{name}" for name in adata.var_names]
    stp.tl.tokenize(adata, vocabulary)


@refused(ValueError, "the genes are those of mouse.*vocabulary of another species")
def a_store_of_another_species_has_no_vocabulary(adata):
    """Without `vocabulary=`, a store takes the human genes.

    Pass a vocabulary of the species, for example `Vocabulary.from_genes(gene_ids, symbols)`.
    """
    adata.var_names = [f"ENSMUSG{index:011d}" for index in range(adata.n_vars)]
    stp.io.write_store(adata, "mouse.zarr")


@refused(ValueError, "mouse.zarr has genes of mouse, the vocabulary is of human")
def stores_are_of_another_species_than_the_vocabulary(adata, vocabulary):
    """A model reads the genes of one species.

    Train on stores of one species, with a vocabulary of it. See [](howto/vocabulary.md).
    """
    ids = [f"ENSMUSG{index:011d}" for index in range(adata.n_vars)]
    adata.var_names = ids
    stp.io.write_store(adata, "mouse.zarr", vocabulary=stp.Vocabulary.from_genes(ids))
    stp.train.pretrain(["mouse.zarr"], "run", vocabulary=vocabulary)


@refused(ValueError, r"call \.to_memory\(\) first")
def a_backed_table_cannot_be_copied(adata, vocabulary):
    """`copy=True` would read the whole file into memory.

    Do not pass `copy`, or call `adata.to_memory()` first.
    """
    adata.write_h5ad("counts.h5ad")
    backed = sc.read_h5ad("counts.h5ad", backed="r")
    stp.tl.tokenize(backed, vocabulary, copy=True)
