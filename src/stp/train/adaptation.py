"""Adapt a Stamp to new slides by adapters on its frozen encoders (paper, section A.3.3)."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stp.metrics import recall_at_k
from stp.models.device import build_with_seed
from stp.models.stamp import Stamp
from stp.tables import keys
from stp.tables.embeddings import read_blocks
from stp.tables.provenance import model_of
from stp.tables.references import open_references
from stp.train.frozen import SpotArrays, train_on
from stp.train.frozen_config import AdaptConfig
from stp.train.store_lists import TRAIN, StoreLists
from stp.train.tasks import Adaptation
from stp.train.validation import RECALL_AT

if TYPE_CHECKING:
    from anndata import AnnData


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
    """Adapt a Stamp to slides of a new kind (paper, A.3.3).

    Adapters and projections are trained, and both encoders stay as they are. The patch-gene loss
    pulls image and genes of each spot together. The adapted Stamp has the features of `model`, but
    other aligned vectors: embed queries and references again with it, or pass features to its
    `encode_images` and `encode_genes`.

    Parameters
    ----------
    reference
        Spots whose images and genes were embedded by `model`: a table, a SpatialData, the path of
        one on disk, several of these, or a collection of :func:`stp.io.read_collection`.
    output_dir
        Run directory, which has the files that :func:`stp.train.align` writes.
    model
        The Stamp to adapt, or its folder.
    config
        Settings of the training.
    validation
        Embedded spots of other slides. The epoch with the highest recall@5 is kept, and training
        stops when it no longer rises. Without them the last epoch is kept.
    images_rep
        Name of the image features in `obsm`.
    genes_rep
        Name of the gene features in `obsm`.
    table_key
        Name of the table in a SpatialData.
    resume
        Continue a run that was stopped; the result is that of a run without a stop.

    Returns
    -------
    The adapted Stamp, on the CPU.

    Raises
    ------
    KeyError
        If a table has no features.
    ValueError
        If features come from another model, if the model is adapted already, or if `output_dir` has
        a run with other settings.

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
    if not isinstance(model, Stamp):
        model = Stamp.from_pretrained(model)
    if model.config.adapter_reduction is not None:
        raise ValueError("the model has adapters already; adapt the one that it was made from")
    if model.gene_encoder is None:
        raise ValueError(
            "the model was aligned with pathways alone; adapters need one that reads genes"
        )
    digest = model.digest
    reps = {"patches": images_rep, "genes": genes_rep}
    lists = StoreLists.choose(reference, validation)
    training_tables = open_references(lists.stores, table_key)
    dataset = _read_features(training_tables, reps, digest)
    validation_tables = open_references(lists.validation, table_key, allow_none=True)
    lists.check_patients(training_tables, validation_tables)
    adapted = adapted_from(model, config)
    train_on(
        dataset,
        _read_features(validation_tables, reps, digest) if validation_tables else None,
        output_dir,
        make_task=lambda processes: Adaptation(adapted, gather=processes.gather),
        score=_recall,
        model=adapted,
        config=config,
        inputs={"stage": "adapt", "model": digest, **lists.record()},
        resume=resume,
        origin=lists.origin(TRAIN),
    )
    return Stamp.from_pretrained(output_dir)


def adapted_from(model: Stamp, config: AdaptConfig) -> Stamp:
    """Return a Stamp with new adapters and the weights of `model`.

    Only its adapters and the projections of patches and genes can be trained.
    """
    adapted_config = replace(model.config, adapter_reduction=config.reduction)
    adapted = build_with_seed(config.seed, lambda: Stamp(adapted_config, model.vocabulary))
    adapted.load_state_dict({**adapted.state_dict(), **model.state_dict()})
    adapted.card = model.card
    adapted.requires_grad_(False)
    trained_parts = (
        adapted.patch_adapter,
        adapted.patch_projection,
        adapted.gene_adapter,
        adapted.gene_projection,
    )
    for part in trained_parts:
        if part is not None:
            part.requires_grad_(True)
    return adapted


def _read_features(tables: dict[str, "AnnData"], reps: dict[str, str], digest: str) -> SpotArrays:
    """Read the features of tables, and check that the model with this digest made them."""
    for label, table in tables.items():
        for rep in reps.values():
            _check_features(table, label, rep, digest)
    arrays = {name: _read_blocks(tables, rep) for name, rep in reps.items()}
    return SpotArrays(list(tables), arrays)


def _read_blocks(tables: dict[str, "AnnData"], rep: str) -> list[np.ndarray]:
    """Return the features of each table (n_obs, d)."""
    return [
        np.concatenate(list(read_blocks(table.obsm[rep], f"obsm[{rep!r}] of {label}")))
        for label, table in tables.items()
    ]


def _check_features(table: "AnnData", label: str, rep: str, digest: str) -> None:
    if rep not in table.obsm:
        raise KeyError(f"obsm[{rep!r}] of {label} is missing; run {keys.maker_call(rep)} first")
    record = model_of(table, rep)
    if record is not None and record["digest"] != digest:
        raise ValueError(
            f"obsm[{rep!r}] of {label} was made by {record['name']} ({record['digest'][:12]}), not "
            "by the model to adapt; embed the spots with it"
        )


@torch.inference_mode()
def _recall(task: Adaptation, dataset: SpotArrays) -> dict[str, float]:
    """Return recall@1, 5 and 10 from patch to genes within each table, averaged over tables.

    The score is recall@5.
    """
    device = next(task.parameters()).device
    recalls = []
    for table in range(len(dataset.names)):
        patches = []
        genes = []
        for batch in dataset.batches_of(table):
            on_device = {name: values.to(device) for name, values in batch.items()}
            batch_patches, batch_genes = task.aligned(on_device)
            patches.append(batch_patches)
            genes.append(batch_genes)
        if patches:
            recalls.append(recall_at_k(_to_numpy(patches), _to_numpy(genes), RECALL_AT))
    scores = {f"recall@{k}": float(np.mean([recall[k] for recall in recalls])) for k in RECALL_AT}
    return {**scores, "score": scores["recall@5"]}


def _to_numpy(parts: list[torch.Tensor]) -> np.ndarray:
    return torch.cat(parts).float().cpu().numpy()
