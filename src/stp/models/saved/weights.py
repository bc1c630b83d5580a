"""Tensors from files that anyone may have written: nothing in them is run, and names and shapes are checked first."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

Shapes = Mapping[str, tuple[int, ...]]
MOST_HEADER = 2**24  # bytes; the header of a thousand tensors has a hundredth of it
KINDS = ("F32", "F16", "BF16", "I64")  # integers: the genes of pathways
AGAIN = "copy it again from its source"


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of a safetensors file, read from its header alone.

    Raises
    ------
    ValueError
        The file is truncated or damaged, its header is huge, or it holds other types than weights have.
    """
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
    if size > min(MOST_HEADER, path.stat().st_size):
        raise ValueError(
            f"{path} is truncated or damaged (its header claims {size} bytes); {AGAIN}"
        )
    try:
        with safe_open(path, "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}
            kinds = {name: part.get_dtype() for name, part in slices.items()}
            found = {name: tuple(part.get_shape()) for name, part in slices.items()}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is truncated or damaged ({error}); {AGAIN}") from error
    if strange := [f"{name} is {kind}" for name, kind in kinds.items() if kind not in KINDS]:
        raise ValueError(
            f"{path} holds no weights: {listed(strange)}; weights are {', '.join(KINDS)}"
        )
    return found


def metadata(path: Path) -> dict[str, str]:
    """Return what stands beside the tensors of a safetensors file."""
    with safe_open(path, "pt") as file:
        return file.metadata() or {}


def read(path: Path) -> dict[str, torch.Tensor]:
    """Read tensors of a safetensors file, or of one that `torch.save` wrote, by weights_only.

    Raises
    ------
    ValueError
        The file is damaged, or holds anything but tensors.
    """
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        shapes(path)
        return load_file(path)
    return tensors_of(_unpickled(path), path)


def _unpickled(path: Path) -> Any:
    """Load what `torch.save` wrote, where it is made of tensors and plain containers alone."""
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path} is no file of torch.save (since PyTorch 1.6, a zip); nothing in it was run"
        )
    with zipfile.ZipFile(path) as archive:
        if packed := [
            entry.filename
            for entry in archive.infolist()
            if entry.compress_type != zipfile.ZIP_STORED
        ]:
            raise ValueError(
                f"{path} has compressed parts, {listed(packed)}, which torch.save never writes"
            )
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        # torch's message is a page that ends by telling how to run the file all the same.
        said = (
            str(error).split("WeightsUnpickler error: ")[-1].split(" was not")[0].partition("\n")[0]
        )
        raise ValueError(
            f"{path} is damaged or holds more than tensors; nothing in it was run ({said})"
        ) from error


def tensors_of(state: Any, path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a state dict: plain, inside a Lightning checkpoint, or with names that begin `module.`."""
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not state:
        raise ValueError(f"{path} holds {type(state).__name__}, not named tensors")
    if strange := [
        repr(name) for name, value in state.items() if not isinstance(value, torch.Tensor)
    ]:
        raise ValueError(f"{path} holds more than tensors: {listed(strange)}")
    return {str(name).removeprefix("module."): tensor for name, tensor in state.items()}


def check_shapes(found: Shapes, expected: Shapes, path: Path, what: str) -> None:
    """Refuse weights that are not those expected, by name.

    Raises
    ------
    ValueError
        Tensors are missing, unknown or of another shape.
    """
    differ = [
        f"{name} is {list(found[name])}, not {list(shape)}"
        for name, shape in expected.items()
        if name in found and tuple(found[name]) != tuple(shape)
    ]
    faults = {
        "missing": [name for name in expected if name not in found],
        "unknown": [name for name in found if name not in expected],
        "of another shape": differ,
    }
    if said := "; ".join(f"{fault}: {listed(names)}" for fault, names in faults.items() if names):
        raise ValueError(f"{path} does not fit {what}: {said}")


def listed(names: list[str]) -> str:
    """Name the first few."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
