"""Models on disk: a folder of model.safetensors, config.json and vocabulary.parquet."""

import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from stp._replace import replace
from stp.models.digest import digest
from stp.vocabulary import Vocabulary

WEIGHTS, CONFIG, VOCABULARY = "model.safetensors", "config.json", "vocabulary.parquet"


class Pretrained:
    """Gives a module that is built from one config `save_pretrained` and `from_pretrained`."""

    config_class: ClassVar[type]
    reads_genes: ClassVar[bool] = True  # then a vocabulary belongs to it
    name: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 (hexadecimal) of weights, config and vocabulary, which decide what the model computes."""
        vocabulary = self.vocabulary.digest if self.reads_genes else None
        return digest(type(self).__name__, self.config, vocabulary, self.state_dict())

    def save_pretrained(self, path: str | Path) -> None:
        """Write weights, config and, for models that read genes, the vocabulary into the folder `path`.

        Files are written beside and renamed, so that a reader never sees half of one.
        """
        path = Path(path)
        path.mkdir(parents=True, exist_ok=True)
        description = {"class": type(self).__name__, "config": dataclasses.asdict(self.config)}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        replace(path / CONFIG, lambda file: file.write_text(json.dumps(description, indent=2)))
        if self.reads_genes:
            replace(path / VOCABULARY, self.vocabulary.save)
        replace(path / WEIGHTS, lambda file: save_file(tensors, file))

    @classmethod
    def from_pretrained(cls, path: str | Path) -> Self:
        """Load a folder written by `save_pretrained` or by a training run, onto the CPU.

        Raises
        ------
        FileNotFoundError
            The folder lacks one of its files.
        ValueError
            The folder holds another kind of model, or its weights are truncated or of another size.
        """
        path = Path(path)
        for name in (CONFIG, WEIGHTS, *([VOCABULARY] if cls.reads_genes else [])):
            if not (path / name).is_file():
                raise FileNotFoundError(f"{path} has no {name}; give a folder written by save_pretrained or stp.train")
        description = json.loads((path / CONFIG).read_text())
        if description.get("class") != cls.__name__:
            raise ValueError(f"{path} holds a {description.get('class')}; load it with that class, not {cls.__name__}")
        config = from_dict(cls.config_class, description["config"])
        vocabulary = [Vocabulary.load(path / VOCABULARY)] if cls.reads_genes else []
        module = cls(config, *vocabulary)
        _fill(module, path / WEIGHTS)
        module.name = path.resolve().name
        return module.eval()


def _fill(module: torch.nn.Module, path: Path) -> None:
    try:
        module.load_state_dict(load_file(path))
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or damaged ({error}); copy it again from its source") from error
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit the config.json beside it: {error}") from error


def from_dict(config_class: type, values: dict[str, Any]) -> Any:
    """Build a config dataclass, nested ones included, from plain JSON or TOML values; unknown names are refused."""
    hints = typing.get_type_hints(config_class)
    if unknown := sorted(set(values) - {field.name for field in dataclasses.fields(config_class)}):
        raise ValueError(f"{config_class.__name__} has no {unknown}; it has {sorted(hints)}")
    return config_class(**{name: _value(hints[name], value) for name, value in values.items()})


def _value(hint: Any, value: Any) -> Any:
    if isinstance(hint, types.UnionType):  # of a config and None
        hint = None if value is None else typing.get_args(hint)[0]
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value)
    if isinstance(value, list):
        inner = next(iter(typing.get_args(hint)), None)  # Phase of tuple[Phase, ...]
        return tuple(_value(inner, one) for one in value)
    return value
