"""HER2+ breast tumors from sections on disk to numbers: alignment on C2-C4, chosen on C5, tested once on C6.

    python -m benchmarks.her2st --data ../shared/data/her2st --out results/her2st

Gene encoders are scored against the labels of a patient that neither their weights nor their means have seen. C2 to
C6 are serial sections of one patient: what is predicted there is transfer between sections, and the position
baseline, which looks at no image, says how far that alone goes (docs/concepts/method.md).
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import spatialdata
import torch

import stp
from benchmarks.clusters import agreement, labelled, pca
from benchmarks.expression import (
    Targets,
    color_and_texture,
    neighbor_mean,
    normalized,
    position,
    ridge,
)
from stp.models import GeneEncoder, GeneEncoderConfig, ImageEncoderConfig, Stamp
from stp.train import AlignConfig, Phase, PretrainConfig

TRAIN, VALIDATION, TEST = ("C2", "C3", "C4"), "C5", "C6"
LABELLED = ("C1", "D1", "E1", "F1")
PITCH_UM, SPOT_UM = 200.0, 100.0
MARKERS = ["ERBB2", "COL1A1", "CD74", "GNAS"]


@dataclasses.dataclass(frozen=True)
class Settings:
    """Sizes of the run; `short` is a smoke test of the same path."""

    gene: GeneEncoderConfig = GeneEncoderConfig(
        context_length=192, width=96, depth=3, n_heads=4, ffn_width=192
    )
    image: ImageEncoderConfig = ImageEncoderConfig(
        "vit_tiny_patch16_224",
        {"patch_size": 16, "embed_dim": 192, "depth": 4, "num_heads": 6},
        image_size=96,
        um_per_px=112 / 96,
    )
    pretrain: PretrainConfig = PretrainConfig(
        phases=(Phase(epochs=2, batch_size=64), Phase(objective="neighborhood", batch_size=72)),
        learning_rate=1e-3,
        min_learning_rate=5e-5,
    )
    align: AlignConfig = AlignConfig(
        epochs=30,
        batch_size=48,
        accumulate=1,
        learning_rate=5e-4,
        min_learning_rate=2e-5,
        rotate=True,
        stain_jitter=0.2,
        projection_width=128,
    )
    labelled: tuple[str, ...] = LABELLED
    n_sections: int | None = None  # of each patient to pretrain on

    @classmethod
    def small(cls) -> "Settings":
        """Return the gene encoder without patient C alone, and a smaller image encoder aligned with it as it is."""
        full = cls()
        image = {"patch_size": 16, "embed_dim": 96, "depth": 3, "num_heads": 3}
        return cls(
            image=dataclasses.replace(full.image, backbone_args=image),
            align=dataclasses.replace(full.align, epochs=15, learning_rate=1e-3, trained="images"),
            labelled=(),
        )

    @classmethod
    def short(cls) -> "Settings":
        """Return a run of about a minute."""
        gene = GeneEncoderConfig(context_length=64, width=32, depth=1, n_heads=2, ffn_width=64)
        image = {"patch_size": 16, "embed_dim": 48, "depth": 1, "num_heads": 3}
        full = cls()
        return cls(
            gene,
            dataclasses.replace(full.image, backbone_args=image, image_size=48, um_per_px=112 / 48),
            dataclasses.replace(full.pretrain, phases=(Phase(batch_size=64),)),
            dataclasses.replace(full.align, epochs=2),
            labelled=("D1",),
            n_sections=1,
        )


def main(arguments: list[str] | None = None) -> dict:
    """Run everything that is not done yet; returns and writes results.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of h5ad and jpg files")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for stores, models, figures and results"
    )
    parser.add_argument("--short", action="store_true", help="a smoke test")
    parser.add_argument(
        "--small", action="store_true", help="one gene encoder, a smaller image encoder"
    )
    parser.add_argument("--models-only", action="store_true", help="train and score nothing")
    options = parser.parse_args(arguments)
    settings = (
        Settings.short() if options.short else Settings.small() if options.small else Settings()
    )
    start = time.perf_counter()
    stores = write_stores(options.data, options.out, settings)
    encoders = {
        patient: pretrain_without(patient, stores, options.out, settings)
        for patient in _patients(settings)
    }
    train, validation = [stores[name] for name in TRAIN], [stores[VALIDATION]]
    stamp = stp.train.align(
        train,
        options.out / "stamp",
        gene_encoder=encoders["C"],
        image_encoder=settings.image,
        config=settings.align,
        validation=validation,
    )
    if options.models_only:
        return {}
    results = {"agreement": score_labels(options.data, encoders, settings)}
    results |= score_expression(options.data, stamp, options.out)
    results["seconds"] = round(time.perf_counter() - start)
    for name in ("pretrain_without_C", "stamp"):
        stp.pl.training(options.out / name).savefig(options.out / f"{name}.png", dpi=110)
    (options.out / "results.json").write_text(json.dumps(results, indent=2))
    print(json.dumps(results, indent=2))
    return results


