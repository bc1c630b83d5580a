"""Read gene sets from a file, or download a named collection."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.request import urlopen

from stp._extras import import_extra
from stp._log import count, logger
from stp.genes.gene_set_files import parse_gene_sets, sets_of_table

if TYPE_CHECKING:
    import pandas as pd

# Collections of decoupler, and what their makers allow.
COLLECTIONS = {
    "hallmark": "MSigDB hallmark sets (Liberzon et al. 2015), CC BY 4.0",
    "progeny": "PROGENy footprints (Schubert et al. 2018); see omnipathdb.org for the terms",
}
USES = ("academic", "commercial", "nonprofit")
SERVER = "https://static.omnipathdb.org"
PROBE_SECONDS = 3
N_FOOTPRINT_GENES = 100  # of a pathway of PROGENy, as its authors use


def read_gene_sets(path: str | Path) -> dict[str, list[str]]:
    """Read gene sets from a GMT file, or from a table with the columns set and gene.

    Parameters
    ----------
    path
        GMT file, such as MSigDB and Reactome publish, or a table (`.csv`, `.tsv`, `.parquet`) with
        the columns `set` and `gene`, a row per gene.

    Returns
    -------
    The genes of each set, as they are written in the file and in its order.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file has another format, two sets of a GMT file have one name, or a row of a table lacks
        its set or its gene.

    Examples
    --------
    >>> table = pd.DataFrame(
    ...     {"set": ["luminal", "luminal", "T"], "gene": ["ERBB2", "KRT8", "CD3E"]}
    ... )
    >>> table.to_csv("programs.csv", index=False)
    >>> stp.io.read_gene_sets("programs.csv")
    {'luminal': ['ERBB2', 'KRT8'], 'T': ['CD3E']}
    """
    return parse_gene_sets(path)


def download_gene_sets(
    name: str, *, organism: str = "human", use: str = "academic"
) -> dict[str, list[str]]:
    """Download a named collection of gene sets with decoupler (extra `genesets`).

    The terms of the collection are logged. Whether they fit your use is for you to check.

    Parameters
    ----------
    name
        "hallmark", the 50 hallmark sets of MSigDB; or "progeny", the 100 most responsive genes of
        each pathway of PROGENy, without their weights.
    organism
        Organism whose gene names are returned, such as "human" or "mouse".
    use
        Use that the terms must allow: "academic", "nonprofit" or "commercial".

    Returns
    -------
    The genes of each set.

    Raises
    ------
    ConnectionError
        The server cannot be reached. Save a collection on a machine with a network, and read the
        file with :func:`stp.io.read_gene_sets`.
    ImportError
        decoupler is not installed.
    ValueError
        There is no such collection, or no such use.

    Notes
    -----
    The download is that of :mod:`decoupler.op`. It was tested without the server of OmniPath.

    Examples
    --------
    >>> stp.io.download_gene_sets("hallmarks")
    Traceback (most recent call last):
    ValueError: there is no collection 'hallmarks'; choose from hallmark, progeny
    """
    if name not in COLLECTIONS:
        raise ValueError(f"there is no collection {name!r}; choose from {', '.join(COLLECTIONS)}")
    if use not in USES:
        raise ValueError(f"use must be one of {list(USES)}, not {use!r}")
    if find_spec("decoupler") is None:
        import_extra("decoupler")
    _require_network(name)  # which takes less time than to import decoupler
    op = import_extra("decoupler").op
    readers: dict[str, Callable[[], pd.DataFrame]] = {
        "hallmark": lambda: op.hallmark(organism=organism, license=use),
        "progeny": lambda: op.progeny(organism=organism, license=use, top=N_FOOTPRINT_GENES),
    }
    try:
        table = readers[name]()
    except OSError as error:  # those of requests and of sockets
        raise ConnectionError(_no_network(name, error)) from error
    gene_sets = sets_of_table(table.rename(columns={"source": "set", "target": "gene"}), name)
    logger.info(f"Downloaded {count(len(gene_sets), 'gene set')}: {COLLECTIONS[name]}.")
    return gene_sets


def _require_network(name: str) -> None:
    """Raise ConnectionError if the server does not answer within seconds."""
    try:
        with urlopen(SERVER, timeout=PROBE_SECONDS):
            pass
    except HTTPError:
        return  # it answered
    except OSError as error:
        raise ConnectionError(_no_network(name, error)) from error


def _no_network(name: str, error: OSError) -> str:
    reason = str(getattr(error, "reason", error)).splitlines()[0]
    return (
        f"the gene sets {name!r} cannot be downloaded from {SERVER}: {reason}; "
        "download a GMT file elsewhere, and read it with stp.io.read_gene_sets"
    )
