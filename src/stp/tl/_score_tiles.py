"""Score tiles: their attention, and what each adds to the prediction of a slide model."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from stp._log import warn
from stp.models.device import inference
from stp.models.slide import SlideModel
from stp.models.slide_attention import TileScores
from stp.models.slide_config import SlideModelConfig, SlideTarget
from stp.tables import keys
from stp.tables.embeddings import require_finite
from stp.tables.table import record, table_to_annotate
from stp.tl._embed_shared import model_record
from stp.tl._slide_models import AnyModel, find_odd_bags, open_slide_model
from stp.tl._tile_bag import SlideTiles, read_bag

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from spatialdata import SpatialData


def score_tiles(
    adata: "AnnData | SpatialData",
    model: AnyModel,
    *,
    other_slides: Any = (),
    use_rep: str | None = None,
    device: str | None = None,
    table_key: str = "table",
    key_added: str = keys.ATTENTION,
    copy: bool = False,
) -> "AnnData | None":
    """Score each tile of a slide: its attention, and what it adds to each output of a slide model.

    The contributions are exact: with the bias they sum to the logit of the prediction, because the
    head of a slide model is linear. They are computed in fp32. Attention sums to one over all
    slides of the patient, so pass the others as `other_slides`.

    Parameters
    ----------
    adata
        Table of the tiles of a slide, with the features that the model was trained on; or measured
        spots with aligned vectors of the same model.
    model
        A slide model, or the `output_dir` of :func:`stp.train.fit_slides`. For a patient of a
        cross-validation, it is the model of the fold in which the patient was the test, such as
        `runs/cv/fold_0`: that is the model of the prediction.
    other_slides
        The remaining slides of the same patient: tables, SpatialData, or paths of tile stores and
        feature files. They may be in any order.
    use_rep
        Name of the features in `obsm`. By default it is found by the model that made them.
    device
        Torch device; by default that of `stp.settings`, or a GPU if there is one.
    table_key
        Name of the table in a SpatialData.
    key_added
        Name under which the results are stored.
    copy
        Return an annotated copy of the table instead of annotating it.

    Returns
    -------
    `None` if `copy=False`, else the annotated table. Tiles without features have NaN. Sets the
    following fields:

    `table.obs['stp_attention' | key_added]` : float32
        Attention, which sums to one over all slides of the patient. With several targets there is
        one for each, `stp_attention_<target>`.
    `table.obs['stp_attention_rank' | ...]` : float32
        Rank of the attention in this slide, from 0 (lowest) to 1 (highest).
    `table.obsm['stp_attention_contribution' | key_added + '_contribution']` : (n, n_outputs)
        Contribution of each tile to each logit. Over the patient, contributions and bias sum to
        the logit.
    `table.uns['stp_attention' | key_added]` : dict
        `params`; `outputs`, a row per logit with its `bias`, the `logit` of the patient, and the
        `scale` by which a logit becomes log-odds after the temperature, or the units of a value;
        `predictions` of the patient, as of :func:`stp.tl.predict_slides`; `columns` of `obs`;
        `n_slides` and `n_tiles` of the patient; `model`; `version` of stp.

    Raises
    ------
    FileNotFoundError
        There is no model in the folder, or no store at a path.
    KeyError
        The features are missing.
    TypeError
        `model` is not one slide model, or `adata` is a path.
    ValueError
        The model has pooling="transformer", which has no contributions; `model` is a
        cross-validation of several models; features have another model, width or scale than those
        of the training; it is not clear which features are meant; or a slide is there twice.

    Examples
    --------
    >>> config = stp.train.SlideConfig(epochs=2, hidden=16, attention=8)
    >>> target = stp.train.Classes("EGFR", positive="mutated")
    >>> slide_model = stp.train.fit_slides(cohort, "runs/map", targets=target, config=config)
    >>> tiles = stp.io.read_features("features/P0.h5")
    >>> stp.tl.score_tiles(tiles, slide_model, other_slides="features/extra.h5")
    >>> list(tiles["table"].uns["stp_attention"]["outputs"].index)
    ['EGFR_mutated', 'EGFR_wild type']
    """
    if isinstance(adata, str | Path):
        raise TypeError(
            f"scores need a table in memory, and adata is the path {adata}; open it with "
            "spatialdata.read_zarr or stp.io.read_features"
        )
    table = table_to_annotate(adata, table_key, copy)
    slide_model = open_slide_model(model)
    config = slide_model.config
    if config.pooling == "transformer":
        raise ValueError(
            f"{slide_model.name or 'the slide model'} has pooling='transformer', whose logits are "
            "no sum over tiles, so tiles have no contributions; train one with pooling='attention'"
        )
    columns = _name_columns(config, key_added)
    rep, slides = read_bag(adata, table, other_slides, slide_model, use_rep, table_key)
    n_tiles = sum(len(slide.features) for slide in slides)
    find_odd_bags([slide_model], np.array([n_tiles]))
    with inference(slide_model, device, "fp32") as torch_device:
        features = np.concatenate([slide.features for slide in slides])
        bag = torch.from_numpy(features).to(torch_device)
        scores = slide_model.explain(bag, torch.tensor([0, n_tiles]))
        predictions = slide_model.to_predictions(scores.logits)[0].cpu().numpy()
        _warn_if_far(slide_model, slides, torch_device)
    contributions = scores.contributions.cpu().numpy()
    title = "contributions of tiles"
    require_finite(contributions, np.arange(n_tiles), title, "check the weights of the model")
    _write(table, key_added, columns, slides[0].has_features, scores)
    record(
        table,
        key_added,
        {"use_rep": rep, "n_other_slides": len(slides) - 1},
        outputs=_describe_outputs(slide_model, scores.logits[0].cpu().numpy()),
        predictions=_name_predictions(config, predictions),
        columns=[*columns, *map(keys.rank, columns)],
        n_slides=len(slides),
        n_tiles=n_tiles,
        model=model_record(slide_model),
    )
    return table if copy else None


def _name_columns(config: SlideModelConfig, key: str) -> list[str]:
    """Return the column of the attention of each target."""
    columns = [keys.label(key, target.name, len(config.targets)) for target in config.targets]
    names = [*columns, *map(keys.rank, columns)]
    if len(set(names)) < len(names):
        raise ValueError(
            f"attention and ranks of targets would have the same columns: {sorted(names)}; rename "
            "the target in the cohort, and train again"
        )
    return columns


def _warn_if_far(model: SlideModel, slides: list[SlideTiles], device: torch.device) -> None:
    """Warn if a slide is far from the training slides."""
    cut = model.config.far_distance
    if cut is None:
        return
    for slide in slides:
        if not len(slide.features):
            continue
        mean = slide.features.mean(axis=0, dtype=np.float32)
        distance = model.measure_distances(torch.from_numpy(mean[None]).to(device))
        if float(distance) > cut:
            warn(
                f"{slide.label} is far from the training slides, so its prediction and its map "
                "say little; likely causes: another stain, scanner or tissue"
            )


def _write(
    table: "AnnData", key: str, columns: list[str], has_features: np.ndarray, scores: TileScores
) -> None:
    """Write the scores of the tiles of the table, which are the first of the bag.

    What an earlier call wrote is deleted.
    """
    from scipy.stats import rankdata

    earlier = table.uns.get(key, {}).get("columns", ())
    for column in [name for name in earlier if name in table.obs]:
        del table.obs[column]
    n_rows = int(has_features.sum())
    attention = scores.attention[:n_rows].cpu().numpy()
    for column, weights in zip(columns, attention.T, strict=True):
        values = np.full(table.n_obs, np.nan, np.float32)
        values[has_features] = weights
        table.obs[column] = values
        ranks = np.full(table.n_obs, np.nan, np.float32)
        ranks[has_features] = (rankdata(weights) - 1) / max(n_rows - 1, 1)
        table.obs[keys.rank(column)] = ranks
    contributions = np.full((table.n_obs, scores.contributions.shape[1]), np.nan, np.float32)
    contributions[has_features] = scores.contributions[:n_rows].cpu().numpy()
    table.obsm[keys.contribution(key)] = contributions


def _describe_outputs(model: SlideModel, logits: np.ndarray) -> "pd.DataFrame":
    """Return a row per logit: what it is of, its bias, its value, and its unit."""
    import pandas as pd

    rows = []
    names = []
    for target in model.config.targets:
        labels = _label_outputs(target)
        names += [f"{target.name}_{label}" if label else target.name for label in labels]
        scale = 1 / target.temperature if target.kind == "classes" else 1.0
        if target.kind == "value":
            scale = target.value_sd
        rows += [
            {
                "target": target.name,
                "kind": target.kind,
                "label": label,
                "positive": target.kind == "classes" and label == target.positive,
                "scale": scale,
            }
            for label in labels
        ]
    outputs = pd.DataFrame(rows, index=names)
    biases = [cast(torch.nn.Linear, head).bias.detach().cpu() for head in model.heads]
    outputs["bias"] = torch.cat(biases).numpy()
    outputs["logit"] = logits
    return outputs


def _label_outputs(target: SlideTarget) -> list[str]:
    """Return what each output of a target is of: a class, or an interval of times."""
    if target.kind == "classes":
        return list(target.classes)
    if target.kind == "value":
        return [""]
    edges = [f"{edge:g}" for edge in target.edges]
    middle = [f"{low} to {high}" for low, high in zip(edges, edges[1:], strict=False)]
    return [f"before {edges[0]}", *middle, f"from {edges[-1]}"]


def _name_predictions(config: SlideModelConfig, predictions: np.ndarray) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame({"value": predictions}, index=list(config.columns))
