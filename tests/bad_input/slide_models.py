"""Slide models."""

from tests.bad_input.case import refused

import stp

SMALL = stp.train.SlideConfig(epochs=1, hidden=8, attention=4)
EGFR = stp.train.Classes("EGFR", positive="mutated")


@refused(KeyError, r"no column obs\['EFGR'\]; did you mean 'EGFR'\?")
def a_target_is_no_column(cohort):
    """The cohort has no column of this name.

    Use the name in the error, or add the column to the clinical table.
    """
    stp.train.fit_slides(cohort, "run", targets=stp.train.Classes("EFGR"))


@refused(ValueError, r"obs\['days'\] has 12 different numbers; use stp.train.Value\('days'\)")
def numbers_are_given_as_classes(cohort):
    """A column of many numbers is probably a measurement, not a class.

    Predict it with `stp.train.Value`, or list the `classes`.
    """
    stp.train.fit_slides(cohort, "run", targets=stp.train.Classes("days"))


@refused(ValueError, r"obs\['EGFR'\] has too few training patients: 'amplified' 1, 'mutated' 6")
def a_class_has_one_patient(cohort):
    """One patient cannot both train the model and validate it.

    Merge the class with another one, or remove its label.
    """
    cohort.obs["EGFR"] = cohort.obs["EGFR"].where(cohort.obs["patient"] != "P1", "amplified")
    stp.train.fit_slides(cohort, "run", targets=stp.train.Classes("EGFR"))


@refused(ValueError, r"obs\['event'\] has 'dead' for patient P2, which is no finite number")
def an_event_is_a_word(cohort):
    """Words for an observed event differ between hospitals, so they are not guessed.

    Write 1 or True if the event was observed, and 0 or False if not.
    """
    cohort.obs["event"] = cohort.obs["event"].map({0: None, 1: "dead"})
    stp.train.fit_slides(cohort, "run", targets=stp.train.Survival("days", "event"))


@refused(ValueError, r"obs\['days'\] is 0 for patient P3; times must be positive")
def a_survival_time_is_zero(cohort):
    """A time of zero has no place in an interval. It often stands for a missing date.

    Correct the time, or remove both time and event of the patient.
    """
    cohort.obs["days"] = cohort.obs["days"].where(cohort.obs["patient"] != "P3", 0)
    stp.train.fit_slides(cohort, "run", targets=stp.train.Survival("days", "event"))


@refused(KeyError, r"obs\['stp_fold'\] is missing; run stp.tl.assign_folds")
def a_cross_validation_without_folds(cohort):
    """Folds are a column of the cohort, so that all models have the same.

    Call {func}`stp.tl.assign_folds` first.
    """
    stp.train.cross_validate_slides(cohort, "cv", targets=EGFR)


@refused(ValueError, r"12 patients trained or validated every model: .*cross_validate_slides")
def a_model_predicts_its_own_patients(cohort):
    """The model has seen the labels of these patients, so its predictions of them are no test.

    Train with {func}`stp.train.cross_validate_slides`, and pass its folder: each patient is then
    predicted by the model that never saw it. Or predict other patients.
    """
    model = stp.train.fit_slides(cohort, "run", targets=EGFR, config=SMALL)
    stp.tl.predict_slides(cohort, model)


@refused(ValueError, r"13 slides of the cohort are feature files, which have no predicted genes")
def feature_files_are_explained_by_genes(cohort):
    """Genes are predicted for tiles, and stand in the table of a tile store.

    Write tile stores ({func}`stp.io.write_tiles`), predict genes on the table of each
    ({func}`stp.tl.predict_expression`), and add them with {func}`stp.io.write_results`.
    """
    model = stp.train.fit_slides(cohort, "run", targets=EGFR, config=SMALL)
    stp.tl.explain_slides(cohort, model)


@refused(ValueError, r"pooling='transformer', whose logits are no sum over tiles")
def a_transformer_is_explained(cohort):
    """A transformer lets tiles speak to each other, so none has a contribution by itself.

    Train a model with `pooling="attention"` or `pooling="mean"`.
    """
    config = stp.train.SlideConfig(epochs=1, hidden=8, pooling="transformer")
    model = stp.train.fit_slides(cohort, "run", targets=EGFR, config=config)
    stp.tl.explain_slides(cohort, model)


