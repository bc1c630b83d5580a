import numpy as np
import torch

from stp.data.augmentation import N_ROTATIONS, jitter_stain, rotate, rotate_cells

GRID = torch.arange(9).view(1, 3, 3, 1)


def test_the_eight_rotations_are_those_of_a_square():
    rotations = torch.arange(N_ROTATIONS)
    images = rotate(GRID.expand(8, -1, -1, -1), rotations)[..., 0]
    square = GRID[0, ..., 0].numpy()
    expected = {np.rot90(side, k).tobytes() for side in (square, square[:, ::-1]) for k in range(4)}
    assert {image.numpy().tobytes() for image in images} == expected
    assert images[0].tolist() == square.tolist()
    assert images[1].tolist() == [[2, 1, 0], [5, 4, 3], [8, 7, 6]]
    # y flipped, then axes swapped: a quarter turn
    assert images[6].tolist() == [[6, 3, 0], [7, 4, 1], [8, 5, 2]]


def test_cells_go_where_their_pixels_go():
    for rotation in range(N_ROTATIONS):
        rotations = torch.full((9,), rotation)
        cells = rotate_cells(torch.arange(9), rotations)
        assert rotate(GRID, rotations[:1]).flatten()[cells].tolist() == list(range(9))


def test_each_image_has_its_own_rotation():
    images = torch.randint(
        0, 256, (8, 6, 6, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    together = rotate(images, torch.arange(8))
    assert together.dtype == torch.uint8
    for number in range(8):
        alone = rotate(images[number : number + 1], torch.tensor([number]))[0]
        assert torch.equal(together[number], alone)


def test_stains_scale_the_optical_density_of_each_channel():
    images = torch.tensor([255.0, 128.0, 10.0]).expand(2, 4, 4, 3)
    dark = jitter_stain(images, torch.tensor([[1.0, 1.0, 1.0], [1.0, 2.0, 0.5]]))
    torch.testing.assert_close(dark[0], images[0])
    density = -(dark[1, 0, 0] / 255).log()
    torch.testing.assert_close(
        density, torch.tensor([1.0, 2.0, 0.5]) * -(images[0, 0, 0] / 255).log()
    )
