"""Queries on three sections of the mouse olfactory bulb: models that never saw the test section."""

from pathlib import Path

import anndata
import spatialdata

import stp
from benchmarks.accuracy.sections import PATCH_UM, SPOT_UM
from stp.models import GeneEncoderConfig, ImageEncoderConfig, Stamp
from stp.train import AlignConfig, Phase, PretrainConfig

SECTIONS = ("rep04", "rep09", "rep11")
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
ALIGN = AlignConfig(
    epochs=20,
    batch_size=48,
    accumulate=1,
    learning_rate=1e-3,
    min_learning_rate=2e-5,
    rotate=True,
    stain_jitter=0.2,
    projection_width=128,
    trained="images",
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
    return stp.Vocabulary.from_genes(
        genes.gene_ids[is_detected], genes.symbols[is_detected]
    ).fit(train)
