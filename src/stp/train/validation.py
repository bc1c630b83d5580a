"""Scores of a model on slides that it is not trained on; they choose the weights to save."""

from collections.abc import Sequence

import numpy as np
import torch

from stp._log import count, warn
from stp.data.masked_tokens import TokenDataset
from stp.data.pairs import PairDataset
from stp.data.samplers import SpotIndex
from stp.metrics import recall_at_k
from stp.models.device import autocast
from stp.models.gene import GeneEncoder
from stp.models.stamp import Stamp
from stp.train.engine.config import LoopConfig
from stp.train.tasks import MaskedGenes

VALIDATION_BATCH = 256  # spots
RECALL_AT = (1, 5, 10)
MIN_EPOCHS = 5  # of which an early one is of note


@torch.inference_mode()
def masked_loss(
    encoder: GeneEncoder, dataset: TokenDataset, rows: list[np.ndarray], config: LoopConfig
) -> dict[str, float]:
    """Return the masked gene loss over all spots; its negative is the score.

    The masks are the same in every epoch.
    """
    task = MaskedGenes(encoder)
    device = encoder.embeddings.weight.device
    total = 0.0
    n_tokens = 0
    for store, store_rows in enumerate(rows):
        for part in _split(store_rows):
            spots = np.column_stack([np.full(len(part), store), part])
            batch = dataset[SpotIndex(0, spots)]
            on_device = {name: tensor.to(device) for name, tensor in batch.items()}
            with autocast(device, config.precision):
                mean = task(on_device)["masked"]
                n_masked = task.counts(on_device)["masked"]
            total += mean.item() * n_masked
            n_tokens += n_masked
    return {"masked": total / n_tokens, "score": -total / n_tokens}


@torch.inference_mode()
def recall(
    stamp: Stamp, dataset: PairDataset, rows: list[np.ndarray], config: LoopConfig
) -> dict[str, float]:
    """Return recall@1, 5 and 10 from patch to target within each slide, averaged over slides.

    The target is the genes, or the pathways if the Stamp has no genes. With both, the recall of
    pathways is returned as "pathways_recall@k". The scores contain the recall by chance, too;
    "score" is recall@5.
    """
    recalls: dict[str, list[dict[int, float]]] = {name: [] for name in dataset.targets}
    n_spots = []
    for store, store_rows in enumerate(rows):
        if not len(store_rows):
            continue
        images, targets = _embed(stamp, dataset, store, store_rows, config)
        n_spots.append(len(store_rows))
        for name, vectors in targets.items():
            recalls[name].append(recall_at_k(images, vectors, RECALL_AT))
    scores: dict[str, float] = {}
    for number, (name, by_slide) in enumerate(recalls.items()):
        prefix = f"{name}_" if number else ""  # the first target is the one that is scored
        for k in RECALL_AT:
            scores[f"{prefix}recall@{k}"] = float(np.mean([slide[k] for slide in by_slide]))
    for k in RECALL_AT:
        scores[f"chance@{k}"] = float(np.mean([min(1.0, k / n) for n in n_spots]))
    return {**scores, "score": scores["recall@5"]}


def warn_if_epoch_is_chance(recalls: Sequence[float], n_spots: int) -> None:
    """Warn if an early epoch is kept that is better than the last one by chance only.

    Parameters
    ----------
    recalls
        Recall@5 after each epoch. The first of the highest ones is that of the epoch that is kept.
    n_spots
        Number of validation spots, which gives the standard error of a recall.
    """
    best = int(np.argmax(recalls))
    error = float(np.sqrt(recalls[best] * (1 - recalls[best]) / n_spots))
    is_early = len(recalls) >= MIN_EPOCHS and 2 * (best + 1) <= len(recalls)
    if not is_early or recalls[best] - recalls[-1] > error:
        return
    warn(
        f"validation keeps the weights of epoch {best + 1} of {len(recalls)}, but its recall@5 of "
        f"{recalls[best]:.3f} on {count(n_spots, 'spot')} is not better than the "
        f"{recalls[-1]:.3f} of the last epoch by more than chance (standard error {error:.3f}); "
        "with so few spots leave validation= out, which keeps the last epoch, or validate on more "
        "slides"
    )


def _embed(
    stamp: Stamp, dataset: PairDataset, store: int, rows: np.ndarray, config: LoopConfig
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the aligned vectors of images, and of each target by name."""
    device = stamp.logit_scale.device
    encoders = {"genes": stamp.encode_genes, "pathways": stamp.encode_pathways}
    images = []
    targets: dict[str, list[np.ndarray]] = {name: [] for name in dataset.targets}
    for part in _split(rows):
        patches = torch.from_numpy(dataset.patches(store, part)).to(device)
        with autocast(device, config.precision):
            _, vectors = stamp.encode_images(patches)
            images.append(_to_numpy(vectors))
            for name, values in dataset.targets.items():
                _, vectors = encoders[name](torch.from_numpy(values[store][part]).to(device))
                targets[name].append(_to_numpy(vectors))
    return np.concatenate(images), {name: np.concatenate(parts) for name, parts in targets.items()}


def _to_numpy(vectors: torch.Tensor) -> np.ndarray:
    return vectors.float().cpu().numpy()


def _split(rows: np.ndarray) -> list[np.ndarray]:
    """Split rows into parts of nearly equal size, at most `VALIDATION_BATCH` each."""
    return np.array_split(rows, -(-len(rows) // VALIDATION_BATCH)) if len(rows) else []
