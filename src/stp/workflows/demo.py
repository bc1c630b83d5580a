"""The whole way on synthetic slides: stores, both training stages, embeddings, clusters, prediction, a report."""

import base64
import html
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
import torch
from scipy.optimize import linear_sum_assignment

from stp import datasets, get, io, metrics, pl, tl, train
from stp.genes.vocabulary import Vocabulary
from stp.models import GeneEncoderConfig, ImageEncoderConfig, Stamp
from stp.pl import _colors

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

TRAIN, VALIDATION, TEST = ("train_0", "train_1", "train_2", "train_3"), "validation", "held_out"
N_VARIABLE = 100  # genes scored, the most variable of the training slides
MIN_RECALL, MIN_GAIN = 3.0, 2.0  # recall@5 over chance, correlation over untrained weights
MARKERS = ["EPCAM", "COL1A1", "PTPRC", "PLIN1"]

GENE = GeneEncoderConfig(context_length=192, width=64, depth=2, n_heads=4, ffn_width=128)
IMAGE = ImageEncoderConfig(
    "vit_tiny_patch16_224",
    {"patch_size": 16, "embed_dim": 128, "depth": 3, "num_heads": 4},
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
    epochs=15,
    batch_size=64,
    accumulate=1,
    spots_per_slide=16,
    rotate=True,
    stain_jitter=0.3,
    learning_rate=1e-3,
    min_learning_rate=5e-5,
    projection_width=64,
)


def run(out: Path) -> int:
    """Run the demo in the folder `out`; returns 0, or 1 where the trained model is no better than it must be."""
    out.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {}
    with _timed("slides and stores", seconds):
        slides = {
            name: datasets.synthetic_visium(seed=i, name=name)
            for i, name in enumerate((*TRAIN, VALIDATION, TEST))
        }
        paths = _write_stores(slides, out)
    with _timed("pretraining", seconds):
        genes = _pretrain(paths, slides[TEST], out)
    with _timed("alignment", seconds):
        stores, validation = [paths[name] for name in TRAIN], [paths[VALIDATION]]
        stamp = train.align(
            stores,
            out / "stamp",
            gene_encoder=genes,
            image_encoder=IMAGE,
            config=ALIGN,
            validation=validation,
        )
    with _timed("embedding, clusters, prediction", seconds):
        references = [slides[name] for name in TRAIN]
        table, trained = _evaluate(stamp, references, slides[TEST])
        _, untrained = _evaluate(_untrained(stamp), references, slides[TEST])
    with _timed("figures", seconds):
        figures = _draw(slides[TEST], table, out)
    summary: dict[str, Any] = {
        "held_out": trained,
        "untrained": untrained,
        "seconds": seconds | {"total": sum(seconds.values())},
    }
    summary["passed"] = _passed(trained, untrained)
    (out / "summary.json").write_text(json.dumps(summary, indent=2))
    (out / "report.html").write_text(_report(summary, figures))
    print(
        f"{'passed' if summary['passed'] else 'FAILED'}: see {out / 'report.html'} and {out / 'summary.json'}"
    )
    return 0 if summary["passed"] else 1


@contextmanager
def _timed(name: str, seconds: dict[str, float]) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - start, 1)
    print(f"{name}: {seconds[name]} s", flush=True)


def _write_stores(slides: dict[str, "SpatialData"], out: Path) -> dict[str, Path]:
    paths = {name: out / "stores" / f"{name}.zarr" for name in slides}
    for name, path in paths.items():
        io.write_store(slides[name], path, patch_um_per_px=IMAGE.um_per_px, overwrite=True)
    return paths


def _pretrain(paths: dict[str, Path], slide: "SpatialData", out: Path) -> Any:
    """Train on a vocabulary of the measured genes alone: the full one only adds embeddings that nothing reads."""
    human = Vocabulary.default()
    index = np.unique(human.encode(slide.tables["table"].var_names))
    measured = Vocabulary.from_genes(human.gene_ids[index], human.symbols[index])
    stores = [paths[name] for name in TRAIN]
    return train.pretrain(
        stores,
        out / "gene_encoder",
        vocabulary=measured.fit(stores),
        model=GENE,
        config=PRETRAIN,
        validation=[paths[VALIDATION]],
    )


def _untrained(stamp: Stamp) -> Stamp:
    """Return the same architecture with the weights that training would start from."""
    with torch.random.fork_rng():
        torch.manual_seed(ALIGN.seed)
        return Stamp(stamp.config, stamp.vocabulary).eval()


def _evaluate(
    stamp: Stamp, references: list["SpatialData"], held_out: "SpatialData"
) -> tuple["AnnData", dict]:
    """Embed, cluster and predict the held-out slide from its image alone; score it."""
    embedded = [_embed_genes(slide.tables["table"], stamp) for slide in references]
    reference = anndata.concat(embedded, index_unique="-", uns_merge="same")
    table = _embed_genes(tl.embed_images(held_out, stamp, copy=True), stamp)
    tl.fuse(table, scale=True)
    scores = {f"ari_{name}": _cluster(table, name) for name in ("genes", "images", "fused")}
    tl.predict_expression(table, reference, genes=list(reference.var_names))
    scores["pcc"] = _correlation(table, reference)
    found = metrics.recall_at_k(
        table.obsm["X_stp_images_aligned"], table.obsm["X_stp_genes_aligned"]
    )
    return table, scores | {"recall@5": found[5], "chance@5": 5 / table.n_obs}


