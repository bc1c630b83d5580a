"""Models on disk: a folder of model.safetensors, config.json, README.md, vocabulary.parquet where genes are read."""

import dataclasses
import json
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from safetensors.torch import save_file
from torch import nn

from stp._atomic import write_atomically
from stp._config import check_sizes, from_dict
from stp.genes.vocabulary import Vocabulary
from stp.models.saved.card import ModelCard
from stp.models.saved.digest import digest
from stp.models.saved.hub import HUB, check_commit, fetch
from stp.models.saved.weights import check_shapes, metadata, read, shapes

WEIGHTS, CONFIG, VOCABULARY, CARD = (
    "model.safetensors",
    "config.json",
    "vocabulary.parquet",
    "README.md",
)
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MOST_CONFIG = 2**22  # bytes


class Pretrained(nn.Module):
    """Gives a module that is built from one config `save_pretrained` and `from_pretrained`.

    Attributes
    ----------
    name
        What the records of its embeddings call it: the folder or hub id that it was loaded from.
    card
        What it was trained on, metrics, license and intended use.
    """

    config_class: ClassVar[type]
    reads_genes: ClassVar[bool] = True  # then a vocabulary belongs to it
    config: Any  # of config_class
    vocabulary: Vocabulary
    name: str = ""
    card: ModelCard = ModelCard()

    @property
    def digest(self) -> str:
        """SHA-256 (hexadecimal) of all that decides what the model computes: weights, config and vocabulary."""
        return self._digest_with(self.state_dict())

    def _digest_with(self, weights: dict[str, torch.Tensor]) -> str:
        return digest(
            type(self).__name__,
            self.config,
            self.vocabulary.digest if self.reads_genes else None,
            weights,
        )

    def save_pretrained(self, path: str | Path, *, precision: str = "fp32") -> None:
        """Write weights, config, card and, for models that read genes, the vocabulary into the folder `path`.

        Files are written beside and renamed, so that a reader never sees half of one.

        Parameters
        ----------
        path
            The folder, made where it is missing.
        precision
            Of the weights in the file: "fp32", or "bf16" or "fp16", half the size, whose rounding makes it another
            model with a digest of its own. What is loaded computes in fp32 or bf16 as its verbs are told.

        Raises
        ------
        ValueError
            The precision is unknown, or a weight does not fit into it.
        """
        tensors = self._rounded(precision)
        path = Path(path)
        path.mkdir(parents=True, exist_ok=True)
        kind, found = type(self).__name__, self._digest_with(tensors)
        description = {
            "class": kind,
            "config": dataclasses.asdict(self.config),
            "card": dataclasses.asdict(self.card),
        }
        write_atomically(
            path / CONFIG, lambda file: file.write_text(json.dumps(description, indent=2))
        )
        write_atomically(
            path / CARD,
            lambda file: file.write_text(self.card.page(kind, self.name or path.name, found)),
        )
        if self.reads_genes:
            write_atomically(path / VOCABULARY, self.vocabulary.save)
        write_atomically(
            path / WEIGHTS, lambda file: save_file(tensors, file, {"format": "pt", "digest": found})
        )

    def _rounded(self, precision: str) -> dict[str, torch.Tensor]:
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {list(PRECISIONS)}, not {precision!r}")
        tensors = {name: x.detach().cpu().contiguous() for name, x in self.state_dict().items()}
        kind = PRECISIONS[precision]
        rounded = {name: x.to(kind) if x.is_floating_point() else x for name, x in tensors.items()}
        if over := [
            name
            for name, x in tensors.items()
            if x.isfinite().all() and not rounded[name].isfinite().all()
        ]:
            raise ValueError(f"{over} hold weights beyond {precision}; save in 'bf16' or 'fp32'")
        return rounded

    @classmethod
    def from_pretrained(cls, path: str | Path, *, revision: str | None = None) -> Self:
        """Load a folder written by `save_pretrained` or by a training run, onto the CPU, in fp32.

        Parameters
        ----------
        path
            The folder; or, with `revision`, a model's id on the hub of Hugging Face, `owner/name`.
        revision
            Commit of the model on the hub, 40 hexadecimal digits. What is in the hub's cache on this machine
            needs no network.

        Raises
        ------
        FileNotFoundError
            The folder lacks one of its files; or neither the hub nor its cache has them.
        ValueError
            The folder holds another kind of model, a config that describes none, weights that are truncated, not
            those of the config (named), or changed since they were saved; or the revision is no commit.
        """
        path, name = cls._find(path, revision)
        module = cls._built(path)
        module.load_state_dict(read(path / WEIGHTS))
        module.name = name
        found = module.digest
        if metadata(path / WEIGHTS).get("digest", found) != found:
            raise ValueError(
                f"{path} is not what was saved: the digest of its weights, config and vocabulary is another; "
                "copy it again from its source"
            )
        return module.eval()

    @classmethod
    def _files(cls) -> list[str]:
        return [CONFIG, WEIGHTS, *([VOCABULARY] if cls.reads_genes else [])]

    @classmethod
    def _find(cls, path: str | Path, revision: str | None) -> tuple[Path, str]:
        """Return the folder of a model, and what to call it."""
        if revision is not None:
            check_commit(revision)
            instead = f"download {', '.join(cls._files())} of {HUB}/{path} and give their folder"
            files = [
                fetch(str(path), [name], revision=revision, instead=instead)
                for name in cls._files()
            ]
            return files[0].parent, f"{path}@{revision[:12]}"
        path = Path(path)
        for name in cls._files():
            if not (path / name).is_file():
                raise FileNotFoundError(
                    f"{path} has no {name}; give a folder written by save_pretrained or stp.train, "
                    "or revision=, a commit, with the id of a model on the hub"
                )
        return path, path.resolve().name

    @classmethod
    def _built(cls, path: Path) -> Self:
        """Build the module that the config describes, once it is seen to fit the weights."""
        description = _read_description(path / CONFIG)
        if description["class"] != cls.__name__:
            raise ValueError(
                f"{path} holds a {description['class']}; load it with that class, not {cls.__name__}"
            )
        vocabulary = [Vocabulary.load(path / VOCABULARY)] if cls.reads_genes else []
        try:
            check_sizes(description["config"])
            config = from_dict(cls.config_class, description["config"])
            card = from_dict(ModelCard, description.get("card", {}))
            with torch.device("meta"):  # no memory yet
                expected = {
                    name: tuple(x.shape)
                    for name, x in cls(config, *vocabulary).state_dict().items()
                }
        except Exception as error:
            raise ValueError(f"{path / CONFIG} describes no {cls.__name__}: {error}") from error
        check_shapes(shapes(path / WEIGHTS), expected, path / WEIGHTS, "the config.json beside it")
        module = cls(config, *vocabulary)
        module.card = card
        return module


def _read_description(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > MOST_CONFIG:
            raise ValueError(f"it has more than {MOST_CONFIG} bytes")
        description = json.loads(file.read_text())
        return {"class": description["class"], **description, "config": description["config"]}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{file} describes no model ({error!r}); save_pretrained writes one that does"
        ) from error


def save_with_scores(model: Pretrained, path: Path, scores: dict[str, float]) -> None:
    """Save a model whose card has the scores of its validation."""
    model.card = dataclasses.replace(model.card, metrics=scores)
    model.save_pretrained(path)