@refused(ValueError, r"run was trained on uni .* and the cohort has uni2 ")
def features_of_another_encoder_are_predicted(cohort):
    """A slide model reads features of the encoder that it was trained on.

    Extract the features of the cohort with that encoder.
    """
    model = stp.train.fit_slides(cohort, "run", targets=EGFR, config=SMALL)
    record = {"name": "uni2", "class": "KatherLab h5", "digest": "0" * 64}
    cohort.uns["stp_cohort"]["features"]["model"] = record
    stp.tl.predict_slides(cohort, model)


@refused(ValueError, r"tiles of the cohort have tile_um 128, .* trained on 256; extract features")
def tiles_of_another_size_are_predicted(cohort):
    """Tiles of another size show more or less tissue than those of the training.

    Lay tiles of the size in the error, and extract features again.
    """
    model = stp.train.fit_slides(cohort, "run", targets=EGFR, config=SMALL)
    cohort.uns["stp_cohort"]["features"]["tile_um"] = 128.0
    stp.tl.predict_slides(cohort, model)


@refused(ValueError, r"cv is a cross-validation of 2 models.*fold_0.*folds.csv lists the fold")
def a_map_of_a_whole_cross_validation(cohort):
    """A map explains the prediction of one model, and a cross-validation has several.

    Pass the folder of the fold in which the patient was the test: the model that predicted it.
    """
    stp.tl.assign_folds(cohort, "EGFR", n_folds=2)
    stp.train.cross_validate_slides(cohort, "cv", targets=EGFR, config=SMALL)
    tiles = stp.io.read_features("features/P0.h5")
    stp.tl.score_tiles(tiles, "cv", other_slides="features/extra.h5")


@refused(ValueError, r"pooling='transformer', whose logits are no sum over tiles")
def a_map_of_a_transformer(cohort):
    """The tiles of a transformer act together, so no tile has a contribution by itself.

    Train a model with `pooling="attention"`, whose contributions are exact.
    """
    config = stp.train.SlideConfig(epochs=1, hidden=8, pooling="transformer")
    model = stp.train.fit_slides(cohort, "run", targets=EGFR, config=config)
    stp.tl.score_tiles(stp.io.read_features("features/P0.h5"), model)


@refused(ValueError, r"the table and features/P0.h5 have the same features; other_slides=")
def other_slides_have_the_slide_itself(cohort):
    """Attention would count the tiles of this slide twice.

    Pass only the remaining slides of the patient.
    """
    model = stp.train.fit_slides(cohort, "run", targets=EGFR, config=SMALL)
    tiles = stp.io.read_features("features/P0.h5")
    stp.tl.score_tiles(tiles, model, other_slides=["features/P0.h5", "features/extra.h5"])


@refused(KeyError, r"uns\['stp_attention'\] is missing; run stp.tl.score_tiles")
def a_map_before_the_scores(cohort):
    """Figures draw what a function computed before.

    Call {func}`stp.tl.score_tiles` first.
    """
    stp.pl.attention(stp.io.read_features("features/P0.h5"))


@refused(ValueError, r"features/P0.h5 has features of tiles and does not name their slide")
def top_tiles_without_a_slide(cohort):
    """A file of features has no pixels, and no path of the slide.

    Pass the slide as `image`.
    """
    model = stp.train.fit_slides(cohort, "run", targets=EGFR, config=SMALL)
    tiles = stp.io.read_features("features/P0.h5")
    stp.tl.score_tiles(tiles, model, other_slides="features/extra.h5")
    stp.pl.tiles(tiles, um_per_px=0.5)


@refused(ValueError, r"the µm per pixel of the slide are not recorded; pass um_per_px=")
def geojson_of_a_slide_without_scale(cohort):
    """Places of these tiles are in µm, and QuPath needs pixels of level 0.

    Pass the µm per pixel of the slide as `um_per_px`.
    """
    model = stp.train.fit_slides(cohort, "run", targets=EGFR, config=SMALL)
    tiles = stp.io.read_features("features/P0.h5")
    stp.tl.score_tiles(tiles, model, other_slides="features/extra.h5")
    stp.io.write_geojson(tiles, "P0.geojson")
