"""A TOML file that says what to train: the arguments of `pretrain` or `align`, for the command line."""

import dataclasses
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

from stp._config import from_dict
from stp.genes.vocabulary import Vocabulary
from stp.models.gene import GeneEncoderConfig
from stp.models.image import ImageEncoderConfig
from stp.train.alignment import align
from stp.train.config import AlignConfig, PretrainConfig
from stp.train.pretraining import pretrain

STAGES: dict[str, tuple[Callable[..., Any], type]] = {
    "pretrain": (pretrain, PretrainConfig),
    "align": (align, AlignConfig),
}
# Tables of the file: argument and its class.
TABLES: dict[str, dict[str, tuple[str, type]]] = {
    "pretrain": {"model": ("model", GeneEncoderConfig)},
    "align": {"image_encoder": ("image_encoder", ImageEncoderConfig)},
}


@dataclass(frozen=True, kw_only=True)
class RecipeKeys:
    """The keys of the file that are in no config."""

    stores: tuple[str, ...]
    output_dir: str
    validation: tuple[str, ...] = ()
    vocabulary: str | None = None
    gene_encoder: str | None = None  # of align alone
    table_key: str = "table"
    resume: bool = True


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
    if "phase" in values:
        values["phases"] = values.pop("phase")
    own = _names(RecipeKeys) - ({"gene_encoder"} if stage == "pretrain" else set())
    known = own | _names(config_class) | set(TABLES[stage])
    if unknown := sorted(set(values) - known):
        raise ValueError(
            f"{path} has unknown keys {unknown}; {stage} knows {sorted(known - {'phases'} | {'phase'})}"
        )
    reads_genes = stage == "align" and values.get("targets") != "pathways"
    needed = {"stores", "output_dir"} | ({"gene_encoder"} if reads_genes else set())
    if missing := sorted(needed - set(values)):
        raise ValueError(f"{path} lacks {missing}")
    asked = from_dict(RecipeKeys, {name: values[name] for name in own if name in values})
    if "gene_sets" in values:
        values["gene_sets"] = str(path.parent / values["gene_sets"])
    config = from_dict(
        config_class, {name: values[name] for name in _names(config_class) if name in values}
    )
    tables = {
        name: from_dict(kind, values[table])
        for table, (name, kind) in TABLES[stage].items()
        if table in values
    }
    return run, {"config": config, **tables, **_arguments(path.parent.absolute(), stage, asked)}


def _names(kind: type) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


def _arguments(folder: Path, stage: str, asked: RecipeKeys) -> dict[str, Any]:
    """Find what the file names, and load or fit the vocabulary."""
    arguments: dict[str, Any] = {"table_key": asked.table_key, "resume": asked.resume}
    arguments["output_dir"] = folder / asked.output_dir
    for name in ("stores", "validation"):
        arguments[name] = [
            store for pattern in getattr(asked, name) for store in _matches(folder, pattern)
        ]
    if asked.gene_encoder is not None:
        arguments["gene_encoder"] = folder / asked.gene_encoder
    vocabulary = (
        Vocabulary.load(folder / asked.vocabulary) if asked.vocabulary is not None else None
    )
    if stage == "pretrain":
        vocabulary = vocabulary or Vocabulary.default()
        if vocabulary.means is None:
            vocabulary = vocabulary.fit(arguments["stores"], table_key=asked.table_key)
    return {**arguments, "vocabulary": vocabulary}


def _matches(folder: Path, pattern: str) -> list[Path]:
    """List the stores that a path or pattern names, in order."""
    if (folder / pattern).exists():
        return [folder / pattern]
    base = Path(escape(str(folder))) / pattern
    found = sorted(Path(base.anchor).glob(str(base.relative_to(base.anchor))))
    if not found:
        raise ValueError(f"no store matches {pattern!r} in {folder}")
    return found
