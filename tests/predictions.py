"""Cohorts with predictions as `stp.tl.predict_slides` writes them, without a model."""

import anndata
import numpy as np
import pandas as pd
from scipy.special import softmax


def make_cohort(n_patients=60, n_folds=3, n_slides=2, seed=0):
    """Return a cohort of patients with folds, without labels or predictions."""
    names = [f"P{number:03d}" for number in range(n_patients)]
    obs = pd.DataFrame(
        {
            "patient": np.repeat(names, n_slides),
            "slide": [f"{name}-{slide}" for name in names for slide in range(n_slides)],
            "stp_fold": np.repeat(np.arange(n_patients) % max(n_folds, 1), n_slides),
        }
    )
    obs.index = obs["slide"].to_numpy(dtype=object)
    shuffled = obs.sample(frac=1, random_state=seed)
    return anndata.AnnData(obs=shuffled)


def per_slide(cohort, values):
    """Return values of patients (n_patients, ...) in the order of the slides."""
    number = cohort.obs["patient"].astype(str).str[1:].astype(int).to_numpy()
    return np.asarray(values)[number]


def write(cohort, key, targets, outputs, names, n_models=1, n_all=3):
    """Write the slots that all predictions have; outputs are a row per patient."""
    cohort.obsm[key] = per_slide(cohort, outputs).astype(np.float32)
    cohort.obs[f"{key}_models"] = n_models
    digests = [f"model {number}" for number in range(n_all)]
    cohort.uns[key] = {
        "params": {},
        "outputs": names,
        "targets": targets,
        "models": {"names": digests, "digests": digests},
    }


def add_classes(
    cohort, codes, probabilities, *, classes, positive="", key="stp_slides", threshold=0.4, **models
):
    """Write labels and predicted classes of the target "EGFR"; codes of -1 are no label."""
    labels = np.array([*classes, None], dtype=object)[np.asarray(codes)]
    cohort.obs["EGFR"] = per_slide(cohort, labels)
    targets = {"EGFR": {"kind": "classes", "classes": list(classes), "positive": positive}}
    write(cohort, key, targets, probabilities, [f"EGFR_{name}" for name in classes], **models)
    predicted = np.argmax(probabilities, axis=1)
    if positive:
        number = list(classes).index(positive)
        predicted = np.where(probabilities[:, number] >= threshold, number, 1 - number)
        cohort.obs[f"{key}_threshold"] = threshold
    column = pd.Categorical.from_codes(per_slide(cohort, predicted), list(classes))
    cohort.obs[key] = column
    return cohort


def binary_cohort(n_patients=60, n_folds=3, seed=0, signal=1.0, **options):
    """Return a cohort with a positive class, whose probabilities follow it by a signal."""
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.arange(n_patients) % 5 < 2).astype(int)  # 0 is the positive class
    logits = rng.normal(size=n_patients) + signal * (2 * codes - 1)
    probabilities = softmax(np.stack([np.zeros(n_patients), logits], axis=1), axis=1)
    cohort = make_cohort(n_patients, n_folds, seed=seed)
    classes = ("mutated", "wild type")
    add_classes(cohort, codes, probabilities, classes=classes, positive="mutated", **options)
    return cohort, codes == 0, probabilities[:, 0].astype(np.float32).astype(float)


def survival_cohort(n_patients=90, n_folds=3, seed=0, **models):
    """Return a cohort whose risk goes with early events; the median risk of the training is 0."""
    rng = np.random.default_rng(seed)
    risks = np.round(rng.normal(size=n_patients), 2)
    times = np.ceil(rng.exponential(400 * np.exp(-risks)))
    limits = np.ceil(rng.exponential(700, n_patients))
    cohort = make_cohort(n_patients, n_folds, seed=seed)
    observed = np.minimum(times, limits)
    events = times <= limits
    cohort.obs["os_days"] = per_slide(cohort, observed)
    cohort.obs["os_event"] = per_slide(cohort, events.astype(int))
    targets = {"os_days": {"kind": "survival", "event": "os_event"}}
    write(cohort, "stp_slides", targets, risks[:, None], ["os_days: risk"], **models)
    cohort.obs["stp_slides_threshold"] = 0.0
    return cohort, observed, events, risks.astype(np.float32).astype(float)
