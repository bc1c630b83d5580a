"""Predict genes of the tiles of slides from measured spots, and write them into the tile stores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp import io, tl
from stp._lock import lock
from stp._log import count, logger, preview
from stp._progress import track
from stp._text import text_of
from stp._version import __version__
from stp.genes.gene_choice import open_lookups
from stp.io._results import repair_store
from stp.io._table_entries import scratch_folder
from stp.tables import keys
from stp.tables.features import find_genes
from stp.tables.references import open_embeddings, open_references
from stp.tables.table import get_table
from stp.workflows.slide_config import Study
from stp.workflows.slide_paths import find_paths
from stp.workflows.slide_steps import digest_of, entry_stamp
from stp.workflows.slide_tables import GenesTable

if TYPE_CHECKING:
    from anndata import AnnData

GeneSets = Mapping[str, Sequence[str]]

FINGERPRINT = "fingerprint"  # of a prediction, in its entry of `uns`
REMEDY = (
    "name stores with measured spots as reference in [genes], or predict it with "
    "stp.tl.predict_expression"
)


@dataclass(frozen=True)
class TileStores:
    """The tiles of the slides of a cohort.

    Parameters
    ----------
    paths
        Tile store or feature file of each slide.
    use_rep
        Name of the features in `obsm`.
    table_key
        Name of the table in a SpatialData.
    """

    paths: Mapping[str, Path]
    use_rep: str
    table_key: str

    @property
    def aligned_rep(self) -> str:
        """Name in `obsm` of the aligned vectors that belong to the features."""
        return (
            self.use_rep if self.use_rep.endswith(keys.aligned("")) else keys.aligned(self.use_rep)
        )


@dataclass(frozen=True)
class References:
    """Measured spots, and the genes that are predicted from them.

    Parameters
    ----------
    paths
        The stores.
    genes
        Names of the genes; None for the highly variable ones.
    stamps
        Names, sizes and times of what a prediction depends on.
    """

    paths: list[Path]
    genes: list[str] | None
    stamps: list[Any]


def find_references(study: Study, table: GenesTable) -> list[Path]:
    """Return the stores with measured spots.

    Raises
    ------
    ValueError
        A path or pattern matches nothing.
    """
    return find_paths(study, table.references, "[genes] reference")


def read_gene_sets(study: Study, table: GenesTable) -> GeneSets | None:
    """Return the gene sets of a study, or None if it has none."""
    return None if table.gene_sets is None else io.read_gene_sets(study.path(table.gene_sets))


def list_faults(
    table: GenesTable, stores: TileStores, references: Mapping[str, "AnnData"] | None
) -> list[str]:
    """Return why tiles have no predicted genes, and why they cannot be predicted.

    Parameters
    ----------
    table
        The table `[genes]`.
    stores
        The tiles.
    references
        Tables with measured spots; None if the tiles must have predicted genes.
    """
    files = [slide for slide, path in stores.paths.items() if not path.is_dir()]
    if files:
        return [
            f"{count(len(files), 'slide')} are feature files, which have no predicted genes: "
            f"{preview(files)}; make tile stores of them with `stp slides tile`"
        ]
    tables = {slide: get_table(path, stores.table_key) for slide, path in stores.paths.items()}
    key = table.expression_key
    if references is None:
        lacking = [slide for slide, adata in tables.items() if not _has_prediction(adata, key)]
        if not lacking:
            return []
        number = count(len(lacking), "slide")
        return [f"{number} have no obsm[{key!r}]: {preview(lacking)}; {REMEDY}"]
    rep = stores.aligned_rep
    lacking = [slide for slide, adata in tables.items() if rep not in adata.obsm]
    if lacking:
        return [
            f"{count(len(lacking), 'slide')} have no aligned vectors obsm[{rep!r}]: "
            f"{preview(lacking)}; genes are predicted from vectors of a Stamp only, so embed the "
            "tiles with the Stamp that embedded the references"
        ]
    faults = _list_foreign(key, stores, tables)
    for adata in list(tables.values())[:1]:  # those of a cohort have one model
        try:
            open_embeddings(adata, rep, references, table.reference_rep)
        except (KeyError, ValueError) as error:
            faults.append(text_of(error))
    return faults


def open_measured(
    table: GenesTable, paths: Sequence[Path], table_key: str
) -> dict[str, "AnnData"] | None:
    """Return the tables with measured spots, or None if there is no reference."""
    return open_references(list(paths), table_key) if table.references else None


def choose_genes(
    table: GenesTable, gene_sets: GeneSets | None, references: Mapping[str, "AnnData"]
) -> list[str] | None:
    """Return the genes to predict: those named, or those of the sets that all references measure.

    Raises
    ------
    ValueError
        No gene of the sets is measured.
    """
    if gene_sets is None:
        return None if table.genes is None else list(table.genes)
    names = list(dict.fromkeys(gene for genes in gene_sets.values() for gene in genes))
    is_usable = np.ones(len(names), bool)
    for label, lookup in open_lookups(references).items():
        columns = lookup.find(names, skip_ambiguous=True)
        is_usable &= (columns >= 0) & find_genes(references[label])[columns]
        first = np.unique(np.where(is_usable, columns, -1), return_index=True)[1]
        is_usable &= np.isin(np.arange(len(names)), first)  # a gene may have two names
    genes = [name for name, is_measured in zip(names, is_usable, strict=True) if is_measured]
    if not genes:
        raise ValueError(
            f"[genes] gene_sets: no gene of {table.gene_sets!r} is measured in all references, "
            f"e.g. {preview(names)}; name sets of the same species and kind of names"
        )
    logger.info(f"explain: {len(genes):,} of {len(names):,} genes of the sets are predicted")
    return genes


def predict_genes(
    study: Study, table: GenesTable, stores: TileStores, gene_sets: GeneSets | None
) -> None:
    """Predict genes of the tiles of all slides, and write them; finished slides are skipped.

    Raises
    ------
    ValueError
        Tiles have no aligned vectors of the Stamp of the references, or have a prediction that
        this step did not make.
    """
    paths = find_references(study, table)
    measured = open_measured(table, paths, stores.table_key)
    for path in stores.paths.values():
        _repair(path)
    faults = list_faults(table, stores, measured)
    if faults or measured is None:
        raise ValueError(faults[0] if faults else "there is no reference")
    stamps = [_reference_stamp(path, stores.table_key, table.reference_rep) for path in paths]
    references = References(paths, choose_genes(table, gene_sets, measured), stamps)
    jobs = {}
    for slide, path in stores.paths.items():
        fingerprint = _fingerprint(path, table, stores, references)
        entry = get_table(path, stores.table_key).uns.get(table.expression_key, {})
        if entry.get(FINGERPRINT) != fingerprint:
            jobs[slide] = fingerprint
    n_skipped = len(stores.paths) - len(jobs)
    logger.info(
        f"explain: genes of {count(len(jobs), 'slide')} are predicted from "
        f"{count(len(paths), 'reference')}, {n_skipped:,} finished and skipped"
    )
    for slide, fingerprint in track(jobs.items(), "predict genes", "slide"):
        try:
            _predict(stores.paths[slide], table, stores, references, fingerprint)
        except (KeyError, ValueError) as error:
            raise ValueError(f"slide {slide!r}: {text_of(error)}") from error


def _predict(
    path: Path,
    table: GenesTable,
    stores: TileStores,
    references: References,
    fingerprint: str,
) -> None:
    """Predict genes of the tiles of a slide, and write them into its store."""
    import spatialdata

    sdata = spatialdata.read_zarr(path)
    key = table.expression_key
    tl.predict_expression(
        sdata,
        references.paths,
        genes=references.genes,
        n_neighbors=table.n_neighbors,
        use_rep=stores.aligned_rep,
        reference_rep=table.reference_rep,
        table_key=stores.table_key,
        key_added=key,
    )
    sdata.tables[stores.table_key].uns[key][FINGERPRINT] = fingerprint
    parts = (keys.uncertainty, keys.neighbors, keys.similarity, keys.uniform, keys.far)
    names = [key, *(part(key) for part in parts)]
    io.write_results(sdata, table_key=stores.table_key, keys=names)


def _has_prediction(adata: "AnnData", key: str) -> bool:
    return key in adata.obsm and "genes" in adata.uns.get(key, {})


def _list_foreign(key: str, stores: TileStores, tables: Mapping[str, "AnnData"]) -> list[str]:
    """Return a fault if slides have predicted genes that this step did not make."""
    foreign = [
        slide
        for slide, adata in tables.items()
        if key in adata.obsm
        and FINGERPRINT not in adata.uns.get(key, {})
        and not scratch_folder(stores.paths[slide]).exists()
    ]
    if not foreign:
        return []
    return [
        f"{count(len(foreign), 'slide')} have an obsm[{key!r}] that this step did not make: "
        f"{preview(foreign)}; leave out reference in [genes] to explain it, or name another "
        "expression_key"
    ]


def _repair(path: Path) -> None:
    """Undo what a process that was killed left of a prediction."""
    if path.is_dir() and scratch_folder(path).exists():
        with lock(path, "writing to", wait=True):
            repair_store(path)


def _reference_stamp(path: Path, table_key: str, reference_rep: str) -> list[Any]:
    entries = (("X",), ("var",), ("obsm", reference_rep))
    return [path.name, *(entry_stamp(path, table_key, *entry) for entry in entries)]


def _fingerprint(path: Path, table: GenesTable, stores: TileStores, references: References) -> str:
    """Return a digest of all that the prediction of a slide depends on."""
    rep = stores.aligned_rep
    inputs = {
        "version": __version__,
        "tiles": [rep, entry_stamp(path, stores.table_key, "obsm", rep)],
        "references": [table.reference_rep, references.stamps],
        "genes": references.genes,
        "n_neighbors": table.n_neighbors,
    }
    return digest_of(inputs)
