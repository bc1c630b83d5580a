"""Does alignment learn, and from what? Losses, targets and gene encoders varied, three seeds, tested on one section.

    python -m benchmarks.alignment --data ../shared/data/her2st --gene-sets ../shared/data/genesets --out DIR

Trained on C2 to C4, the epoch chosen by recall@5 on C5, tested once on C6. These are serial sections of one patient:
what is measured is transfer between sections, not to a patient; the position baseline says how far that goes without
any image. Gene encoders, one for each way to start, and the means of the vocabulary come from patients D, E and F.
Runs that are done are not repeated; a run that was stopped goes on.
"""

import argparse
import dataclasses
import json
import logging
import time
import warnings
from functools import cached_property
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import torch

import stp
from benchmarks.expression import (
    Targets,
    color_and_texture,
    neighbor_mean,
    normalized,
    position,
    ridge,
)
from benchmarks.her2st import (
    PITCH_UM,
    TEST,
    TRAIN,
    VALIDATION,
    _centers,
    read_section,
    write_stores,
)
from benchmarks.her2st import Settings as Her2st
from stp.data.pairs import PairDataset
from stp.data.samplers import SpotIndex
from stp.data.store import SpotStore
from stp.images.pyramid import ImagePyramid
from stp.metrics import recall_at_k
from stp.models import GeneEncoder, GeneEncoderConfig, ImageEncoderConfig, Stamp
from stp.train import AlignConfig, Phase, PretrainConfig
from stp.train.tasks import Alignment

N_GENES = 5000  # of the vocabulary: those that most spots of the other patients detect
GENE = GeneEncoderConfig(context_length=96, width=64, depth=1, n_heads=4, ffn_width=128)
IMAGE = ImageEncoderConfig(
    "vit_tiny_patch16_224",
    {"patch_size": 16, "embed_dim": 96, "depth": 3, "num_heads": 3},
    image_size=64,
    um_per_px=112 / 64,
)
PRETRAINED_ON = ("D1", "D2", "E1", "E2", "F1")
MASKED, NEIGHBORS = (
    Phase(epochs=2, batch_size=64),
    Phase(objective="neighborhood", epochs=2, batch_size=63),
)
RATES = {"learning_rate": 2e-3, "min_learning_rate": 1e-4}
STARTS = {  # of the gene encoder; both see every spot four times
    "pretrained": PretrainConfig(phases=(MASKED, NEIGHBORS), **RATES),
    "without phase one": PretrainConfig(phases=(NEIGHBORS, NEIGHBORS), **RATES),
}
ALIGN = AlignConfig(
    epochs=12,
    batch_size=48,
    accumulate=1,
    learning_rate=1e-3,
    min_learning_rate=2e-5,
    rotate=True,
    stain_jitter=0.2,
    projection_width=128,
)
LOSSES, HALLMARK = ALIGN.losses, "hallmark_v7.0_46of50sets.gmt"
# Name of a variant: start of the gene encoder, what differs in the config.
VARIANTS = {
    "all four losses": ("pretrained", {}),
    "patch-gene": ("pretrained", {"losses": LOSSES[:1]}),
    "+ region-gene": ("pretrained", {"losses": LOSSES[:2]}),
    "+ patch-region": ("pretrained", {"losses": LOSSES[:3]}),
    "random gene encoder": ("random", {}),
    "pathways": (None, {"targets": "pathways", "gene_sets": HALLMARK}),
    "genes and pathways": ("pretrained", {"targets": "both", "gene_sets": HALLMARK}),
    "without phase one": ("without phase one", {}),
}
LOCALIZED_EPOCHS = 5  # draws of the region cell for each test spot


