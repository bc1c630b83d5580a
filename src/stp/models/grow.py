"""A model for a vocabulary with more genes than it was trained on."""

from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch

from stp.genes.special_tokens import N_SPECIAL
from stp.genes.vocabulary import Vocabulary
from stp.models.gene import GeneEncoder
from stp.models.saved.weights import listed
from stp.models.stamp import Stamp

Model = TypeVar("Model", GeneEncoder, Stamp)
BY_TOKEN = (
    "embeddings.weight",
    "classifier_head.weight",
    "classifier_head.bias",
)  # the spatial head ends so, too


@torch.no_grad()
def grow(model: Model, vocabulary: Vocabulary) -> Model:
    """Return a copy of a model for a vocabulary that has more genes, or other means.

    Genes keep the rows of their embedding and heads, wherever they stand in the new vocabulary. New genes start at the
    mean of the genes there were, and are recorded as `card.untrained_genes` until a training sees them.

    Parameters
    ----------
    model
        A GeneEncoder, or a Stamp that has one.
    vocabulary
        With all genes of the model's, e.g. from :meth:`stp.Vocabulary.grow`.

    Returns
    -------
    A new model, with a digest of its own.

    Raises
    ------
    ValueError
        The vocabulary lacks genes of the model, or the model reads gene sets.

    Examples
    --------
    >>> grown = stp.models.grow(model, model.vocabulary)
    >>> grown.vocabulary.n_genes == model.vocabulary.n_genes
    True
    """
    if isinstance(model, Stamp) and (model.gene_encoder is None or model.config.pathways):
        raise ValueError(
            "gene sets stand for genes by their place in the vocabulary; a model of pathways cannot grow"
        )
    place = {gene: index for index, gene in enumerate(vocabulary.gene_ids)}
    if lost := [gene for gene in model.vocabulary.gene_ids if gene not in place]:
        raise ValueError(
            f"the vocabulary lacks genes of the model: {listed(lost)}; Vocabulary.grow keeps all"
        )
    old = np.array([place[gene] for gene in model.vocabulary.gene_ids])
    grown = type(model)(model.config, vocabulary)
    state = grown.state_dict()
    for name, tensor in model.state_dict().items():
        state[name] = _moved(tensor, state[name].shape, old) if name.endswith(BY_TOKEN) else tensor
    grown.load_state_dict(state)
    new: np.ndarray = np.setdiff1d(np.arange(len(vocabulary)), old)
    untrained = {*model.card.untrained_genes, *vocabulary.gene_ids[new]}
    grown.name, grown.card = (
        model.name,
        replace(model.card, untrained_genes=tuple(sorted(untrained))),
    )
    return grown.train(model.training)


def _moved(rows: torch.Tensor, shape: torch.Size, old: np.ndarray) -> torch.Tensor:
    """Lay out rows by token anew: special ones first, genes at their new places, unused rows last."""
    genes = rows[N_SPECIAL : N_SPECIAL + len(old)]
    unused = rows[N_SPECIAL + len(old) :]
    moved = genes.mean(0).expand(shape).clone()
    moved[:N_SPECIAL] = rows[:N_SPECIAL]
    moved[N_SPECIAL + torch.from_numpy(old)] = genes
    moved[len(moved) - len(unused) :] = unused
    return moved
