"""A hub on this machine, which the tests of downloads and uploads use."""

from collections.abc import Iterator

import pytest
from huggingface_hub import constants
from tests.models.saved.hub_server import HubServer, serve_hub


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[HubServer]:
    """Start an empty hub, and let the hub's client use it with an empty cache and no login."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # a protocol that no test can serve
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no_token"))
    with serve_hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server