def _patients(settings: Settings) -> list[str]:
    """List the patients to leave out: those of labelled sections, and C, on whose images the alignment is."""
    return sorted({"C", *(section[0] for section in settings.labelled)})


def read_section(data: Path, section: str) -> spatialdata.SpatialData:
    """Read a section with its full H&E where there is one."""
    adata = anndata.read_h5ad(data / f"{section}.h5ad")
    image = data / f"{section}.jpg"
    scale = adata.uns["um_per_px"]
    return stp.io.from_anndata(
        adata,
        image if image.exists() else None,
        um_per_px=scale,
        spot_diameter_um=SPOT_UM,
        name=section,
    )


def write_stores(data: Path, out: Path, settings: Settings) -> dict[str, Path]:
    """Write every section as a store, unless it is there; counts of all, images of C2 to C6."""
    sections = sorted(path.stem for path in data.glob("*.h5ad"))
    if settings.n_sections:
        sections = [s for s in sections if s[0] == "C" or int(s[1:]) <= settings.n_sections]
    stores = {section: out / "stores" / f"{section}.zarr" for section in sections}
    for section, path in stores.items():
        if not path.exists():
            stp.io.write_store(
                read_section(data, section), path, patch_um_per_px=settings.image.um_per_px
            )
    return stores


def pretrain_without(
    patient: str, stores: dict[str, Path], out: Path, settings: Settings
) -> GeneEncoder:
    """Pretrain on all other patients; means, too, come from them alone."""
    train = [path for section, path in stores.items() if section[0] != patient]
    vocabulary = stp.Vocabulary.default().fit(train)
    folder = out / f"pretrain_without_{patient}"
    return stp.train.pretrain(
        train, folder, vocabulary=vocabulary, model=settings.gene, config=settings.pretrain
    )


def score_labels(
    data: Path, encoders: dict[str, GeneEncoder], settings: Settings
) -> dict[str, dict]:
    """Compare clusters with a pathologist's regions, section by section."""
    results = {}
    for name in settings.labelled:
        section = labelled(anndata.read_h5ad(data / f"{name}.h5ad"))
        labels = section.obs["pathologist_label"].to_numpy()
        encoder = encoders[name[0]]
        with torch.random.fork_rng():
            torch.manual_seed(0)
            untrained = GeneEncoder(encoder.config, encoder.vocabulary).eval()
        others = [anndata.read_h5ad(data / f"{s}.h5ad") for s in LABELLED if s[0] != name[0]]
        embeddings = {
            "gene encoder": embed_genes(section, encoder).obsm["X_stp_genes"],
            "untrained gene encoder": embed_genes(section, untrained).obsm["X_stp_genes"],
            "PCA fitted on other patients": pca(section, others),
            "PCA fitted on the section": pca(section, [section]),
        }
        results[name] = {
            "n_spots": section.n_obs,
            "n_classes": len(np.unique(labels)),
            **{method: agreement(embedding, labels) for method, embedding in embeddings.items()},
        }
    return results


def embed_genes(adata: anndata.AnnData, model: Stamp | GeneEncoder) -> anndata.AnnData:
    """Return the section with tokens and gene embeddings."""
    adata = stp.tl.tokenize(adata, model, copy=True)
    stp.tl.embed_genes(adata, model)
    return adata


