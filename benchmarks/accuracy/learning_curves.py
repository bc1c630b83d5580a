r"""Does a Stamp learn more from more slides, and more than color and texture do?

    python -m benchmarks.accuracy.learning_curves --folder runs/curves

Slides are synthetic: expression follows what the image shows, by a law that all slides share.
Each seed draws training slides and weights, and a larger training set includes the smaller ones.
The test slides are the same for all. Runs that are done are not repeated; a run that was stopped
continues.
"""

import dataclasses
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import spatialdata
import torch

import stp
from benchmarks.accuracy.bulb import standardize
from benchmarks.accuracy.clusters import pca_of
from benchmarks.accuracy.expression import Targets, normalize, ridge
from benchmarks.accuracy.learning_curves_training import (
    GENE,
    IMAGE,
    IMAGE_SIZE,
    LONGER,
    STAMP,
    TRAININGS,
    UM_PER_PX,
    Plan,
    Training,
    measured_genes,
    read_slides,
)
from benchmarks.accuracy.small_settings import embed
from benchmarks.measure import Row, make_parser, run_once, silence_logger, write_results
from stp.images.color_texture import color_and_texture
from stp.models import Stamp
from stp.tl._leiden import leiden_clusters

N_TEST = 4  # slides, never trained on
SPOTS_PER_SIDE = 16
N_SMALLEST = 5  # training slides on which the scored genes are chosen
N_SEEDS_CLUSTERS = 3
REAL_SLIDES = 300
REAL_SPOTS = 2000  # of a Visium slide
SCORES = ("recall@5", "PCC-V", "ridge PCC-V", "ARI images", "ARI genes")
MINUTES = "CPU minutes"
UNTRAINED = "untrained Stamp"
PIXELS = "color and texture"
TRUTH = "true domain and activity"
COMPONENTS = "PCA of expression"
CHANCE = "chance"
METHODS = (STAMP, LONGER, UNTRAINED, PIXELS, TRUTH, COMPONENTS, CHANCE)


