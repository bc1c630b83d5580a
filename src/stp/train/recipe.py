"""A TOML file that says what to train: the arguments of `pretrain` or `align`, for the command line."""

import dataclasses
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stp.models.config import from_dict
from stp.models.gene import GeneEncoderConfig
from stp.models.image import ImageEncoderConfig
from stp.train.alignment import align
from stp.train.config import AlignConfig, PretrainConfig
from stp.train.pretraining import pretrain
from stp.vocabulary import Vocabulary

STAGES: dict[str, tuple[Callable[..., Any], type]] = {
    "pretrain": (pretrain, PretrainConfig),
    "align": (align, AlignConfig),
}
# Tables of the file: argument and its class.
TABLES: dict[str, dict[str, tuple[str, type]]] = {
    "pretrain": {"model": ("model", GeneEncoderConfig)},
    "align": {"image_encoder": ("image_encoder", ImageEncoderConfig)},
}
PATHS: dict[str, tuple[str, ...]] = {
    "pretrain": ("output_dir", "vocabulary"),
    "align": ("output_dir", "gene_encoder", "vocabulary"),
}
PLAIN = ("table_key", "resume")


def read_recipe(path: str | Path, stage: str) -> tuple[Callable, dict[str, Any]]:
    """Read a TOML file into a stage and its arguments.

    Its keys are the arguments of the stage and the fields of its config; sizes of the model stand in a table of their
    own, `[model]` or `[image_encoder]`, phases in `[[phase]]`. Paths are relative to the file; `stores` and
    `validation` may be glob patterns. `pretrain` without `vocabulary` takes the human one, fitted to the stores.

    Raises
    ------
    ValueError
        A key is unknown or missing, or a pattern matches nothing.
    """
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is no TOML: {error}") from error
    run, config_class = STAGES[stage]
    fields = {field.name for field in dataclasses.fields(config_class)}
    if "phase" in values:
        values["phases"] = values.pop("phase")
    known = {"stores", "validation", *PATHS[stage], *PLAIN, *TABLES[stage], *fields}
    if unknown := sorted(set(values) - known):
        raise ValueError(f"{path} has unknown keys {unknown}; {stage} knows {sorted(known - {'phases'} | {'phase'})}")
    reads_genes = stage == "align" and values.get("targets") != "pathways"
    needed = {"stores", "output_dir"} | ({"gene_encoder"} if reads_genes else set())
    if missing := sorted(needed - set(values)):
        raise ValueError(f"{path} lacks {missing}")
    arguments = {name: values[name] for name in PLAIN if name in values}
    arguments |= {name: path.parent / values[name] for name in PATHS[stage] if name in values}
    if "gene_sets" in values:
        values["gene_sets"] = str(path.parent / values["gene_sets"])
    arguments["config"] = from_dict(config_class, {name: values[name] for name in fields if name in values})
    for table, (name, table_class) in TABLES[stage].items():
        if table in values:
            arguments[name] = from_dict(table_class, values[table])
    for name in ("stores", "validation"):
        arguments[name] = [store for pattern in values.get(name, []) for store in _matches(path, pattern)]
    if "vocabulary" in arguments:
        arguments["vocabulary"] = Vocabulary.load(arguments["vocabulary"])
    if stage == "pretrain":
        vocabulary = arguments.get("vocabulary") or Vocabulary.default()
        arguments["vocabulary"] = vocabulary if vocabulary.means is not None else vocabulary.fit(arguments["stores"])
    return run, arguments


def _matches(recipe: Path, pattern: str) -> list[Path]:
    """List the stores that a path or pattern names, in order."""
    base = (recipe.parent / pattern).absolute()
    found = sorted(Path(base.anchor).glob(str(base.relative_to(base.anchor))))
    if not found:
        raise ValueError(f"{recipe}: no store matches {pattern!r}")
    return found
