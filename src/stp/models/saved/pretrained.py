"""Models on disk: a folder with weights, config, card and, if the model reads genes, vocabulary."""

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import nn

from stp._atomic import write_atomically
from stp._config import check_sizes, from_dict
from stp._log import warn
from stp._summary import summary_html, summary_text
from stp._text import readable
from stp._urls import require_local
from stp.genes.vocabulary import Vocabulary
from stp.models.saved.card import ModelCard
from stp.models.saved.description import CONFIG, read_description
from stp.models.saved.digest import Config, digest
from stp.models.saved.hub import HUB, fetch_folder, is_commit, is_hub_id, upload
from stp.models.saved.model_summary import summarize_model
from stp.models.saved.weights import (
    check_shapes,
    read_metadata,
    read_shapes,
    read_tensors,
    save_tensors,
)

WEIGHTS = "model.safetensors"
VOCABULARY = "vocabulary.parquet"
CARD = "README.md"
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Pretrained(nn.Module):
    """A module that is built from one config, with `save_pretrained` and `from_pretrained`.

    Attributes
    ----------
    name
        Name of the model, which is stored with its embeddings: the folder that it was loaded
        from, or the id on the hub and the commit.
    card
        Training data, metrics, license and intended use of the model.
    """

    config_class: ClassVar[type[Config]]
    reads_genes: ClassVar[bool] = True  # models that read genes have a vocabulary
    config: Config  # an instance of config_class
    vocabulary: Vocabulary
    name: str = ""
    card: ModelCard = ModelCard()

    @property
    def digest(self) -> str:
        """SHA-256 (hexadecimal) of weights, config and vocabulary, which decide the outputs."""
        return self._digest_with(self.state_dict())

    def __repr__(self) -> str:
        """Return a short summary; `model.named_modules()` lists the layers."""
        return summary_text(summarize_model(self, self.name, self._describe_parts(), self.card))

    def _repr_html_(self) -> str:
        return summary_html(summarize_model(self, self.name, self._describe_parts(), self.card))

    def _describe_parts(self) -> dict[str, str]:
        """Return what describes this kind of model, by names for the reader."""
        return {"genes": f"{len(self.vocabulary):,}"} if self.reads_genes else {}

    def _digest_with(self, weights: dict[str, torch.Tensor]) -> str:
        vocabulary = self.vocabulary.digest if self.reads_genes else None
        return digest(type(self).__name__, self.config, vocabulary, weights)

    def save_pretrained(self, path: str | Path, *, precision: str = "fp32") -> None:
        """Write weights, config, card and, if the model reads genes, the vocabulary to a folder.

        Each file is written under another name and then renamed, so that readers never see an
        incomplete file. The weights come before the card, and the config comes last. A folder of a
        call that was stopped is thus not read as a model.

        Parameters
        ----------
        path
            Folder of the model; it is created if it is missing.
        precision
            Type of the weights in the file: "fp32", or "bf16" or "fp16" for half the size.
            Rounding makes another model with another digest. The precision of computations is an
            argument of the functions that use the model.

        Raises
        ------
        ValueError
            If the precision is unknown, a weight is too large for it, or `path` is remote.
        """
        path = require_local(path, "models")
        self._write(path, self._round_weights(precision), title=self.name or readable(path.name))

    def _write(self, path: Path, tensors: dict[str, torch.Tensor], *, title: str) -> None:
        """Write all files of the model, with these weights and this title on its card."""
        path.mkdir(parents=True, exist_ok=True)
        kind = type(self).__name__
        digest_of_file = self._digest_with(tensors)
        page = self.card.page(kind, title, digest_of_file)
        metadata = {"format": "pt", "digest": digest_of_file}
        description = {
            "class": kind,
            "config": dataclasses.asdict(self.config),
            "card": dataclasses.asdict(self.card),
            "digest": digest_of_file,
        }
        config = json.dumps(description, indent=2)
        if self.reads_genes:
            write_atomically(path / VOCABULARY, self.vocabulary.save)
        write_atomically(path / WEIGHTS, lambda file: save_tensors(tensors, file, metadata))
        write_atomically(path / CARD, lambda file: file.write_text(page, encoding="utf-8"))
        write_atomically(path / CONFIG, lambda file: file.write_text(config, encoding="utf-8"))

    def _round_weights(self, precision: str) -> dict[str, torch.Tensor]:
        """Return all tensors on the CPU, those of floats in this precision."""
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {list(PRECISIONS)}, not {precision!r}")
        dtype = PRECISIONS[precision]
        rounded = {}
        too_large = []
        for name, weight in self.state_dict().items():
            tensor = weight.detach().cpu().contiguous()
            rounded[name] = tensor.to(dtype) if tensor.is_floating_point() else tensor
            if tensor.isfinite().all() and not rounded[name].isfinite().all():
                too_large.append(name)
        if too_large:
            raise ValueError(
                f"{too_large} have weights too large for {precision}; save in 'bf16' or 'fp32'"
            )
        return rounded

    def push_to_hub(
        self, repo_id: str, *, private: bool = True, license_checked: bool = False
    ) -> str:
        """Publish the model on the hub of Hugging Face, with its card as the page.

        Log in with `hf auth login` first, or set HF_TOKEN.

        Parameters
        ----------
        repo_id
            Id on the hub, `owner/name`; the repository is made if it is new.
        private
            Whether only you and your organization see the model.
        license_checked
            Publish although the card names terms that forbid derivatives, because you have
            permission.

        Returns
        -------
        The commit, which `from_pretrained` accepts as `revision`.

        Raises
        ------
        ValueError
            If terms on the card forbid derivatives, the hub has no such form of id, or the
            repository exists and `private` differs from it.
        PermissionError
            If the hub does not let you write to the repository.
        OSError
            If the hub is out of reach.
        """
        terms = self.card.no_derivatives()
        if terms and not license_checked:
            raise ValueError(
                f"the card of this model names terms that forbid derivatives ({'; '.join(terms)}); "
                "ask the owners of those weights, then pass license_checked=True"
            )
        if self.card.license == ModelCard.license:
            warn("the card states no license, so nobody may use the model; set card.license")
        with tempfile.TemporaryDirectory() as folder:
            self._write(Path(folder), self._round_weights("fp32"), title=repo_id)
            return upload(Path(folder), repo_id, is_private=private)

    @classmethod
    def from_pretrained(cls, path: str | Path, *, revision: str | None = None) -> Self:
        """Load a model that `save_pretrained` or a training run wrote, onto the CPU, in fp32.

        Parameters
        ----------
        path
            Folder of the model, or its id on the hub of Hugging Face, `owner/name`. A text is an
            id if `revision` is given, or if no folder `owner` exists here.
        revision
            Commit (40 hexadecimal digits), branch or tag of the model on the hub; by default its
            main branch. A commit in the cache of the hub on this machine needs no network. A
            branch or tag may move: a warning names its commit, which the name of the model and
            its card record.

        Raises
        ------
        FileNotFoundError
            If the folder lacks a file, or neither the hub nor its cache has it.
        PermissionError
            If the user has to accept the terms of the model on the hub first.
        ValueError
            If the folder contains another kind of model or a config that describes none. If the
            weights are truncated, do not fit the config, or changed after they were saved.
        """
        source = ""
        if revision is not None or is_hub_id(path):
            folder, source = cls._download(str(path), revision)
        else:
            folder = Path(path)
            cls._check_files(folder)
        module = cls._build_from(folder)
        module.load_state_dict(read_tensors(folder / WEIGHTS))
        module.name = source or readable(folder.resolve().name)
        digest_now = module.digest
        digest_when_saved = read_metadata(folder / WEIGHTS).get("digest", digest_now)
        digest_in_config = read_description(folder / CONFIG).get("digest", digest_when_saved)
        if digest_in_config != digest_when_saved:
            raise ValueError(
                f"{folder} has weights of one model and the config of another: saving is not "
                "finished or was stopped; wait for it, or save the model again"
            )
        if digest_now != digest_when_saved:
            raise ValueError(
                f"{folder} changed after it was saved: the digest of its weights, config and "
                "vocabulary differs; copy it again from its source"
            )
        if source:
            module.card = dataclasses.replace(module.card, source=source)
        return module.eval()

    @classmethod
    def _files(cls) -> list[str]:
        return [CONFIG, WEIGHTS, VOCABULARY] if cls.reads_genes else [CONFIG, WEIGHTS]

    @classmethod
    def _download(cls, hub_id: str, revision: str | None) -> tuple[Path, str]:
        """Return the local folder of a model of the hub, and its id with the commit."""
        names = cls._files()
        remedy = (
            f"give the folder of a model, or download {', '.join(names)} from {HUB}/{hub_id} and "
            "give their folder"
        )
        folder, commit = fetch_folder(hub_id, names, revision=revision, remedy=remedy)
        if revision is None or not is_commit(revision):
            warn(
                f"{hub_id} is commit {commit} now, and branches and tags move; pass "
                f"revision={commit!r} to load the same weights again"
            )
        return folder, f"{hub_id}@{commit}"

    @classmethod
    def _check_files(cls, folder: Path) -> None:
        """Raise FileNotFoundError if a folder lacks a file of the model."""
        for name in cls._files():
            if not (folder / name).is_file():
                raise FileNotFoundError(
                    f"{folder} has no {name}; give a folder written by save_pretrained or "
                    "stp.train, or the id of a model on the hub, owner/name"
                )

    @classmethod
    def _check_sizes(cls, config: dict[str, Any]) -> None:
        """Raise ValueError if the plain values of a config have absurd sizes."""
        check_sizes(config)

    @classmethod
    def _build_from(cls, folder: Path) -> Self:
        """Build the module that the config describes, after a check that the weights fit it."""
        description = read_description(folder / CONFIG)
        kind = description["class"]
        if kind != cls.__name__:
            raise ValueError(
                f"{folder} contains a {kind}; load it with that class, not {cls.__name__}"
            )
        vocabulary = [Vocabulary.load(folder / VOCABULARY)] if cls.reads_genes else []
        try:
            cls._check_sizes(description["config"])
            config = from_dict(cls.config_class, description["config"])
            card = from_dict(ModelCard, description.get("card", {}))
            with torch.device("meta"):  # shapes without memory
                state = cls(config, *vocabulary).state_dict()
        except Exception as error:
            raise ValueError(f"{folder / CONFIG} describes no {cls.__name__}: {error}") from error
        expected = {name: tuple(tensor.shape) for name, tensor in state.items()}
        actual = read_shapes(folder / WEIGHTS)
        check_shapes(actual, expected, folder / WEIGHTS, "the config.json in its folder")
        module = cls(config, *vocabulary)
        module.card = card
        return module


def save_with_scores(model: Pretrained, path: Path, scores: dict[str, float]) -> None:
    """Save a model with the scores of its validation on its card."""
    model.card = dataclasses.replace(model.card, metrics=scores)
    model.save_pretrained(path)
