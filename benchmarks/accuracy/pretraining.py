"""Does pretraining learn? Masked gene loss, clusters and a probe, with one patient left out.

    python -m benchmarks.accuracy.pretraining --data ../shared/data/her2st --folder runs/pretraining

Neither weights nor means see the patient that is scored, and no epoch is chosen on it: the last
weights count. Runs that are done are not repeated; a run that was stopped continues.
"""

import dataclasses
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import torch

import stp
from benchmarks.accuracy.clusters import keep_labeled, pca, probe
from benchmarks.accuracy.sections import SPOT_UM, patient_of
from benchmarks.measure import Row, make_parser, run_once, silence_logger, write_results
from stp.data.masked_tokens import TokenDataset
from stp.data.ranking import rank_stores
from stp.data.samplers import SpotIndex
from stp.data.spot_file import SpotFile
from stp.data.store import SpotStore
from stp.models import GeneEncoder, GeneEncoderConfig
from stp.tl._leiden import cluster_agreement
from stp.train import Phase, PretrainConfig
from stp.train.validation import masked_loss

PATIENTS = ("C", "D", "E", "F")
SEEDS = (0, 1, 2)
MIN_GENES = 100
MASKED_SHARE = 0.15
# Of the rank-conditional baseline: how much counts are smoothed, and how many ranks are joined.
ALPHAS = np.geomspace(10, 1e6, 11)
RANKS_JOINED = (1, 4, 16, 64)

MODEL = GeneEncoderConfig(context_length=128, width=64, depth=2, n_heads=4, ffn_width=128)
MASKED = Phase(epochs=2, batch_size=64)
NEIGHBORS = Phase(objective="neighborhood", epochs=2, batch_size=63)
CONFIG = PretrainConfig(phases=(MASKED, MASKED), learning_rate=2e-3, min_learning_rate=1e-4)
# Every variant sees the spots for four epochs.
VARIANTS = {
    "masked": (MODEL, CONFIG),
    "masked, then pooled": (MODEL, dataclasses.replace(CONFIG, phases=(MASKED, NEIGHBORS))),
    "masked, then positionwise": (
        MODEL,
        dataclasses.replace(
            CONFIG, phases=(MASKED, NEIGHBORS), context="positionwise", targets="all"
        ),
    ),
    "paper's start": (
        dataclasses.replace(MODEL, tie_heads=False),
        dataclasses.replace(CONFIG, log_frequency_start=False),
    ),
}
COLUMNS = {
    "loss": "loss",
    "ari": "ARI",
    "nmi": "NMI",
    "probe": "probe",
    "paper_probe": "paper's probe",
}
Line = dict[str, str | int | float | None]  # scores of one run


def main(arguments: list[str] | None = None) -> pd.DataFrame:
    """Train and score what is not done yet; write runs.csv and the rows, and return all scores."""
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of HER2+ sections")
    parser.add_argument(
        "--folder", type=Path, required=True, help="folder for stores, models and runs.csv"
    )
    parser.add_argument("--patients", nargs="+", default=PATIENTS)
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    options = parser.parse_args(arguments)
    silence_logger()
    warnings.filterwarnings("ignore", message=".* spots are few")
    folder = options.folder
    stores = write_stores(options.data, folder / "stores")
    lines: list[Line] = []
    for seed in options.seeds:
        for patient in options.patients:
            fold = Fold(options.data, stores, patient, folder / "tokens" / patient)
            if seed == options.seeds[0]:
                lines += run_once(folder / "scores" / f"baselines {patient}.json", fold.baselines)
            for variant in options.variants:
                name = f"{variant} {patient} {seed}"
                run = partial(fold.train, variant, seed, folder / "models" / name)
                lines += run_once(folder / "scores" / f"{name}.json", run)
    table = pd.DataFrame(lines)
    table.to_csv(folder / "runs.csv", index=False)
    write_results(options.out, list_rows(table))
    return table


def list_rows(table: pd.DataFrame) -> list[Row]:
    """Return a row per method: the mean over seeds of each patient, and over patients."""
    means = table.groupby(["method", "patient"], sort=False).mean(numeric_only=True)
    rows = []
    for method in dict.fromkeys(table["method"]):
        row: Row = {"method": method}
        for key, column in COLUMNS.items():
            values = means.loc[method, key].dropna()
            if len(values):
                by_patient = {str(name): round(float(v), 3) for name, v in values.items()}
                row[column] = {"mean": round(float(values.mean()), 3), **by_patient}
        rows.append(row)
    return rows


def write_stores(data: Path, folder: Path) -> dict[str, Path]:
    """Write the counts and centers of every section as a store, unless it is there."""
    stores = {path.stem: folder / f"{path.stem}.zarr" for path in sorted(data.glob("*.h5ad"))}
    for name, path in stores.items():
        if path.exists():
            continue
        adata = anndata.read_h5ad(data / f"{name}.h5ad")
        slide = stp.io.from_anndata(
            adata, None, um_per_px=adata.uns["um_per_px"], spot_diameter_um=SPOT_UM, name=name
        )
        stp.io.write_store(slide, path)
    return stores


