"""How good a model is on slides that it is not trained on: what chooses the weights that are kept."""

import numpy as np
import torch

from stp.data.masked_tokens import TokenDataset
from stp.data.pairs import PairDataset
from stp.data.samplers import SpotIndex
from stp.metrics import recall_at_k
from stp.models.device import autocast
from stp.models.gene import GeneEncoder
from stp.models.stamp import Stamp
from stp.train.config import LoopConfig
from stp.train.tasks import MaskedGenes

BATCH = 256
RECALL_AT = (1, 5, 10)


@torch.inference_mode()
def masked_loss(
    encoder: GeneEncoder, dataset: TokenDataset, rows: list[np.ndarray], config: LoopConfig
) -> dict[str, float]:
    """Return the masked gene loss over all spots, with masks that never change; its negative is the score."""
    task, device = MaskedGenes(encoder), encoder.embeddings.weight.device
    total, count = 0.0, 0
    for store, chosen in enumerate(rows):
        for part in _parts(chosen):
            spots = np.column_stack([np.full(len(part), store), part])
            batch = {
                name: tensor.to(device) for name, tensor in dataset[SpotIndex(0, spots)].items()
            }
            with autocast(device, config.precision):
                mean, n = task(batch)["masked"], task.counts(batch)["masked"]
            total, count = total + mean.item() * n, count + n
    return {"masked": total / count, "score": -total / count}


@torch.inference_mode()
def recall(
    stamp: Stamp, dataset: PairDataset, rows: list[np.ndarray], config: LoopConfig
) -> dict[str, float]:
    """Return recall@1, 5 and 10 from patch to target within each slide, averaged over slides, and chance; score: @5.

    The target is the genes; that of a Stamp without genes is the pathways. With both, that of pathways stands beside.
    """
    found: dict[str, list[dict[int, float]]] = {name: [] for name in dataset.targets}
    chance = []
    for store, chosen in enumerate(rows):
        if not len(chosen):
            continue
        images, targets = _embed(stamp, dataset, store, chosen, config)
        chance.append(len(chosen))
        for name, aligned in targets.items():
            found[name].append(recall_at_k(images, aligned, RECALL_AT))
    scores: dict[str, float] = {}
    for number, (name, of_slides) in enumerate(found.items()):
        prefix = f"{name}_" if number else ""
        scores |= {
            f"{prefix}recall@{k}": float(np.mean([one[k] for one in of_slides])) for k in RECALL_AT
        }
    scores |= {f"chance@{k}": float(np.mean([min(1.0, k / n) for n in chance])) for k in RECALL_AT}
    return {**scores, "score": scores["recall@5"]}


def _embed(
    stamp: Stamp, dataset: PairDataset, store: int, rows: np.ndarray, config: LoopConfig
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the aligned vectors of images, and of each target by name."""
    device, images = stamp.logit_scale.device, []
    targets: dict[str, list[np.ndarray]] = {name: [] for name in dataset.targets}
    for part in _parts(rows):
        patches = torch.from_numpy(dataset.patches(store, part)).to(device)
        with autocast(device, config.precision):
            images.append(stamp.encode_images(patches)[1].float().cpu().numpy())
            for name, values in dataset.targets.items():
                read = torch.from_numpy(values[store][part]).to(device)
                targets[name].append(
                    getattr(stamp, f"encode_{name}")(read)[1].float().cpu().numpy()
                )
    return np.concatenate(images), {
        name: np.concatenate(vectors) for name, vectors in targets.items()
    }


def _parts(rows: np.ndarray) -> list[np.ndarray]:
    return np.array_split(rows, -(-len(rows) // BATCH)) if len(rows) else []
