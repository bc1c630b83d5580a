"""Cohorts of slides."""

import pandas as pd
from tests.bad_input.case import refused

import stp


@refused(ValueError, r"no feature file, in 1 row of the slides table: p1 \('p1' is like 'P1'\)")
def a_slide_has_no_feature_file(slides):
    """No file has the name of the slide. A name that is almost the same is not guessed.

    Correct the name, or give the paths of the files in a column. Or pass `missing="drop"` to leave
    the slide out.
    """
    slides.loc[slides["slide"] == "P1", "slide"] = "p1"
    stp.io.read_cohort(slides, root="features")


@refused(ValueError, r"patient without slide, in 1 row of the clinical table: P99")
def a_patient_of_the_clinical_table_has_no_slide(slides):
    """The clinical table has patients of whom there is no slide.

    Remove them from the table. Or pass `missing="drop"`, which lists them in a warning.
    """
    clinical = pd.DataFrame({"patient": [*slides["patient"].unique(), "P99"], "grade": 1})
    stp.io.read_cohort(slides, clinical=clinical, root="features")


@refused(ValueError, r"rows of the clinical table contradict each other: P0 in the rows 1, 3, in a")
def a_patient_has_two_rows_that_contradict(slides):
    """The clinical table has several rows of a patient, with different values.

    Keep one row of each patient. If the table has a row per slide, add its columns to the slide
    table, and leave `clinical=` out.
    """
    clinical = pd.DataFrame({"patient": ["P0", "P1", "P0"], "age": [61, 47, 62]})
    stp.io.read_cohort(slides[:3], clinical=clinical, root="features")


@refused(ValueError, r"several slides have one feature file: P1, P2 have .*P1\.h5")
def two_slides_have_one_feature_file(slides):
    """A path is in two rows of the slide table.

    Give each slide its own file.
    """
    slides["path"] = slides["slide"].replace({"P2": "P1"}) + ".h5"
    stp.io.read_cohort(slides, root="features")


@refused(ValueError, r"features have several widths: 8 values in .*; 4 values in P1")
def features_of_a_cohort_are_of_two_encoders(slides):
    """The features of some slides were made by another encoder.

    Extract the features of all slides with one encoder.
    """
    import h5py

    with h5py.File("features/P1.h5", "r+") as file:
        feats = file["feats"][:, :4]
        del file["feats"]
        file["feats"] = feats
    stp.io.read_cohort(slides, root="features")


@refused(ValueError, r"separated by ';', expected ','.*pandas.read_csv")
def a_csv_file_has_semicolons(slides):
    """Excel wrote the table for a language whose decimal mark is a comma.

    Save it with commas between the columns, or read it with pandas and pass the DataFrame.
    """
    slides.to_csv("slides.csv", sep=";", index=False)
    stp.io.read_cohort("slides.csv", root="features")


@refused(ValueError, r"2 sheets: slides, old; pass .*sheet_name=")
def an_excel_file_has_two_sheets(slides):
    """It is not clear which sheet is the table.

    Read the sheet with pandas, and pass the DataFrame.
    """
    with pd.ExcelWriter("slides.xlsx") as book:
        slides.to_excel(book, sheet_name="slides", index=False)
        slides.to_excel(book, sheet_name="old", index=False)
    stp.io.read_cohort("slides.xlsx", root="features")


@refused(ValueError, r"fewer patients than the 8 folds: .*'mutated' with 6 patients")
def a_class_is_rarer_than_folds(cohort):
    """Some folds would have no patient of a class, so it could not be tested there.

    Lower `n_folds`, join classes, or remove the labels of the class.
    """
    stp.tl.assign_folds(cohort, "EGFR", n_folds=8)


@refused(ValueError, r"slides of 1 patient have different values of obs\['site'\]: P0")
def a_patient_is_at_two_hospitals(cohort):
    """Slides of a patient are of two hospitals, so both cannot stay whole.

    Write one hospital for all slides of the patient.
    """
    cohort.obs.loc["extra", "site"] = "hospital 3"
    stp.tl.assign_folds(cohort, "EGFR", n_folds=3, site_key="site")
