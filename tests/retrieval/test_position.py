import numpy as np

from stp.retrieval.position import copy_by_position


def test_the_nearest_spots_of_each_centered_section_are_averaged():
    first = np.array([[0, 0], [10, 0], [20, 0]])
    second = first + 500
    expression = np.array([[1.0, 0], [2, 0], [4, 0]])
    predicted = copy_by_position(
        [(first, expression), (second, expression * 3)], first[[0, 1, 2]] - 70, n_nearest=2
    )
    slow = []
    for place in first - first.mean(axis=0):
        order = np.argsort(np.abs((first - first.mean(axis=0) - place)[:, 0]), kind="stable")[:2]
        slow.append(expression[order].mean(axis=0) * (1 + 3) / 2)
    np.testing.assert_allclose(predicted[[0, 2]], np.array(slow)[[0, 2]])
