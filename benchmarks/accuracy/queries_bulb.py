"""Queries on three sections of the mouse olfactory bulb: models that never saw the test section.

A layer's program is ten marker genes of the two other sections. The query must find the layer in
the image of the third. Sections lie in different orientations, so coordinates do not transfer. The
layers are rings, so the distance from the center of a section does: it is the baseline without an
image.
"""

import dataclasses
from pathlib import Path

import anndata
import numpy as np
import spatialdata
from sklearn.metrics import roc_auc_score

import stp
from benchmarks.accuracy.expression import normalize, ridge
from benchmarks.accuracy.her2st import embed
from benchmarks.accuracy.queries_her2st import make_untrained
from benchmarks.accuracy.sections import PATCH_UM, SPOT_UM
from benchmarks.measure import Row
from stp.images.color_texture import color_and_texture
from stp.images.slides import find_slides
from stp.models import GeneEncoderConfig, ImageEncoderConfig, Stamp
from stp.train import AlignConfig, Phase, PretrainConfig

SECTIONS = ("rep04", "rep09", "rep11")
N_MARKERS = 10
N_NEAREST = 20  # spots at the same distance from the center
MIN_DETECTED = 50  # training spots in which a gene of the vocabulary is detected
IMAGE_PIXELS = 40  # of a patch; the images have 2.75 µm per pixel

GENE = GeneEncoderConfig(context_length=192, width=96, depth=3, n_heads=4, ffn_width=192)
IMAGE = ImageEncoderConfig(
    "vit_tiny_patch16_224",
    {"patch_size": 8, "embed_dim": 96, "depth": 3, "num_heads": 3},
    image_size=IMAGE_PIXELS,
    um_per_px=PATCH_UM / IMAGE_PIXELS,
)
PRETRAIN = PretrainConfig(
    phases=(Phase(epochs=10, batch_size=64),), learning_rate=1e-3, min_learning_rate=5e-5
)
# No third section is left to choose an epoch on, so the last epoch is taken.
ALIGN = dataclasses.replace(AlignConfig.small(epochs=20), stain_jitter=0.2, projection_width=128)


def bulb_rows(data: Path, folder: Path) -> list[Row]:
    """Return a row per method: AUROC of each layer, mean over the sections that were left out."""
    scores: dict[str, dict[str, list[float]]] = {}
    for test in SECTIONS:
        for method, by_layer in score_section(test, data, folder).items():
            for layer, auroc in by_layer.items():
                scores.setdefault(method, {}).setdefault(layer, []).append(auroc)
    rows = []
    for method, by_layer in scores.items():
        means = {layer: round(float(np.mean(values)), 3) for layer, values in by_layer.items()}
        sections = np.mean(list(by_layer.values()), axis=0).round(3).tolist()
        row: Row = {"part": "olfactory bulb, layers", "method": method}
        row["AUROC"] = {"mean": round(float(np.mean(list(means.values()))), 3), **means}
        row |= dict(zip(SECTIONS, sections, strict=True))
        rows.append(row)
    return rows


def score_section(test: str, data: Path, folder: Path) -> dict[str, dict[str, float]]:
    """Return the AUROC of each layer in the section that was left out, by method."""
    stamp = train_without(test, data, folder)
    slides = {name: spatialdata.read_zarr(folder / "stores" / f"{name}.zarr") for name in SECTIONS}
    train = [name for name in SECTIONS if name != test]
    tables = {name: embed(slide, stamp) for name, slide in slides.items()}
    untrained = make_untrained(stamp)
    random_tables = {name: embed(slide, untrained) for name, slide in slides.items()}
    pixels = {name: color_and_texture(read_patches(slide)) for name, slide in slides.items()}
    programs = choose_markers([tables[name] for name in train])
    labels = tables[test].obs["layer"].astype(str).to_numpy()
    has_label = labels != ""
    values = {
        "query by marker genes": query_layers(tables, test, programs),
        "query by marker genes, untrained Stamp": query_layers(random_tables, test, programs),
        "ridge on color and texture, for the program": regress_programs(
            pixels, tables, test, programs
        ),
        "ridge on color and texture, for the label": regress_labels(
            pixels, tables, test, list(programs)
        ),
        "distance from the center": copy_by_distance(tables, test, programs),
        "measured program in the section itself": measure_programs(tables[test], programs),
    }
    return {
        method: {
            layer: float(roc_auc_score(labels[has_label] == layer, numbers[has_label, column]))
            for column, layer in enumerate(programs)
        }
        for method, numbers in values.items()
    }


def choose_markers(tables: list[anndata.AnnData]) -> dict[str, list[str]]:
    """Return the genes of highest contrast of each layer in the training sections.

    The contrast is the difference of means between the layer and the other spots, over the standard
    deviation of the section; of the training sections the lowest counts.
    """
    shared = tables[0].var_names.intersection(tables[1].var_names, sort=False)
    layers = sorted({layer for table in tables for layer in table.obs["layer"].astype(str)} - {""})
    expression = [normalize(table, shared) for table in tables]
    programs = {}
    for layer in layers:
        contrasts = []
        for table, values in zip(tables, expression, strict=True):
            label = table.obs["layer"].astype(str).to_numpy()
            inside = values[label == layer].mean(axis=0)
            outside = values[(label != layer) & (label != "")].mean(axis=0)
            contrasts.append((inside - outside) / np.maximum(values.std(axis=0), 0.1))
        best = np.argsort(-np.min(contrasts, axis=0), kind="stable")[:N_MARKERS]
        programs[layer] = shared[best].tolist()
    return programs


