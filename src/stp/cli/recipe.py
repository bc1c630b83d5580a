"""Recipes: TOML files with the arguments of `pretrain` or `align`, for the command line."""

import dataclasses
import tomllib
import typing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from stp._config import from_dict
from stp._text import native
from stp.cli.recipe_stores import StoreSource, check_collections, find_stores
from stp.genes.vocabulary import Vocabulary
from stp.models.gene import GeneEncoder, GeneEncoderConfig
from stp.models.image import ImageEncoder
from stp.models.image_config import ImageEncoderConfig
from stp.models.published.backbones import BACKBONES, load_backbone
from stp.models.stamp import Stamp
from stp.train.alignment import align
from stp.train.config import AlignConfig, PretrainConfig
from stp.train.pretraining import pretrain


@dataclass(frozen=True, kw_only=True)
class PretrainRecipe:
    """The content of a recipe for `pretrain`, with paths as they are written in the file.

    Parameters
    ----------
    stores, validation
        Paths, URLs or glob patterns of stores, or a table that names a collection.
    output_dir
        Path of the run directory.
    vocabulary
        Path of the vocabulary; by default the human one, fitted to the stores.
    table_key
        Name of the table in a SpatialData.
    resume
        Continue a run that was stopped; the result is that of a run without a stop.
    model
        Size of the gene encoder: the table `[model]`.
    config
        Settings of the training: all other keys.
    """

    stores: StoreSource
    output_dir: str
    validation: StoreSource = ()
    vocabulary: str | None = None
    table_key: str = "table"
    resume: bool = True
    model: GeneEncoderConfig = GeneEncoderConfig()
    config: PretrainConfig = PretrainConfig()

    def bind(self, folder: Path) -> partial[GeneEncoder]:
        """Return the call of `pretrain`, with paths relative to the folder of the file."""
        stores = find_stores(folder, self.stores)
        if self.vocabulary is None:
            vocabulary = Vocabulary.default()
        else:
            vocabulary = Vocabulary.load(folder / native(self.vocabulary))
        if vocabulary.means is None:
            vocabulary = vocabulary.fit(stores, table_key=self.table_key)
        return partial(
            pretrain,
            stores=stores,
            output_dir=folder / native(self.output_dir),
            vocabulary=vocabulary,
            model=self.model,
            config=self.config,
            validation=find_stores(folder, self.validation),
            table_key=self.table_key,
            resume=self.resume,
        )


@dataclass(frozen=True, kw_only=True)
class AlignRecipe:
    """The content of a recipe for `align`, with paths as they are written in the file.

    Parameters
    ----------
    stores, validation
        Paths, URLs or glob patterns of stores, or a table that names a collection.
    output_dir
        Path of the run directory.
    gene_encoder
        Path of the gene encoder; targets "pathways" take none.
    vocabulary
        Path of the vocabulary, for targets "pathways" alone; by default the human one.
    table_key
        Name of the table in a SpatialData.
    resume
        Continue a run that was stopped; the result is that of a run without a stop.
    image_encoder
        Backbone and input of the image encoder: the table `[image_encoder]`.
    backbone_weights
        Weights that the image encoder starts from: the name of an encoder that
        `stp.models.backbones` lists, or the path of a folder of an ImageEncoder, or of a file of
        weights for the backbone in `[image_encoder]`.
    config
        Settings of the training: all other keys.
    """

    stores: StoreSource
    output_dir: str
    validation: StoreSource = ()
    gene_encoder: str | None = None
    vocabulary: str | None = None
    table_key: str = "table"
    resume: bool = True
    image_encoder: ImageEncoderConfig = ImageEncoderConfig()
    backbone_weights: str | None = None
    config: AlignConfig = AlignConfig()

    def bind(self, folder: Path) -> partial[Stamp]:
        """Return the call of `align`, with paths relative to the folder of the file."""
        config = self.config
        if config.gene_sets is not None:
            config = dataclasses.replace(config, gene_sets=str(folder / native(config.gene_sets)))
        vocabulary = None
        if self.vocabulary is not None:
            vocabulary = Vocabulary.load(folder / native(self.vocabulary))
        return partial(
            align,
            stores=find_stores(folder, self.stores),
            output_dir=folder / native(self.output_dir),
            gene_encoder=None if self.gene_encoder is None else folder / native(self.gene_encoder),
            image_encoder=self._load_images(folder),
            config=config,
            validation=find_stores(folder, self.validation),
            vocabulary=vocabulary,
            table_key=self.table_key,
            resume=self.resume,
        )

    def _load_images(self, folder: Path) -> ImageEncoderConfig | ImageEncoder:
        """Return the image encoder that `backbone_weights` names, or the config of a new one."""
        weights = self.backbone_weights
        if weights is None:
            return self.image_encoder
        path = folder / native(weights)
        if weights in BACKBONES and path.exists():
            raise ValueError(
                f"backbone_weights = {weights!r} is the name of an encoder and of {path}; write "
                f"'./{weights}' for the path"
            )
        if path.is_file():
            return load_backbone(self.image_encoder, path=path)
        if self.image_encoder != ImageEncoderConfig():
            raise ValueError(
                f"backbone_weights = {weights!r} brings its own [image_encoder]; leave the table "
                "out, or give the path of a file of weights"
            )
        if weights in BACKBONES:
            return load_backbone(weights)
        if path.is_dir():
            return ImageEncoder.from_pretrained(path)
        raise ValueError(
            f"backbone_weights = {weights!r} is no file or folder in {folder}, and not one of "
            f"{list(BACKBONES)}"
        )


