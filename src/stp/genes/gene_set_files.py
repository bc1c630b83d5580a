"""Gene sets of a file: GMT, or a table with the columns set and gene."""

from pathlib import Path
from typing import TYPE_CHECKING

from stp._log import preview

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("set", "gene")
SEPARATORS = {".csv": ",", ".tsv": "\t"}
PARQUET = ".parquet"
N_GMT_FIELDS = 3  # name, description, and at least one gene


def parse_gene_sets(path: str | Path) -> dict[str, list[str]]:
    """Return the gene names of each set of a file, in the order of the file.

    A name that ends with `.csv`, `.tsv` or `.parquet` is that of a table with the columns `set` and
    `gene`, a row per gene. Any other file is a GMT file.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file is neither, or a set has no gene.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no gene sets at {path}; give a GMT file, such as MSigDB and Reactome publish, or a "
            "table with the columns set and gene"
        )
    if path.suffix.lower() in (*SEPARATORS, PARQUET):
        return sets_of_table(_read_table(path), str(path))
    return _parse_gmt(path)


def sets_of_table(table: "pd.DataFrame", label: str) -> dict[str, list[str]]:
    """Return the gene names of each set of a table with the columns set and gene.

    Parameters
    ----------
    table
        A row per gene of a set.
    label
        Name of the table in an error.

    Raises
    ------
    ValueError
        A column is missing, a row lacks its set or its gene, or there is no row.
    """
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise ValueError(
            f"{label} has no column {missing[0]!r}, but {preview(table.columns)}; gene sets are a "
            "table with the columns set and gene, a row per gene"
        )
    for name in COLUMNS:
        is_empty = (table[name].isna() | (table[name].astype(str).str.strip() == "")).to_numpy()
        if is_empty.any():
            row = int(is_empty.argmax()) + 1
            raise ValueError(f"{label} has no {name} in row {row}; fill it, or delete the row")
    if table.empty:
        raise ValueError(f"{label} has no row; gene sets are a row per gene")
    gene_sets: dict[str, list[str]] = {}
    for name, gene in zip(table["set"].astype(str), table["gene"].astype(str), strict=True):
        gene_sets.setdefault(name.strip(), []).append(gene.strip())
    return {name: list(dict.fromkeys(genes)) for name, genes in gene_sets.items()}


def _read_table(path: Path) -> "pd.DataFrame":
    import pandas as pd

    if path.suffix.lower() == PARQUET:
        return pd.read_parquet(path)
    # A gene may be called NA or NAN, and is no missing value.
    return pd.read_csv(
        path,
        sep=SEPARATORS[path.suffix.lower()],
        dtype=str,
        keep_default_na=False,
        encoding="utf-8-sig",
    )


def _parse_gmt(path: Path) -> dict[str, list[str]]:
    """Return the sets of a GMT file. Only tabs separate columns: names may contain spaces."""
    lines = [
        line.split("\t")
        for line in path.read_text(encoding="utf-8-sig").splitlines()
        if line.strip()
    ]
    for number, line in enumerate(lines, start=1):
        if len(line) < N_GMT_FIELDS:
            raise ValueError(
                f"{path} is not a GMT file: line {number} has no name, description and genes "
                "divided by tabs"
            )
    names = [line[0] for line in lines]
    if len(set(names)) < len(names):
        raise ValueError(
            f"{path} has several gene sets {max(names, key=names.count)!r}; "
            "give each set a unique name"
        )
    return {name: [gene for gene in genes if gene] for name, _, *genes in lines}
