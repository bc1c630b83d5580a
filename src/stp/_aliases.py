"""Other names of genes: from name to genes as they are looked up, from gene to names as they are stored."""

from collections.abc import Iterable, Mapping

Aliases = dict[str, tuple[str, ...]]


def names_by_gene(gene_ids: Iterable[str], aliases: Mapping[str, tuple[str, ...]]) -> list[list[str]]:
    """Return the sorted other names of each gene."""
    names: dict[str, list[str]] = {gene: [] for gene in gene_ids}
    for name, genes in aliases.items():
        for gene in genes:
            names[gene].append(name)
    return [sorted(of_gene) for of_gene in names.values()]


def genes_by_name(gene_ids: Iterable[str], names: Iterable[Iterable[str]]) -> Aliases:
    """Return the genes that each name may mean, in the order of the genes."""
    aliases: Aliases = {}
    for gene, of_gene in zip(gene_ids, names, strict=True):
        for name in of_gene:
            aliases[name] = (*aliases.get(name, ()), gene)
    return aliases


def with_aliases(
    aliases: Mapping[str, tuple[str, ...]], others: Mapping[str, tuple[str, ...]], new: Iterable
) -> Aliases:
    """Add what other aliases say of the genes that are new."""
    joined, new = dict(aliases), set(new)
    for name, genes in others.items():
        if added := tuple(gene for gene in genes if gene in new):
            joined[name] = (*joined.get(name, ()), *added)
    return joined