Recipe = PretrainRecipe | AlignRecipe
RECIPES: dict[str, type[Recipe]] = {"pretrain": PretrainRecipe, "align": AlignRecipe}


def read_recipe(path: str | Path, stage: str) -> partial[GeneEncoder] | partial[Stamp]:
    """Read a TOML file into a call that trains.

    The keys of the file are the arguments of the stage and the fields of its config. The size of
    the model stands in a table, `[model]` or `[image_encoder]`, and phases stand in `[[phase]]`.
    Paths are relative to the file. `stores` and `validation` may be URLs, glob patterns, or a table
    with a collection, conditions on its columns and a side of its split:
    `{collection = "stores/collection.parquet", where = {organ = ["breast"]}, split = "train"}`.

    Parameters
    ----------
    path
        The file.
    stage
        "pretrain" or "align".

    Returns
    -------
    Call of `pretrain` or `align` without arguments. `pretrain` without a vocabulary uses the human
    one, fitted to the stores.

    Raises
    ------
    ValueError
        If a key is unknown or missing, if a value has the wrong type, if a pattern matches no
        store, or if no store of a collection meets the conditions.
    """
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no TOML: {error}") from error
    recipe_class = RECIPES[stage]
    # 1. Check the keys: those of the recipe, and those of its config.
    arguments = _field_names(recipe_class) - {"config"}
    settings = _config_keys(recipe_class)
    unknown = sorted(values.keys() - arguments - settings.keys())
    if unknown:
        all_keys = sorted(arguments | settings.keys())
        raise ValueError(f"{path} has unknown keys {unknown}; {stage} knows {all_keys}")
    missing = sorted(_required_keys(stage, values) - values.keys())
    if missing:
        raise ValueError(f"{path} lacks {missing}")
    check_collections(values)
    # 2. Check the values: their types and ranges.
    config = {settings[key]: value for key, value in values.items() if key in settings}
    recipe_values = {key: value for key, value in values.items() if key in arguments}
    recipe = from_dict(recipe_class, {**recipe_values, "config": config})
    # 3. Find the files.
    return recipe.bind(path.parent.absolute())


def _field_names(config_class: type) -> set[str]:
    return {field.name for field in dataclasses.fields(config_class)}


def _config_keys(recipe_class: type[Recipe]) -> dict[str, str]:
    """Return the keys of a file that belong to the config, with their fields."""
    config_class = typing.get_type_hints(recipe_class)["config"]
    return {"phase" if name == "phases" else name: name for name in _field_names(config_class)}


def _required_keys(stage: str, values: dict[str, Any]) -> set[str]:
    reads_genes = stage == "align" and values.get("targets") != "pathways"
    return {"stores", "output_dir", "gene_encoder"} if reads_genes else {"stores", "output_dir"}
