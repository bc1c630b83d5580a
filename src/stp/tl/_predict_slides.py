"""Predict patients from the tiles of all their slides, only by models that never saw them."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp._log import count, preview, warn
from stp.models.device import choose_device, choose_precision, inference
from stp.models.slide import SlideModel
from stp.models.slide_config import SlideModelConfig, SlideTarget
from stp.tables import keys
from stp.tables.cohort import BagSource, bag_sources, class_names, patient_labels
from stp.tables.embeddings import require_finite
from stp.tables.table import record, table_to_annotate
from stp.tl._embed_shared import model_record
from stp.tl._slide_models import (
    AnyModel,
    find_odd_bags,
    find_unseen,
    open_slide_models,
    require_fit,
)
from stp.tl._slide_predictions import SlidePredictions, mean_thresholds, predict_bags
from stp.train.slide_cohort import read_features

if TYPE_CHECKING:
    from anndata import AnnData

MAX_FAR = 0.05  # share of far slides from which on a warning says so


def predict_slides(
    cohort: "AnnData",
    models: AnyModel | Sequence[AnyModel],
    *,
    device: str | None = None,
    precision: str = "auto",
    progress: bool = True,
    key_added: str = keys.SLIDES,
    copy: bool = False,
) -> "AnnData | None":
    """Predict each patient from the tiles of all slides, by models that have never seen it.

    A patient of a cross-validation is predicted by the one model that did not read it, and a new
    patient by all models, whose predictions are averaged. All slides of a patient get its values.

    Parameters
    ----------
    cohort
        Table with a row per slide, made by :func:`stp.io.read_cohort`.
    models
        A slide model, the `output_dir` of :func:`stp.train.fit_slides` or
        :func:`stp.train.cross_validate_slides`, or a list of these.
    device
        Torch device; by default that of `stp.settings`, or a GPU if there is one.
    precision
        "auto" (bf16 on a GPU, fp32 on a CPU), "bf16" or "fp32".
    progress
        Show a progress bar, or lines of the log if there is no terminal.
    key_added
        Name under which the results are stored.
    copy
        Return an annotated copy of the table instead of annotating it.

    Returns
    -------
    `None` if `copy=False`, else the annotated table. Sets the following fields:

    `cohort.obsm['stp_slides' | key_added]` : (n_slides, n_outputs) float32
        Probability of each class after temperature, value in the units of the training, or risk
        (the negative sum of the survival over the intervals: higher is worse).
    `cohort.obsm['stp_slides_uncalibrated' | key_added + '_uncalibrated']` : float32
        The same before the temperature.
    `cohort.obs['stp_slides' | key_added]` : category
        Predicted class: the positive one from its threshold on, or else the most probable one. With
        several targets, `stp_slides_<target>` for each target of classes.
    `cohort.obs['stp_slides_threshold' | ...]` : float
        Threshold of the positive class, or median risk of the training patients: the mean over the
        models that predicted the slide.
    `cohort.obs['stp_slides_models' | key_added + '_models']` : int
        Number of models that predicted the slide.
    `cohort.obs['stp_slides_far' | key_added + '_far']` : bool
        Whether the slide is far from the training slides of most of these models.
    `cohort.obsm['X_stp_slides' | 'X_' + key_added]` : (n_slides, n_targets * hidden) float32
        Pooled vector of the patient; only if one model predicted all slides, because vectors of
        different models cannot be compared.
    `cohort.uns['stp_slides' | key_added]` : dict
        `params`; `outputs`, the names of the predictions; `columns` of `obs`; `targets`; `models`,
        their names and digests; `checks` of the cohort; `pooled`, a note on the pooled vectors;
        `version` of stp.

    Raises
    ------
    KeyError
        The table is no cohort.
    FileNotFoundError
        Features are no longer at their path, or a folder has no model.
    ValueError
        A patient was seen by all models; features have another model, width or scale than those of
        the training; a bag is empty; slides have the same features; or models do not fit together.

    Examples
    --------
    >>> config = stp.train.SlideConfig(epochs=2, hidden=16, attention=8)
    >>> target = stp.train.Classes("EGFR", positive="mutated")
    >>> stp.tl.assign_folds(cohort, "EGFR", n_folds=2)
    >>> models = stp.train.cross_validate_slides(cohort, "runs/cv", targets=target, config=config)
    >>> stp.tl.predict_slides(cohort, "runs/cv")
    >>> cohort.obs["stp_slides_models"].tolist()[:3]
    [1, 1, 1]
    """
    cohort = table_to_annotate(cohort, keys.TABLE, copy)
    slide_models = open_slide_models(models)
    config = slide_models[0].config
    names = _name_labels(config, key_added)
    bags = group_bags(cohort)
    require_fit(slide_models, read_features(cohort))
    is_unseen = find_unseen(slide_models, list(bags))
    checks = _check_cohort(cohort, slide_models, bags)
    with ExitStack() as stack:
        for model in slide_models:
            stack.enter_context(inference(model, device, precision))
        predictions = predict_bags(bags, slide_models, is_unseen, is_shown=progress)
    torch_device = choose_device(device)
    require_finite(
        predictions.values,
        np.arange(len(bags)),
        f"predictions in {choose_precision(torch_device, precision)}",
        "check the models, or predict in fp32",
    )
    n_far = sum(predictions.is_far.values())
    checks["n_far_slides"] = n_far
    if n_far > MAX_FAR * len(predictions.is_far):
        warn(
            f"{n_far} of {count(len(predictions.is_far), 'slide')} are far from the training "
            f"slides (obs[{keys.far(key_added)!r}]): their predictions say little; likely causes: "
            "another stain, scanner or tissue, or features of other tiles"
        )
    columns = _write(cohort, key_added, slide_models, bags, is_unseen, predictions, names)
    only_model = slide_models[0] if len(slide_models) == 1 else None
    note = "of one model" if only_model else "left out: vectors of several models do not compare"
    record(
        cohort,
        key_added,
        {"precision": precision},
        outputs=list(config.columns),
        columns=columns,
        targets={target.name: _describe(target) for target in config.targets},
        models={
            "names": [model.name for model in slide_models],
            "digests": [model.digest for model in slide_models],
        },
        checks=checks,
        pooled=note,
    )
    if only_model is not None:
        params = {"precision": precision}
        record(cohort, keys.pooled(key_added), params, model=model_record(only_model))
    return cohort if copy else None


def group_bags(cohort: "AnnData") -> dict[str, list[BagSource]]:
    """Return the slides of each patient that have tiles.

    Raises
    ------
    ValueError
        Slides have one file, or a patient has no tile.
    """
    sources = bag_sources(cohort)
    by_path: dict[Path, str] = {}
    for source in sources:
        path = source.path.resolve()
        if path in by_path:
            raise ValueError(
                f"slides {by_path[path]!r} and {source.slide!r} have one feature file, {path}; "
                "give each its own, or leave one out"
            )
        by_path[path] = source.slide
    bags: dict[str, list[BagSource]] = {source.patient: [] for source in sources}
    for source in sorted(sources, key=lambda source: source.slide):
        bags[source.patient].append(source)
    empty = [patient for patient, bag in bags.items() if not sum(s.n_tiles for s in bag)]
    if empty:
        raise ValueError(
            f"{count(len(empty), 'patient')} have no tile: {preview(empty)}; leave them out, or "
            "extract features of their slides"
        )
    return bags


def _check_cohort(
    cohort: "AnnData", models: Sequence[SlideModel], bags: dict[str, list[BagSource]]
) -> dict[str, Any]:
    """Warn of bags and labels that the models do not know, and return what was found."""
    sizes = np.array([sum(source.n_tiles for source in bag) for bag in bags.values()])
    is_odd = find_odd_bags(models, sizes)
    unknown: dict[str, list[str]] = {}
    for target in models[0].config.targets:
        if target.kind == "classes" and target.name in cohort.obs:
            labels = set(class_names(patient_labels(cohort, target.name)).dropna())
            others = sorted(labels - set(target.classes))
            if others:
                unknown[target.name] = others
                warn(
                    f"obs[{target.name!r}] has labels that the models do not know: "
                    f"{preview(others)}; they know {', '.join(target.classes)}"
                )
    return {
        "n_patients": len(bags),
        "n_bags_out_of_range": int(is_odd.sum()),
        "are_patients_checked": all(bool(model.config.patient_hashes) for model in models),
        "unknown_labels": unknown,
    }


def _write(
    cohort: "AnnData",
    key: str,
    models: Sequence[SlideModel],
    bags: dict[str, list[BagSource]],
    is_unseen: np.ndarray,
    predictions: SlidePredictions,
    names: dict[str, str],
) -> list[str]:
    """Write the values of the patient to all its slides, and return the columns of `obs`.

    What an earlier call wrote is deleted.
    """
    import pandas as pd

    earlier = cohort.uns.get(key, {}).get("columns", ())
    for column in [name for name in earlier if name in cohort.obs]:
        del cohort.obs[column]
    cohort.obsm.pop(keys.pooled(key), None)
    cohort.uns.pop(keys.pooled(key), None)
    rows = {patient: number for number, patient in enumerate(bags)}
    number_of = cohort.obs[keys.PATIENT].astype(str).map(rows).to_numpy()
    cohort.obsm[key] = predictions.values[number_of]
    cohort.obsm[keys.uncalibrated(key)] = predictions.uncalibrated[number_of]
    if len(predictions.pooled):
        cohort.obsm[keys.pooled(key)] = predictions.pooled[number_of]
    columns_before = set(cohort.obs)
    cohort.obs[keys.n_models(key)] = is_unseen.sum(axis=1)[number_of]
    slides = cohort.obs[keys.SLIDE_ID].astype(str)
    cohort.obs[keys.far(key)] = slides.map(predictions.is_far).to_numpy(dtype=bool)
    first = 0
    for number, target in enumerate(models[0].config.targets):
        columns = predictions.values[:, first : first + len(target.columns)]
        first += len(target.columns)
        thresholds = mean_thresholds([model.config.targets[number] for model in models], is_unseen)
        if thresholds is not None:
            cohort.obs[keys.threshold(names[target.name])] = thresholds[number_of]
        if target.kind != "classes":
            continue
        codes = columns.argmax(axis=1)
        if target.positive is not None:
            positive = target.classes.index(target.positive)
            codes = np.where(columns[:, positive] >= thresholds, positive, 1 - positive)
        cohort.obs[names[target.name]] = pd.Categorical.from_codes(
            codes[number_of], list(target.classes)
        )
    return [name for name in cohort.obs if name not in columns_before]


def _name_labels(config: SlideModelConfig, key: str) -> dict[str, str]:
    """Return the column of the class, or the stem of the threshold, by name of the target."""
    targets = [target for target in config.targets if target.kind != "value"]
    names = {target.name: keys.label(key, target.name, len(config.targets)) for target in targets}
    others = {keys.far(key), keys.n_models(key), *map(keys.threshold, names.values())}
    clashes = [target for target, name in names.items() if name in others]
    if clashes:
        raise ValueError(
            f"the column of the target {preview(clashes)} would have the name of another result; "
            "rename the target in the cohort, and train again"
        )
    return names


def _describe(target: SlideTarget) -> dict[str, Any]:
    """Return the entries of a target that its kind has."""
    entries: dict[str, Any] = {"kind": target.kind}
    if target.kind == "classes":
        entries |= {"classes": list(target.classes), "positive": target.positive or ""}
    if target.kind == "survival":
        entries |= {"event": target.event}
    return entries