def query_layers(
    tables: dict[str, anndata.AnnData], test: str, programs: dict[str, list[str]]
) -> np.ndarray:
    """Return the query score (n_spots, n_layers) of each spot of the section that was left out."""
    references = [tables[name] for name in SECTIONS if name != test]
    scores = []
    for genes in programs.values():
        stp.tl.query_by_genes(tables[test], genes, reference=references)
        scores.append(tables[test].obs["stp_query"].to_numpy(dtype=float))
    return np.stack(scores, axis=1)


def measure_programs(table: anndata.AnnData, programs: dict[str, list[str]]) -> np.ndarray:
    """Return the mean standardized expression of each program: (n_spots, n_layers)."""
    scores = []
    for genes in programs.values():
        measured = [gene for gene in genes if gene in table.var_names]
        values = normalize(table, measured)
        off = values - values.mean(axis=0)
        scores.append((off / np.maximum(values.std(axis=0), 1e-6)).mean(axis=1))
    return np.stack(scores, axis=1)


def regress_programs(
    pixels: dict[str, np.ndarray],
    tables: dict[str, anndata.AnnData],
    test: str,
    programs: dict[str, list[str]],
) -> np.ndarray:
    """Predict the programs (n_spots, n_layers) from color and texture, without any label."""
    train = [name for name in SECTIONS if name != test]
    targets = np.concatenate([measure_programs(tables[name], programs) for name in train])
    return ridge(np.concatenate([pixels[name] for name in train]), targets, pixels[test])


def regress_labels(
    pixels: dict[str, np.ndarray],
    tables: dict[str, anndata.AnnData],
    test: str,
    layers: list[str],
) -> np.ndarray:
    """Predict the layers (n_spots, n_layers) from color and texture of labeled spots."""
    train = [name for name in SECTIONS if name != test]
    labels = np.concatenate([tables[name].obs["layer"].astype(str).to_numpy() for name in train])
    targets = (labels[:, None] == np.array(layers)).astype(float)
    features = np.concatenate([pixels[name] for name in train])
    has_label = labels != ""
    return ridge(features[has_label], targets[has_label], pixels[test])


def copy_by_distance(
    tables: dict[str, anndata.AnnData], test: str, programs: dict[str, list[str]]
) -> np.ndarray:
    """Average the programs (n_spots, n_layers) of spots at the same distance from the center."""
    train = [name for name in SECTIONS if name != test]
    targets = np.concatenate([measure_programs(tables[name], programs) for name in train])
    distances = np.concatenate([relative_distance(tables[name]) for name in train])
    nearest = np.abs(relative_distance(tables[test])[:, None] - distances).argsort(axis=1)
    return targets[nearest[:, :N_NEAREST]].mean(axis=1)


def relative_distance(table: anndata.AnnData) -> np.ndarray:
    """Return the distance (n_spots,) of each spot from their center, over the mean distance."""
    places = np.asarray(table.obsm["spatial"], dtype=float)
    distance = np.linalg.norm(places - places.mean(axis=0), axis=1)
    return distance / distance.mean()


def read_patches(slide: spatialdata.SpatialData) -> np.ndarray:
    """Return the patches of a store, as the image encoder reads them."""
    (section,) = find_slides(slide, slide.tables["table"])
    return section.pyramid.read(
        section.centers, size=IMAGE.image_size, um_per_px=IMAGE.um_per_px, allow_upsampling=True
    )


def read_bulb(data: Path, section: str) -> spatialdata.SpatialData:
    """Read a section with its H&E; its genes are symbols, and ids if the file has them."""
    adata = anndata.read_h5ad(data / f"mob_{section}.h5ad")
    adata.var = adata.var.rename(columns={"ensembl": "gene_ids"})
    return stp.io.from_anndata(
        adata,
        data / f"mob_{section}.jpg",
        um_per_px=adata.uns["um_per_px"],
        spot_diameter_um=SPOT_UM,
        name=section,
    )


def train_without(test: str, data: Path, folder: Path) -> Stamp:
    """Train a small Stamp on the two other sections; genes and means come from them alone."""
    train = [write_store(data, section, folder) for section in SECTIONS if section != test]
    genes = stp.train.pretrain(
        train,
        folder / f"genes_without_{test}",
        vocabulary=choose_vocabulary(data, train),
        model=GENE,
        config=PRETRAIN,
    )
    return stp.train.align(
        train,
        folder / f"stamp_without_{test}",
        gene_encoder=genes,
        image_encoder=IMAGE,
        config=ALIGN,
    )


def write_store(data: Path, section: str, folder: Path) -> Path:
    """Write a section as a store, unless it is there, and return its path."""
    path = folder / "stores" / f"{section}.zarr"
    if not path.exists():
        stp.io.write_store(
            read_bulb(data, section),
            path,
            patch_um_per_px=IMAGE.um_per_px,
            vocabulary=name_genes(data),
        )
    return path


def name_genes(data: Path) -> stp.Vocabulary:
    """Return the ids and symbols of the genes in the two files that have ids, without means."""
    genes: dict[str, str] = {}
    for section in ("rep04", "rep09"):
        var = anndata.read_h5ad(data / f"mob_{section}.h5ad", backed="r").var
        for symbol, gene_id in var["ensembl"].items():
            genes.setdefault(str(gene_id), str(symbol))
    return stp.Vocabulary.from_genes(genes, genes.values())


def choose_vocabulary(data: Path, train: list[Path]) -> stp.Vocabulary:
    """Return the genes that enough training spots detect, with their means in these spots."""
    genes = name_genes(data).fit(train)
    is_detected = genes.n_detected >= MIN_DETECTED
    return stp.Vocabulary.from_genes(genes.gene_ids[is_detected], genes.symbols[is_detected]).fit(
        train
    )
