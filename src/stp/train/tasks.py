"""What is learned: modules that turn a batch into named losses, each a mean over counted items."""

from collections.abc import Callable, Sequence

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
from stp.train.engine.protocols import Batch
from stp.train.losses import (
    contrast,
    grid_pool,
    localization_logits,
    pooled_context,
    symmetric_contrast,
)

Gather = Callable[[torch.Tensor], tuple[torch.Tensor, int]]
# Targets of the alignment, with their names in losses.
TARGETS = {"genes": "gene", "pathways": "pathway"}
# Image vectors, with their names in losses.
IMAGES = {"patches": "patch", "regions": "region"}
AUGMENTED = ("patches", "regions", "rotations", "stains")


class MaskedGenes(nn.Module):
    """Predict the masked genes of each spot from the others (paper, eq. 4: IGR)."""

    title = "Masked genes"

    def __init__(self, model: GeneEncoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Return the mean over masked tokens as "masked", and "loss"."""
        masked = self.masked_loss(self.model.hidden(batch["inputs"]), batch)
        return {"masked": masked, "loss": masked}

    def masked_loss(self, hidden: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the cross-entropy at the masked positions; the head runs on no others."""
        is_masked = batch["chosen"]
        return F.cross_entropy(self.model.predict(hidden[is_masked]), batch["targets"][is_masked])

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return the number of items that each loss averages."""
        return {"masked": int(batch["chosen"].sum())}


class NeighborhoodGenes(MaskedGenes):
    """Predict masked genes from the spot, and those of each center from its neighbors.

    These are the losses IGR and CGR of the paper (eq. 5 and 6).
    """

    title = "Neighborhoods"

    def __init__(
        self, model: GeneEncoder, *, context: str, targets: str, group_size: int = 9
    ) -> None:
        super().__init__(model)
        self.context = context
        self.targets = targets
        self.group_size = group_size

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Return "masked", "neighborhood" and their sum "loss"."""
        # Position-wise averages count padding, so it must be computed.
        with_padding = self.context == "positionwise"
        # (groups * group_size, length, width)
        hidden = self.model.hidden(batch["inputs"], padding=with_padding)
        masked = self.masked_loss(hidden, batch)
        neighborhood = self._neighborhood_loss(hidden, batch)
        return {"masked": masked, "neighborhood": neighborhood, "loss": masked + neighborhood}

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return the number of items that each loss averages."""
        return {**super().counts(batch), "neighborhood": int(self._is_target(batch).sum())}

    def _neighborhood_loss(self, hidden: torch.Tensor, batch: Batch) -> torch.Tensor:
        groups = hidden.unflatten(0, (-1, self.group_size))
        is_target = self._is_target(batch)
        targets = batch["targets"][:: self.group_size]
        if self.context == "positionwise":
            context = groups[:, 1:].mean(1)  # (groups, length, width)
            logits = self.model.predict_from_context(context[is_target])
            return F.cross_entropy(logits, targets[is_target])
        real = (batch["targets"] != PAD_ID).unflatten(0, (-1, self.group_size))
        # One prediction per group serves all its targets.
        logits = self.model.predict_from_context(pooled_context(groups, real))
        log_probabilities = logits.log_softmax(-1)
        group = is_target.nonzero()[:, 0]
        return -log_probabilities[group, targets[is_target]].mean()

    def _is_target(self, batch: Batch) -> torch.Tensor:
        """Return which tokens (groups, length) of the centers are predicted."""
        if self.targets == "all":
            return batch["targets"][:: self.group_size] != PAD_ID
        return batch["chosen"][:: self.group_size]


class Alignment(nn.Module):
    """Align patches, regions and targets, and find the patch in its region (paper, eq. 7 to 11).

    The targets are the entries "genes" and "pathways" of a batch, as far as it has them.

    Parameters
    ----------
    model
        The Stamp to train.
    losses
        Names of the losses that are summed.
    gather
        Function that stacks the vectors of all processes, and returns the offset of this process's
        own. By default negatives come from the batch of this process alone.
    micro_batch
        Encode this many pairs at a time to save memory. All parts but the last are encoded again
        when their gradient is computed. A batch then needs the memory of one part, and has the
        gradients of the whole (GradCache, arXiv 2101.06983).
    """

    title = "Alignment"

    def __init__(
        self,
        model: Stamp,
        *,
        losses: Sequence[str] = LOSSES,
        gather: Gather | None = None,
        micro_batch: int | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.losses = losses
        self.micro_batch = micro_batch
        self.gather = gather or _without_gathering

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Return the losses by name, the share of patches found as "localized", and "loss"."""
        cells = rotate_cells(batch["cells"], batch["rotations"])
        own = self._encode_all(batch)
        logits = own.pop("logits", None)
        offset = 0
        everywhere: dict[str, torch.Tensor] = {}
        for name, vectors in own.items():
            everywhere[name], offset = self.gather(vectors)
        scale = self.model.scale
        losses: dict[str, torch.Tensor] = {}
        for name, (image, target) in self._contrasts(batch).items():
            losses[name] = symmetric_contrast(
                own[image],
                own[target],
                scale,
                all_a=everywhere[image],
                all_b=everywhere[target],
                offset=offset,
            )
        if "patch_region" in self.losses:
            losses["patch_region"] = contrast(own["patches"], everywhere["regions"], scale, offset)
        if logits is not None:
            losses["localization"] = F.cross_entropy(logits, cells)
        outputs = {**losses, "loss": _add_up(losses)}
        if logits is not None:
            outputs["localized"] = (logits.argmax(1) == cells).float().mean().detach()
        return outputs

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return the number of items that each loss averages."""
        image_losses = [name for name in ("patch_region", "localization") if name in self.losses]
        return dict.fromkeys([*self._contrasts(batch), *image_losses], len(batch["patches"]))

    def _contrasts(self, batch: Batch) -> dict[str, tuple[str, str]]:
        """Name the losses between images and targets, with the vectors that each compares."""
        return {
            f"{image_name}_{target_name}": (image, target)
            for target, target_name in TARGETS.items()
            for image, image_name in IMAGES.items()
            if target in batch and f"{image_name}_target" in self.losses
        }

    def _encode_all(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Encode a batch, in parts if the memory of one part must do."""
        inputs = {name: batch[name] for name in (*TARGETS, *AUGMENTED) if name in batch}
        if not self.micro_batch or not torch.is_grad_enabled():
            return self._encode(inputs)
        splits = zip(*(tensor.split(self.micro_batch) for tensor in inputs.values()), strict=True)
        *parts, last = [dict(zip(inputs, split, strict=True)) for split in splits]
        encoded = [checkpoint(self._encode, part, use_reentrant=False) for part in parts]
        # Gradients of the last part come first, so it need not be encoded again.
        encoded.append(self._encode(last))
        return {name: torch.cat([part[name] for part in encoded]) for name in encoded[0]}

    def _encode(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Return targets, patches and regions as unit vectors (n, width), and "logits" (n, 9)."""
        model = self.model
        patches = jitter_stain(rotate(batch["patches"], batch["rotations"]), batch["stains"])
        regions = jitter_stain(rotate(batch["regions"], batch["rotations"]), batch["stains"])
        encoded: dict[str, torch.Tensor] = {}
        if "genes" in batch:
            _, encoded["genes"] = model.encode_genes(batch["genes"])
        if "pathways" in batch:
            _, encoded["pathways"] = model.encode_pathways(batch["pathways"])
        _, encoded["patches"] = model.encode_images(patches)
        if set(self.losses) == {"patch_target"}:
            return encoded
        region = model.image_encoder.encode(regions, patches=patches)
        encoded["regions"] = F.normalize(model.region_projection(region.features), dim=-1)
        if "localization" in self.losses:
            cells = model.localization_projection(grid_pool(region.tokens))
            patch_tokens = model.localization_projection(region.patch_token)
            encoded["logits"] = localization_logits(cells, patch_tokens, model.scale)
        return encoded


class Adaptation(nn.Module):
    """Align features of patches and genes through adapters and projections (paper, A.3.3).

    The task has only these parts of the model, so checkpoints contain no encoders.
    """

    title = "Adaptation"

    def __init__(self, model: Stamp, *, gather: Gather | None = None) -> None:
        super().__init__()
        assert model.gene_projection is not None  # `adapt` takes no other model
        self.scale = model.scale.item()
        self.gather = gather or _without_gathering
        self.patches = nn.Sequential(model.patch_adapter, model.patch_projection)
        self.genes = nn.Sequential(model.gene_adapter, model.gene_projection)

    def aligned(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return unit vectors (n, width) of patches and genes."""
        patches = F.normalize(self.patches(batch["patches"]), dim=-1)
        genes = F.normalize(self.genes(batch["genes"]), dim=-1)
        return patches, genes

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Return "patch_gene" and "loss"."""
        patches, genes = self.aligned(batch)
        all_patches, offset = self.gather(patches)
        all_genes, _ = self.gather(genes)
        loss = symmetric_contrast(
            patches, genes, self.scale, all_a=all_patches, all_b=all_genes, offset=offset
        )
        return {"patch_gene": loss, "loss": loss}

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return the number of items that each loss averages."""
        return {"patch_gene": len(batch["patches"])}


class ExpressionRegression(nn.Module):
    """Predict expression from features, by the mean squared error (paper, A.3.3)."""

    title = "Expression head"

    def __init__(self, head: ExpressionHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Return "mse" and "loss"."""
        loss = F.mse_loss(self.head(batch["features"]).float(), batch["expression"])
        return {"mse": loss, "loss": loss}

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return the number of items that each loss averages."""
        return {"mse": len(batch["features"])}


def _without_gathering(rows: torch.Tensor) -> tuple[torch.Tensor, int]:
    return rows, 0


def _add_up(losses: dict[str, torch.Tensor]) -> torch.Tensor:
    values = list(losses.values())
    return sum(values[1:], start=values[0])
