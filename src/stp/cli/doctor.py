"""What works on this machine: versions, devices, attention, optional parts, weights; a line of remedy for the rest."""

import importlib.metadata as metadata
import os
import platform
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from stp._extras import EXTRAS
from stp._version import __version__

OURS, THEIRS = "stp-spatial", "stp"
MAIN = (
    "anndata",
    "scanpy",
    "spatialdata",
    "squidpy",
    "timm",
    "torch",
    "zarr",
)  # what the main job imports first


class Line(NamedTuple):
    """What was found; `ok` is None where nothing depends on it."""

    name: str
    ok: bool | None
    found: str
    remedy: str = ""
    needed: bool = False


def run() -> int:
    """Print what was found; returns 0, or 1 where the main job cannot run."""
    print(f"stp {__version__} on Python {platform.python_version()}, {platform.platform()}")
    able = True
    for check in (versions, namesake, devices, attention, optional_parts, weights):
        for line in _safely(check):
            mark = {True: "ok", False: "no", None: "--"}[line.ok]
            print(
                f"{mark}  {line.name}: {line.found}" + (f"; {line.remedy}" if line.remedy else "")
            )
            able = able and (line.ok is not False or not line.needed)
    print(
        "the main job can run"
        if able
        else "the main job cannot run: mend the lines above that begin with no"
    )
    return 0 if able else 1


def _safely(check) -> Iterator[Line]:
    try:
        yield from check()
    except Exception as error:  # noqa: BLE001 - the doctor must end, whatever is broken here
        remedy = f"install again: pip install --force-reinstall {OURS}"
        yield Line(check.__name__, False, f"{type(error).__name__}: {error}", remedy, needed=True)


def versions() -> Iterator[Line]:
    """Compare what is installed with what stp asks for, and import what the main job begins with."""
    from packaging.requirements import Requirement

    for text in metadata.requires(OURS) or ():
        asked = Requirement(text)
        if asked.marker and not asked.marker.evaluate({"extra": ""}):
            continue
        remedy = f'pip install "{asked.name}{asked.specifier}"'
        try:
            found = metadata.version(asked.name)
        except metadata.PackageNotFoundError:
            yield Line(asked.name, False, "missing", remedy, needed=True)
            continue
        fits = asked.specifier.contains(found, prereleases=True)
        yield Line(asked.name, fits, found, "" if fits else f"too old: {remedy}", needed=True)
    for name in MAIN:
        try:
            _import(name)
        except Exception as error:  # noqa: BLE001 - a broken install can raise anything
            remedy = f"install it again: pip install --force-reinstall {name}"
            yield Line(
                f"import {name}", False, f"{type(error).__name__}: {error}", remedy, needed=True
            )


def _import(name: str) -> None:
    with warnings.catch_warnings():  # of others, about themselves
        warnings.simplefilter("ignore")
        import_module(name)


def namesake() -> Iterator[Line]:
    """Notice the unrelated package `stp` of the public index, whose files may lie over ours."""
    try:
        found = metadata.version(THEIRS)
    except metadata.PackageNotFoundError:
        found = None
    if found:
        remedy = f"pip uninstall {THEIRS}, then pip install --force-reinstall {OURS}"
        yield Line(
            "package stp",
            False,
            f"{found}, of others, is installed beside {OURS}",
            remedy,
            needed=True,
        )
    yield Line("stp is imported from", None, str(Path(__file__).parent))


def devices() -> Iterator[Line]:
    """Name the devices of torch."""
    import torch

    yield Line("CPU", True, f"{torch.get_num_threads()} threads of {os.cpu_count()} cores")
    for number in range(torch.cuda.device_count()):
        of = torch.cuda.get_device_properties(number)
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16: pass precision='fp32'"
        yield Line(f"cuda:{number}", True, f"{of.name}, {of.total_memory / 2**30:.0f} GiB, {bf16}")
    if not torch.cuda.is_available():
        built = "is built for CUDA" if torch.version.cuda else "is built for CPUs"
        remedy = "the CPU is used; with an NVIDIA GPU, see that nvidia-smi works and torch is a CUDA build"
        yield Line("GPU", None, f"none within reach, torch {built}", remedy)


def attention() -> Iterator[Line]:
    """Try each way of torch to compute attention on the device that would be used."""
    import torch
    import torch.nn.functional as F
    from torch.nn.attention import SDPBackend, sdpa_kernel

    device = "cuda" if torch.cuda.is_available() else "cpu"
    kind = torch.bfloat16 if device == "cuda" else torch.float32
    x = torch.ones(1, 2, 8, 16, device=device, dtype=kind)
    kinds = {
        "flash": SDPBackend.FLASH_ATTENTION,
        "memory-efficient": SDPBackend.EFFICIENT_ATTENTION,
    }
    kinds |= {"cuDNN": SDPBackend.CUDNN_ATTENTION, "plain": SDPBackend.MATH}
    for name, backend in kinds.items():
        try:
            with warnings.catch_warnings(), sdpa_kernel(backend):
                warnings.simplefilter("ignore")
                F.scaled_dot_product_attention(x, x, x)
            yield Line(f"attention, {name}", True, f"works on {device}", needed=name == "plain")
        except RuntimeError:
            plain = name == "plain"
            remedy = (
                "install torch again" if plain else "torch chooses another by itself, nothing to do"
            )
            yield Line(
                f"attention, {name}",
                False if plain else None,
                f"not on {device}",
                remedy,
                needed=plain,
            )


def optional_parts() -> Iterator[Line]:
    """Import what only some functions need."""
    for module, extra in EXTRAS.items():
        try:
            _import(module)
            yield Line(module, True, f"works, for {extra}")
        except Exception as error:  # noqa: BLE001 - a broken install can raise anything
            yield Line(
                module, None, f"does not ({type(error).__name__})", f"pip install '{OURS}[{extra}]'"
            )


def weights() -> Iterator[Line]:
    """Tell where weights of the hub are kept."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    held = sorted(
        folder.name.removeprefix("models--").replace("--", "/")
        for folder in cache.glob("models--*")
    )
    there = f"{cache} ({', '.join(held) or 'empty'})"
    yield Line("weight cache", None, there, "HF_HUB_CACHE moves it, e.g. to a disk with room")
    if constants.HF_HUB_OFFLINE:
        yield Line(
            "hub", None, "HF_HUB_OFFLINE is set: only the cache is used", "unset it to download"
        )
