"""Adapt a Stamp to new slides: small adapters on its frozen encoders (paper, section A.3.3)."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stp.metrics import recall_at_k
from stp.models.device import build_with_seed
from stp.models.stamp import Stamp
from stp.tables import keys
from stp.tables.provenance import model_of
from stp.tables.references import blocks, open_references
from stp.train.config import AdaptConfig
from stp.train.frozen import SpotArrays, train_on
from stp.train.tasks import Adaptation
from stp.train.validation import RECALL_AT


def adapt(
    reference: Any,
    output_dir: str | Path,
    *,
    model: Stamp | str | Path,
    config: AdaptConfig = AdaptConfig(),
    validation: Any = (),
    images_rep: str = keys.IMAGES,
    genes_rep: str = keys.GENES,
    table_key: str = "table",
    resume: bool = True,
) -> Stamp:
    """Adapt a Stamp to slides of a new kind: adapters and projections learn, both encoders stay (paper, A.3.3).

    The patch-gene loss pulls image and genes of each spot together. What comes back is a Stamp whose features are
    those of `model` and whose aligned vectors are new: embed queries and references again with it, or pass features
    to its `encode_images` and `encode_genes`.

    Parameters
    ----------
    reference
        Spots embedded by `model`, images and genes: a table, a SpatialData, the path of one on disk, or several.
    output_dir
        Run directory, as :func:`stp.train.align` makes it.
    model
        The Stamp, or its folder.
    config
        Size of the adapters, schedule, seed.
    validation
        Spots of other slides, embedded likewise: the epoch of the highest recall@5 is kept, and training stops when
        it no longer rises. Without them the last epoch is kept.
    images_rep, genes_rep
        Features in `obsm`.
    table_key
        Table of a SpatialData.
    resume
        Go on where a stopped run left off.

    Returns
    -------
    The adapted Stamp, on the CPU.

    Raises
    ------
    KeyError
        A table has no features.
    ValueError
        Features are of another model, the model is adapted already, or `output_dir` holds a run with other settings.

    Examples
    --------
    >>> stp.tl.tokenize(sdata, model)
    >>> stp.tl.embed_genes(sdata, model)
    >>> stp.tl.embed_images(sdata, model)
    >>> config = stp.train.AdaptConfig(epochs=1, batch_size=8)
    >>> adapted = stp.train.adapt(sdata, "runs/adapted", model=model, config=config, resume=False)
    >>> adapted.config.projection_width
    64
    """
    model = model if isinstance(model, Stamp) else Stamp.from_pretrained(model)
    if model.config.adapter_reduction is not None:
        raise ValueError("the model has adapters already; adapt the one that it was made from")
    if model.gene_encoder is None:
        raise ValueError(
            "the model was aligned with pathways alone; adapters need one that reads genes"
        )
    reps, of_model = {"patches": images_rep, "genes": genes_rep}, model.digest
    dataset = _features(open_references(reference, table_key), reps, of_model)
    held_out = open_references(validation, table_key, allow_none=True)
    adapted = adapted_from(model, config)
    train_on(
        dataset,
        _features(held_out, reps, of_model) if held_out else None,
        output_dir,
        make_task=lambda world: Adaptation(adapted, gather=world.gather),
        score=_recall,
        model=adapted,
        config=config,
        about={"stage": "adapt", "model": of_model},
        resume=resume,
    )
    return Stamp.from_pretrained(output_dir)


def adapted_from(model: Stamp, config: AdaptConfig) -> Stamp:
    """Return a Stamp with adapters and the weights of `model`, of which only adapters and projections are trained."""
    grown = replace(model.config, adapter_reduction=config.reduction)
    adapted = build_with_seed(config.seed, lambda: Stamp(grown, model.vocabulary))
    adapted.load_state_dict({**adapted.state_dict(), **model.state_dict()})
    adapted.card = model.card
    adapted.requires_grad_(False)
    for part in (
        adapted.patch_adapter,
        adapted.patch_projection,
        adapted.gene_adapter,
        adapted.gene_projection,
    ):
        if part is not None:
            part.requires_grad_(True)
    return adapted


def _features(tables: dict[str, Any], reps: dict[str, str], of_model: str) -> SpotArrays:
    for label, table in tables.items():
        for rep in reps.values():
            if rep not in table.obsm:
                raise KeyError(
                    f"obsm[{rep!r}] of {label} is missing; run {keys.maker_call(rep)} first"
                )
            made_by = model_of(table, rep)
            if made_by is not None and made_by["digest"] != of_model:
                raise ValueError(
                    f"obsm[{rep!r}] of {label} was made by {made_by['name']} ({made_by['digest'][:12]}), not by the "
                    "model to adapt; embed the spots with it"
                )
    arrays = {
        name: [np.concatenate(list(blocks([table.obsm[rep]]))) for table in tables.values()]
        for name, rep in reps.items()
    }
    return SpotArrays(list(tables), arrays)


def _recall(task: Adaptation, dataset: SpotArrays) -> dict[str, float]:
    """Return recall@1, 5 and 10 from patch to genes within each table, averaged over tables; score: @5."""
    device, found = next(task.parameters()).device, []
    for table in range(len(dataset.stores)):
        parts = [
            task.aligned({name: values.to(device) for name, values in batch.items()})
            for batch in dataset.of(table)
        ]
        if parts:
            patches, genes = (
                torch.cat(one).float().cpu().numpy() for one in zip(*parts, strict=True)
            )
            found.append(recall_at_k(patches, genes, RECALL_AT))
    scores = {f"recall@{k}": float(np.mean([one[k] for one in found])) for k in RECALL_AT}
    return {**scores, "score": scores["recall@5"]}
