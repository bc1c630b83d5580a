"""The demo: stores, both training stages, embeddings, clusters and a prediction."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata
import numpy as np
import pandas as pd
import scanpy as sc
from scipy.optimize import linear_sum_assignment

from stp import datasets, get, io, metrics, tl, train
from stp.genes.vocabulary import Vocabulary
from stp.models import GeneEncoder, GeneEncoderConfig, ImageEncoderConfig, Stamp
from stp.models.device import build_with_seed
from stp.pl import _colors
from stp.workflows.demo_report import draw_figures, write_report

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

TRAIN = ("train_0", "train_1", "train_2", "train_3")
VALIDATION = "validation"
TEST = "held_out"
N_VARIABLE = 100  # number of scored genes, the most variable of the training slides
MIN_RECALL = 3.0  # recall@5 of the trained model, relative to chance
MIN_GAIN = 2.0  # correlation of the trained model, relative to untrained weights

GENE = GeneEncoderConfig(context_length=96, width=64, depth=2, n_heads=4, ffn_width=128)
IMAGE = ImageEncoderConfig(
    "vit_tiny_patch16_224",
    {"patch_size": 16, "embed_dim": 128, "depth": 2, "num_heads": 4},
    image_size=64,
    um_per_px=1.75,
)
PRETRAIN = train.PretrainConfig(
    phases=(
        train.Phase(epochs=4, batch_size=32),
        train.Phase(objective="neighborhood", epochs=2, batch_size=45),
    ),
    learning_rate=2e-3,
    min_learning_rate=1e-4,
)
ALIGN = train.AlignConfig(
    epochs=10,
    batch_size=64,
    accumulate=1,
    spots_per_slide=16,
    rotate=True,
    stain_jitter=0.3,
    learning_rate=2e-3,
    min_learning_rate=5e-5,
    projection_width=64,
)


def run(out: Path) -> int:
    """Run the demo in the folder `out`; return 0, or 1 if training has not helped enough."""
    out.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {}
    with _timed("slides and stores", seconds):
        slides = {
            name: datasets.synthetic_visium(seed=seed, n_rows=24, n_cols=24, name=name)
            for seed, name in enumerate((*TRAIN, VALIDATION, TEST))
        }
        stores = _write_stores(slides, out)
    with _timed("pretraining", seconds):
        gene_encoder = _pretrain(stores, slides[TEST], out)
    with _timed("alignment", seconds):
        stamp = train.align(
            [stores[name] for name in TRAIN],
            out / "stamp",
            gene_encoder=gene_encoder,
            image_encoder=IMAGE,
            config=ALIGN,
            validation=[stores[VALIDATION]],
        )
    with _timed("embedding, clusters, prediction", seconds):
        references = _join_tables([slides[name] for name in TRAIN])
        tl.tokenize(references, stamp)
        tl.tokenize(slides[TEST], stamp)
        table, trained = _evaluate(stamp, references, slides[TEST])
        _, untrained = _evaluate(_untrained(stamp), references, slides[TEST])
    with _timed("figures", seconds):
        slides[TEST].tables["table"] = table
        figures = draw_figures(slides[TEST], out)
    summary: dict[str, Any] = {
        "held_out": trained,
        "untrained": untrained,
        "seconds": seconds | {"total": sum(seconds.values())},
        "passed": has_learned(trained, untrained),
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=2), encoding="utf-8")
    write_report(summary, figures, out / "report.html")
    result = "passed" if summary["passed"] else "FAILED"
    print(f"{result}: see {out / 'report.html'} and {out / 'summary.json'}")
    return 0 if summary["passed"] else 1


@contextmanager
def _timed(name: str, seconds: dict[str, float]) -> Iterator[None]:
    """Add the seconds of a step to `seconds`, and print them."""
    start = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - start, 1)
    print(f"{name}: {seconds[name]} s", flush=True)


def _write_stores(slides: dict[str, "SpatialData"], out: Path) -> dict[str, Path]:
    """Write each slide as a store; return their paths by name."""
    paths = {name: out / "stores" / f"{name}.zarr" for name in slides}
    for name, path in paths.items():
        io.write_store(slides[name], path, patch_um_per_px=IMAGE.um_per_px, overwrite=True)
    return paths


def _pretrain(stores: dict[str, Path], slide: "SpatialData", out: Path) -> GeneEncoder:
    """Train a gene encoder with a vocabulary of the measured genes.

    The full vocabulary would only add embeddings of genes that no slide has.
    """
    human = Vocabulary.default()
    index = np.unique(human.encode(slide.tables["table"].var_names))
    measured = Vocabulary.from_genes(human.gene_ids[index], human.symbols[index])
    training = [stores[name] for name in TRAIN]
    return train.pretrain(
        training,
        out / "gene_encoder",
        vocabulary=measured.fit(training),
        model=GENE,
        config=PRETRAIN,
        validation=[stores[VALIDATION]],
    )


def _untrained(stamp: Stamp) -> Stamp:
    """Return the same architecture with the weights that training would start from."""
    return build_with_seed(ALIGN.seed, lambda: Stamp(stamp.config, stamp.vocabulary).eval())


def _join_tables(slides: list["SpatialData"]) -> "AnnData":
    """Return the spots of several slides as one table."""
    return anndata.concat([slide.tables["table"] for slide in slides], index_unique="-")


def _evaluate(
    stamp: Stamp, references: "AnnData", slide: "SpatialData"
) -> tuple["AnnData", dict[str, float]]:
    """Embed and cluster a slide, predict its expression from the image alone, and score both.

    The tokens of references and slide are already there. Returns the annotated table of the slide
    and its scores.
    """
    embedded = tl.embed_genes(references, stamp, copy=True)
    table = tl.embed_images(slide, stamp, copy=True)
    assert embedded is not None and table is not None  # because of copy=True
    tl.embed_genes(table, stamp)
    tl.fuse(table, scale=True)
    scores = {f"ari_{name}": _cluster(table, name) for name in ("genes", "images", "fused")}
    tl.predict_expression(table, embedded, genes=list(embedded.var_names))
    scores["pcc"] = _correlation(table, embedded)
    recall = metrics.recall_at_k(
        table.obsm["X_stp_images_aligned"], table.obsm["X_stp_genes_aligned"]
    )
    scores["recall@5"] = recall[5]
    scores["chance@5"] = 5 / table.n_obs
    return table, scores


def _cluster(table: "AnnData", name: str) -> float:
    """Cluster one embedding with Leiden; return the adjusted Rand index with the true domains."""
    sc.pp.neighbors(table, use_rep=f"X_stp_{name}")
    sc.tl.leiden(
        table,
        resolution=0.5,
        flavor="igraph",
        n_iterations=2,
        directed=False,
        key_added=f"leiden_{name}",
    )
    domains = table.obs["domain"]
    clusters = table.obs[f"leiden_{name}"]
    table.uns[f"leiden_{name}_colors"] = cluster_colors(domains, clusters)
    return metrics.clustering_scores(domains, clusters)["ari"]


def cluster_colors(domains: pd.Series, clusters: pd.Series) -> list[str]:
    """Give each cluster the color of a domain, so that most spots have the color of their domain.

    Each domain gives its color to one cluster; further clusters get further colors.
    """
    n_shared = pd.crosstab(clusters, domains).to_numpy()
    n_clusters, n_domains = n_shared.shape
    colors = _colors.of_categories(max(n_clusters, n_domains))
    matched, domain_of_matched = linear_sum_assignment(-n_shared)
    others = np.setdiff1d(np.arange(n_clusters), matched)
    color_index = np.empty(n_clusters, dtype=int)
    color_index[matched] = domain_of_matched
    color_index[others] = n_domains + np.arange(len(others))
    return [colors[index] for index in color_index]


def _correlation(table: "AnnData", references: "AnnData") -> float:
    """Return the mean correlation of measured and predicted expression.

    The genes are the most variable ones of the references.
    """
    in_references = _log_normalize(references)
    variable = np.argsort(-in_references.var(axis=0))[:N_VARIABLE]
    measured = _log_normalize(table)[:, variable]
    predicted = get.expression(table).X[:, variable]
    return float(metrics.gene_pearson(measured, predicted).mean())


def _log_normalize(table: "AnnData") -> np.ndarray:
    """Return log1p of counts per 10,000 (n_obs, n_vars)."""
    normalized = sc.pp.normalize_total(table, target_sum=1e4, copy=True)
    return sc.pp.log1p(normalized, copy=True).X.toarray()


def has_learned(trained: dict[str, float], untrained: dict[str, float]) -> bool:
    """Return whether retrieval beats chance, and prediction beats untrained weights."""
    retrieves = trained["recall@5"] >= MIN_RECALL * trained["chance@5"]
    predicts = trained["pcc"] > 0 and trained["pcc"] >= MIN_GAIN * untrained["pcc"]
    return retrieves and predicts
