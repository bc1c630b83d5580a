"""`stp doctor`: print what works on this machine, and a remedy for what does not."""

import argparse
import importlib.metadata as metadata
import os
import platform
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from stp._version import __version__

if TYPE_CHECKING:
    from packaging.requirements import Requirement

OUR_PACKAGE = "stp-spatial"
UNRELATED_PACKAGE = "stp"
DEVELOPER_EXTRAS = {"test", "docs"}
# The packages that every analysis imports first. Those of data are imported in another process
# while the other checks run, because all together take more than ten seconds.
MODEL_PACKAGES = ("torch", "timm")
DATA_PACKAGES = ("anndata", "zarr", "scanpy", "spatialdata", "squidpy")
IMPORT_EACH = """
import importlib, sys, warnings
warnings.simplefilter("ignore")
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
        print(name)
    except Exception as error:
        message = f"{type(error).__name__}: {error}".partition(chr(10))[0]
        print(name, message, sep=chr(9))
"""


class Line(NamedTuple):
    """One line of the report; `ok` is None if nothing depends on the result."""

    name: str
    ok: bool | None
    result: str
    remedy: str = ""
    needed: bool = False


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "doctor", help="what works on this machine; status 1 if the main job cannot run"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the report; return 0, or 1 if the main job cannot run."""
    print(f"stp {__version__} on Python {platform.python_version()}, {platform.platform()}")
    can_run = True
    with _start_data_imports() as process:
        checks = (
            versions,
            model_imports,
            namesake,
            devices,
            attention,
            optional_parts,
            weights,
            partial(data_imports, process),
        )
        for check in checks:
            for line in _run_check(check):
                mark = {True: "ok", False: "no", None: "--"}[line.ok]
                remedy = f"; {line.remedy}" if line.remedy else ""
                print(f"{mark}  {line.name}: {line.result}{remedy}", flush=True)
                if line.needed and line.ok is False:
                    can_run = False
    if can_run:
        print("the main job can run")
    else:
        print("the main job cannot run: mend the lines above that begin with no")
    return 0 if can_run else 1


def _run_check(check: Callable[[], Iterator[Line]]) -> Iterator[Line]:
    """Run one check; an error in it becomes a line of the report."""
    try:
        yield from check()
    except Exception as error:  # noqa: BLE001 - the doctor must end, whatever is broken here
        remedy = f"install again: pip install --force-reinstall {OUR_PACKAGE}"
        name = getattr(check, "__name__", "imports")
        yield Line(name, False, _describe(error), remedy, needed=True)


def versions() -> Iterator[Line]:
    """Compare the installed versions with those that stp requires."""
    for requirement in _requirements(""):
        name = requirement.name
        install = f'pip install "{name}{requirement.specifier}"'
        version = _installed_version(name)
        if version is None:
            yield Line(name, False, "missing", install, needed=True)
            continue
        fits = requirement.specifier.contains(version, prereleases=True)
        remedy = "" if fits else f"must be {requirement.specifier}: {install}"
        yield Line(name, fits, version, remedy, needed=True)


def optional_parts() -> Iterator[Line]:
    """Compare the versions of packages that only some functions need."""
    extras = metadata.metadata(OUR_PACKAGE).get_all("Provides-Extra") or []
    for extra in sorted(set(extras) - DEVELOPER_EXTRAS):
        install = f"pip install '{OUR_PACKAGE}[{extra}]'"
        for requirement in _requirements(extra):
            version = _installed_version(requirement.name)
            if version is None:
                yield Line(requirement.name, None, f"missing, for {extra}", install)
                continue
            fits = requirement.specifier.contains(version, prereleases=True)
            remedy = "" if fits else f"must be {requirement.specifier}: {install}"
            yield Line(requirement.name, fits, f"{version}, for {extra}", remedy)


def _requirements(extra: str) -> "Iterator[Requirement]":
    """Yield what stp requires, or what one extra of it requires in addition."""
    from packaging.requirements import Requirement

    for text in metadata.requires(OUR_PACKAGE) or ():
        requirement = Requirement(text)
        marker = requirement.marker
        is_core = marker is None or marker.evaluate({"extra": ""})
        is_of_extra = marker is not None and not is_core and marker.evaluate({"extra": extra})
        if is_of_extra or (is_core and not extra):
            yield requirement


def _installed_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def model_imports() -> Iterator[Line]:
    """Import the main packages of models."""
    for name in MODEL_PACKAGES:
        try:
            _import(name)
        except Exception as error:  # noqa: BLE001 - a broken install can raise anything
            yield _broken_import(name, _describe(error))


def _start_data_imports() -> "subprocess.Popen[str]":
    """Start a process that imports the main packages of data, and prints a line for each."""
    command = [sys.executable, "-P", "-c", IMPORT_EACH, *DATA_PACKAGES]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def data_imports(process: "subprocess.Popen[str]") -> Iterator[Line]:
    """Wait for the process that imports the main packages of data."""
    output, _ = process.communicate()
    results = dict(line.partition("\t")[::2] for line in output.splitlines())
    for name in DATA_PACKAGES:
        if name not in results:  # the process ended before its line
            yield _broken_import(name, f"Python ended with status {process.returncode}")
            return
        if results[name]:
            yield _broken_import(name, results[name])


def _broken_import(name: str, result: str) -> Line:
    remedy = f"install it again: pip install --force-reinstall {name}"
    return Line(f"import {name}", False, result, remedy, needed=True)


def _import(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other packages warn about themselves
        import_module(name)


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def namesake() -> Iterator[Line]:
    """Check for the unrelated package `stp` of PyPI, whose files may overwrite ours."""
    version = _installed_version(UNRELATED_PACKAGE)
    if version:
        remedy = (
            f"pip uninstall {UNRELATED_PACKAGE}, then pip install --force-reinstall {OUR_PACKAGE}"
        )
        result = f"{version}, an unrelated package, is installed along with {OUR_PACKAGE}"
        yield Line("package stp", False, result, remedy, needed=True)
    yield Line("stp is imported from", None, str(Path(__file__).parents[1]))


def devices() -> Iterator[Line]:
    """List the devices of torch."""
    import torch

    yield Line("CPU", True, f"{torch.get_num_threads()} threads of {os.cpu_count()} cores")
    for number in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(number)
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16: pass precision='fp32'"
        memory = f"{gpu.total_memory / 2**30:.0f} GiB"
        yield Line(f"cuda:{number}", True, f"{gpu.name}, {memory}, {bf16}")
    if not torch.cuda.is_available():
        build = "is built for CUDA" if torch.version.cuda else "is built for CPUs"
        remedy = (
            "the CPU is used; with an NVIDIA GPU, check that nvidia-smi works "
            "and that torch is a CUDA build"
        )
        yield Line("GPU", None, f"none within reach, torch {build}", remedy)


def attention() -> Iterator[Line]:
    """Try each attention backend of torch on the device that would be used."""
    import torch
    import torch.nn.functional as F
    from torch.nn.attention import SDPBackend, sdpa_kernel

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    x = torch.ones(1, 2, 8, 16, device=device, dtype=dtype)
    backends = {
        "flash": SDPBackend.FLASH_ATTENTION,
        "memory-efficient": SDPBackend.EFFICIENT_ATTENTION,
        "cuDNN": SDPBackend.CUDNN_ATTENTION,
        "plain": SDPBackend.MATH,
    }
    for name, backend in backends.items():
        is_needed = name == "plain"
        try:
            with warnings.catch_warnings(), sdpa_kernel(backend):
                warnings.simplefilter("ignore")
                F.scaled_dot_product_attention(x, x, x)
            yield Line(f"attention, {name}", True, f"works on {device}", needed=is_needed)
        except RuntimeError:
            ok = False if is_needed else None
            remedy = "torch chooses another by itself, nothing to do"
            if is_needed:
                remedy = "install torch again"
            yield Line(f"attention, {name}", ok, f"not on {device}", remedy, needed=is_needed)


def weights() -> Iterator[Line]:
    """Show the folder of downloaded weights and what is in it."""
    from huggingface_hub import constants

    from stp.models.saved.hub import cache_folder

    cache = cache_folder()
    names = sorted(
        folder.name.removeprefix("models--").replace("--", "/")
        for folder in cache.glob("models--*")
    )
    result = f"{cache} ({', '.join(names) or 'empty'})"
    yield Line("weight cache", None, result, "HF_HUB_CACHE moves it, e.g. to a disk with room")
    if constants.HF_HUB_OFFLINE:
        yield Line(
            "hub", None, "HF_HUB_OFFLINE is set: only the cache is used", "unset it to download"
        )
