"""The commented file that `stp slides init` writes, and the resolved one that `show` prints."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stp.workflows.slide_config import Study
from stp.workflows.slide_tables import TABLES

TEMPLATE = """\
# A study of slides and patients, for `stp slides`. Paths are relative to this file.
# Lines that begin with one # are optional settings, with their defaults or an example.

output_dir = "runs/first"          # folder of all results

[slides]                           # stp slides tile; leave the table out if you have features
wsi = ["slides/**/*.svs"]          # files of slides, or patterns
model = "Midnight-12k"             # a pathology encoder, or the folder of a Stamp or encoder
tile_um = 112                      # side of a tile in um
# tissue = "contours"              # folder of <slide>.geojson; by default tissue is what is stained
# tissue_class = "Tissue"          # annotations that are tissue, if a file has several classes
# um_per_px = 0.25                 # of all slides; by default it is read from each file
# min_tissue = 0.5                 # share of a tile that must be tissue
# batch_size = 64                  # tiles per batch
# device = "cuda"                  # by default a GPU if there is one
# precision = "auto"               # "auto" (bf16 on a GPU), "bf16" or "fp32"

[cohort]
slides = "slides.csv"              # a row per slide: patient, slide, and path if there is no root
clinical = "clinical.csv"          # a row per patient; leave it out if the labels are in slides
# slide_key = "slide"              # columns of the tables
# patient_key = "patient"
# path_key = "path"
# root = "features"                # folder of features; by default the tiles of this study
# use_rep = "X_stp_images"         # features in a store; "X_stp_images_aligned" of a Stamp
# table_key = "table"
# missing = "raise"                # "drop" leaves out rows without a partner

[[target]]                         # one table for each target of the model
classes = "EGFR"                   # column with classes
positive = "mutated"               # one of two classes, for which a threshold is chosen
# names = ["mutated", "wild type"] # all classes, in the order of the outputs

# [[target]]
# value = "purity"                 # column with numbers

# [[target]]
# survival = ["os_days", "os_event"]  # columns with the time, and 1 for an observed event
# n_intervals = 4

[fit]                              # stp slides cross-validate and fit
# validation_share = 0.2           # patients that choose epoch, temperature and threshold
# epochs = 50
# batch_size = 1                   # patients per step
# patience = 5                     # epochs without a better score after which training stops
# learning_rate = 5e-4             # the paper trains survival with 5e-5 and 30 epochs
# max_tiles = 2048                 # tiles of a patient that are drawn in an epoch; all by default
# pooling = "attention"            # or "mean", or "transformer"
# hidden = 512
# attention = 256
# gated = true
# dropout = 0.25
# balanced = false                 # whether all classes weigh the same
# standardize = false              # whether features are standardized
# min_learning_rate = 1e-5         # end of a cosine; by default the rate is constant
# warmup_steps = 0
# weight_decay = 0.0
# clip_norm = inf
# precision = "auto"               # also of predictions
# device = "cuda"                  # also of predictions
# n_workers = 0
# log_every = 10
# checkpoint_every = 500
# seed = 0

[cross_validation]
n_folds = 5
# label_key = "EGFR"               # column by which folds are alike; by default the first target
# site_key = "site"                # column of hospitals, each of which stays in one fold
# fold_key = "fold"                # column with folds of your own, numbered from 0
# seed = 0

[scores]                           # stp slides score
n_resamples = 2000                 # of patients, for intervals
# level = 0.95
# seed = 0

# [genes]                          # stp slides explain
# reference = ["spots/*.zarr"]     # measured stores that the Stamp of the tiles embedded
# reference_rep = "X_stp_genes_aligned"
# gene_sets = "programs.gmt"       # also a table with the columns set and gene
# genes = ["ERBB2", "KRT8"]        # instead of gene_sets; by default the highly variable genes
# n_neighbors = 50                 # measured spots per tile
# n_permutations = 500             # shifted maps per slide
# expression_key = "stp_expression"  # predicted genes in the tile stores
# target = "EGFR"                  # by default all targets
# seed = 0
"""


def describe_study(study: Study) -> str:
    """Return the resolved study as TOML: all settings with absolute paths.

    Settings without a value are comments.
    """
    lines = [f"output_dir = {_toml(str(study.output))}", ""]
    for name in TABLES:
        value = getattr(study, name)
        items = value if isinstance(value, tuple) else [value] if value is not None else []
        title = f"[[{name}]]" if name == "target" else f"[{name}]"
        for item in items:
            lines += [title, *_describe_table(study, name, item), ""]
    return "\n".join(lines)


def _describe_table(study: Study, name: str, table: Any) -> Iterator[str]:
    for field in dataclasses.fields(table):
        value = getattr(table, field.name)
        if field.name == "config":
            yield from _describe_table(study, name, value)
            continue
        if (name, field.name) == ("cohort", "root"):
            value = study.root
        elif (name, field.name) == ("cross_validation", "label_key"):
            value = study.label_key if study.target and table.fold_key is None else None
        elif value is not None and field.name in PATHS.get(name, ()):
            value = _absolute(study, value)
        yield f"# {field.name} is not set" if value is None else f"{field.name} = {_toml(value)}"


PATHS = {
    "slides": ("wsi", "model", "tissue"),
    "cohort": ("slides", "clinical"),
    "genes": ("reference", "gene_sets"),
}


def _absolute(study: Study, value: Any) -> Any:
    """Return paths as absolute ones; the name of an encoder stays."""
    from stp.models.published.backbones import BACKBONES

    if isinstance(value, tuple):
        return tuple(_absolute(study, item) for item in value)
    return value if value in BACKBONES else study.path(value)


def _toml(value: Any) -> str:
    """Return a value as TOML, whose texts are those of JSON."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str | Path):
        return json.dumps(str(value), ensure_ascii=False)
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value)