def score_expression(data: Path, stamp: Stamp, out: Path) -> dict[str, dict]:
    """Predict the test section from its image and score it beside every baseline."""
    slides = {name: read_section(data, name) for name in (*TRAIN, TEST)}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        untrained = Stamp(stamp.config, stamp.vocabulary).eval()
    tables = {name: embed(slide, stamp) for name, slide in slides.items()}
    train, test = [tables[name] for name in TRAIN], tables[TEST]
    reference = anndata.concat(train, join="inner", index_unique="-", uns_merge="same")
    targets = Targets.choose(train, reference.var_names.intersection(test.var_names, sort=False))
    measured = normalized(test, targets.genes)
    expression = [normalized(a, targets.genes) for a in train]
    stp.tl.predict_expression(test, reference, genes=list(targets.genes))
    start = {name: embed(slides[name], untrained) for name in (*TRAIN, TEST)}
    stp.tl.predict_expression(
        start[TEST],
        anndata.concat(
            [start[name] for name in TRAIN], join="inner", index_unique="-", uns_merge="same"
        ),
        genes=list(targets.genes),
    )
    pixels = {name: color_and_texture(_patches(slides[name], stamp)) for name in slides}
    centers = {name: _centers(slides[name]) for name in slides}
    pooled = np.concatenate(expression)

    def regress(features: dict[str, np.ndarray]) -> np.ndarray:
        return ridge(np.concatenate([features[name] for name in TRAIN]), pooled, features[TEST])

    predictions = {
        "retrieval (Stamp)": test.obsm["stp_expression"],
        "retrieval (untrained)": start[TEST].obsm["stp_expression"],
        "ridge on image features (Stamp)": regress(
            {n: t.obsm["X_stp_images"] for n, t in tables.items()}
        ),
        "ridge on color and texture": regress(pixels),
        "mean profile": np.broadcast_to(pooled.mean(axis=0), measured.shape),
        "position": position(
            [(centers[n], e) for n, e in zip(TRAIN, expression, strict=True)], centers[TEST]
        ),
        "neighbors in the section (measured)": neighbor_mean(
            centers[TEST], measured, 1.2 * PITCH_UM
        ),
    }
    draw(slides[TEST], test, out)
    return {
        "expression": {
            name: targets.score(measured, predicted) for name, predicted in predictions.items()
        },
        "recall": {
            "Stamp": _recall(test),
            "untrained": _recall(start[TEST]),
            "chance@5": 5 / test.n_obs,
        },
        "spots": {name: table.n_obs for name, table in tables.items()},
    }


def embed(slide: spatialdata.SpatialData, model: Stamp) -> anndata.AnnData:
    """Return the table of a slide with both embeddings and their fusion."""
    table = embed_genes(stp.tl.embed_images(slide, model, copy=True), model)
    stp.tl.fuse(table, scale=True)
    return table


def _patches(slide: spatialdata.SpatialData, stamp: Stamp) -> np.ndarray:
    pyramid, config = stp.images.ImagePyramid, stamp.config.image
    image = pyramid.from_spatialdata(slide, next(iter(slide.images)))
    return image.read(_centers(slide), size=config.image_size, um_per_px=config.um_per_px)


def _centers(slide: spatialdata.SpatialData) -> np.ndarray:
    """Spot centers in um."""
    table = slide.tables["table"]
    return np.asarray(table.obsm["spatial"], dtype=float) * table.uns["um_per_px"]


def _recall(table: anndata.AnnData) -> dict[str, float]:
    known = np.isfinite(table.obsm["X_stp_genes"]).all(axis=1)
    images, genes = (table.obsm[f"X_stp_{name}_aligned"][known] for name in ("images", "genes"))
    return {f"recall@{k}": value for k, value in stp.metrics.recall_at_k(images, genes).items()}


def draw(slide: spatialdata.SpatialData, table: anndata.AnnData, out: Path) -> None:
    """Write pictures of the test section: patches, clusters on tissue, measured beside predicted."""
    import scanpy as sc

    for name in ("genes", "images", "fused"):
        known = np.isfinite(table.obsm[f"X_stp_{name}"]).all(axis=1)
        part = table[known].copy()
        sc.pp.neighbors(part, use_rep=f"X_stp_{name}", transformer="sklearn")
        sc.tl.leiden(part, resolution=0.5, flavor="leidenalg")
        table.obs[f"leiden_{name}"] = pd.Categorical(part.obs["leiden"].reindex(table.obs_names))
    slide.tables["table"] = table
    figures = {
        "patches": stp.pl.patches(slide),
        "clusters": stp.pl.spots(slide, ["leiden_genes", "leiden_images", "leiden_fused"]),
        "expression": stp.pl.expression(
            table, [g for g in MARKERS if g in table.uns["stp_expression"]["genes"]]
        ),
    }
    for name, figure in figures.items():
        figure.savefig(out / f"{name}.png", dpi=110)


if __name__ == "__main__":
    main()
