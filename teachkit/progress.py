"""The progress bar of this process: a widget in a notebook that has widgets, text everywhere else."""

from importlib.util import find_spec

# tqdm.auto chooses the widget in every notebook, and warns where Jupyter has no widgets.
if find_spec("ipywidgets") is None:
    from tqdm import tqdm
else:
    from tqdm.auto import tqdm

__all__ = ["tqdm"]
