"""The parquet file of a vocabulary: columns of equal length, and what is about all of them in the metadata."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_METADATA = b"stp_vocabulary"
MOST = 2**28  # bytes; the human vocabulary has 2 million

Aliases = dict[str, tuple[str, ...]]


def write_columns(path: str | Path, columns: dict[str, list], about: dict[str, Any]) -> None:
    """Write columns, and `about` as JSON beside them."""
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {"aliases": pa.list_(pa.string())}
    table = pa.table({name: pa.array(values, kinds.get(name)) for name, values in columns.items()})
    parquet.write_table(
        table.replace_schema_metadata({_METADATA: json.dumps(about)}), path, compression="zstd"
    )


def read_columns(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read what `write_columns` wrote; ValueError where it did not."""
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        if sum(group.total_byte_size for group in groups) > MOST:
            raise ValueError(f"it unpacks to more than {MOST} bytes")
        table = file.read()
        return table.to_pydict(), json.loads(table.schema.metadata[_METADATA])
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is no vocabulary ({error}); Vocabulary.save writes one"
        ) from error


def names_by_gene(
    gene_ids: Iterable[str], aliases: Mapping[str, tuple[str, ...]]
) -> list[list[str]]:
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