def _embed_genes(table: "AnnData", stamp: Stamp) -> "AnnData":
    table = tl.tokenize(table, stamp, copy=True)
    tl.embed_genes(table, stamp)
    return table


def _cluster(table: "AnnData", name: str) -> float:
    """Cluster one embedding with Leiden; return the adjusted Rand index against the true domains."""
    sc.pp.neighbors(table, use_rep=f"X_stp_{name}")
    sc.tl.leiden(
        table,
        resolution=0.5,
        flavor="igraph",
        n_iterations=2,
        directed=False,
        key_added=f"leiden_{name}",
    )
    table.uns[f"leiden_{name}_colors"] = _colors_of(
        table.obs["domain"], table.obs[f"leiden_{name}"]
    )
    return metrics.clustering_scores(table.obs["domain"], table.obs[f"leiden_{name}"])["ari"]


def _colors_of(domains: pd.Series, clusters: pd.Series) -> list[str]:
    """Give each cluster the color of the domain that it shares most spots with, one to one; others get what is left."""
    shared = pd.crosstab(clusters, domains).to_numpy()
    matched, of_domain = linear_sum_assignment(-shared)
    colors = _colors.of_categories(max(shared.shape))
    order = np.empty(len(shared), dtype=int)
    order[matched] = of_domain
    others = np.setdiff1d(np.arange(len(shared)), matched)
    order[others] = shared.shape[1] + np.arange(len(others))
    return [colors[number] for number in order]


def _correlation(table: "AnnData", reference: "AnnData") -> float:
    """Mean correlation of measured and predicted genes, for the most variable genes of the training slides."""
    normalized = [
        sc.pp.log1p(sc.pp.normalize_total(a, target_sum=1e4, copy=True), copy=True)
        for a in (reference, table)
    ]
    training, measured = (a.X.toarray() for a in normalized)
    chosen = np.argsort(-training.var(axis=0))[:N_VARIABLE]
    return float(
        metrics.gene_pearson(measured[:, chosen], get.expression(table).X[:, chosen]).mean()
    )


def _passed(trained: dict[str, float], untrained: dict[str, float]) -> bool:
    """Tell whether training did what it must: retrieval beats chance, prediction beats untrained weights."""
    retrieves = trained["recall@5"] >= MIN_RECALL * trained["chance@5"]
    predicts = trained["pcc"] > 0 and trained["pcc"] >= MIN_GAIN * untrained["pcc"]
    return retrieves and predicts


def _draw(held_out: "SpatialData", table: "AnnData", out: Path) -> dict[str, Path]:
    """Write the figures as PNG; returns caption to path."""
    held_out.tables["table"] = table
    clusters = ["domain", "leiden_genes", "leiden_images", "leiden_fused"]
    figures = {
        "True domains and clusters on the held-out slide": pl.spots(held_out, clusters),
        "Patches and the regions around them": pl.patches(held_out),
        "Measured and predicted from the image alone": pl.expression(held_out, MARKERS),
        "Pretraining of the gene encoder": pl.training(out / "gene_encoder"),
        "Alignment": pl.training(out / "stamp"),
    }
    paths = {}
    for name, (caption, figure) in zip(
        ("domains", "patches", "expression", "pretrain", "align"), figures.items(), strict=True
    ):
        paths[caption] = out / f"{name}.png"
        figure.savefig(paths[caption], dpi=110)
    return paths


def _report(summary: dict[str, Any], figures: dict[str, Path]) -> str:
    """Return one HTML page that holds its pictures."""
    names = [name for name in summary["held_out"] if name != "chance@5"]
    chance = summary["held_out"]["chance@5"]
    rows = [
        f"<tr><td>{name}</td><td>{summary['held_out'][name]:.3f}</td><td>{summary['untrained'][name]:.3f}</td></tr>"
        for name in names
    ]
    pictures = [
        f'<h2>{html.escape(caption)}</h2><img alt="{html.escape(caption)}" '
        f'src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}">'
        for caption, path in figures.items()
    ]
    times = ", ".join(
        f"{html.escape(name)} {value:.0f} s" for name, value in summary["seconds"].items()
    )
    return PAGE.format(
        rows="\n".join(rows), chance=f"{chance:.3f}", times=times, pictures="\n".join(pictures)
    )


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>stp demo</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; }}
img {{ max-width: 100%; }} td, th {{ padding: .2em 1.2em .2em 0; text-align: left; }}
</style></head><body>
<h1>stp demo</h1>
<p>A small Stamp, trained on four synthetic slides, chosen on a fifth, and shown a sixth that it never saw. Slides share
the law from tissue domain to nuclei and expression; their layout and stain differ. These numbers say that the software
works, nothing about real tissue.</p>
<table><tr><th>held-out slide</th><th>trained</th><th>untrained</th></tr>
{rows}
</table>
<p>ari: adjusted Rand index of Leiden clusters (resolution 0.5) against the true domains. pcc: mean correlation of the
100 most variable genes, predicted from the image alone. recall@5: own genes among the five nearest to the patch;
chance is {chance}.</p>
<p>{times}</p>
{pictures}
</body></html>
"""
