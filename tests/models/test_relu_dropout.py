"""A rectifier with dropout does what the two modules of PyTorch do."""

import pytest
import torch

from stp.models.relu_dropout import ReluDropout


def test_without_training_or_dropout_it_is_a_rectifier():
    values = torch.randn(7, 5)
    assert torch.equal(ReluDropout(0.25).eval()(values), torch.relu(values))
    assert torch.equal(ReluDropout(0.0)(values), torch.relu(values))


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.999])
def test_a_share_is_dropped_and_the_mean_stays(share):
    torch.manual_seed(0)
    values = torch.ones(1000, 1003)
    result = ReluDropout(share)(values)
    kept = result[result > 0]
    assert len(kept) / values.numel() == pytest.approx(1 - share, abs=0.002)
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - share)), rtol=2e-2, atol=0)
    assert result.mean().item() == pytest.approx(1, rel=0.1 if share > 0.9 else 0.01)


def test_the_values_that_are_dropped_are_independent():
    torch.manual_seed(0)
    kept = (ReluDropout(0.5)(torch.ones(400_000)) > 0).float()
    for lag in (1, 2, 3, 4, 8):
        pairs = torch.stack([kept[:-lag], kept[lag:]])
        assert torch.corrcoef(pairs)[0, 1].abs().item() < 0.01


def test_the_gradient_is_that_of_the_values_that_are_kept():
    values = torch.randn(300, 7, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(300, 7, dtype=torch.float64)
    torch.manual_seed(3)
    result = ReluDropout(0.25)(values)
    (result * weights).sum().backward()
    expected = torch.where(result > 0, weights / 0.75, 0.0)
    torch.testing.assert_close(values.grad, expected)
    assert ((values <= 0) <= (result == 0)).all()


def test_a_seed_gives_the_same_values():
    values = torch.randn(33, 3)
    results = []
    for _ in range(2):
        torch.manual_seed(5)
        results.append(ReluDropout(0.5)(values))
    assert torch.equal(*results)
