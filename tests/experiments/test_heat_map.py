import numpy as np
import pytest
from matplotlib.figure import Figure

from genjax.cli.runner_heat_map import heat_map


@pytest.mark.parametrize("columns", [("x", "y", "z"), ()])
def test_heat_map(columns):
    """Every value in its own cell, on colours that tell it from the ground; names, or numbers from 1, on the axes."""
    axis = Figure().add_subplot()
    image = heat_map(axis, [[0.1, 1.0, 10.0], [100.0, 1000.0, 12345.0]], ("a", "b"), columns)
    np.testing.assert_allclose(image.get_array()[0], [-1, 0, 1], atol=1e-12)
    said = {text.get_position(): (text.get_text(), text.get_color()) for text in axis.texts}
    assert said[(0, 0)] == ("0.1", "white") and said[(2, 1)] == ("1.23e+04", "black") and len(said) == 6
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b"]
    assert [label.get_text() for label in axis.get_xticklabels()] == list(columns or ("1", "2", "3"))
