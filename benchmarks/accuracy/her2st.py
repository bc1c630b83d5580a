"""Can the expression of HER2+ breast tumors be predicted from H&E, and do clusters match regions?

    python -m benchmarks.accuracy.her2st --data ../shared/data/her2st --folder runs/her2st

Alignment is on C2 to C4, its epoch is chosen on C5, and C6 is tested once. C2 to C6 are serial
sections of one patient: the result is transfer between sections. The position baseline, which sees
no image, shows how far that alone goes (docs/concepts/method.md). Gene encoders are scored against
the labels of a patient that neither their weights nor their means have seen.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import scanpy as sc
import spatialdata
import torch

import stp
from benchmarks.accuracy.clusters import keep_labeled, pca
from benchmarks.accuracy.expression import Targets, neighbor_mean, normalize, ridge
from benchmarks.accuracy.sections import (
    LABELED,
    PITCH_UM,
    TEST,
    TRAIN,
    VALIDATION,
    Settings,
    centers_of,
    patches_of,
    patient_of,
    pretrain_without,
    read_section,
    write_stores,
)
from benchmarks.measure import Row, make_parser, write_results
from stp.images.color_texture import color_and_texture
from stp.models import GeneEncoder, Stamp
from stp.retrieval.position import copy_by_position
from stp.tl._leiden import cluster_agreement

MARKERS = ["ERBB2", "COL1A1", "CD74", "GNAS"]
RETRIEVAL = "retrieval, Stamp"
UNTRAINED = "retrieval, untrained Stamp"
COLUMNS = {"ari": "ARI", "nmi": "NMI", "ari_matched": "ARI matched", "nmi_matched": "NMI matched"}


def main(arguments: list[str] | None = None) -> list[Row]:
    """Run everything that is not done yet; print, write and return the rows."""
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of h5ad and jpg files")
    parser.add_argument(
        "--folder", type=Path, required=True, help="folder for stores, models and figures"
    )
    parser.add_argument("--short", action="store_true", help="a smoke test")
    parser.add_argument(
        "--small", action="store_true", help="one gene encoder, a smaller image encoder"
    )
    parser.add_argument("--models-only", action="store_true", help="train and score nothing")
    options = parser.parse_args(arguments)
    settings = Settings()
    if options.short:
        settings = Settings.short()
    elif options.small:
        settings = Settings.small()
    start = time.perf_counter()
    folder = options.folder
    stores = write_stores(options.data, folder, settings)
    encoders = {}
    for patient in settings.patients():
        encoders[patient] = pretrain_without(patient, stores, folder, settings)
    stamp = stp.train.align(
        [stores[name] for name in TRAIN],
        folder / "stamp",
        gene_encoder=encoders["C"],
        image_encoder=settings.image,
        config=settings.align,
        validation=[stores[VALIDATION]],
    )
    if options.models_only:
        return []
    rows = list(score_expression(options.data, stamp, folder))
    rows += score_labels(options.data, encoders, settings)
    for name in ("pretrain_without_C", "stamp"):
        stp.pl.training(folder / name, show=False, save=folder / f"{name}.png")
    write_results(options.out, rows)
    print(f"{time.perf_counter() - start:.0f} seconds")
    return rows


def score_labels(data: Path, encoders: dict[str, GeneEncoder], settings: Settings) -> Iterator[Row]:
    """Compare clusters with a pathologist's regions; yield a row per method."""
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for name in settings.labeled:
        section = keep_labeled(anndata.read_h5ad(data / f"{name}.h5ad"))
        labels = section.obs["pathologist_label"].to_numpy()
        encoder = encoders[patient_of(name)]
        others = [s for s in LABELED if patient_of(s) != patient_of(name)]
        tables = [anndata.read_h5ad(data / f"{other}.h5ad") for other in others]
        embeddings = {
            "gene encoder": embed_genes(section, encoder).obsm["X_stp_genes"],
            "untrained gene encoder": embed_genes(section, make_untrained(encoder)).obsm[
                "X_stp_genes"
            ],
            "PCA fitted on other patients": pca(section, tables),
            "PCA fitted on the section": pca(section, [section]),
        }
        for method, embedding in embeddings.items():
            scores.setdefault(method, {})[name] = cluster_agreement(embedding, labels)
    for method, sections in scores.items():
        row: Row = {"method": f"clusters, {method}"}
        for key, column in COLUMNS.items():
            values = {name: round(section[key], 3) for name, section in sections.items()}
            row[column] = {"mean": round(float(np.mean(list(values.values()))), 3), **values}
        yield row


