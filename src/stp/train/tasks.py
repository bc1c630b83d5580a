"""What is learned: a module that turns a batch into named losses, each a mean over a count of its own."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from stp.data.augmentation import jitter_stain, rotate, rotate_cells
from stp.genes.special_tokens import PAD_ID
from stp.models.gene import GeneEncoder
from stp.models.head import ExpressionHead
from stp.models.stamp import Stamp
from stp.train.config import LOSSES
from stp.train.losses import (
    contrast,
    grid_pool,
    localization_logits,
    pooled_context,
    symmetric_contrast,
)

Batch = dict[str, torch.Tensor]
Gather = Callable[[torch.Tensor], tuple[torch.Tensor, int]]
TARGETS = {
    "genes": "gene",
    "pathways": "pathway",
}  # what images are aligned with, and its name in losses


class MaskedGenes(nn.Module):
    """Predict the masked genes of each spot from the others (paper, eq. 4: IGR)."""

    def __init__(self, model: GeneEncoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Return the mean over masked tokens as "masked", and "loss"."""
        masked = self.masked_loss(self.model.hidden(batch["inputs"]), batch)
        return {"masked": masked, "loss": masked}

    def masked_loss(self, hidden: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Cross-entropy at the chosen positions only; the head runs on no others."""
        chosen = batch["chosen"]
        return F.cross_entropy(self.model.predict(hidden[chosen]), batch["targets"][chosen])

    def counts(self, batch: Batch) -> dict[str, int]:
        """Say over how many items each loss is a mean."""
        return {"masked": int(batch["chosen"].sum())}


class NeighborhoodGenes(MaskedGenes):
    """Predict masked genes from the spot, and those of each center from its eight neighbors (eq. 5 and 6: CGR)."""

    def __init__(
        self, model: GeneEncoder, *, context: str, targets: str, group_size: int = 9
    ) -> None:
        super().__init__(model)
        self.context, self.targets, self.group_size = context, targets, group_size

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Return "masked", "neighborhood" and their sum "loss"."""
        padding = self.context == "positionwise"  # whose averages count it
        hidden = self.model.hidden(
            batch["inputs"], padding=padding
        )  # (groups * size, length, width)
        masked, neighborhood = (
            self.masked_loss(hidden, batch),
            self._neighborhood_loss(hidden, batch),
        )
        return {"masked": masked, "neighborhood": neighborhood, "loss": masked + neighborhood}

    def _neighborhood_loss(self, hidden: torch.Tensor, batch: Batch) -> torch.Tensor:
        grouped = hidden.unflatten(0, (-1, self.group_size))
        wanted, targets = self._wanted(batch), batch["targets"][:: self.group_size]
        if self.context == "positionwise":
            context = grouped[:, 1:].mean(1)  # (groups, length, width)
            return F.cross_entropy(
                self.model.predict_from_context(context[wanted]), targets[wanted]
            )
        real = (batch["targets"] != PAD_ID).unflatten(0, (-1, self.group_size))
        # One prediction per group serves all its targets.
        logp = self.model.predict_from_context(pooled_context(grouped, real)).log_softmax(-1)
        group = wanted.nonzero()[:, 0]
        return -logp[group, targets[wanted]].mean()

    def _wanted(self, batch: Batch) -> torch.Tensor:
        """Which tokens (groups, length) of the centers are predicted."""
        if self.targets == "all":
            return batch["targets"][:: self.group_size] != PAD_ID
        return batch["chosen"][:: self.group_size]

    def counts(self, batch: Batch) -> dict[str, int]:
        """Say over how many items each loss is a mean."""
        return {**super().counts(batch), "neighborhood": int(self._wanted(batch).sum())}


class Alignment(nn.Module):
    """Align patches, regions and targets, and find the patch in its region (paper, eq. 7 to 11).

    Targets are what a batch holds of "genes" and "pathways".

    Parameters
    ----------
    model
        What is trained.
    losses
        Which of the four are summed.
    gather
        Turns vectors of this process into those of all, and says where its own begin; without it, negatives are
        those of the batch.
    micro_batch
        Pairs to encode at a time. Each part but the last, whose gradients come first, is encoded again when its
        gradient is computed, so that a batch needs the memory of one part, and has the gradients of a whole (GradCache,
        arXiv 2101.06983).
    """

    def __init__(
        self,
        model: Stamp,
        *,
        losses: Sequence[str] = LOSSES,
        gather: Gather | None = None,
        micro_batch: int | None = None,
    ) -> None:
        super().__init__()
        self.model, self.losses, self.micro_batch = model, losses, micro_batch
        self.gather = gather or (lambda rows: (rows, 0))

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Return the losses by name, the share of patches found as "localized", and "loss"."""
        cells = rotate_cells(batch["cells"], batch["rotations"])
        encoded = self._encode_all(batch)
        logits = encoded.pop("logits", None)
        everywhere = {name: self.gather(vectors) for name, vectors in encoded.items()}
        scale, first, losses = self.model.scale, everywhere["patches"][1], {}
        for name, (image, target) in self._contrasts(batch).items():
            keys: dict[str, Any] = {
                "all_a": everywhere[image][0],
                "all_b": everywhere[target][0],
                "first": first,
            }
            losses[name] = symmetric_contrast(encoded[image], encoded[target], scale, **keys)
        if "patch_region" in self.losses:
            losses["patch_region"] = contrast(
                encoded["patches"], everywhere["regions"][0], scale, first
            )
        if logits is not None:
            losses["localization"] = F.cross_entropy(logits, cells)
        total: dict[str, Any] = {"loss": sum(losses.values())}
        if logits is not None:
            total["localized"] = (logits.argmax(1) == cells).float().mean().detach()
        return losses | total

    def _contrasts(self, batch: Batch) -> dict[str, tuple[str, str]]:
        """Name the losses between images and targets, with the vectors that each compares."""
        images = {"patches": "patch", "regions": "region"}
        return {
            f"{image}_{target}": (images_of, targets_of)
            for targets_of, target in TARGETS.items()
            for images_of, image in images.items()
            if targets_of in batch and f"{image}_target" in self.losses
        }

    def _encode_all(self, batch: Batch) -> dict[str, torch.Tensor]:
        inputs = {
            name: batch[name]
            for name in (*TARGETS, "patches", "regions", "rotations", "stains")
            if name in batch
        }
        if not self.micro_batch or not torch.is_grad_enabled():
            return self._encode(inputs)
        splits = zip(*(tensor.split(self.micro_batch) for tensor in inputs.values()), strict=True)
        *parts, last = [dict(zip(inputs, split, strict=True)) for split in splits]
        encoded = [checkpoint(self._encode, part, use_reentrant=False) for part in parts]
        encoded.append(self._encode(last))
        return {name: torch.cat([part[name] for part in encoded]) for name in encoded[0]}

    def _encode(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Return targets, patches and regions as unit vectors (n, width), and the logits of nine cells (n, 9)."""
        model = self.model
        patches, regions = (
            jitter_stain(rotate(batch[n], batch["rotations"]), batch["stains"])
            for n in ("patches", "regions")
        )
        encoded = {
            name: getattr(model, f"encode_{name}")(batch[name])[1]
            for name in TARGETS
            if name in batch
        }
        encoded["patches"] = model.encode_images(patches)[1]
        if set(self.losses) == {"patch_target"}:
            return encoded
        region = model.image_encoder.encode(regions, patches=patches)
        encoded["regions"] = F.normalize(model.region_projection(region.features), dim=-1)
        if "localization" in self.losses:
            cells, reference = map(
                model.localization_projection, (grid_pool(region.tokens), region.patch_token)
            )
            encoded["logits"] = localization_logits(cells, reference, model.scale)
        return encoded

    def counts(self, batch: Batch) -> dict[str, int]:
        """Say over how many items each loss is a mean."""
        images_alone = [name for name in ("patch_region", "localization") if name in self.losses]
        return dict.fromkeys([*self._contrasts(batch), *images_alone], len(batch["patches"]))


class Adaptation(nn.Module):
    """Align features of patches and genes through adapters and projections, and train nothing else (paper, A.3.3).

    It holds these parts of the model alone: checkpoints need no encoders.
    """

    def __init__(self, model: Stamp, *, gather: Gather | None = None) -> None:
        super().__init__()
        self.scale, self.gather = model.scale.item(), gather or (lambda rows: (rows, 0))
        self.patches = nn.Sequential(model.patch_adapter, model.patch_projection)
        assert model.gene_projection is not None  # `adapt` takes no other model
        self.genes = nn.Sequential(model.gene_adapter, model.gene_projection)

    def aligned(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return unit vectors (n, width) of patches and genes."""
        patches, genes = (
            F.normalize(part(batch[name]), dim=-1) for name, part in self.named_children()
        )
        return patches, genes

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Return "patch_gene" and "loss"."""
        patches, genes = self.aligned(batch)
        (all_patches, first), (all_genes, _) = map(self.gather, (patches, genes))
        loss = symmetric_contrast(
            patches, genes, self.scale, all_a=all_patches, all_b=all_genes, first=first
        )
        return {"patch_gene": loss, "loss": loss}

    def counts(self, batch: Batch) -> dict[str, int]:
        """Say over how many items each loss is a mean."""
        return {"patch_gene": len(batch["patches"])}


class ExpressionRegression(nn.Module):
    """Predict expression from features, by the mean squared error (paper, A.3.3)."""

    def __init__(self, head: ExpressionHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Return "mse" and "loss"."""
        loss = F.mse_loss(self.head(batch["features"]).float(), batch["expression"])
        return {"mse": loss, "loss": loss}

    def counts(self, batch: Batch) -> dict[str, int]:
        """Say over how many items each loss is a mean."""
        return {"mse": len(batch["features"])}
