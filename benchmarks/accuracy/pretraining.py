"""Does pretraining learn? One patient left out in turn, three seeds: masked gene loss, clusters and a probe.

    python -m benchmarks.pretraining --data ../shared/data/her2st --out results/pretraining

Neither weights nor means see the patient that is scored, and no epoch is chosen on it: the last weights count. Runs
that are done are not repeated; a run that was stopped goes on.
"""

import argparse
import dataclasses
import json
import logging
import warnings
from functools import partial
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import torch

import stp
from benchmarks.clusters import agreement, labelled, pca, probe
from stp.data.masked_tokens import TokenDataset
from stp.data.ranking import rank_stores
from stp.data.samplers import SpotIndex
from stp.data.spot_file import SpotFile
from stp.data.store import SpotStore
from stp.models import GeneEncoder, GeneEncoderConfig
from stp.train import Phase, PretrainConfig
from stp.train.validation import masked_loss

PATIENTS, SEEDS = ("C", "D", "E", "F"), (0, 1, 2)
ALPHAS, BINS = np.geomspace(10, 1e6, 11), (1, 4, 16, 64)  # of the rank-conditional baseline

MODEL = GeneEncoderConfig(context_length=128, width=64, depth=2, n_heads=4, ffn_width=128)
MASKED = Phase(epochs=2, batch_size=64)
NEIGHBORS = Phase(objective="neighborhood", epochs=2, batch_size=63)
RATES = {"learning_rate": 2e-3, "min_learning_rate": 1e-4}
# Every variant sees the spots for four epochs.
VARIANTS = {
    "masked": (MODEL, PretrainConfig(phases=(MASKED, MASKED), **RATES)),
    "pooled": (MODEL, PretrainConfig(phases=(MASKED, NEIGHBORS), **RATES)),
    "positionwise": (
        MODEL,
        PretrainConfig(phases=(MASKED, NEIGHBORS), context="positionwise", targets="all", **RATES),
    ),
    "paper's start": (
        dataclasses.replace(MODEL, tie_heads=False),
        PretrainConfig(phases=(MASKED, MASKED), log_frequency_start=False, **RATES),
    ),
}


