import numpy as np

from stp.images.color_texture import color_and_texture


def test_a_plain_patch_has_its_color_and_no_texture():
    patches = np.zeros((2, 8, 8, 3), np.uint8)
    patches[1] = (10, 20, 30)
    features = color_and_texture(patches)
    colors = np.array([10, 20, 30])
    np.testing.assert_allclose(features[1, :3], colors)
    np.testing.assert_allclose(features[1, 3:6], 0)
    np.testing.assert_allclose(features[1, 6:12], [*colors, *colors])
    np.testing.assert_allclose(features[:, 12:], 0, atol=1e-4)
    np.testing.assert_allclose(features[0], 0)


def test_an_edge_is_texture():
    patch = np.zeros((1, 8, 8, 3), np.uint8)
    patch[:, :, 4:] = 200
    assert (color_and_texture(patch)[0, 12:] > 1).all()
