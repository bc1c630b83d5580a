"""Slide models on made-up bags: shuffled labels, and a signal in few tiles."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

import stp
from benchmarks.accuracy.bag_cohorts import by_fold, out_of_fold, write_cohort
from benchmarks.measure import Row, at_least, at_most, run_once

if TYPE_CHECKING:
    from anndata import AnnData

N_DRAWS = 20
MIN_COVERED = 17  # intervals of 20; if each covers 0.5 with 95 %, 98 % of runs have as many
SHUFFLED = stp.train.SlideConfig(epochs=20, batch_size=8, hidden=32, attention=16)
PLANTED = stp.train.SlideConfig(epochs=20, patience=20, max_tiles=512)
SHIFT = 2.0  # of a planted tile in each of its features, in standard deviations
N_SHIFTED = 32  # features of a planted tile that are shifted
SHARE_PLANTED = 0.01
PATIENT_SPREAD = 0.3  # of the mean features of patients, as stains and scanners make them differ


@dataclasses.dataclass(frozen=True)
class PlantedBags(Mapping[str, np.ndarray]):
    """Bags (n_tiles, width) in float16, each of which is drawn when it is asked for."""

    names: list[str]
    n_tiles: int
    width: int
    shifted: np.ndarray  # features of planted tiles that are shifted

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __getitem__(self, name: str) -> np.ndarray:
        number = self.names.index(name)
        rng = np.random.default_rng((0, number))
        bag = rng.standard_normal((self.n_tiles, self.width), dtype=np.float32)
        bag += PATIENT_SPREAD * rng.standard_normal(self.width, dtype=np.float32)
        if number % 2:
            n_planted = max(1, round(SHARE_PLANTED * self.n_tiles))
            tiles = rng.choice(self.n_tiles, n_planted, replace=False)
            bag[np.ix_(tiles, self.shifted)] += SHIFT
        return bag.astype(np.float16)


def shuffled_rows(folder: Path) -> list[Row]:
    """Return the AUROC out of fold of models of shuffled labels, and how intervals cover 0.5."""
    rng = np.random.default_rng(0)
    names = [f"patient{number:03d}" for number in range(120)]
    bags = {name: rng.standard_normal((20, 32), dtype=np.float32) for name in names}
    drawn = {
        f"label{draw}": rng.permutation(["no", "yes"] * (len(names) // 2))
        for draw in range(N_DRAWS)
    }
    cohort = write_cohort(bags, pd.DataFrame(drawn, index=names), folder / "bags" / "shuffled")

    def score_draw(draw: int) -> Row:
        from sklearn.metrics import roc_auc_score

        column = f"label{draw}"
        stp.tl.assign_folds(cohort, column, n_folds=5, seed=draw)
        config = dataclasses.replace(SHUFFLED, seed=draw)
        target = stp.train.Classes(column, positive="yes")
        predicted = out_of_fold(cohort, folder / "runs" / f"shuffled_{draw}", target, config)
        output = list(cohort.uns["stp_slides"]["outputs"]).index(f"{column}_yes")
        is_positive = cohort.obs[column].astype(str).to_numpy() == "yes"
        scores = by_fold(
            cohort, lambda rows: float(roc_auc_score(is_positive[rows], predicted[rows, output]))
        )
        stp.tl.score_slides(cohort, seed=draw)
        table = cohort.uns["stp_slide_scores"]["scores"]
        row = table[table["score"] == "auroc"].iloc[0]
        return {
            "auroc": float(np.mean(scores)),
            "scored": float(row["value"]),
            "low": float(row["low"]),
            "high": float(row["high"]),
        }

    draws = [
        run_once(folder / f"shuffled_scores_{draw}.json", lambda d=draw: [score_draw(d)])[0]
        for draw in range(N_DRAWS)
    ]
    values = np.array([draw["auroc"] for draw in draws])
    np.testing.assert_allclose([draw["scored"] for draw in draws], values, atol=1e-6)
    n_covered = sum(draw["low"] <= 0.5 <= draw["high"] for draw in draws)
    error = values.std(ddof=1) / np.sqrt(N_DRAWS)
    distance = abs(values.mean() - 0.5) / error
    return [
        {
            "measured": "shuffled labels, 20 draws",
            "result": {
                "mean": round(float(values.mean()), 3),
                "standard error": round(float(error), 3),
            },
            "unit": "AUROC",
            "split": "5 folds, by patient",
        },
        {
            "measured": "shuffled labels, distance from 0.5",
            "result": round(float(distance), 2),
            "unit": "standard errors",
        }
        | at_most(2, distance),
        {
            "measured": "shuffled labels, 95 % intervals that cover 0.5",
            "result": n_covered,
            "unit": "of 20 draws",
        }
        | at_least(MIN_COVERED, n_covered),
    ]


def planted_rows(folder: Path, *, n_bags: int, n_tiles: int, width: int) -> list[Row]:
    """Return the AUROC of models that find a signal in one percent of the tiles."""
    bags_folder = folder / "bags" / f"planted_{n_bags}_{n_tiles}_{width}"
    cohort = write_planted(bags_folder, n_bags, n_tiles, width)
    side = np.repeat(["train", "validation", "test"], np.array([3, 1, 1]) * (n_bags // 5))
    cohort.obs["side"] = np.random.default_rng(1).permutation(side)
    rows = []
    for pooling in ("attention", "mean"):
        path = folder / f"planted_{n_bags}_{n_tiles}_{width}_{pooling}.json"
        score = run_once(
            path, lambda p=pooling: [{"auroc": score_planted(cohort, folder / "runs", p)}]
        )[0]["auroc"]
        row = {
            "measured": f"{n_bags} bags of {n_tiles:,} tiles, {pooling}",
            "result": round(score, 3),
            "unit": "AUROC",
            "split": "60/20/20, by patient",
            "seeds": 1,
        }
        rows.append(row | at_least(0.95, score) if pooling == "attention" else row)
    return rows


def write_planted(folder: Path, n_bags: int, n_tiles: int, width: int) -> "AnnData":
    """Write bags of noise; one percent of the tiles of every second bag are shifted."""
    rng = np.random.default_rng(0)
    names = [f"patient{number:03d}" for number in range(n_bags)]
    labels = pd.DataFrame({"label": ["no", "yes"] * (n_bags // 2)}, index=names)
    direction = rng.choice(width, min(N_SHIFTED, width), replace=False)
    return write_cohort(PlantedBags(names, n_tiles, width, direction), labels, folder)


def score_planted(cohort: "AnnData", folder: Path, pooling: str) -> float:
    """Return the AUROC of the test patients by a model that never read them."""
    from sklearn.metrics import roc_auc_score

    is_test = (cohort.obs["side"] == "test").to_numpy()
    training = cohort[~is_test].copy()
    training.obs["validates"] = (training.obs["side"] == "validation").to_numpy()
    model = stp.train.fit_slides(
        training,
        folder / f"planted_{cohort.n_obs}_{pooling}",
        targets=stp.train.Classes("label", positive="yes"),
        config=dataclasses.replace(PLANTED, pooling=pooling),
        validation_key="validates",
    )
    test = cohort[is_test].copy()
    stp.tl.predict_slides(test, model, progress=False)
    output = list(test.uns["stp_slides"]["outputs"]).index("label_yes")
    return float(roc_auc_score(test.obs["label"] == "yes", test.obsm["stp_slides"][:, output]))
