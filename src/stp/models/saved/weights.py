"""Tensors from files that anyone may have written.

Reading never runs code, and names and shapes are checked before the tensors are used.
"""

import re
import zipfile
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from stp._log import logger, preview
from stp._text import is_utf8, utf8_path

Shapes = Mapping[str, tuple[int, ...]]
MAX_HEADER_BYTES = 2**24  # the header of a thousand tensors has a hundredth of it
DTYPES = ("F32", "F16", "BF16", "I64")  # integers are the genes of pathways
COPY_AGAIN = "copy it again from its source"
# Keys under which checkpoints keep the weights. Of a teacher and a student, the teacher is used.
CONTAINERS = ("state_dict", "teacher", "model")
# Beginnings of names that come from modules around a backbone.
PREFIX = re.compile(r"^(?:module|model|teacher|backbone|vit|dinov2)\.")
TEACHER = re.compile(r"^(?:module\.|model\.)*teacher\.")
STUDENT = re.compile(r"^(?:module\.|model\.)*student\.")
# Weights that training needed and that make no features.
HEAD = re.compile(
    r"^(?:head|head_dist|fc|classifier|pooler|heads|dino_head|ibot_head|projection_head|projector|"
    r"prototypes|text|text_decoder)\.|^(?:mask_token|logit_scale)$|"
    r"^visual\.(?:attn_pool_caption|ln_caption|proj_contrast)"
)


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor in a safetensors file; only its header is read.

    Raises
    ------
    ValueError
        If the file is truncated or damaged, its header is huge, or a tensor has a type that
        weights never have.
    """
    with path.open("rb") as file:
        n_header_bytes = int.from_bytes(file.read(8), "little")
    if n_header_bytes > min(MAX_HEADER_BYTES, path.stat().st_size):
        raise ValueError(
            f"{path} is truncated or damaged (its header claims {n_header_bytes} bytes); "
            f"{COPY_AGAIN}"
        )
    try:
        with utf8_path(path) as name, safe_open(name, "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}
            dtypes = {name: part.get_dtype() for name, part in slices.items()}
            shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is truncated or damaged ({error}); {COPY_AGAIN}") from error
    others = [f"{name} is {dtype}" for name, dtype in dtypes.items() if dtype not in DTYPES]
    if others:
        raise ValueError(
            f"{path} has tensors that are not weights: {preview(others)}; "
            f"weights are {', '.join(DTYPES)}"
        )
    return shapes


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a safetensors file."""
    with utf8_path(path) as name, safe_open(name, "pt") as file:
        return file.metadata() or {}


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a safetensors file, or of a file of `torch.save` (weights_only).

    Raises
    ------
    ValueError
        If the file is damaged or contains more than tensors.
    """
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        read_shapes(path)
        with utf8_path(path) as name:
            return load_file(name)
    return _unwrap_state_dict(_load_torch_file(path), path)


def save_tensors(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write tensors and metadata to a safetensors file."""
    from safetensors.torch import save, save_file

    if is_utf8(path):
        save_file(tensors, path, metadata)
    else:  # which takes the memory of the weights once more
        path.write_bytes(save(tensors, metadata))


def _load_torch_file(path: Path) -> Any:
    """Load a file of `torch.save` if it contains only tensors and plain containers."""
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path} is not a file of torch.save (since PyTorch 1.6, a zip); nothing in it was run"
        )
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    compressed = [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
    if compressed:
        raise ValueError(
            f"{path} has compressed parts, {preview(compressed)}, which torch.save never writes"
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise ValueError(
            f"{path} is damaged or contains more than tensors; nothing in it was run "
            f"({_short_reason(error)})"
        ) from error


def _short_reason(error: Exception) -> str:
    """Return the cause in torch's message, without its advice on how to run the file anyway."""
    cause = str(error).split("WeightsUnpickler error: ")[-1]
    return cause.split(" was not")[0].partition("\n")[0]


def _unwrap_state_dict(state: Any, path: Path) -> dict[str, torch.Tensor]:
    """Return the named tensors of a state dict.

    The dict may be plain, inside a checkpoint, or have names that begin with `module.`.
    """
    while isinstance(state, Mapping):
        inner = [key for key in CONTAINERS if isinstance(state.get(key), Mapping)]
        if not inner:
            break
        state = state[inner[0]]
    if not isinstance(state, Mapping) or not state:
        raise ValueError(f"{path} contains {type(state).__name__}, not named tensors")
    others = [repr(name) for name, value in state.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise ValueError(f"{path} contains more than tensors: {preview(others)}")
    return {str(name).removeprefix("module."): tensor for name, tensor in state.items()}


def strip_prefixes(weights: dict[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    """Return weights without `backbone.`, `model.`, `module.` or `teacher.` before their names.

    Of a teacher and a student in one file, the teacher is used.

    Parameters
    ----------
    weights
        Tensors by name.
    path
        The file, for the log and the error.

    Raises
    ------
    ValueError
        If two tensors have the same name then.
    """
    if any(TEACHER.match(name) for name in weights):
        students = [name for name in weights if STUDENT.match(name)]
        if students:
            logger.info(
                f"{path.name}: left out {len(students)} tensors of the student, used the teacher's."
            )
        weights = {name: weights[name] for name in weights if name not in students}
    stripped: dict[str, torch.Tensor] = {}
    counts: Counter[str] = Counter()
    for name, tensor in weights.items():
        short = name
        while match := PREFIX.match(short):
            short = short[match.end() :]
        if short in stripped:
            raise ValueError(
                f"{path} has several tensors for {short}, among them {name}; save the weights of "
                "one model alone"
            )
        stripped[short] = tensor
        counts[name.removesuffix(short)] += 1
    for prefix, n_names in counts.items():
        if prefix:
            logger.info(f"{path.name}: removed {prefix!r} from the names of {n_names} tensors.")
    return stripped


def leave_heads(
    weights: dict[str, torch.Tensor], expected: Collection[str], path: Path
) -> dict[str, torch.Tensor]:
    """Return weights without heads of classifiers and of training, which make no features.

    Parameters
    ----------
    weights
        Tensors by name.
    expected
        Names of the tensors that the model needs; they are never left out.
    path
        The file, for the log.
    """
    heads = [name for name in weights if name not in expected and HEAD.match(name)]
    if heads:
        logger.info(f"{path.name}: left out {len(heads)} tensors of heads: {preview(heads)}.")
    return {name: tensor for name, tensor in weights.items() if name not in heads}


def check_shapes(actual: Shapes, expected: Shapes, path: Path, target: str) -> None:
    """Raise ValueError if weights are not the expected ones, and name the tensors.

    Parameters
    ----------
    actual
        Shapes of the tensors in the file.
    expected
        Shapes of the tensors that the model needs.
    path
        The file, for the error.
    target
        The thing that the weights have to fit, for the error.

    Raises
    ------
    ValueError
        If tensors are missing, unknown or of another shape.
    """
    missing = [name for name in expected if name not in actual]
    unknown = [name for name in actual if name not in expected]
    different = [
        f"{name} is {list(actual[name])}, not {list(shape)}"
        for name, shape in expected.items()
        if name in actual and tuple(actual[name]) != tuple(shape)
    ]
    faults = {"missing": missing, "unknown": unknown, "of another shape": different}
    messages = [f"{fault}: {preview(names)}" for fault, names in faults.items() if names]
    if messages:
        raise ValueError(f"{path} does not fit {target}: {'; '.join(messages)}")
