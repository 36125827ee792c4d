"""A table of positive numbers as a heat map, for the pictures of experiments on grids."""

import numpy as np


def heat_map(axis, values, rows, columns, texts=None, size=7):
    """Draws values [R, C] > 0, small ones dark, on a log scale, each written in its cell; the image is returned.

    Args:
      axis: of matplotlib.
      rows, columns: names; columns may be empty, then the axis counts from 1.
      texts: R x C strings, or None for the values with three digits.
      size: of the texts.
    """
    logs = np.log10(np.asarray(values, np.float64))
    image = axis.imshow(logs, aspect="auto", cmap="viridis")
    middle = 0.5 * (logs.min() + logs.max())
    for i, j in np.ndindex(logs.shape):
        text = f"{values[i][j]:.3g}" if texts is None else texts[i][j]
        color = "white" if logs[i, j] <= middle else "black"
        axis.text(j, i, text, ha="center", va="center", fontsize=size, color=color)
    names = list(columns) or [str(j + 1) for j in range(logs.shape[1])]
    axis.set(xticks=range(logs.shape[1]), xticklabels=names, yticks=range(logs.shape[0]), yticklabels=list(rows))
    axis.tick_params(labelsize=8)
    return image