def make_untrained(encoder: GeneEncoder) -> GeneEncoder:
    """Return a gene encoder of the same sizes with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return GeneEncoder(encoder.config, encoder.vocabulary).eval()


def embed_genes(adata: anndata.AnnData, model: Stamp | GeneEncoder) -> anndata.AnnData:
    """Return the section with tokens and gene embeddings."""
    adata = stp.tl.tokenize(adata, model, copy=True)
    stp.tl.embed_genes(adata, model)
    return adata


def score_expression(data: Path, stamp: Stamp, folder: Path) -> Iterator[Row]:
    """Predict the test section from its image; yield a row per method, and chance."""
    slides = {name: read_section(data, name) for name in (*TRAIN, TEST)}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        random_stamp = Stamp(stamp.config, stamp.vocabulary).eval()
    tables = {name: embed(slide, stamp) for name, slide in slides.items()}
    random_tables = {name: embed(slide, random_stamp) for name, slide in slides.items()}
    train = [tables[name] for name in TRAIN]
    test = tables[TEST]
    genes = join(train).var_names.intersection(test.var_names, sort=False)
    targets = Targets.choose(train, genes)
    measured = normalize(test, targets.genes)
    expression = {name: normalize(tables[name], targets.genes) for name in TRAIN}
    predictions = {
        RETRIEVAL: retrieve(tables, targets),
        UNTRAINED: retrieve(random_tables, targets),
        **predict_baselines(slides, tables, expression, measured, stamp),
    }
    recall = {RETRIEVAL: recall_of(test), UNTRAINED: recall_of(random_tables[TEST])}
    draw(slides[TEST], test, folder)
    for method, predicted in predictions.items():
        scores = targets.score(measured, predicted) | recall.get(method, {})
        yield {"method": method, **{name: round(value, 3) for name, value in scores.items()}}
    yield {"method": "chance", **{f"recall@{k}": round(k / test.n_obs, 3) for k in (1, 5, 10)}}


def predict_baselines(
    slides: dict[str, spatialdata.SpatialData],
    tables: dict[str, anndata.AnnData],
    expression: dict[str, np.ndarray],
    measured: np.ndarray,
    stamp: Stamp,
) -> dict[str, np.ndarray]:
    """Predict the test section by ridge, position, mean, and its own measured neighbors."""
    pooled = np.concatenate(list(expression.values()))
    centers = {name: centers_of(slide) for name, slide in slides.items()}
    sisters = [(centers[name], values) for name, values in expression.items()]
    image = stamp.config.image
    features = {name: table.obsm["X_stp_images"] for name, table in tables.items()}
    pixels = {name: color_and_texture(patches_of(slides[name], image)) for name in slides}

    def regress(values: dict[str, np.ndarray]) -> np.ndarray:
        return ridge(np.concatenate([values[name] for name in TRAIN]), pooled, values[TEST])

    return {
        "ridge on image features of the Stamp": regress(features),
        "ridge on color and texture": regress(pixels),
        "mean profile": np.broadcast_to(pooled.mean(axis=0), measured.shape),
        "position": copy_by_position(sisters, centers[TEST]),
        "neighbors in the section (measured)": neighbor_mean(
            centers[TEST], measured, 1.2 * PITCH_UM
        ),
    }


def embed(slide: spatialdata.SpatialData, model: Stamp) -> anndata.AnnData:
    """Return the table of a slide with both embeddings and their fusion."""
    table = embed_genes(stp.tl.embed_images(slide, model, copy=True), model)
    stp.tl.fuse(table, scale=True)
    return table


def join(tables: list[anndata.AnnData]) -> anndata.AnnData:
    """Return the spots of several sections in one table."""
    return anndata.concat(tables, join="inner", index_unique="-", uns_merge="same")


def retrieve(tables: dict[str, anndata.AnnData], targets: Targets) -> np.ndarray:
    """Predict the test section by retrieval from the training sections."""
    test = tables[TEST]
    reference = join([tables[name] for name in TRAIN])
    stp.tl.predict_expression(test, reference, genes=list(targets.genes))
    return test.obsm["stp_expression"]


def recall_of(table: anndata.AnnData) -> dict[str, float]:
    """Return the recall from patches to genes among the spots of a section."""
    has_genes = np.isfinite(table.obsm["X_stp_genes"]).all(axis=1)
    images = table.obsm["X_stp_images_aligned"][has_genes]
    genes = table.obsm["X_stp_genes_aligned"][has_genes]
    return {f"recall@{k}": value for k, value in stp.metrics.recall_at_k(images, genes).items()}


def draw(slide: spatialdata.SpatialData, table: anndata.AnnData, folder: Path) -> None:
    """Draw patches, clusters on tissue, and measured next to predicted expression."""
    for name in ("genes", "images", "fused"):
        has_embedding = np.isfinite(table.obsm[f"X_stp_{name}"]).all(axis=1)
        part = table[has_embedding].copy()
        sc.pp.neighbors(part, use_rep=f"X_stp_{name}", transformer="sklearn")
        sc.tl.leiden(part, resolution=0.5, flavor="leidenalg")
        table.obs[f"leiden_{name}"] = pd.Categorical(part.obs["leiden"].reindex(table.obs_names))
    slide.tables["table"] = table
    predicted = table.uns["stp_expression"]["genes"]
    markers = [gene for gene in MARKERS if gene in predicted]
    figures = {
        "patches": stp.pl.patches(slide, return_fig=True),
        "clusters": stp.pl.spots(
            slide, ["leiden_genes", "leiden_images", "leiden_fused"], return_fig=True
        ),
        "expression": stp.pl.expression(table, markers, return_fig=True),
    }
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=110)


if __name__ == "__main__":
    main()
