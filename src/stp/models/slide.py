"""The slide model: attention over all tiles of a patient, and predictions for the patient."""

import copy
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from torch import nn

from stp._config import check_sizes
from stp._log import preview
from stp.models.relu_dropout import ReluDropout
from stp.models.saved.pretrained import Pretrained
from stp.models.slide_attention import (
    TileAttention,
    TileScores,
    make_transformer,
    weigh_tiles,
)
from stp.models.slide_config import SlideModelConfig
from stp.models.slide_patients import hash_patients

# Numbers of a config that are no sizes: measurements in the units of the user.
MEASUREMENTS = ("edges", "value_mean", "value_sd")


class SlideModel(Pretrained):
    """Predict classes, values or survival of patients from all tiles of their slides.

    A bag holds the tiles of all slides of a patient. Several bags are one array of tiles and the
    first row of each bag, without padding. Each target has an attention branch (Ilse et al. 2018)
    and a linear head. The head is linear, so the logit is a sum of contributions of tiles.
    The hashes of patients in a saved model are not anonymous: whoever can guess an id can check
    it. `save_pretrained(path, patients=False)` leaves them out.

    Parameters
    ----------
    config
        Size of the model, its targets, and what its training fixed.

    Examples
    --------
    >>> import torch
    >>> target = stp.models.SlideTarget("classes", "EGFR", ("mutated", "wild type"))
    >>> config = stp.models.SlideModelConfig(stp.models.SlideFeatures(1024), (target,))
    >>> model = stp.models.SlideModel(config)
    >>> tiles = torch.randn(5, 1024)
    >>> model(tiles, torch.tensor([0, 2, 5])).shape  # two patients, of two and of three tiles
    torch.Size([2, 2])
    """

    config_class = SlideModelConfig
    reads_genes = False
    config: SlideModelConfig
    feature_mean: torch.Tensor
    feature_sd: torch.Tensor
    slide_mean: torch.Tensor
    slide_sd: torch.Tensor

    def __init__(self, config: SlideModelConfig) -> None:
        super().__init__()
        self.config = config
        width = config.features.width
        n_targets = len(config.targets)
        for name in ("feature", "slide"):
            self.register_buffer(f"{name}_mean", torch.zeros(width))
            self.register_buffer(f"{name}_sd", torch.ones(width))
        self.tiles = nn.Sequential(nn.Linear(width, config.hidden), ReluDropout(config.dropout))
        if config.pooling == "attention":
            self.branches = nn.ModuleList(
                TileAttention(config.hidden, config.attention, is_gated=config.gated)
                for _ in range(n_targets)
            )
        elif config.pooling == "transformer":
            self.transformer = make_transformer(config.hidden, config.dropout)
            self.target_tokens = nn.Parameter(torch.randn(n_targets, config.hidden) * 0.02)
        self.heads = nn.ModuleList(
            nn.Linear(config.hidden, target.n_outputs) for target in config.targets
        )

    def forward(self, features: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        """Return the logits (n_bags, n_outputs) of all targets, one after another.

        Parameters
        ----------
        features
            Features of the tiles of all bags (n_tiles, width).
        offsets
            First row of each bag, and the number of rows (n_bags + 1,).
        """
        return self.predict_pooled(self.pool(features, offsets))

    def pool(self, features: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        """Return a vector per bag and target (n_bags, n_targets, hidden).

        Parameters
        ----------
        features
            Features of the tiles of all bags (n_tiles, width).
        offsets
            First row of each bag, and the number of rows (n_bags + 1,).
        """
        hidden = self._encode(features)
        sizes = offsets.diff().tolist()
        if self.config.pooling == "transformer":
            return torch.stack([self._read_tokens(bag) for bag in hidden.split(sizes)])
        return weigh_tiles(hidden, self._attend(hidden, sizes), sizes)

    def predict_pooled(self, pooled: torch.Tensor) -> torch.Tensor:
        """Return the logits (n_bags, n_outputs) of pooled vectors (n_bags, n_targets, hidden)."""
        with torch.autocast(pooled.device.type, enabled=False):
            vectors = pooled.float().unbind(1)
            logits = [head(vector) for head, vector in zip(self.heads, vectors, strict=True)]
            return torch.cat(logits, dim=1)

    def explain(self, features: torch.Tensor, offsets: torch.Tensor) -> TileScores:
        """Return logits, the attention of each tile, and its contribution to each logit.

        Parameters
        ----------
        features
            Features of the tiles of all bags (n_tiles, width).
        offsets
            First row of each bag, and the number of rows (n_bags + 1,).

        Raises
        ------
        ValueError
            The pooling is "transformer", whose logits are no sum over tiles.
        """
        if self.config.pooling == "transformer":
            raise ValueError(
                "a slide model with pooling='transformer' has no contributions of tiles; "
                "train one with pooling='attention'"
            )
        hidden = self._encode(features)
        sizes = offsets.diff().tolist()
        weights = self._attend(hidden, sizes)
        logits = self.predict_pooled(weigh_tiles(hidden, weights, sizes))
        contributions = []
        with torch.autocast(hidden.device.type, enabled=False):
            for head, weight in zip(self.heads, weights.unbind(1), strict=True):
                effects = hidden.float() @ cast(nn.Linear, head).weight.T
                contributions.append(weight.unsqueeze(1) * effects)
        return TileScores(logits, weights, torch.cat(contributions, dim=1))

    def split_targets(self, logits: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the logits (n_bags, n_outputs) of each target."""
        return logits.split([target.n_outputs for target in self.config.targets], dim=1)

    def to_predictions(self, logits: torch.Tensor) -> torch.Tensor:
        """Return probabilities of classes, values in their units, and risks (n_bags, n_columns).

        The risk is the negative sum of the survival over the intervals: higher is worse. The names
        of the columns are `config.columns`.

        Parameters
        ----------
        logits
            Logits (n_bags, n_outputs) of all targets, one after another.
        """
        predictions = []
        for target, values in zip(self.config.targets, self.split_targets(logits), strict=True):
            if target.kind == "classes":
                predictions.append((values / target.temperature).softmax(1))
            elif target.kind == "value":
                predictions.append(values * target.value_sd + target.value_mean)
            else:
                survival = torch.sigmoid(-values).cumprod(1)
                predictions.append(-survival.sum(1, keepdim=True))
        return torch.cat(predictions, dim=1)

    def measure_distances(self, slide_means: torch.Tensor) -> torch.Tensor:
        """Return how far slides (n_slides,) are from the training slides.

        The distance is the root mean square of standardized features, so that it is about 1 for
        training slides.

        Parameters
        ----------
        slide_means
            Mean features of each slide (n_slides, width).
        """
        return ((slide_means - self.slide_mean) / self.slide_sd).square().mean(1).sqrt()

    def hash_patients(self, patients: Iterable[str]) -> list[str]:
        """Return the hash of each patient with the salt of this model.

        A patient whose hash is in `config.patient_hashes` trained or validated the model.

        Parameters
        ----------
        patients
            Ids of patients.
        """
        return hash_patients(patients, self.config.salt)

    def save_pretrained(
        self, path: str | Path, *, precision: str = "fp32", patients: bool = True
    ) -> None:
        """Write weights, config and card to a folder.

        Parameters
        ----------
        path
            Folder of the model; it is created if it is missing.
        precision
            Type of the weights in the file: "fp32", or "bf16" or "fp16" for half the size.
            Rounding makes another model with another digest. The precision of computations is an
            argument of the functions that use the model.
        patients
            Whether to write the hashes of the patients that the model has seen. They are not
            anonymous. Without them, prediction warns that it cannot check if a patient was seen.
            The digest of the model is the same.

        Raises
        ------
        ValueError
            If the precision is unknown, a weight is too large for it, or `path` is remote.
        """
        model = self if patients else self._without_patients()
        Pretrained.save_pretrained(model, path, precision=precision)

    def push_to_hub(
        self, repo_id: str, *, private: bool = True, license_checked: bool = False
    ) -> str:
        """Publish the model on the hub of Hugging Face, without the hashes of its patients.

        Parameters
        ----------
        repo_id
            Id on the hub, `owner/name`; the repository is made if it is new.
        private
            Whether only you and your organization see the model.
        license_checked
            Publish although the card names terms that forbid derivatives, because you have
            permission.

        Returns
        -------
        The commit, which `from_pretrained` accepts as `revision`.
        """
        return Pretrained.push_to_hub(
            self._without_patients(), repo_id, private=private, license_checked=license_checked
        )

    def _without_patients(self) -> "SlideModel":
        model = copy.copy(self)  # which shares the weights
        model.config = replace(self.config, salt="", patient_hashes=())
        return model

    def _digest_with(self, weights: dict[str, torch.Tensor]) -> str:
        # Hashes of patients do not decide the outputs.
        return Pretrained._digest_with(self._without_patients(), weights)

    def _describe_parts(self) -> dict[str, str]:
        config = self.config
        return {
            "targets": preview(target.name for target in config.targets),
            "pooling": config.pooling,
            "features": config.features.model_name or "of an unknown model",
        }

    @classmethod
    def _check_sizes(cls, config: dict) -> None:
        targets = config.get("targets")
        sizes = {name: value for name, value in config.items() if name != "bag_sizes"}
        if isinstance(targets, list) and all(isinstance(target, dict) for target in targets):
            sizes["targets"] = [
                {name: value for name, value in target.items() if name not in MEASUREMENTS}
                for target in targets
            ]
        check_sizes(sizes)

    def _encode(self, features: torch.Tensor) -> torch.Tensor:
        """Return tiles (n_tiles, width) as hidden vectors (n_tiles, hidden)."""
        features = features.to(self.feature_mean.dtype)
        if self.config.standardize:
            features = (features - self.feature_mean) / self.feature_sd
        return self.tiles(features)

    def _attend(self, hidden: torch.Tensor, sizes: list[int]) -> torch.Tensor:
        """Return the attention (n_tiles, n_targets), which sums to one over each bag."""
        if self.config.pooling == "mean":
            shares = [1 / size for size in sizes for _ in range(size)]
            weights = torch.tensor(shares, dtype=torch.float32, device=hidden.device)
            return weights.unsqueeze(1).expand(-1, len(self.heads))
        scores = torch.cat([branch(hidden) for branch in self.branches], dim=1).float()
        return torch.cat([bag.softmax(0) for bag in scores.split(sizes)])

    def _read_tokens(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the tokens of the targets (n_targets, hidden) after attention to a bag."""
        tokens = torch.cat([self.target_tokens.to(hidden.dtype), hidden]).unsqueeze(0)
        return self.transformer(tokens)[0, : len(self.heads)].float()
