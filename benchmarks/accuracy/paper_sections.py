"""The paper's figures for small sections: the mouse olfactory bulb, and HER2+ tumors."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import anndata

import stp
from benchmarks.accuracy import bulb_sections, sections
from benchmarks.accuracy.her2st import embed_genes
from benchmarks.accuracy.paper_figures import (
    N_GENES,
    NAMES,
    add_labels,
    add_map,
    add_maps,
    draw_clusters,
    draw_gene_pairs,
    draw_maps,
    save_figure,
)
from benchmarks.accuracy.small_settings import (
    START,
    SmallSettings,
    Task,
    bulb_task,
    embed,
    her2st_task,
    train_stamp,
)
from stp.models import Stamp

if TYPE_CHECKING:
    import spatialdata
    from matplotlib.figure import Figure

TISSUES = ("bulb", "her2st")
FIGURES = "figures"  # folder in the folder of a run
BULB_TEST = "rep11"
LABEL = "pathologist_label"
SEED = 0


def draw_section_figures(
    tissue: str,
    data: Path,
    folder: Path,
    model: Path | None = None,
    settings: SmallSettings = START,
) -> list[str]:
    """Write the figures of a tissue as PNG and SVG; return their names.

    Parameters
    ----------
    tissue
        One of `TISSUES`.
    data
        Folder of the sections.
    folder
        Folder for stores, models and `figures`.
    model
        Folder of a Stamp; by default a small one is trained, unless that was done before.
    settings
        Sizes of the Stamp that is trained, and of its training.
    """
    task = _make_task(tissue, data, folder / tissue)
    if model is None:
        stamp = train_stamp(task, settings, folder / tissue / "models", SEED)
    else:
        stamp = Stamp.from_pretrained(model)
    is_bulb = tissue == "bulb"
    figures = bulb_figures(task, stamp) if is_bulb else her2st_figures(task, data, stamp)
    names = []
    for name, figure in figures:
        names.append(f"{tissue}_{name}")
        save_figure(figure, folder / FIGURES, names[-1])
    return names


def _make_task(tissue: str, data: Path, folder: Path) -> Task:
    """Return the training sections, and the section that is drawn."""
    if tissue == "bulb":
        train = tuple(name for name in bulb_sections.SECTIONS if name != BULB_TEST)
        return bulb_task(data, folder, train, BULB_TEST)
    task = her2st_task(data, folder)
    return dataclasses.replace(task, test=sections.read_section(data, sections.TEST))


def bulb_figures(task: Task, stamp: Stamp) -> Iterator[tuple[str, "Figure"]]:
    """Yield figures of the bulb section on which the Stamp was not trained."""
    label = bulb_sections.LABEL
    table = embed(task.test, stamp)
    add_labels([table], label)
    add_maps(table, label)
    yield "embeddings", draw_maps({name: (table, name) for name in NAMES.values()}, label)
    yield "clusters", draw_clusters(put_table(task.test, table), label)
    yield "gene_pairs", predict_gene_pairs(task, table, stamp)


def her2st_figures(task: Task, data: Path, stamp: Stamp) -> Iterator[tuple[str, "Figure"]]:
    """Yield figures of HER2+ sections: those with labels have no image, C6 has no labels."""
    labeled = {}
    for name in sections.LABELED:
        table = embed_genes(anndata.read_h5ad(data / f"{name}.h5ad"), stamp)
        add_map(table, "X_stp_genes", "genes")
        labeled[name] = table
    add_labels(list(labeled.values()), LABEL)
    yield "labeled_genes", draw_maps({n: (table, "genes") for n, table in labeled.items()}, LABEL)
    table = embed(task.test, stamp)
    add_maps(table)
    yield "embeddings", draw_maps({name: (table, name) for name in NAMES.values()}, "leiden_genes")
    yield "clusters", draw_clusters(put_table(task.test, table))
    yield "gene_pairs", predict_gene_pairs(task, table, stamp)


def put_table(
    slide: "spatialdata.SpatialData", table: anndata.AnnData
) -> "spatialdata.SpatialData":
    """Replace the table of a slide, and return the slide."""
    slide.tables["table"] = table
    return slide


def predict_gene_pairs(task: Task, table: anndata.AnnData, stamp: Stamp) -> "Figure":
    """Retrieve expression for a section from the training sections, and draw its gene pairs.

    The genes are the most variable of the training sections.
    """
    train = [embed(slide, stamp) for slide in task.train]
    targets = task.targets()
    genes = targets.genes[targets.scored.variable[:N_GENES]]
    stp.tl.predict_expression(table, train, genes=list(genes))
    return draw_gene_pairs(table, list(genes))