def main(arguments: list[str] | None = None) -> pd.DataFrame:
    """Train and score whatever is not done yet; writes runs.csv, and prints a summary."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of HER2+ sections")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for stores, models and runs.csv"
    )
    parser.add_argument("--patients", nargs="+", default=PATIENTS)
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    options = parser.parse_args(arguments)
    stp.tl  # noqa: B018 - so that the logger is there to be hushed
    logging.getLogger("stp").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".* spots are few")
    stores = write_stores(options.data, options.out / "stores")
    runs = []
    for seed in options.seeds:
        for patient in options.patients:
            fold = Fold(options.data, stores, patient, options.out / "tokens" / patient)
            if seed == options.seeds[0]:
                runs += _cached(
                    options.out / "scores" / f"baselines {patient}.json", fold.baselines
                )
            for variant in options.variants:
                name = f"{variant} {patient} {seed}"
                run = partial(fold.train, variant, seed, options.out / "models" / name)
                runs += _cached(options.out / "scores" / f"{name}.json", run)
    table = pd.DataFrame(runs)
    table.to_csv(options.out / "runs.csv", index=False)
    summary = (
        table.groupby(["method", "patient"], sort=False)
        .mean(numeric_only=True)
        .drop(columns="seed")
    )
    print(summary.round(3).to_string())
    return table


def _cached(path: Path, run) -> list[dict]:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(run()))
    return json.loads(path.read_text())


def write_stores(data: Path, out: Path) -> dict[str, Path]:
    """Write the counts and centers of every section as a store, unless it is there."""
    stores = {path.stem: out / f"{path.stem}.zarr" for path in sorted(data.glob("*.h5ad"))}
    for name, path in stores.items():
        if not path.exists():
            adata = anndata.read_h5ad(data / f"{name}.h5ad")
            sdata = stp.io.from_anndata(
                adata, None, um_per_px=adata.uns["um_per_px"], spot_diameter_um=100, name=name
            )
            stp.io.write_store(sdata, path)
    return stores


class Fold:
    """One patient left out: means from all others, scores on this one."""

    def __init__(self, data: Path, stores: dict[str, Path], patient: str, folder: Path) -> None:
        self.data, self.patient, self.folder = data, patient, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.train_stores = [path for name, path in stores.items() if name[0] != patient]
        self.vocabulary = stp.Vocabulary.default().fit(self.train_stores)
        self.held_out = self._dataset(
            [path for name, path in stores.items() if name[0] == patient], "held out"
        )
        self.rows = [store.trainable(100) for store in self.held_out.stores]
        self.section = labelled(anndata.read_h5ad(data / f"{patient}1.h5ad"))

    def _dataset(self, stores: list[Path], name: str) -> TokenDataset:
        opened = [SpotStore(path) for path in stores]
        tokens = SpotFile(
            self.folder / name, [len(store) for store in opened], MODEL.context_length
        )
        tokens.create()
        rank_stores(opened, self.vocabulary, tokens)
        return TokenDataset(opened, self.vocabulary, tokens, fraction=0.15, seed=0)

    def train(self, variant: str, seed: int, folder: Path) -> list[dict]:
        """Pretrain on the other patients; score the loss and the features of the one left out."""
        model, config = VARIANTS[variant]
        config = dataclasses.replace(config, seed=seed)
        encoder = stp.train.pretrain(
            self.train_stores, folder, vocabulary=self.vocabulary, model=model, config=config
        ).eval()
        loss = masked_loss(encoder, self.held_out, self.rows, config)["masked"]
        return [self._line(variant, seed, loss, self._features(encoder))]

    def _features(self, encoder: GeneEncoder) -> np.ndarray:
        adata = stp.tl.tokenize(self.section, encoder, copy=True)
        stp.tl.embed_genes(adata, encoder, progress=False)
        return adata.obsm["X_stp_genes"]

    def _line(
        self, method: str, seed: int | None, loss: float | None, features: np.ndarray | None
    ) -> dict:
        line = {"method": method, "patient": self.patient, "seed": seed, "loss": loss}
        if features is None:
            return line
        labels = self.section.obs["pathologist_label"].to_numpy()
        return (
            line
            | agreement(features, labels)
            | {"probe": probe(features, labels, self.section.obsm["spatial"])}
        )

    def baselines(self) -> list[dict]:
        """Score what learns nothing, and what needs no encoder."""
        losses = frequency_losses(
            self._dataset(self.train_stores, "train"), self.held_out, self.rows
        )
        others = [
            anndata.read_h5ad(self.data / f"{p}1.h5ad") for p in PATIENTS if p != self.patient
        ]
        with torch.random.fork_rng():
            torch.manual_seed(0)
            untrained = GeneEncoder(MODEL, self.vocabulary).eval()
        features = {
            "untrained": self._features(untrained),
            "PCA of other patients": pca(self.section, others),
            "PCA of the section": pca(self.section, [self.section]),
        }
        return [
            *(self._line(name, None, loss, None) for name, loss in losses.items()),
            *(self._line(name, None, None, of_spots) for name, of_spots in features.items()),
        ]


def frequency_losses(
    train: TokenDataset, held_out: TokenDataset, rows: list[np.ndarray]
) -> dict[str, float]:
    """Masked gene loss of guessing by frequency, overall and at each rank.

    Frequencies at a rank are smoothed towards the overall ones. How much, and over how many ranks they are taken
    together, is chosen on the patient left out, in the baseline's favor.
    """
    overall = train.log_frequency().exp().numpy()
    ranks, genes = _masked_genes(held_out, rows)
    best = np.inf
    for width in BINS:
        counts = np.zeros((train.tokens.width // width + 1, len(overall)))
        row, rank = np.nonzero(train.tokens.array)
        np.add.at(counts, (rank // width, train.tokens.array[row, rank]), 1)
        found, total = counts[ranks // width, genes], counts.sum(1)[ranks // width]
        for alpha in ALPHAS:
            best = min(best, -np.log((found + alpha * overall[genes]) / (total + alpha)).mean())
    return {
        "frequency": float(-np.log(overall[genes]).mean()),
        "frequency at the rank": float(best),
    }


def _masked_genes(dataset: TokenDataset, rows: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return rank and gene of everything that `masked_loss` asks for."""
    ranks, genes = [], []
    for store, chosen in enumerate(rows):
        batch = dataset[SpotIndex(0, np.column_stack([np.full(len(chosen), store), chosen]))]
        ranks.append(batch["chosen"].nonzero()[:, 1].numpy())
        genes.append(batch["targets"][batch["chosen"]].numpy())
    return np.concatenate(ranks), np.concatenate(genes)


if __name__ == "__main__":
    main()
