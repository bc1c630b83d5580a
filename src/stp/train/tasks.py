"""What is learned: a module that turns a batch into named losses, each a mean over a count of its own."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from stp._keys import PAD_ID
from stp.losses import contrast, grid_pool, localization_logits, pooled_context, symmetric_contrast
from stp.models.gene import GeneEncoder
from stp.models.stamp import Stamp

Batch = dict[str, torch.Tensor]
Gather = Callable[[torch.Tensor], tuple[torch.Tensor, int]]


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

    def __init__(self, model: GeneEncoder, *, context: str, targets: str, group_size: int = 9) -> None:
        super().__init__(model)
        self.context, self.targets, self.group_size = context, targets, group_size

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Return "masked", "neighborhood" and their sum "loss"."""
        padding = self.context == "positionwise"  # whose averages count it
        hidden = self.model.hidden(batch["inputs"], padding=padding)  # (groups * size, length, width)
        masked, neighborhood = self.masked_loss(hidden, batch), self._neighborhood_loss(hidden, batch)
        return {"masked": masked, "neighborhood": neighborhood, "loss": masked + neighborhood}

    def _neighborhood_loss(self, hidden: torch.Tensor, batch: Batch) -> torch.Tensor:
        grouped = hidden.unflatten(0, (-1, self.group_size))
        wanted, targets = self._wanted(batch), batch["targets"][:: self.group_size]
        if self.context == "positionwise":
            context = grouped[:, 1:].mean(1)  # (groups, length, width)
            return F.cross_entropy(self.model.predict_from_context(context[wanted]), targets[wanted])
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
    """Align patches, regions and genes, and find the patch in its region (paper, eq. 7 to 11).

    Parameters
    ----------
    model
        What is trained.
    gather
        Turns vectors of this process into those of all, and says where its own begin; without it, negatives are
        those of the batch.
    micro_batch
        Pairs to encode at a time. Each part is encoded again when its gradient is computed, so that a batch needs the
        memory of one part, and has the gradients of a whole (GradCache, arXiv 2101.06983).
    """

    def __init__(self, model: Stamp, *, gather: Gather | None = None, micro_batch: int | None = None) -> None:
        super().__init__()
        self.model, self.gather, self.micro_batch = model, gather or (lambda rows: (rows, 0)), micro_batch

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Return the four losses by name, the share of patches found as "localized", and "loss"."""
        genes, patches, regions, logits = self._encode_all(batch)
        (all_genes, first), (all_patches, _), (all_regions, _) = map(self.gather, (genes, patches, regions))
        scale, of_genes = self.model.scale, {"all_b": all_genes, "first": first}
        losses = {
            "patch_gene": symmetric_contrast(patches, genes, scale, all_a=all_patches, **of_genes),
            "region_gene": symmetric_contrast(regions, genes, scale, all_a=all_regions, **of_genes),
            "patch_region": contrast(patches, all_regions, scale, first),
            "localization": F.cross_entropy(logits, batch["cells"]),
        }
        localized = (logits.argmax(1) == batch["cells"]).float().mean()
        return {**losses, "localized": localized.detach(), "loss": sum(losses.values())}

    def _encode_all(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        inputs = [batch[name] for name in ("genes", "patches", "regions", "stains")]
        if not self.micro_batch or not torch.is_grad_enabled():
            return self._encode(*inputs)
        parts = zip(*(tensor.split(self.micro_batch) for tensor in inputs), strict=True)
        encoded = [checkpoint(self._encode, *part, use_reentrant=False) for part in parts]
        return tuple(map(torch.cat, zip(*encoded, strict=True)))

    def _encode(
        self, genes: torch.Tensor, patches: torch.Tensor, regions: torch.Tensor, stains: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Return genes, patches and regions as unit vectors (n, width), and the logits of nine cells (n, 9)."""
        model, images = self.model, stained(patches, stains)
        _, aligned_genes = model.encode_genes(genes)
        _, aligned = model.encode_images(images)
        region = model.image_encoder.encode(stained(regions, stains), references=images)
        cells, reference = map(model.localization_projection, (grid_pool(region.tokens), region.reference))
        return (
            aligned_genes,
            aligned,
            F.normalize(model.region_projection(region.features), dim=-1),
            localization_logits(cells, reference, model.scale),
        )

    def counts(self, batch: Batch) -> dict[str, int]:
        """Say over how many items each loss is a mean."""
        return dict.fromkeys(("patch_gene", "region_gene", "patch_region", "localization"), len(batch["genes"]))


def stained(images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Multiply the optical density of each channel (n, 3): a darker or paler stain; images (n, y, x, 3) of 0 to 255."""
    return 255 * (images.float() / 255) ** factors[:, None, None]