class Fold:
    """One patient left out: means from all others, scores on this one.

    Parameters
    ----------
    data
        Folder of the sections.
    stores
        Path of each section's store.
    patient
        The patient who is left out.
    folder
        Folder for files of tokens.
    """

    def __init__(self, data: Path, stores: dict[str, Path], patient: str, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.data = data
        self.patient = patient
        self.folder = folder
        self.train_stores = [path for name, path in stores.items() if patient_of(name) != patient]
        self.vocabulary = stp.Vocabulary.default().fit(self.train_stores)
        test_stores = [path for name, path in stores.items() if patient_of(name) == patient]
        self.test = self._dataset(test_stores, "test")
        self.rows = [store.trainable(MIN_GENES) for store in self.test.stores]
        self.section = keep_labeled(anndata.read_h5ad(data / f"{patient}1.h5ad"))

    def _dataset(self, paths: Sequence[Path], name: str) -> TokenDataset:
        stores = [SpotStore(path) for path in paths]
        n_spots = [len(store) for store in stores]
        tokens = SpotFile(self.folder / name, n_spots, MODEL.context_length)
        tokens.create()
        rank_stores(stores, self.vocabulary, tokens)
        return TokenDataset(stores, self.vocabulary, tokens, fraction=MASKED_SHARE, seed=0)

    def train(self, variant: str, seed: int, folder: Path) -> list[Line]:
        """Pretrain on the other patients; score loss and features of the one left out."""
        model, config = VARIANTS[variant]
        config = dataclasses.replace(config, seed=seed)
        encoder = stp.train.pretrain(
            self.train_stores, folder, vocabulary=self.vocabulary, model=model, config=config
        )
        encoder.eval()
        loss = masked_loss(encoder, self.test, self.rows, config)["masked"]
        scores = self._score(self._features(encoder))
        return [{**self._line(variant), "seed": seed, "loss": loss, **scores}]

    def baselines(self) -> list[Line]:
        """Score what learns nothing, and what needs no encoder."""
        train = self._dataset(self.train_stores, "train")
        others = [p for p in PATIENTS if p != self.patient]
        tables = [anndata.read_h5ad(self.data / f"{other}1.h5ad") for other in others]
        with torch.random.fork_rng():
            torch.manual_seed(0)
            untrained = GeneEncoder(MODEL, self.vocabulary).eval()
        features = {
            "untrained": self._features(untrained),
            "PCA of other patients": pca(self.section, tables),
            "PCA of the section": pca(self.section, [self.section]),
        }
        lines: list[Line] = []
        for name, loss in frequency_losses(train, self.test, self.rows).items():
            lines.append({**self._line(name), "loss": loss})
        for name, embedding in features.items():
            lines.append({**self._line(name), **self._score(embedding)})
        return lines

    def _line(self, method: str) -> Line:
        return {"method": method, "patient": self.patient, "seed": None, "loss": None}

    def _features(self, encoder: GeneEncoder) -> np.ndarray:
        adata = stp.tl.tokenize(self.section, encoder, copy=True)
        stp.tl.embed_genes(adata, encoder, progress=False)
        return adata.obsm["X_stp_genes"]

    def _score(self, features: np.ndarray) -> dict[str, float]:
        labels = self.section.obs["pathologist_label"].to_numpy()
        return cluster_agreement(features, labels) | probe(
            features, labels, self.section.obsm["spatial"]
        )


def frequency_losses(
    train: TokenDataset, test: TokenDataset, rows: list[np.ndarray]
) -> dict[str, float]:
    """Return the masked gene loss of guessing by frequency, overall and at each rank.

    Frequencies at a rank are smoothed towards the overall ones. How much, and how many ranks are
    joined, is chosen on the patient left out, in favor of the baseline.
    """
    frequency = train.log_frequency().exp().numpy()
    ranks, genes = _masked_genes(test, rows)
    tokens = train.tokens.array
    train_row, train_rank = np.nonzero(tokens)
    lowest = np.inf
    for n_joined in RANKS_JOINED:
        counts = np.zeros((train.tokens.width // n_joined + 1, len(frequency)))
        np.add.at(counts, (train_rank // n_joined, tokens[train_row, train_rank]), 1)
        count = counts[ranks // n_joined, genes]
        total = counts.sum(1)[ranks // n_joined]
        for alpha in ALPHAS:
            probability = (count + alpha * frequency[genes]) / (total + alpha)
            lowest = min(lowest, -np.log(probability).mean())
    return {
        "frequency of genes": float(-np.log(frequency[genes]).mean()),
        "frequency at the rank": float(lowest),
    }


def _masked_genes(dataset: TokenDataset, rows: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return rank and gene of everything that `masked_loss` predicts."""
    ranks = []
    genes = []
    for store, spots in enumerate(rows):
        index = np.column_stack([np.full(len(spots), store), spots])
        batch = dataset[SpotIndex(0, index)]
        is_masked = batch["chosen"]
        ranks.append(is_masked.nonzero()[:, 1].numpy())
        genes.append(batch["targets"][is_masked].numpy())
    return np.concatenate(ranks), np.concatenate(genes)


if __name__ == "__main__":
    main()
