"""Every notebook runs from top to bottom in a fresh kernel."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "notebooks"


@pytest.mark.parametrize("name", sorted(p.name for p in FOLDER.glob("*.ipynb")))
@pytest.mark.filterwarnings("default")  # of the Jupyter client, not of genjax
def test_notebook_runs(name):
    notebook = nbformat.read(FOLDER / name, as_version=4)
    for cell in notebook.cells:  # fewer steps: that it runs is tested here, not how well it learns
        cell.source = cell.source.replace("STEPS = 1500", "STEPS = 200")
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(FOLDER)}}).execute()