class Curve:
    """Training sets of growing size, and the test slides.

    Parameters
    ----------
    plan
        Sizes of the run.
    seed
        Random seed for the training slides and the weights.
    """

    def __init__(self, plan: Plan, seed: int) -> None:
        self.plan = plan
        self.seed = seed

    @cached_property
    def test(self) -> list[spatialdata.SpatialData]:
        """The test slides."""
        return read_slides(self.plan.write_stores(range(N_TEST)))

    @cached_property
    def targets(self) -> Targets:
        """The scored genes: the most variable of the smallest training set."""
        slides = read_slides(self.plan.training_stores(self.seed, N_SMALLEST))
        tables = [slide.tables["table"] for slide in slides]
        genes = tables[0].var_names.to_numpy()
        return Targets.scored_in(genes, expression_of(tables, genes))

    def score_stamp(self, training: Training) -> list[Row]:
        """Train, and score the test slides."""
        stamp, seconds = self.plan.train(training, self.seed)
        train = read_slides(self.plan.training_stores(self.seed, training.n_slides))
        n_spots = sum(slide.tables["table"].n_obs for slide in train)
        scores = self.score_embeddings(stamp, train)
        name = self.name(training.method, training.n_slides)
        return [{**name, **scores, "n_spots": n_spots, **seconds}]

    def score_untrained(self) -> list[Row]:
        """Score the weights that the training on the smallest set starts from."""
        stores = self.plan.training_stores(self.seed, N_SMALLEST)
        config = stp.models.StampConfig(gene=GENE, image=IMAGE, projection_width=64)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            stamp = Stamp(config, measured_genes(stores)).eval()
        scores = self.score_embeddings(stamp, read_slides(stores))
        return [{"method": UNTRAINED, "seed": self.seed, **scores}]

    def score_embeddings(self, stamp: Stamp, train: list[spatialdata.SpatialData]) -> Row:
        """Return mean scores of the test slides."""
        tables = [embed(slide, stamp) for slide in train]
        tests = [embed(slide, stamp) for slide in self.test]
        features = np.concatenate([table.obsm["X_stp_images"] for table in tables])
        expression = expression_of(tables, self.targets.genes)
        scores = []
        for test in tests:
            stp.tl.predict_expression(test, tables, genes=list(self.targets.genes))
            images = test.obsm["X_stp_images"]
            recall = stp.metrics.recall_at_k(
                test.obsm["X_stp_images_aligned"], test.obsm["X_stp_genes_aligned"]
            )
            row = {
                "recall@5": recall[5],
                "PCC-V": self.pcc(test, test.obsm["stp_expression"]),
                "ridge PCC-V": self.pcc(test, ridge(features, expression, images)),
                "ARI images": ari(test, images),
                "ARI genes": ari(test, test.obsm["X_stp_genes"]),
            }
            scores.append(row)
        return mean_scores(scores)

    def score_baselines(self, n_slides: int) -> list[Row]:
        """Score what is no Stamp on some training slides.

        Ridge regression is on color and texture, and on the domain and activity that made image
        and expression. Principal components are fitted on the training slides.
        """
        train = read_slides(self.plan.training_stores(self.seed, n_slides))
        tests = [slide.tables["table"] for slide in self.test]
        components = pca_of(tests, [slide.tables["table"] for slide in train])
        clusters = [
            {"ARI genes": ari(table, values)}
            for table, values in zip(tests, components, strict=True)
        ]
        return [
            {**self.name(PIXELS, n_slides), **self.score_ridge(train, describe, is_image=True)},
            {**self.name(TRUTH, n_slides), **self.score_ridge(train, describe_truth)},
            {**self.name(COMPONENTS, n_slides), **mean_scores(clusters)},
        ]

    def score_ridge(
        self,
        train: list[spatialdata.SpatialData],
        describe_slide: Callable[[spatialdata.SpatialData], np.ndarray],
        is_image: bool = False,
    ) -> Row:
        """Return mean scores of ridge; a spot retrieves the profile that its prediction is like."""
        features = np.concatenate([describe_slide(slide) for slide in train])
        tables = [slide.tables["table"] for slide in train]
        expression = expression_of(tables, self.targets.genes)
        scores = []
        for slide in self.test:
            table = slide.tables["table"]
            values = describe_slide(slide)
            predicted = ridge(features, expression, values)
            measured = normalize(table, self.targets.genes)
            row = {
                "recall@5": stp.metrics.recall_at_k(to_unit(predicted), to_unit(measured))[5],
                "ridge PCC-V": self.pcc(table, predicted),
            }
            if is_image:
                row["ARI images"] = ari(table, standardize(values))
            scores.append(row)
        return mean_scores(scores)

    def chance(self) -> list[Row]:
        """Return the recall of a guess."""
        recall = [5 / slide.tables["table"].n_obs for slide in self.test]
        return [{"method": CHANCE, "seed": self.seed, "recall@5": float(np.mean(recall))}]

    def pcc(self, table: anndata.AnnData, predicted: np.ndarray) -> float:
        """Return the mean correlation of the most variable genes over the spots of a slide."""
        measured = normalize(table, self.targets.genes)
        return self.targets.score(measured, predicted)["PCC-V"]

    def name(self, method: str, n_slides: int) -> Row:
        """Return the columns that name a row."""
        return {"method": method, "slides": n_slides, "seed": self.seed}


def expression_of(tables: list[anndata.AnnData], genes: np.ndarray) -> np.ndarray:
    """Return normalized expression of all spots."""
    return np.concatenate([normalize(table, genes) for table in tables])


def describe(slide: spatialdata.SpatialData) -> np.ndarray:
    """Return color and texture of each spot's patch."""
    pyramid = stp.images.ImagePyramid.from_spatialdata(slide, next(iter(slide.images)))
    centers = np.asarray(slide.tables["table"].obsm["spatial"], dtype=float)
    patches = pyramid.read(centers, size=IMAGE_SIZE, um_per_px=UM_PER_PX)
    return color_and_texture(patches)


def describe_truth(slide: spatialdata.SpatialData) -> np.ndarray:
    """Return the domain, as columns of 0 and 1, and the activity of each spot."""
    obs = slide.tables["table"].obs
    return pd.get_dummies(obs["domain"]).assign(activity=obs["activity"]).to_numpy(float)


