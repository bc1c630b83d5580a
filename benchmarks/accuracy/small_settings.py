r"""Which settings make a small Stamp learn most from a few slides?

    python -m benchmarks.accuracy.small_settings --data ../shared/data --folder runs/small

Settings are varied one at a time, on two tasks: HER2+ sections C2 to C4 train and C5 scores, and
bulb section 4 trains and section 9 scores. C6 and bulb section 11 are never read. The sections of
a task are of one organ, and those of HER2+ of one patient. Runs that are done are not repeated; a
run that was stopped continues.
"""

import dataclasses
import hashlib
from functools import partial
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import spatialdata
import torch

import stp
from benchmarks.accuracy import bulb_sections, sections
from benchmarks.accuracy.expression import Targets, neighbor_mean, normalize, ridge
from benchmarks.accuracy.small_variants import (
    START,
    UM_PER_PIXEL,
    VARIANTS,
    SmallSettings,
    make_image,
)
from benchmarks.measure import Row, make_parser, run_once, silence_logger, write_results
from stp.images.color_texture import color_and_texture
from stp.retrieval.position import copy_by_position

MIN_SPOTS = 50  # that detect a gene, or the vocabulary leaves it out
N_GENES = 1000  # most variable genes that are predicted
BASELINE_UM = (112.0, 224.0)


@dataclasses.dataclass(frozen=True)
class Task:
    """Sections to train on, and one to score.

    Parameters
    ----------
    name
        Name of the task in tables.
    stores
        Paths of the training stores.
    train
        Training sections with their images.
    test
        The section that is scored.
    genes
        All genes of the species; None for human ones.
    """

    name: str
    stores: list[Path]
    train: list[spatialdata.SpatialData]
    test: spatialdata.SpatialData
    genes: stp.Vocabulary | None = None

    def vocabulary(self) -> stp.Vocabulary:
        """Return the genes that enough training spots detect, with their means."""
        genes = (self.genes or stp.Vocabulary.default()).fit(self.stores)
        is_used = genes.n_detected >= MIN_SPOTS
        used = stp.Vocabulary.from_genes(genes.gene_ids[is_used], genes.symbols[is_used])
        return used.fit(self.stores)

    def targets(self) -> Targets:
        """Return the genes that are predicted, chosen on the training sections."""
        tables = [slide.tables["table"] for slide in (*self.train, self.test)]
        shared = set.intersection(*(set(table.var_names) for table in tables))
        return Targets.choose(tables[:-1], sorted(shared), n_genes=N_GENES)


def her2st_task(data: Path, folder: Path, test: str = sections.VALIDATION) -> Task:
    """Return the task on serial sections of one HER2+ tumor, of which one is scored."""
    stores = sections.write_stores(data, folder, sections.Settings(image=START.image, n_sections=1))
    train = [sections.read_section(data, name) for name in sections.TRAIN]
    scored = sections.read_section(data, test)
    return Task("HER2+", [stores[name] for name in sections.TRAIN], train, scored)


def bulb_task(data: Path, folder: Path, train: tuple[str, ...], test: str) -> Task:
    """Return a task on sections of the olfactory bulb."""
    stores = bulb_sections.write_stores(data, folder)
    return Task(
        "bulb",
        [stores[name] for name in train],
        [bulb_sections.read_section(data, name) for name in train],
        bulb_sections.read_section(data, test),
        bulb_sections.mouse_genes(data),
    )


def train_stamp(task: Task, settings: SmallSettings, folder: Path, seed: int) -> stp.models.Stamp:
    """Pretrain and align on the training stores; the last epoch counts.

    Settings that share the gene encoder train it once.
    """
    stores = [path.stem for path in task.stores]
    of_genes = repr((stores, settings.gene, settings.pretrain, seed))
    digest = hashlib.sha256(of_genes.encode()).hexdigest()[:12]
    genes = stp.train.pretrain(
        task.stores,
        folder.parent / f"genes {digest}",
        vocabulary=task.vocabulary(),
        model=settings.gene,
        config=dataclasses.replace(settings.pretrain, seed=seed),
    )
    return stp.train.align(
        task.stores,
        folder / "stamp",
        gene_encoder=genes,
        image_encoder=settings.image,
        config=dataclasses.replace(settings.align, seed=seed),
    )


def embed(slide: spatialdata.SpatialData, stamp: stp.models.Stamp) -> anndata.AnnData:
    """Return the table of a slide with gene and image embeddings."""
    table = stp.tl.embed_images(slide, stamp, progress=False, copy=True)
    stp.tl.tokenize(table, stamp)
    stp.tl.embed_genes(table, stamp, progress=False)
    return table


