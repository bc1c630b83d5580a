"""Scores of predicted slides."""

import numpy as np
from tests.bad_input.case import refused

import stp


@refused(KeyError, r"uns\['stp_slides'\] is missing; run stp\.tl\.predict_slides")
def slides_are_not_predicted(cohort):
    """Scores compare labels with predictions of patients, and there is no prediction.

    Run {func}`stp.tl.predict_slides` first.
    """
    stp.tl.score_slides(cohort)


@refused(KeyError, "the cohort has no labels to score: obs lacks EGFR")
def a_predicted_cohort_has_no_labels(predicted):
    """The column that the model predicts is not in the cohort, so nothing can be scored.

    Read the cohort with a clinical table that has it: `stp.io.read_cohort(slides, clinical=)`.
    """
    del predicted.obs["EGFR"]
    stp.tl.score_slides(predicted)


@refused(ValueError, "no patient has both a label in obs.*and a prediction in obsm")
def no_patient_has_a_label_and_a_prediction(predicted):
    """All patients have a label or a prediction, and none has both.

    Check that names of classes are those of the training, and predict the patients with labels.
    """
    predicted.obs["EGFR"] = None
    stp.tl.score_slides(predicted)


@refused(KeyError, "patients were predicted by models of folds; pass fold_key=")
def folds_of_a_cross_validation_are_lost(predicted):
    """Each patient was predicted by the model of its fold, and scores are means over folds.

    Pass `fold_key=`, the column that {func}`stp.train.cross_validate_slides` used.
    """
    del predicted.obs["stp_fold"]
    stp.tl.score_slides(predicted)


@refused(ValueError, "the slides of patient .* have different predictions")
def slides_of_a_patient_have_different_predictions(predicted):
    """A patient has one prediction. The values of its slides were changed.

    Run {func}`stp.tl.predict_slides` again, which gives all slides the value of the patient.
    """
    predicted.obsm["stp_slides"][0] = 0.5
    stp.tl.score_slides(predicted)


@refused(ValueError, "with only one of the predictions 'stp_slides' and 'other'")
def predictions_of_other_patients_are_compared(predicted):
    """A paired comparison needs both predictions of each patient.

    Predict the same cohort with both models.
    """
    for slot in (predicted.obsm, predicted.uns, predicted.obs):
        slot["other"] = slot["stp_slides"].copy()
    predicted.obs["other_models"] = 1
    predicted.obsm["other"][predicted.obs["patient"] == "P000"] = np.nan
    stp.tl.compare_slides(predicted, ["stp_slides", "other"])


@refused(ValueError, "does not have the curve 'kaplan_meier'|it needs a target of survival")
def survival_of_classes_is_drawn(predicted):
    """Kaplan-Meier curves need times and events. The target is of classes.

    Draw {func}`stp.pl.roc`, or train with {class}`stp.train.Survival`.
    """
    stp.tl.score_slides(predicted, n_resamples=10)
    stp.pl.kaplan_meier(predicted)