def ari(table: anndata.AnnData, embedding: np.ndarray) -> float:
    """Return the mean adjusted Rand index of Leiden clusters and the true domains."""
    labels = table.obs["domain"].astype(str).to_numpy()
    runs = leiden_clusters(embedding, range(N_SEEDS_CLUSTERS))
    scores = [stp.metrics.clustering_scores(labels, clusters)["ari"] for _, clusters in runs]
    return float(np.mean(scores))


def to_unit(expression: np.ndarray) -> np.ndarray:
    """Return profiles as unit vectors, after each gene is standardized."""
    scaled = standardize(expression)
    return scaled / np.linalg.norm(scaled, axis=1, keepdims=True)


def mean_scores(scores: list[dict[str, float]]) -> Row:
    """Return the mean of each score over slides."""
    return {name: float(value) for name, value in pd.DataFrame(scores).mean().items()}


def list_rows(runs: pd.DataFrame) -> list[Row]:
    """Return a row per method and number of slides: the mean of each score, and each seed's."""
    rows = []
    for method in METHODS:
        of_method = runs[runs["method"] == method]
        for n_slides, of_size in of_method.groupby("slides", dropna=False):
            name = method if pd.isna(n_slides) else f"{method}, {n_slides:.0f} slides"
            row: Row = {"method": name}
            for score in (*SCORES, MINUTES):
                if score in of_size and of_size[score].notna().any():
                    digits = 1 if score == MINUTES else 3
                    row[score] = _cell(of_size.set_index("seed")[score], digits)
            rows.append(row)
    return rows


def _cell(by_seed: pd.Series, digits: int) -> Row | float:
    """Return a mean and the value of each seed; a single value if there is one seed."""
    mean = round(float(by_seed.mean()), digits)
    if len(by_seed) == 1:
        return mean
    return {"mean": mean} | {
        f"seed {seed}": round(value, digits) for seed, value in by_seed.items()
    }


def predict_minutes(runs: pd.DataFrame) -> Row:
    """Return the CPU minutes of as many passes over real slides, from the largest runs."""
    stamps = runs[runs["method"] == STAMP]
    largest = stamps[stamps["slides"] == stamps["slides"].max()]
    spots = REAL_SLIDES * REAL_SPOTS
    seconds = largest[["pretrain_s", "align_s"]].sum(axis=1) / largest["n_spots"] * spots
    name = f"{STAMP}, {REAL_SLIDES} slides of {REAL_SPOTS} spots, predicted"
    return {"method": name, MINUTES: round(float(seconds.mean()) / 60)}


def main(arguments: list[str] | None = None) -> list[Row]:
    """Train and score what is not done yet; write and return the rows."""
    parser = make_parser(__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="folder for stores and models")
    parser.add_argument("--slides", nargs="+", type=int, default=(5, 20, 80), help="(5 20 80)")
    parser.add_argument("--seeds", nargs="+", type=int, default=(0, 1, 2), help="(0 1 2)")
    parser.add_argument(
        "--side", type=int, default=SPOTS_PER_SIDE, help="spots across a slide (16)"
    )
    parser.add_argument("--short", action="store_true", help="a smoke test: an epoch each")
    options = parser.parse_args(arguments)
    silence_logger()
    torch.set_num_threads(1)
    trainings = [training for training in TRAININGS if training.n_slides in options.slides]
    if options.short:
        trainings = [dataclasses.replace(run, pretrain=1, align=1) for run in trainings]
    plan = Plan(options.folder, options.side)
    rows: list[Row] = []
    for seed in options.seeds:
        curve = Curve(plan, seed)
        works = {"chance": curve.chance, "untrained": curve.score_untrained}
        for n_slides in options.slides:
            works[f"{n_slides} slides, baselines"] = partial(curve.score_baselines, n_slides)
        for training in trainings:
            works[f"{training.name}, Stamp"] = partial(curve.score_stamp, training)
        for name, work in works.items():
            rows += run_once(options.folder / "scores" / f"{name} {seed}.json", work)
    runs = pd.DataFrame(rows)
    runs[MINUTES] = (runs["pretrain_s"] + runs["align_s"]) / 60
    result = [*list_rows(runs), predict_minutes(runs)]
    write_results(options.out, result)
    return result


if __name__ == "__main__":
    main()
