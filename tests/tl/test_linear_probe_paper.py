"""The paper's linear probe: when training stops, and when it stops too early."""

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

from stp import tl


def make(gap=4.0, n=180):
    """Make features whose first axes show the class, on one slide."""
    rng = np.random.default_rng(0)
    codes = rng.integers(3, size=n)
    features = rng.normal(size=(n, 8)).astype(np.float32)
    features[np.arange(n), codes] += gap
    obs = pd.DataFrame({"label": np.array(["a", "b", "c"])[codes]}, index=np.arange(n).astype(str))
    return anndata.AnnData(obs=obs, obsm={"X_stp_images": features})


@pytest.mark.parametrize(
    ("gap", "learning_rate", "is_early"), [(0.0, 0.3, True), (4.0, 1e-4, False)]
)
def test_training_stops_when_the_validation_loss_no_longer_falls(
    monkeypatch, recwarn, gap, learning_rate, is_early
):
    steps = []
    adam_step = torch.optim.Adam.step

    def count_step(optimizer, *args, **kwargs):
        steps.append(1)
        return adam_step(optimizer, *args, **kwargs)

    monkeypatch.setattr(torch.optim.Adam, "step", count_step)
    tl.linear_probe_paper(make(gap=gap), "label", n_folds=2, learning_rate=learning_rate)
    n_epochs = len(steps) / 2 / 10  # two folds, and at least ten steps per epoch
    assert (n_epochs < 50) == is_early
    is_warned = [str(warning.message) for warning in recwarn if warning.category is UserWarning]
    assert bool(is_warned) != is_early


def test_too_few_epochs_are_warned_of_with_the_rate_and_the_remedy():
    message = (
        r"the validation loss still falls at epoch 100 in 4 of 4 folds, so the scores are too low; "
        r"raise learning_rate=0\.0001, or use stp\.tl\.linear_probe"
    )
    with pytest.warns(UserWarning, match=message) as caught:
        tl.linear_probe_paper(make(), "label", n_folds=4)
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.filterwarnings("ignore:the validation loss still falls")
def test_parameters_are_recorded():
    adata = make()
    tl.linear_probe_paper(adata, "label", n_folds=2, learning_rate=1e-3, seed=3)
    assert adata.uns["stp_probe"]["params"] == {
        "label_key": "label",
        "group_key": None,
        "n_folds": 2,
        "use_rep": "X_stp_images",
        "learning_rate": 1e-3,
        "seed": 3,
    }
