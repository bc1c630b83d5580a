"""The settings of the package, and what they change."""

import logging
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

import stp
from stp.models.device import choose_device
from stp.models.published.release_download import default_folder
from stp.models.saved.hub import cache_folder


@pytest.fixture(autouse=True)
def settings():
    """Give the settings, and restore them afterwards."""
    before = dict(vars(stp.settings))
    verbosity = stp.settings.verbosity
    yield stp.settings
    vars(stp.settings).update(before)
    stp.settings.verbosity = verbosity


@pytest.mark.parametrize(
    ("verbosity", "name", "level"),
    [
        ("error", "error", logging.ERROR),
        ("warning", "warning", logging.WARNING),
        ("info", "info", logging.INFO),
        ("debug", "debug", logging.DEBUG),
        (0, "error", logging.ERROR),
        (1, "warning", logging.WARNING),
        (2, "info", logging.INFO),
        (3, "info", logging.INFO),
        (4, "debug", logging.DEBUG),
    ],
)
def test_verbosity_is_a_name_or_a_number_of_scanpy(settings, verbosity, name, level):
    settings.verbosity = verbosity
    assert settings.verbosity == name
    assert logging.getLogger("stp").level == level


@pytest.mark.parametrize("verbosity", ["loud", 5, -1, True, None])
def test_another_verbosity_is_refused(settings, verbosity):
    with pytest.raises(ValueError, match=r"verbosity must be one of \['error', .* or 0 to 4, not"):
        settings.verbosity = verbosity
    assert settings.verbosity == "info"


def test_with_less_verbosity_a_call_logs_nothing(settings, adata, vocabulary, capfd):
    stp.tl.tokenize(adata, vocabulary, context_length=8)
    assert "Tokenized 100 spots" in capfd.readouterr().err
    settings.verbosity = "warning"
    stp.tl.tokenize(adata, vocabulary, context_length=8)
    assert capfd.readouterr().err == ""


def test_the_device_is_that_of_calls_without_one(settings):
    settings.device = "meta"
    assert choose_device(None) == torch.device("meta")
    assert choose_device("cpu") == torch.device("cpu")
    settings.device = "nowhere"
    with pytest.raises(ValueError, match="device 'nowhere' cannot be used here"):
        choose_device(None)


def test_downloads_are_in_the_cache_of_hugging_face_or_in_that_of_the_settings(settings, tmp_path):
    assert settings.cache_dir is None
    assert cache_folder() == Path(constants.HF_HUB_CACHE)
    assert default_folder() == Path(constants.HF_HOME) / "stp" / "release"
    settings.cache_dir = str(tmp_path)
    assert settings.cache_dir == tmp_path
    assert (cache_folder(), default_folder()) == (tmp_path / "hub", tmp_path / "release")
    settings.cache_dir = "~/stp"
    assert settings.cache_dir == Path.home() / "stp"


def test_the_settings_show_themselves(settings, tmp_path):
    settings.cache_dir = tmp_path
    assert repr(settings) == (
        f"Settings(verbosity='info', progress=True, device=None, cache_dir={str(tmp_path)!r})"
    )
