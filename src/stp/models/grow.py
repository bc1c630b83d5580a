"""A model for a vocabulary that has more genes than the model was trained on."""

from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch

from stp._log import preview
from stp.genes.special_tokens import N_SPECIAL
from stp.genes.vocabulary import Vocabulary
from stp.models.gene import GeneEncoder
from stp.models.stamp import Stamp

Model = TypeVar("Model", GeneEncoder, Stamp)
# Names of weights with a row per token end like this, also those of the spatial head.
TOKEN_WEIGHTS = ("embeddings.weight", "classifier_head.weight", "classifier_head.bias")


@torch.no_grad()
def grow(model: Model, vocabulary: Vocabulary) -> Model:
    """Return a copy of a model for a vocabulary that has more genes, or other means.

    Known genes keep their rows of the embedding and of the heads, also if their order changes.
    New genes start at the mean of the known ones. They are listed in `card.untrained_genes` until
    a training run includes them.

    Parameters
    ----------
    model
        A GeneEncoder, or a Stamp with a gene encoder.
    vocabulary
        A vocabulary with all genes of the model, e.g. from :meth:`stp.Vocabulary.grow`.

    Returns
    -------
    A new model with a new digest.

    Raises
    ------
    ValueError
        If the vocabulary lacks genes of the model, or the model reads gene sets.

    Examples
    --------
    >>> grown = stp.models.grow(model, model.vocabulary)
    >>> grown.vocabulary.n_genes == model.vocabulary.n_genes
    True
    """
    if isinstance(model, Stamp) and (model.gene_encoder is None or model.config.pathways):
        raise ValueError(
            "a model with pathways cannot grow: its gene sets store the positions of genes in "
            "its vocabulary; align a new one with the larger vocabulary"
        )
    position_of = {gene: position for position, gene in enumerate(vocabulary.gene_ids)}
    missing = [gene for gene in model.vocabulary.gene_ids if gene not in position_of]
    if missing:
        raise ValueError(
            f"the vocabulary lacks genes of the model: {preview(missing)}; "
            "Vocabulary.grow keeps all of them"
        )
    positions = np.array([position_of[gene] for gene in model.vocabulary.gene_ids])
    grown = type(model)(model.config, vocabulary)
    state = grown.state_dict()
    for name, tensor in model.state_dict().items():
        if name.endswith(TOKEN_WEIGHTS):
            state[name] = _move_rows(tensor, state[name].shape, positions)
        else:
            state[name] = tensor
    grown.load_state_dict(state)
    new_positions: np.ndarray = np.setdiff1d(np.arange(len(vocabulary)), positions)
    untrained = {*model.card.untrained_genes, *vocabulary.gene_ids[new_positions]}
    grown.name = model.name
    grown.card = replace(model.card, untrained_genes=tuple(sorted(untrained)))
    return grown.train(model.training)


def _move_rows(rows: torch.Tensor, shape: torch.Size, positions: np.ndarray) -> torch.Tensor:
    """Return rows for the larger vocabulary.

    Rows of special tokens stay first and unused rows last. Rows of genes move to `positions`, and
    new genes get their mean.
    """
    n_genes = len(positions)
    genes = rows[N_SPECIAL : N_SPECIAL + n_genes]
    unused = rows[N_SPECIAL + n_genes :]
    moved = genes.mean(0).expand(shape).clone()
    moved[:N_SPECIAL] = rows[:N_SPECIAL]
    moved[N_SPECIAL + torch.from_numpy(positions)] = genes
    moved[len(moved) - len(unused) :] = unused
    return moved