def main(arguments: list[str] | None = None) -> pd.DataFrame:
    """Train and score whatever is not done yet; writes a line per run into scores/, runs.csv, and prints a summary."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of HER2+ sections")
    parser.add_argument("--gene-sets", type=Path, required=True, help="folder of GMT files")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for stores, models and scores"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=(0, 1, 2))
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--short", action="store_true", help="a smoke test: an epoch each")
    options = parser.parse_args(arguments)
    stp.tl  # noqa: B018 - so that the logger is there to be hushed
    logging.getLogger("stp").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".* spots are few")
    bench = Bench(options.data, options.gene_sets, options.out, options.short)
    lines = bench.on_main_process("baselines", bench.baselines)
    for seed in options.seeds:
        for variant in options.variants:
            lines += bench.on_main_process(
                f"{variant} {seed}", lambda v=variant, s=seed: bench.run(v, s)
            )
    table = pd.DataFrame(lines)
    table.to_csv(options.out / "runs.csv", index=False)
    print(
        table.groupby("method", sort=False)
        .mean(numeric_only=True)
        .drop(columns="seed")
        .round(3)
        .to_string()
    )
    return table


class Bench:
    """Five sections of one patient: what is trained, and how it is scored."""

    def __init__(self, data: Path, gene_sets: Path, out: Path, short: bool) -> None:
        self.data, self.gene_sets, self.out = data, gene_sets, out
        self.short = {"epochs": 1} if short else {}
        self.stores = write_stores(data, out, Her2st(image=IMAGE, n_sections=2))
        self.others = [self.stores[name] for name in PRETRAINED_ON]
        genes = stp.Vocabulary.default().fit(self.others)
        most = np.sort(np.argsort(-genes.n_detected, kind="stable")[:N_GENES])
        self.vocabulary = stp.Vocabulary.from_genes(genes.gene_ids[most], genes.symbols[most]).fit(
            self.others
        )

    def on_main_process(self, name: str, score) -> list[dict]:
        """Score unless that was done before."""
        path = self.out / "scores" / f"{name}.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            start = time.perf_counter()
            lines = score()
            text = json.dumps(
                [{**line, "seconds": round(time.perf_counter() - start)} for line in lines],
                indent=1,
            )
            path.write_text(text)
            print(name, text, flush=True)
        return json.loads(path.read_text())

    def run(self, variant: str, seed: int) -> list[dict]:
        """Align one variant and score it on the test section."""
        start, changes = VARIANTS[variant]
        if "gene_sets" in changes:
            changes = changes | {"gene_sets": str(self.gene_sets / changes["gene_sets"])}
        genes = (
            {"gene_encoder": self.gene_encoder(start, seed)}
            if start
            else {"vocabulary": self.vocabulary}
        )
        stamp = stp.train.align(
            [self.stores[name] for name in TRAIN],
            self.out / "models" / f"{variant} {seed}",
            image_encoder=IMAGE,
            config=dataclasses.replace(ALIGN, seed=seed, **changes, **self.short),
            validation=[self.stores[VALIDATION]],
            **genes,
        )
        lines = [{"method": variant, "seed": seed, **self.score(stamp)}]
        if variant == next(iter(VARIANTS)):
            untrained = seeded(seed, Stamp, stamp.config, stamp.vocabulary)
            lines.append({"method": "untrained", "seed": seed, **self.score(untrained)})
        return lines

    def gene_encoder(self, start: str, seed: int) -> GeneEncoder:
        """Return the gene encoder that alignment starts from: other patients' or none's."""
        if start == "random":
            return seeded(seed, GeneEncoder, GENE, self.vocabulary)
        folder = self.out / "models" / f"genes {start}"
        return stp.train.pretrain(
            self.others, folder, vocabulary=self.vocabulary, model=GENE, config=STARTS[start]
        )

    @cached_property
    def slides(self) -> dict:
        """The sections with their images, by name."""
        return {name: read_section(self.data, name) for name in (*TRAIN, TEST)}

    @cached_property
    def targets(self) -> Targets:
        """Genes to predict and to score by, chosen on the training sections."""
        train = [self.slides[name].tables["table"] for name in TRAIN]
        measured = set.intersection(
            *(set(slide.tables["table"].var_names) for slide in self.slides.values())
        )
        return Targets.choose(train, sorted(measured))

    @cached_property
    def expression(self) -> dict[str, np.ndarray]:
        """Measured expression of the genes to predict, by section."""
        return {
            name: normalized(slide.tables["table"], self.targets.genes)
            for name, slide in self.slides.items()
        }

    def score(self, stamp: Stamp) -> dict[str, float]:
        """Score retrieval, localization and expression on the test section."""
        tables = {name: self.embed(slide, stamp) for name, slide in self.slides.items()}
        test, train = tables[TEST], [tables[name] for name in TRAIN]
        reference = anndata.concat(train, join="inner", index_unique="-", uns_merge="same")
        ridged = self.regress({name: table.obsm["X_stp_images"] for name, table in tables.items()})
        line = {"localized": self.localized(stamp)}
        line |= {f"ridge {name}": value for name, value in self.compare(ridged).items()}
        for target in ("genes", "pathways"):
            rep = f"X_stp_{target}_aligned"
            if rep in test.obsm:
                stp.tl.predict_expression(
                    test, reference, genes=list(self.targets.genes), reference_rep=rep
                )
                found = {
                    f"recall@{k}": v
                    for k, v in recall_at_k(
                        test.obsm["X_stp_images_aligned"], test.obsm[rep]
                    ).items()
                }
                scores = found | self.compare(test.obsm["stp_expression"])
                line |= {
                    name if name not in line else f"{target} {name}": value
                    for name, value in scores.items()
                }
        return line

    def embed(self, slide, stamp: Stamp) -> anndata.AnnData:
        """Return the table of a slide with images, and genes or pathways, embedded."""
        table = stp.tl.embed_images(slide, stamp, progress=False, copy=True)
        if stamp.gene_encoder is not None:
            stp.tl.tokenize(table, stamp)
            stp.tl.embed_genes(table, stamp, progress=False)
        if stamp.pathway_encoder is not None:
            stp.tl.embed_pathways(table, stamp)
        return table

    def compare(self, predicted: np.ndarray) -> dict[str, float]:
        """Score predicted expression of the test section."""
        return self.targets.score(self.expression[TEST], predicted)

    def regress(self, features: dict[str, np.ndarray]) -> np.ndarray:
        """Predict the test section by ridge regression on features."""
        train = [
            np.concatenate([values[name] for name in TRAIN])
            for values in (features, self.expression)
        ]
        return ridge(*train, features[TEST])

    @torch.inference_mode()
    def localized(self, stamp: Stamp) -> float:
        """Return the share of test patches found in their region; cells are drawn anew for each of some epochs."""
        store, window = (
            SpotStore(self.stores[TEST]),
            {"image_size": IMAGE.image_size, "um_per_px": IMAGE.um_per_px},
        )
        dataset, task, found = (
            PairDataset([store], {}, seed=0, **window),
            Alignment(stamp, losses=LOSSES[3:]),
            [],
        )
        rows = np.column_stack([np.zeros(len(store), int), np.arange(len(store))])
        for epoch in range(LOCALIZED_EPOCHS):
            for part in np.array_split(rows, 4):
                found += [task(dataset[SpotIndex(epoch, part)])["localized"].item()] * len(part)
        return float(np.mean(found))

    def baselines(self) -> list[dict]:
        """Score what learns no alignment; the last one looks at the test section itself."""
        train, test = [self.expression[name] for name in TRAIN], self.expression[TEST]
        centers = {name: _centers(slide) for name, slide in self.slides.items()}
        pixels = {name: color_and_texture(patches_of(slide)) for name, slide in self.slides.items()}
        mean = np.broadcast_to(np.concatenate(train).mean(axis=0), test.shape)
        n = len(test)
        return [
            {"method": "mean profile", **self.compare(mean)},
            {"method": "ridge on color and texture", **self.compare(self.regress(pixels))},
            {
                "method": "position",
                **self.compare(
                    position([(centers[s], self.expression[s]) for s in TRAIN], centers[TEST])
                ),
            },
            {
                "method": "neighbors in the section (measured)",
                **self.compare(neighbor_mean(centers[TEST], test, 1.2 * PITCH_UM)),
            },
            {"method": "chance", **{f"recall@{k}": k / n for k in (1, 5, 10)}, "localized": 1 / 9},
        ]


def patches_of(slide) -> np.ndarray:
    """Cut the patches of a slide."""
    image = ImagePyramid.from_spatialdata(slide, next(iter(slide.images)))
    return image.read(_centers(slide), size=IMAGE.image_size, um_per_px=IMAGE.um_per_px)


def seeded(seed: int, build, *arguments):
    """Build a module from a seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build(*arguments).eval()


if __name__ == "__main__":
    main()
