import math

import pytest
import torch
import torch.nn.functional as F

from stp.train.losses import (
    contrast,
    grid_pool,
    localization_logits,
    pooled_context,
    symmetric_contrast,
)

A = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
B = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
SCALE = torch.tensor(2.0)  # logits [[2, 1.2], [0, 1.6]]


def surprise(own, other):
    return math.log(1 + math.exp(other - own))


def test_contrast_is_the_cross_entropy_of_each_query_over_all_keys():
    expected = (surprise(2, 1.2) + surprise(1.6, 0)) / 2
    assert contrast(A, B, SCALE).item() == pytest.approx(expected, rel=1e-6)


def test_contrast_the_other_way_is_over_the_columns():
    expected = (surprise(2, 0) + surprise(1.6, 1.2)) / 2
    assert contrast(B, A, SCALE).item() == pytest.approx(expected, rel=1e-6)


def test_symmetric_contrast_is_the_mean_of_both_ways():
    expected = (surprise(2, 1.2) + surprise(1.6, 0) + surprise(2, 0) + surprise(1.6, 1.2)) / 4
    assert symmetric_contrast(A, B, SCALE).item() == pytest.approx(expected, rel=1e-6)
    assert symmetric_contrast(B, A, SCALE).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("n", [1, 5])
def test_contrast_of_equal_vectors_is_the_log_of_their_number(n):
    same = F.normalize(torch.ones(n, 4), dim=-1)
    assert contrast(same, same, SCALE).item() == pytest.approx(math.log(n), abs=1e-6)


@pytest.mark.parametrize(
    ("grid", "window", "stride"), [(3, 1, 1), (4, 2, 1), (6, 2, 2), (14, 6, 4), (16, 6, 5)]
)
def test_grid_pool_averages_windows_of_cells(grid, window, stride):
    numbered = torch.arange(grid * grid, dtype=torch.float32)  # row * grid + column
    tokens = torch.stack([numbered, 1000 - 3 * numbered], dim=-1).repeat(2, 1, 1)
    tokens[1] += 10_000
    middle = [(window - 1) / 2 + stride * cell for cell in range(3)]
    expected = torch.tensor([row * grid + column for row in middle for column in middle])
    pooled = grid_pool(tokens)
    assert pooled.shape == (2, 9, 2)
    torch.testing.assert_close(pooled[0], torch.stack([expected, 1000 - 3 * expected], dim=-1))
    torch.testing.assert_close(pooled[1], pooled[0] + 10_000)


def test_grid_pool_over_other_cells():
    pooled = grid_pool(torch.arange(16.0).view(1, 16, 1), cells=2)
    assert pooled.flatten().tolist() == [2.5, 4.5, 10.5, 12.5]


@pytest.mark.parametrize("length", [15, 197, 4, 1])
def test_grid_pool_refuses_what_is_no_grid(length):
    with pytest.raises(ValueError, match=f"{length} tokens are no square grid of at least 3 x 3"):
        grid_pool(torch.zeros(1, length, 2))


def test_localization_logits_are_scaled_cosines():
    cells = torch.zeros(2, 9, 3)
    cells[:, :, 2] = 7.0
    cells[0, 4] = torch.tensor([10.0, 0.0, 0.0])  # lengths must not matter
    cells[0, 5] = torch.tensor([0.0, -0.1, 0.0])
    reference = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 2.0]])
    expected = torch.zeros(2, 9)
    expected[0, 4], expected[0, 5], expected[1] = 0.6 * 5, -0.8 * 5, 5.0
    torch.testing.assert_close(localization_logits(cells, reference, torch.tensor(5.0)), expected)


def test_pooled_context_averages_real_tokens_then_neighbors():
    hidden = torch.tensor([[[100.0, 200.0], [2.0, 99.0], [4.0, 8.0]]]).unsqueeze(
        -1
    )  # (1 group, 3 spots, 2 tokens, 1)
    real = torch.tensor([[[True, True], [True, False], [True, True]]])
    assert pooled_context(hidden, real).tolist() == [[(2 + 6) / 2]]


def test_pooled_context_ignores_the_center_and_keeps_groups_apart():
    hidden = torch.randn(2, 9, 5, 4, generator=torch.Generator().manual_seed(0))
    real = torch.ones(2, 9, 5, dtype=torch.bool)
    context = pooled_context(hidden, real)
    torch.testing.assert_close(context, hidden[:, 1:].mean(dim=(1, 2)))
    hidden[:, 0] = 1e6
    assert torch.equal(pooled_context(hidden, real), context)
