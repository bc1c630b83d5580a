r"""Does alignment learn, and from what? Losses, targets and gene encoders varied, three seeds.

    python -m benchmarks.accuracy.alignment --data ../shared/data/her2st \
        --gene-sets ../shared/data/genesets --folder runs/alignment

Training is on C2 to C4, the epoch is chosen by recall@5 on C5, and C6 is tested once. These are
serial sections of one patient: the result is transfer between sections, not to a patient. The
position baseline shows how far that goes without any image. Gene encoders, one for each way to
start, and the means of the vocabulary come from patients D, E and F. Runs that are done are not
repeated; a run that was stopped continues.
"""

import dataclasses
import warnings
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import spatialdata
import torch

import stp
from benchmarks.accuracy.alignment_variants import (
    ALIGN,
    GENE,
    IMAGE,
    STARTS,
    VARIANTS,
    Variant,
)
from benchmarks.accuracy.expression import Targets, neighbor_mean, normalize, ridge
from benchmarks.accuracy.her2st import join
from benchmarks.accuracy.sections import (
    PITCH_UM,
    TEST,
    TRAIN,
    VALIDATION,
    Settings,
    centers_of,
    patches_of,
    read_section,
    write_stores,
)
from benchmarks.measure import Row, make_parser, run_once, silence_logger, write_results
from stp.data.pairs import PairDataset
from stp.data.samplers import SpotIndex
from stp.data.store import SpotStore
from stp.images.color_texture import color_and_texture
from stp.models import GeneEncoder, Stamp
from stp.retrieval.position import copy_by_position
from stp.train import AlignConfig
from stp.train.tasks import Alignment

N_GENES = 5000  # of the vocabulary: those that most spots of the other patients detect
PRETRAINED_ON = ("D1", "D2", "E1", "E2", "F1")
HALLMARK = "hallmark_v7.0_46of50sets.gmt"
LOCALIZED_EPOCHS = 5  # draws of the region cell for each test spot
Line = dict[str, str | int | float]  # scores of one run


def main(arguments: list[str] | None = None) -> pd.DataFrame:
    """Train and score what is not done yet; write runs.csv and the rows, and return all scores."""
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of HER2+ sections")
    parser.add_argument("--gene-sets", type=Path, required=True, help="folder of GMT files")
    parser.add_argument(
        "--folder", type=Path, required=True, help="folder for stores, models and scores"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=(0, 1, 2))
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--short", action="store_true", help="a smoke test: an epoch each")
    options = parser.parse_args(arguments)
    silence_logger()
    warnings.filterwarnings("ignore", message=".* spots are few")
    bench = Bench(options.data, options.gene_sets, options.folder, options.short)
    lines = bench.score_once("baselines", bench.baselines)
    for seed in options.seeds:
        for variant in options.variants:
            lines += bench.score_once(f"{variant} {seed}", partial(bench.run, variant, seed))
    table = pd.DataFrame(lines)
    table.to_csv(options.folder / "runs.csv", index=False)
    write_results(options.out, list_rows(table))
    return table


def list_rows(table: pd.DataFrame) -> list[Row]:
    """Return a row per method: the mean of each score, and its range over seeds."""
    rows = []
    for method, runs in table.groupby("method", sort=False):
        row: Row = {"method": method}
        for name in runs.columns.drop(["method", "seed"], errors="ignore"):
            values = runs[name].dropna().round(3)
            if len(values) > 1:
                span = [float(values.min()), float(values.max())]
                row[name] = {"mean": round(float(runs[name].mean()), 3), "range": span}
            elif len(values):
                row[name] = float(values.iloc[0])
        rows.append(row)
    return rows


