"""The parquet file of a vocabulary: a row per gene, and metadata about all genes."""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stp._text import utf8_path
from stp._urls import require_local

MAX_BYTES = 2**28  # the human vocabulary takes 2 million
_METADATA = b"stp_vocabulary"

Aliases = dict[str, tuple[str, ...]]


def write_columns(path: str | Path, columns: dict[str, list], metadata: dict[str, Any]) -> None:
    """Write columns of equal length, and metadata as JSON in the same file."""
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {"aliases": pa.list_(pa.string())}
    table = pa.table({name: pa.array(values, kinds.get(name)) for name, values in columns.items()})
    table = table.replace_schema_metadata({_METADATA: json.dumps(metadata)})
    with require_local(path, "vocabularies").open("wb") as file:
        parquet.write_table(table, file, compression="zstd")


def read_columns(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read columns and metadata; raise ValueError if `write_columns` did not write the file."""
    from pyarrow import parquet

    try:
        with utf8_path(path) as name:
            table = _read_table(parquet.ParquetFile(name))
        return table.to_pydict(), json.loads(table.schema.metadata[_METADATA])
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no vocabulary at {path}; Vocabulary.save writes one") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is no vocabulary ({error}); Vocabulary.save writes one"
        ) from error


def _read_table(file: Any) -> Any:
    """Read a parquet file, or raise ValueError if it would fill the memory."""
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    if sum(group.total_byte_size for group in groups) > MAX_BYTES:
        raise ValueError(f"it unpacks to more than {MAX_BYTES} bytes")
    return file.read()


def compute_digest(gene_ids: Iterable[str], means: np.ndarray | None, round_means: bool) -> str:
    """Return the SHA-256 (hexadecimal) of all that decides which token a count becomes."""
    digest = hashlib.sha256("\n".join(gene_ids).encode())
    if means is not None:
        # One bit pattern for every NaN: 0/0 has another sign on another CPU.
        uniform = np.where(np.isnan(means), np.nan, means)
        digest.update(b"\0means" + uniform.astype("<f8").tobytes())
    digest.update(b"\0rounded" if round_means else b"\0exact")
    return digest.hexdigest()


def names_by_gene(
    gene_ids: Iterable[str], aliases: Mapping[str, tuple[str, ...]]
) -> list[list[str]]:
    """Return the sorted aliases of each gene."""
    names: dict[str, list[str]] = {gene_id: [] for gene_id in gene_ids}
    for name, ids in aliases.items():
        for gene_id in ids:
            names[gene_id].append(name)
    return [sorted(names_of_gene) for names_of_gene in names.values()]


def genes_by_name(gene_ids: Iterable[str], names: Iterable[Iterable[str]]) -> Aliases:
    """Return the genes that each alias may mean, in the order of the genes."""
    aliases: Aliases = {}
    for gene_id, names_of_gene in zip(gene_ids, names, strict=True):
        for name in names_of_gene:
            aliases[name] = (*aliases.get(name, ()), gene_id)
    return aliases


def merge_aliases(
    aliases: Mapping[str, tuple[str, ...]],
    other_aliases: Mapping[str, tuple[str, ...]],
    new_genes: Collection[str],
) -> Aliases:
    """Return aliases, with those that other aliases add for new genes."""
    new_genes = set(new_genes)
    merged = dict(aliases)
    for name, gene_ids in other_aliases.items():
        new_ids = tuple(gene_id for gene_id in gene_ids if gene_id in new_genes)
        if new_ids:
            merged[name] = (*merged.get(name, ()), *new_ids)
    return merged
