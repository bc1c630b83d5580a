"""Queries by single genes in a HER2+ section, compared with baselines that see the same sections.

The Stamp is that of `benchmarks.accuracy.her2st`: trained on C2 to C4, its epoch chosen on C5. The
numbers of examples and of neighbors are the defaults, which were fixed after a look at C5 alone.
"""

from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

import stp
from benchmarks.accuracy.expression import normalize, ridge
from benchmarks.accuracy.her2st import embed, join
from benchmarks.accuracy.sections import (
    TEST,
    TRAIN,
    VALIDATION,
    Settings,
    centers_of,
    patches_of,
    pretrain_without,
    read_section,
    write_stores,
)
from benchmarks.measure import Row
from stp.images.color_texture import color_and_texture
from stp.models import Stamp
from stp.retrieval.position import copy_by_position

N_GENES = 20
SEED = 0
QUERY = "query by the gene"
UNTRAINED = "query by the gene, untrained Stamp"


def her2st_rows(data: Path, folder: Path) -> list[Row]:
    """Return a row per method: rank correlation of its score with each gene over the spots of C6.

    Genes are those of highest variance of log1p of counts per 10,000 on the training sections.
    """
    stamp = load_or_train(data, folder)
    slides = {name: read_section(data, name) for name in (*TRAIN, TEST)}
    tables = {name: embed(slide, stamp) for name, slide in slides.items()}
    shared = join([tables[name] for name in TRAIN]).var_names
    shared = shared.intersection(tables[TEST].var_names, sort=False)
    pooled = np.concatenate([normalize(tables[name], shared) for name in TRAIN])
    genes = shared[np.argsort(-pooled.var(axis=0), kind="stable")[:N_GENES]].tolist()
    train = [normalize(tables[name], genes) for name in TRAIN]
    measured = normalize(tables[TEST], genes)
    centers = {name: centers_of(slide) for name, slide in slides.items()}
    pixels = {
        name: color_and_texture(patches_of(slide, stamp.config.image))
        for name, slide in slides.items()
    }
    sisters = [(centers[name], values) for name, values in zip(TRAIN, train, strict=True)]
    untrained = make_untrained(stamp)
    random_tables = {name: embed(slide, untrained) for name, slide in slides.items()}
    predictions = {
        QUERY: query_genes(tables, genes),
        UNTRAINED: query_genes(random_tables, genes),
        "ridge on color and texture": ridge(
            np.concatenate([pixels[name] for name in TRAIN]), np.concatenate(train), pixels[TEST]
        ),
        "position": copy_by_position(sisters, centers[TEST]),
        "retrieval of expression, same Stamp": retrieve_genes(tables, genes),
    }
    return [score(method, values, measured, genes) for method, values in predictions.items()]


def load_or_train(data: Path, folder: Path) -> Stamp:
    """Return the Stamp of the benchmark of HER2+ tumors; a finished run is loaded."""
    settings = Settings()
    stores = write_stores(data, folder, settings)
    return stp.train.align(
        [stores[name] for name in TRAIN],
        folder / "stamp",
        gene_encoder=pretrain_without("C", stores, folder, settings),
        image_encoder=settings.image,
        config=settings.align,
        validation=[stores[VALIDATION]],
    )


def make_untrained(stamp: Stamp) -> Stamp:
    """Return a Stamp of the same sizes with random weights."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        return Stamp(stamp.config, stamp.vocabulary).eval()


def query_genes(tables: dict, genes: list[str]) -> np.ndarray:
    """Return the query score (n_spots, n_genes) of each spot of the test section for each gene."""
    test = tables[TEST]
    references = [tables[name] for name in TRAIN]
    scores = []
    for gene in genes:
        stp.tl.query_by_genes(test, {gene: 1.0}, reference=references)
        scores.append(test.obs["stp_query"].to_numpy(dtype=float))
    return np.stack(scores, axis=1)


def retrieve_genes(tables: dict, genes: list[str]) -> np.ndarray:
    """Return the expression (n_spots, n_genes) that retrieval predicts for the test section."""
    test = tables[TEST]
    stp.tl.predict_expression(test, [tables[name] for name in TRAIN], genes=genes)
    return np.asarray(test.obsm["stp_expression"])


def score(method: str, predicted: np.ndarray, measured: np.ndarray, genes: list[str]) -> Row:
    """Return the mean rank correlation over genes, and that of each gene."""
    rho = np.array(
        [spearmanr(predicted[:, g], measured[:, g]).statistic for g in range(len(genes))]
    )
    by_gene = {gene: round(float(value), 3) for gene, value in zip(genes, rho, strict=True)}
    return {
        "part": "HER2+ C6, single genes",
        "method": method,
        "Spearman": {"mean": round(float(rho.mean()), 3), **by_gene},
        "genes above 0.2": int((rho > 0.2).sum()),
    }