class Bench:
    """Five sections of one patient: what is trained on them, and how it is scored.

    Parameters
    ----------
    data
        Folder of the sections.
    gene_sets
        Folder of GMT files.
    folder
        Folder for stores, models and scores.
    short
        Train one epoch each, as a smoke test.
    """

    def __init__(self, data: Path, gene_sets: Path, folder: Path, short: bool) -> None:
        self.data = data
        self.gene_sets = gene_sets
        self.folder = folder
        self.align_config = dataclasses.replace(ALIGN, epochs=1) if short else ALIGN
        self.stores = write_stores(data, folder, Settings(image=IMAGE, n_sections=2))
        self.other_stores = [self.stores[name] for name in PRETRAINED_ON]
        genes = stp.Vocabulary.default().fit(self.other_stores)
        most = np.sort(np.argsort(-genes.n_detected, kind="stable")[:N_GENES])
        vocabulary = stp.Vocabulary.from_genes(genes.gene_ids[most], genes.symbols[most])
        self.vocabulary = vocabulary.fit(self.other_stores)

    def score_once(self, name: str, score: Callable[[], list[Line]]) -> list[Line]:
        """Score unless that was done before."""
        return run_once(self.folder / "scores" / f"{name}.json", score)

    def run(self, name: str, seed: int) -> list[Line]:
        """Align one variant and score it on the test section."""
        stamp = self.align(name, seed)
        lines: list[Line] = [{"method": name, "seed": seed, **self.score(stamp)}]
        if name == next(iter(VARIANTS)):
            untrained = build_with_seed(seed, lambda: Stamp(stamp.config, stamp.vocabulary))
            lines.append({"method": "untrained", "seed": seed, **self.score(untrained)})
        return lines

    def align(self, name: str, seed: int) -> Stamp:
        """Align one variant."""
        variant = VARIANTS[name]
        encoder = self.gene_encoder(variant.start, seed)
        return stp.train.align(
            [self.stores[section] for section in TRAIN],
            self.folder / "models" / f"{name} {seed}",
            gene_encoder=encoder,
            vocabulary=self.vocabulary if encoder is None else None,
            image_encoder=IMAGE,
            config=self.config(variant, seed),
            validation=[self.stores[VALIDATION]],
        )

    def config(self, variant: Variant, seed: int) -> AlignConfig:
        """Return the settings of a variant."""
        gene_sets = None if variant.targets == "genes" else str(self.gene_sets / HALLMARK)
        return dataclasses.replace(
            self.align_config,
            seed=seed,
            losses=ALIGN.losses[: variant.n_losses],
            targets=variant.targets,
            gene_sets=gene_sets,
        )

    def gene_encoder(self, start: str | None, seed: int) -> GeneEncoder | None:
        """Return the gene encoder that alignment starts from: pretrained, random, or none."""
        if start is None:
            return None
        if start == "random":
            return build_with_seed(seed, lambda: GeneEncoder(GENE, self.vocabulary))
        return stp.train.pretrain(
            self.other_stores,
            self.folder / "models" / f"genes {start}",
            vocabulary=self.vocabulary,
            model=GENE,
            config=STARTS[start],
        )

    @cached_property
    def slides(self) -> dict[str, spatialdata.SpatialData]:
        """The sections with their images, by name."""
        return {name: read_section(self.data, name) for name in (*TRAIN, TEST)}

    @cached_property
    def targets(self) -> Targets:
        """Genes to predict and to score by, chosen on the training sections."""
        tables = {name: slide.tables["table"] for name, slide in self.slides.items()}
        shared = set.intersection(*(set(table.var_names) for table in tables.values()))
        return Targets.choose([tables[name] for name in TRAIN], sorted(shared))

    @cached_property
    def expression(self) -> dict[str, np.ndarray]:
        """Measured expression of the genes to predict, by section."""
        genes = self.targets.genes
        return {
            name: normalize(slide.tables["table"], genes) for name, slide in self.slides.items()
        }

    def score(self, stamp: Stamp) -> dict[str, float]:
        """Score retrieval, localization and expression on the test section."""
        tables = {name: embed(slide, stamp) for name, slide in self.slides.items()}
        test = tables[TEST]
        reference = join([tables[name] for name in TRAIN])
        features = {name: table.obsm["X_stp_images"] for name, table in tables.items()}
        scores = {"localized": self.localize(stamp)}
        for name, value in self.compare(self.regress(features)).items():
            scores[f"ridge {name}"] = value
        for target in ("genes", "pathways"):
            key = f"X_stp_{target}_aligned"
            if key not in test.obsm:
                continue
            genes = list(self.targets.genes)
            stp.tl.predict_expression(test, reference, genes=genes, reference_rep=key)
            recall = stp.metrics.recall_at_k(test.obsm["X_stp_images_aligned"], test.obsm[key])
            retrieved = {f"recall@{k}": value for k, value in recall.items()}
            retrieved |= self.compare(test.obsm["stp_expression"])
            for name, value in retrieved.items():
                scores[name if name not in scores else f"{target} {name}"] = value
        return scores

    def compare(self, predicted: np.ndarray) -> dict[str, float]:
        """Score predicted expression of the test section."""
        return self.targets.score(self.expression[TEST], predicted)

    def regress(self, features: dict[str, np.ndarray]) -> np.ndarray:
        """Predict the test section by ridge regression on features."""
        train = np.concatenate([features[name] for name in TRAIN])
        expression = np.concatenate([self.expression[name] for name in TRAIN])
        return ridge(train, expression, features[TEST])

    @torch.inference_mode()
    def localize(self, stamp: Stamp) -> float:
        """Return the share of test patches found in their region, over some draws of the cell."""
        store = SpotStore(self.stores[TEST])
        dataset = PairDataset(
            [store], {}, image_size=IMAGE.image_size, um_per_px=IMAGE.um_per_px, seed=0
        )
        task = Alignment(stamp, losses=ALIGN.losses[3:])
        rows = np.column_stack([np.zeros(len(store), int), np.arange(len(store))])
        shares = []
        for epoch in range(LOCALIZED_EPOCHS):
            for part in np.array_split(rows, 4):
                share = task(dataset[SpotIndex(epoch, part)])["localized"].item()
                shares += [share] * len(part)
        return float(np.mean(shares))

    def baselines(self) -> list[Line]:
        """Score what learns no alignment; the neighbors are of the test section itself."""
        train = [self.expression[name] for name in TRAIN]
        test = self.expression[TEST]
        centers = {name: centers_of(slide) for name, slide in self.slides.items()}
        pixels = {
            name: color_and_texture(patches_of(slide, IMAGE)) for name, slide in self.slides.items()
        }
        sisters = [(centers[name], self.expression[name]) for name in TRAIN]
        neighbors = neighbor_mean(centers[TEST], test, 1.2 * PITCH_UM)
        predicted = {
            "mean profile": np.broadcast_to(np.concatenate(train).mean(axis=0), test.shape),
            "ridge on color and texture": self.regress(pixels),
            "position": copy_by_position(sisters, centers[TEST]),
            "neighbors in the section (measured)": neighbors,
        }
        lines: list[Line] = []
        for name, values in predicted.items():
            lines.append({"method": name, **self.compare(values)})
        chance = {f"recall@{k}": k / len(test) for k in (1, 5, 10)}
        return [*lines, {"method": "chance", **chance, "localized": 1 / 9}]


def embed(slide: spatialdata.SpatialData, stamp: Stamp) -> anndata.AnnData:
    """Return the table of a slide with images, and genes or pathways, embedded."""
    table = stp.tl.embed_images(slide, stamp, progress=False, copy=True)
    if stamp.gene_encoder is not None:
        stp.tl.tokenize(table, stamp)
        stp.tl.embed_genes(table, stamp, progress=False)
    if stamp.pathway_encoder is not None:
        stp.tl.embed_pathways(table, stamp)
    return table


def build_with_seed(seed: int, build: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    """Build a module from a seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build().eval()


if __name__ == "__main__":
    main()
