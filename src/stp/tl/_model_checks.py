"""Whether a slide model predicts patients that it has never seen."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from stp._log import preview, warn
from stp.data.bag_file import read_source
from stp.models.device import inference
from stp.models.slide import SlideModel
from stp.tl._predict_slides import group_bags
from stp.tl._slide_models import require_fit
from stp.tl._slide_outputs import ExplainedOutput, predictions_p
from stp.train.slide_cohort import read_features

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

ADVICE = (
    "so q does not ask for it: a model of shuffled labels would have such genes too; pass patients "
    "with labels that the model has never seen, or of explain_slides a cross-validation"
)


def find_new(model: SlideModel, patients: Sequence[str]) -> np.ndarray:
    """Return which patients (n_patients,) a model has never seen; none if it has no record."""
    seen = set(model.config.patient_hashes)
    if not seen:
        return np.zeros(len(patients), bool)
    return np.array([value not in seen for value in model.hash_patients(patients)], bool)


def predictions_table(
    cohort: "AnnData",
    outputs: Sequence[ExplainedOutput],
    patients: Sequence[str],
    scores: np.ndarray,
    strata: np.ndarray,
) -> "pd.DataFrame":
    """Return a row per output: whether predictions of new patients rise with their labels.

    Parameters
    ----------
    cohort
        Table with a row per slide, and labels.
    outputs
        The outputs.
    patients
        Ids of the patients that their models have never seen.
    scores
        Value of each output (n_patients, n_outputs).
    strata
        Number of the models that predicted them (n_patients,).
    """
    tests = [
        predictions_p(cohort, output, patients, scores[:, number], strata)
        for number, output in enumerate(outputs)
    ]
    return _as_table(outputs, tests)


def check_cohort(
    cohort: "AnnData | None",
    outputs: Sequence[ExplainedOutput],
    model: SlideModel,
    device: str | None,
) -> "pd.DataFrame":
    """Predict the new patients of a cohort, and return the table of `predictions_table`."""
    if cohort is None:
        return _as_table(outputs, [(np.nan, 0, "there is no cohort")] * len(outputs))
    bags = group_bags(cohort)
    require_fit([model], read_features(cohort))
    is_new = find_new(model, list(bags))
    patients = [patient for patient, new in zip(bags, is_new, strict=True) if new]
    scores = np.zeros((len(patients), len(outputs)))
    weights = np.column_stack([output.weights for output in outputs])
    with inference(model, device, "fp32") as torch_device:
        for number, patient in enumerate(patients):
            features = np.concatenate([read_source(source) for source in bags[patient]])
            bag = torch.from_numpy(features).to(torch_device)
            logits = model(bag, torch.tensor([0, len(bag)]))[0]
            scores[number] = logits.double().cpu().numpy() @ weights
    strata = np.zeros(len(patients), int)
    return predictions_table(cohort, outputs, patients, scores, strata)


def _as_table(
    outputs: Sequence[ExplainedOutput], tests: Sequence[tuple[float, int, str]]
) -> "pd.DataFrame":
    """Return the tests as a table, and warn of those that could not be made."""
    import pandas as pd

    rows = [
        {
            "target": output.target.name,
            "output": output.label,
            "p": p,
            "n_patients": n_patients,
            "note": note,
        }
        for output, (p, n_patients, note) in zip(outputs, tests, strict=True)
    ]
    untested = [f"{row['output']}: {row['note']}" for row in rows if row["note"]]
    if untested:
        warn(f"nothing shows that the model predicts anything ({preview(untested)}), {ADVICE}")
    table = pd.DataFrame(rows)
    table.index = table.index.astype(str)
    return table
