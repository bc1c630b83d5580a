"""`import stp` is light, and every public part can be imported from it."""

import subprocess
import sys

import pytest

HEAVY = ("anndata", "scanpy", "spatialdata", "squidpy", "timm", "torch")


def test_importing_stp_loads_no_heavy_package() -> None:
    code = f"import sys, stp; print(*[name for name in {HEAVY} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


def test_the_door_lists_what_it_opens() -> None:
    import stp

    assert sorted(stp.__all__) == dir(stp)
    assert all(getattr(stp, name) is not None for name in stp.__all__)
    with pytest.raises(AttributeError, match="no_such_part"):
        stp.no_such_part  # noqa: B018
