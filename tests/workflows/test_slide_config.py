"""The file of a study: the template, unknown keys, and values of the wrong kind."""

import dataclasses
import re

import pytest

from stp import train
from stp.workflows.slide_config import StudyError, read_study
from stp.workflows.slide_config_keys import table_keys
from stp.workflows.slide_tables import TABLES
from stp.workflows.slide_template import TEMPLATE, describe_study

COHORT = 'output_dir = "out"\n[cohort]\nslides = "slides.csv"\n'


def read(tmp_path, text):
    (tmp_path / "cohort.toml").write_text(text)
    return read_study(tmp_path / "cohort.toml")


def faults(tmp_path, text):
    with pytest.raises(StudyError) as error:
        read(tmp_path, text)
    return error.value.faults


def test_the_template_is_a_study_with_the_defaults(tmp_path):
    study = read(tmp_path, TEMPLATE)
    assert study.targets == [train.Classes("EGFR", None, "mutated")]
    assert study.fit.config == train.SlideConfig()
    assert study.output == tmp_path / "runs" / "first"
    assert study.root == tmp_path / "runs" / "first" / "tiles"
    assert study.label_key == "EGFR"


def test_the_template_shows_every_setting_with_its_default(tmp_path):
    lines = re.findall(r"^#? ?(\[+\w+\]+|\w+ = .*?)(?:  +#.*| #.*)?$", TEMPLATE, flags=re.M)
    table = ""
    shown = {name: {} for name in TABLES}
    for line in lines:
        if line.startswith("["):
            table = line.strip("[]")
        elif table:
            key, _, value = line.partition(" = ")
            shown[table][key] = value
    for name in TABLES:
        assert set(shown[name]) == set(table_keys(name)), name
    for name, table_class in TABLES.items():
        for field in dataclasses.fields(table_class):
            if isinstance(field.default, bool | int | float):
                text = shown[name][field.name]
                assert float(text.replace("true", "1").replace("false", "0")) == field.default


def test_optional_lines_of_the_template_are_right(tmp_path):
    # "# key = value" and "# [[table]]" become settings, and remarks stay.
    text = re.sub(r"^# (?=\w+ = |\[)", "", TEMPLATE, flags=re.M)
    text = re.sub(r"^(label_key|genes)", r"# \1", text, flags=re.M)  # which others replace
    study = read(tmp_path, text)
    assert study.targets[1:] == [train.Value("purity"), train.Survival("os_days", "os_event", 4)]
    assert study.targets[0] == train.Classes("EGFR", ("mutated", "wild type"), "mutated")
    assert study.fit.config.max_tiles == 2048 and study.fit.config.clip_norm == float("inf")
    assert study.cross_validation.fold_key == "fold"
    assert study.genes.references == ("spots/*.zarr",) and study.genes.gene_sets == "programs.gmt"


def test_the_resolved_study_is_a_study(tmp_path):
    study = read(tmp_path, TEMPLATE)
    (tmp_path / "elsewhere").mkdir()
    again = read(tmp_path / "elsewhere", describe_study(study))
    assert again.output == study.output and again.targets == study.targets
    assert again.fit == study.fit and again.scores == study.scores
    assert again.path(again.cohort.slides) == tmp_path / "slides.csv"
    assert again.slides.model == study.slides.model  # the name of an encoder is no path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[fit]\nepoch = 3\n", "[fit] has no key 'epoch' (did you mean 'epochs'?)"),
        ("[fit]\nn_folds = 3\n", "[fit] has no key 'n_folds'; it belongs to [cross_validation]"),
        ("[targets]\nclasses = 'a'\n", "'targets' is no table or key (did you mean 'target'?)"),
        ("[scores]\nfoo = 1\n", "[scores] has no key 'foo'; it may have n_resamples, level, seed"),
        ("[target]\nclasses = 'a'\n", "target must be a table; write [[target]] on a line"),
        ("[slides]\nwsi = ['a']\ntile_um = 1\n", "[slides] lacks model; `stp slides init` writes"),
        ("[fit]\nepochs = 'x'\n", "[fit]: epochs must be int, not 'x'"),
        ("[fit]\npooling = 'x'\n", "[fit]: pooling must be one of"),
        ("[scores]\nlevel = 95\n", "[scores]: level must be between 0 and 1, not 95"),
        ("[cross_validation]\nn_folds = 1\n", "[cross_validation]: n_folds must be at least 2"),
        ("[[target]]\npositive = 'a'\n", "[[target]]: it has no column; write one of classes"),
        ("[[target]]\nclasses = 'a'\nvalue = 'b'\n", "[[target]]: it has classes and value"),
        ("[[target]]\nvalue = 'a'\npositive = 'b'\n", "positive and names belong to classes"),
        ("[[target]]\nsurvival = ['a']\n", "[[target]]: survival needs two columns"),
        (
            "[genes]\nreferences = 'a'\n",
            "[genes] has no key 'references' (did you mean 'reference'",
        ),
        ("[genes]\nn_resamples = 1\n", "[genes] has no key 'n_resamples'; it belongs to [scores]"),
        ("[genes]\nreference = []\n", "[genes]: reference is empty; name stores with measured"),
        ("[genes]\ngenes = ['A']\n", "[genes]: genes are predicted from reference, which is miss"),
        ("[genes]\nreference = 'a'\ngenes = []\n", "[genes]: genes is empty; name at least one"),
        ("[genes]\ngenes = ['A']\ngene_sets = 'a'\n", "[genes]: it has genes and gene_sets; leave"),
        ("[genes]\nn_permutations = 10\n", "[genes]: n_permutations must be at least 100, not 10"),
        ("[genes]\nn_neighbors = 0\n", "[genes]: n_neighbors must be at least 1, not 0"),
        ("[genes]\nexpression_key = 'a/b'\n", "[genes]: expression_key 'a/b' must have letters"),
        ("[[target]]\nvalue = 'a'\n[[target]]\nclasses = 'a'\n", "name ['a'] twice; leave out one"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, message):
    (fault,) = faults(tmp_path, COHORT + text)
    assert message in fault


def test_all_faults_are_listed(tmp_path):
    text = "[cohort]\nslide = 'a'\n[fit]\nepoch = 1\n"
    assert faults(tmp_path, text) == [
        'it lacks output_dir; write output_dir = "runs/first"',
        "[cohort] has no key 'slide' (did you mean 'slides'?)",
        "[cohort] lacks slides; `stp slides init` writes an example",
        "[fit] has no key 'epoch' (did you mean 'epochs'?)",
    ]
    assert "it is no TOML" in faults(tmp_path, "a = \n")[0]


def test_the_resolved_study_has_the_absolute_paths_of_genes(tmp_path):
    text = "[genes]\nreference = 'spots/a.zarr'\ngene_sets = 'b.gmt'\n"
    lines = describe_study(read(tmp_path, COHORT + text)).splitlines()
    assert f'reference = "{tmp_path / "spots" / "a.zarr"}"' in lines
    assert f'gene_sets = "{tmp_path / "b.gmt"}"' in lines
    assert "# genes is not set" in lines and "n_permutations = 500" in lines
    assert "[genes]" not in describe_study(read(tmp_path, COHORT))


def test_survival_is_divided_by_its_event(tmp_path):
    study = read(tmp_path, COHORT + "[[target]]\nsurvival = ['days', 'event']\n")
    assert study.label_key == "event"
