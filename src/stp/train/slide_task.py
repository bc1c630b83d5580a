"""What a slide model learns: the losses of its targets."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from stp.models.slide import SlideModel
from stp.models.slide_config import SlideTarget
from stp.train.engine.protocols import Batch
from stp.train.labels import Labels


def hazard_loss(
    logits: torch.Tensor, intervals: torch.Tensor, events: torch.Tensor
) -> torch.Tensor:
    """Return the negative log-likelihood of each patient (n,) by discrete hazards.

    With an event in interval k, the likelihood is the survival of all intervals before k times the
    hazard of k. Without an event, it is the survival of all intervals up to k (Zadeh and Schmid
    2020).

    Parameters
    ----------
    logits
        Logits of the hazards (n, n_intervals).
    intervals
        Number of the interval of the time of each patient (n,).
    events
        Whether the event was observed (n,).
    """
    numbers = torch.arange(logits.shape[1], device=logits.device)
    is_before = numbers < intervals.unsqueeze(1)
    survived = (F.logsigmoid(-logits) * is_before).sum(1)
    last = logits.gather(1, intervals.unsqueeze(1)).squeeze(1)
    return -survived - torch.where(events, F.logsigmoid(last), F.logsigmoid(-last))


def find_intervals(times: np.ndarray, edges: Sequence[float]) -> np.ndarray:
    """Return the number of the interval of each time (n,); an edge belongs to the later one."""
    return np.searchsorted(edges, times, side="right")


def label_tensors(
    targets: Sequence[SlideTarget], labels: Sequence[Labels]
) -> dict[str, torch.Tensor]:
    """Return the labels of all patients as tensors of a batch, by number of the target."""
    tensors = {}
    for number, (target, label) in enumerate(zip(targets, labels, strict=True)):
        values = label.values
        if target.kind == "survival":
            values = find_intervals(values, target.edges)
        dtype = torch.float32 if target.kind == "value" else torch.int64
        tensors[f"label_{number}"] = torch.as_tensor(values, dtype=dtype)
        tensors[f"event_{number}"] = torch.as_tensor(label.events)
        tensors[f"has_label_{number}"] = torch.as_tensor(label.has_label)
    return tensors


class SlidePrediction(nn.Module):
    """Predict the targets of patients from their tiles.

    The losses are cross-entropy for classes, the squared error of standardized values, and the
    likelihood of discrete hazards. A patient without a label has no part in the loss of a target.

    Parameters
    ----------
    model
        The slide model to train.
    class_weights
        Weights of the classes (n_classes,) by name of the target; without them all weigh 1.
    """

    def __init__(
        self, model: SlideModel, class_weights: Mapping[str, torch.Tensor] | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.class_weights = class_weights or {}

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Return the mean loss of each target, and their sum "loss"."""
        return self.losses(self.model(batch["features"], batch["offsets"]), batch)

    def losses(self, logits: torch.Tensor, batch: Batch) -> dict[str, torch.Tensor]:
        """Return the losses of logits (n_patients, n_outputs), and their sum "loss"."""
        losses = {}
        targets = self.model.config.targets
        split = self.model.split_targets(logits)
        for number, (target, values) in enumerate(zip(targets, split, strict=True)):
            has_label = batch[f"has_label_{number}"]
            labels = batch[f"label_{number}"][has_label]
            events = batch[f"event_{number}"][has_label]
            each = self._loss(target, values[has_label], labels, events)
            # Without a label the loss is zero, and so are the gradients.
            losses[f"loss_{target.name}"] = each.mean() if len(each) else values.sum() * 0
        total = torch.stack(list(losses.values())).sum()
        return {**losses, "loss": total}

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return the number of patients that each loss averages."""
        return {
            f"loss_{target.name}": int(batch[f"has_label_{number}"].sum())
            for number, target in enumerate(self.model.config.targets)
        }

    def _loss(
        self,
        target: SlideTarget,
        logits: torch.Tensor,
        labels: torch.Tensor,
        events: torch.Tensor,
    ) -> torch.Tensor:
        """Return the loss of each patient (n,)."""
        if target.kind == "survival":
            return hazard_loss(logits, labels, events)
        if target.kind == "value":
            return (logits.squeeze(1) - labels).square()
        weights = self.class_weights.get(target.name)
        if weights is not None:
            weights = weights.to(logits.device)
        return F.cross_entropy(logits, labels, weights, reduction="none")


def balance_classes(labels: Labels, is_training: np.ndarray, n_classes: int) -> torch.Tensor:
    """Return weights (n_classes,) by which all classes weigh the same; their mean is 1."""
    codes = labels.values[labels.has_label & is_training]
    counts = np.bincount(codes, minlength=n_classes)
    weights = len(codes) / (n_classes * np.maximum(counts, 1))
    return torch.as_tensor(weights, dtype=torch.float32)
