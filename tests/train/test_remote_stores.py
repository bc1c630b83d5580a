"""Training on remote stores gives what local stores give, and records no passwords."""

import dataclasses

import numpy as np
import pytest
import torch

from stp.models import GeneEncoder, Stamp
from stp.train import AlignConfig, Phase, PretrainConfig, align, pretrain

PRETRAIN = PretrainConfig(phases=(Phase(batch_size=50),), min_genes=5)
ALIGN = AlignConfig(epochs=1, batch_size=20, accumulate=1, min_genes=5, projection_width=32)
TOKEN = "hidden"


def urls_of(web, n_stores):
    host = f"me:{TOKEN}@{web.host}"
    return [f"http://{host}/slide{number}.zarr?token={TOKEN}" for number in range(n_stores)]


def same_weights(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def all_text(folder):
    return "".join(
        file.read_bytes().decode("latin-1") for file in folder.rglob("*") if file.is_file()
    )


@pytest.fixture(scope="module")
def local(stores, vocabulary, tiny_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("local")
    settings = {"vocabulary": vocabulary, "model": tiny_config.gene, "config": PRETRAIN}
    pretrain(stores[:2], folder, validation=stores[2:], **settings)
    return folder


def test_a_run_that_a_dying_server_stopped_ends_as_one_on_local_stores(
    local, web, vocabulary, tiny_config, cache, tmp_path, capsys
):
    settings = {"vocabulary": vocabulary, "model": tiny_config.gene, "config": PRETRAIN}
    urls = urls_of(web, 3)
    run = tmp_path / "run"
    web.start(DIES_AFTER=80, TOKEN=TOKEN)  # in the second store
    with pytest.raises(ConnectionError, match=rf"http://{web.host}/slide1.zarr cannot be reached"):
        pretrain(urls[:2], run, validation=urls[2:], **settings)
    web.kill()
    web.start(TOKEN=TOKEN)
    encoder = pretrain(urls[:2], run, validation=urls[2:], **settings)
    assert same_weights(encoder, GeneEncoder.from_pretrained(local))
    assert encoder.card.trained_on == GeneEncoder.from_pretrained(local).card.trained_on
    assert f"http://{web.host}/slide0.zarr" in (run / "training.json").read_text()
    shown = capsys.readouterr()
    assert TOKEN not in all_text(run) + shown.err + shown.out


def test_an_interrupted_run_on_local_stores_goes_on_with_remote_ones(
    local, stores, web, vocabulary, tiny_config, cache, tmp_path
):
    """A run recognizes its stores by their digests."""
    settings = {"vocabulary": vocabulary, "model": tiny_config.gene, "config": PRETRAIN}
    web.start(TOKEN=TOKEN)
    urls = urls_of(web, 3)
    encoder = pretrain(urls[:2], local, validation=urls[2:], **settings)
    assert same_weights(encoder, GeneEncoder.from_pretrained(local))


def test_alignment_on_remote_stores_gives_what_local_ones_give(
    local, stores, web, tiny_config, cache, tmp_path, capsys
):
    settings = {"gene_encoder": local, "image_encoder": tiny_config.image, "config": ALIGN}
    expected = align(stores[:1], tmp_path / "local", **settings)
    web.start(TOKEN=TOKEN)
    stamp = align(urls_of(web, 1), tmp_path / "run", **settings)
    assert same_weights(stamp, expected)
    assert same_weights(Stamp.from_pretrained(tmp_path / "run"), expected)
    shown = capsys.readouterr()
    assert TOKEN not in all_text(tmp_path / "run") + shown.err + shown.out


def test_a_vocabulary_of_remote_stores_is_that_of_local_ones(
    web, stores, vocabulary, cache, tmp_path
):
    web.start(TOKEN=TOKEN)
    fitted = vocabulary.fit(urls_of(web, 3))
    np.testing.assert_array_equal(fitted.means, vocabulary.means)
    assert fitted.corpus == vocabulary.corpus == ("slide0.zarr", "slide1.zarr", "slide2.zarr")
    (tmp_path / "fitted").mkdir()
    fitted.save(tmp_path / "fitted" / "vocabulary.parquet")
    assert TOKEN not in all_text(tmp_path / "fitted") + all_text(cache)


def test_errors_of_training_name_the_url_without_its_password(
    web, vocabulary, tiny_config, cache, tmp_path
):
    web.start(TOKEN=TOKEN)
    (url,) = urls_of(web, 1)
    settings = {"vocabulary": vocabulary, "model": tiny_config.gene, "config": PRETRAIN}
    with pytest.raises(ValueError, match="have the same content") as twice:
        pretrain([url, url], tmp_path / "a", **settings)
    with pytest.raises(TypeError, match="stores is one path") as single:
        pretrain(url, tmp_path / "b", **settings)
    few = dataclasses.replace(PRETRAIN, min_genes=10**6)
    with pytest.raises(ValueError, match="no spot") as none:
        pretrain([url], tmp_path / "c", **{**settings, "config": few})
    with pytest.raises(ValueError, match="output_dir http://127.*is remote") as remote:
        pretrain([url], url, **settings)
    assert not [error for error in (twice, single, none, remote) if TOKEN in str(error.value)]