def score_stamp(task: Task, stamp: stp.models.Stamp, targets: Targets) -> Row:
    """Score retrieval and expression on the test section."""
    train = [embed(slide, stamp) for slide in task.train]
    test = embed(task.test, stamp)
    measured = normalize(test, targets.genes)
    stp.tl.predict_expression(test, train, genes=list(targets.genes))
    recall = stp.metrics.recall_at_k(
        test.obsm["X_stp_images_aligned"], test.obsm["X_stp_genes_aligned"]
    )
    features = np.concatenate([table.obsm["X_stp_images"] for table in train])
    expression = np.concatenate([normalize(table, targets.genes) for table in train])
    by_ridge = ridge(features, expression, test.obsm["X_stp_images"])
    return {
        "recall@5": round(float(recall[5]), 3),
        "PCC-V": round(targets.score(measured, test.obsm["stp_expression"])["PCC-V"], 3),
        "ridge PCC-V": round(targets.score(measured, by_ridge)["PCC-V"], 3),
    }


def run(task: Task, variant: str, seed: int, folder: Path) -> list[Row]:
    """Train one variant and score it."""
    stamp = train_stamp(task, VARIANTS[variant], folder, seed)
    scores = score_stamp(task, stamp, task.targets())
    return [{"method": variant, "task": task.name, "seed": seed, **scores}]


def score_baselines(task: Task) -> list[Row]:
    """Score ridge on color and texture, the nearest spots by position, and measured neighbors."""
    targets = task.targets()
    expression = [normalize(slide.tables["table"], targets.genes) for slide in task.train]
    measured = normalize(task.test.tables["table"], targets.genes)
    predicted = {}
    for patch_um in BASELINE_UM:
        image = make_image(round(patch_um / UM_PER_PIXEL), patch_um)
        pixels = [
            color_and_texture(sections.patches_of(slide, image))
            for slide in (*task.train, task.test)
        ]
        predicted[f"ridge on color and texture, {patch_um:g} µm"] = ridge(
            np.concatenate(pixels[:-1]), np.concatenate(expression), pixels[-1]
        )
    centers = [sections.centers_of(slide) for slide in (*task.train, task.test)]
    predicted["position"] = copy_by_position(
        list(zip(centers[:-1], expression, strict=True)), centers[-1]
    )
    predicted["neighbors in the section (measured)"] = neighbor_mean(
        centers[-1], measured, 1.2 * sections.PITCH_UM
    )
    return [
        {
            "method": method,
            "task": task.name,
            "seed": 0,
            "ridge PCC-V" if "ridge" in method else "PCC-V": round(
                targets.score(measured, values)["PCC-V"], 3
            ),
        }
        for method, values in predicted.items()
    ]


def list_rows(table: pd.DataFrame) -> list[Row]:
    """Return a row per method: the mean over seeds of each task."""
    rows = []
    for method, runs in table.groupby("method", sort=False):
        row: Row = {"method": method}
        for name in ("recall@5", "PCC-V", "ridge PCC-V"):
            means = runs.groupby("task", sort=False)[name].mean().dropna().round(3)
            if len(means):
                row[name] = {"mean": round(float(means.mean()), 3), **means.to_dict()}
        rows.append(row)
    return rows


def main(arguments: list[str] | None = None) -> list[Row]:
    """Train and score what is not done yet; write and return the rows."""
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with her2st and mob_st")
    parser.add_argument("--folder", type=Path, required=True, help="folder for stores and models")
    parser.add_argument("--seeds", nargs="+", type=int, default=(0,))
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    options = parser.parse_args(arguments)
    silence_logger()
    torch.set_num_threads(1)
    folder = options.folder
    tasks = {
        "HER2": her2st_task(options.data / "her2st", folder / "her2st"),
        "bulb": bulb_task(options.data / "mob_st", folder / "bulb", ("rep04",), "rep09"),
    }
    rows: list[Row] = []
    for name, task in tasks.items():
        scores = folder / "scores" / f"{name} baselines.json"
        rows += run_once(scores, partial(score_baselines, task))
    for seed in options.seeds:
        for variant in options.variants:
            for name, task in tasks.items():
                place = f"{name} {variant} {seed}"
                work = partial(run, task, variant, seed, folder / "models" / place)
                rows += run_once(folder / "scores" / f"{place}.json", work)
    result = list_rows(pd.DataFrame(rows))
    write_results(options.out, result)
    return result


if __name__ == "__main__":
    main()
