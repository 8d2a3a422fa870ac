"""What the committed lessons must be, so that `pytest --nbval notebooks` really compares them and they can be read."""

import ast
import base64
import io
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

from teachkit.course import outline

ROOT = Path(__file__).resolve().parents[2]
LESSONS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
sys.path.insert(0, str(ROOT / "tools"))
import folding  # noqa: E402
import run_course  # noqa: E402

lessons = pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@lessons
def test_every_code_cell_was_executed_in_order(path):
    # nbval does not compare a cell without execution_count, so a stripped notebook would pass without being tested.
    counts = [cell.execution_count for cell in code_cells(read(path))]
    assert counts == list(range(1, len(counts) + 1))


@lessons
def test_storing_outputs_again_would_change_nothing_but_outputs(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert notebook == run_course.normalise(read(path), path.stem), "run `make notebooks`"
    assert notebook.metadata.kernelspec.name == "python3"
    ids = [cell["id"] for cell in notebook.cells]
    assert len(set(ids)) == len(ids)


@lessons
def test_no_errors_and_nothing_on_stderr(path):
    for cell in code_cells(read(path)):
        for output in cell.outputs:
            assert output.output_type != "error", cell.source
            assert output.get("name") != "stderr", cell.source


@lessons
def test_pictures_carry_alternative_text_with_numbers(path):
    for cell in code_cells(read(path)):
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data or "<img" in str(data.get("text/html", "")):
                images = re.findall(r"<img[^>]*>", data.get("text/html", ""))
                assert images, f"show this picture through teachkit.course.plots: {cell.source}"
                for image in images:
                    alt = re.search(r'alt="([^"]+)"', image)
                    assert alt, cell.source
                    assert re.search(r"\d", alt[1]), f"alternative text without a number: {alt[1]}"


@lessons
def test_nothing_drawn_is_cut_off_by_the_edge_of_a_picture(path):
    for cell in code_cells(read(path)):
        for output in cell.outputs:
            if png := output.get("data", {}).get("image/png"):
                grey = np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("L"))
                edges = grey[[0, -1]].ravel(), grey[:, [0, -1]].ravel()
                assert min(edge.min() for edge in edges) > 200, f"a label is cut off, give it more room: {cell.source}"


@lessons
def test_size_is_limited(path):
    assert path.stat().st_size < 1_500_000
    for cell in code_cells(read(path)):
        for output in cell.outputs:
            assert len(base64.b64decode(output.get("data", {}).get("image/png", ""))) < 150_000, cell.source


@lessons
def test_no_path_of_a_machine(path):
    text = re.sub(r"base64,[A-Za-z0-9+/=]+", "", path.read_text(encoding="utf-8"))
    text = re.sub(r'"image/png": "[^"]*"', "", text)
    found = re.findall(r"(?:/home/|/root/|/Users/|/tmp/|/work/|[A-Z]:\\\\Users)[^\s\"]*", text)
    assert not found


@lessons
def test_headings_are_in_order(path):
    levels = []
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            text = re.sub(r"```.*?```", "", cell.source, flags=re.S)
            levels += [len(marks) for marks in re.findall(r"^(#{1,6}) ", text, flags=re.M)]
    assert levels[:1] == [1], "a lesson opens with its title"
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels)), "a heading level is skipped"


@lessons
def test_a_lesson_says_what_it_takes_and_asks_three_questions(path):
    cells = read(path).cells
    top = cells[0].source
    assert re.search(r"\*\*Time\*\*: \d+ minutes( \(.+?\))? · \*\*Needs\*\*: .+ · \*\*Leans on\*\*: ", top)
    assert "**Notation**: [symbols](../docs/SYMBOLS.md)" in top
    (test,) = (cell.source for cell in cells if "self-test" in cell.metadata.get("tags", []))
    assert re.findall(r"^\*\*(\d)\.\*\* \S", test, re.MULTILINE) == ["1", "2", "3"]
    answers = re.findall(r"\n\n<details><summary>Answer</summary>\n\n(.+?)\n\n</details>", test, re.DOTALL)
    assert len(answers) == 3
    assert all(len(answer) > 60 for answer in answers)


@lessons
def test_measured_claim_is_printed(path):
    assert run_course.claims(read(path)), "tag the cell that prints the measured claim with `claim`"


@lessons
def test_a_prediction_is_stored_open_and_its_answer_folded(path):
    for cell in code_cells(read(path)):
        if "widgets.predict(" in cell.source:
            (output,) = cell.outputs
            assert output.data["text/plain"].endswith("no guess yet")
            assert "<details><summary>" in output.data["text/html"]
            assert "application/vnd.jupyter.widget-view+json" not in output.data


def test_some_lessons_fold_drawings_and_ask_for_predictions():
    texts = [path.read_text(encoding="utf-8") for path in LESSONS]
    assert sum(f'"{folding.TAG}"' in text for text in texts) >= 3
    assert sum("widgets.predict(" in text for text in texts) >= 3


DRAWS = "picture, ax = plots.panels()\nfor x, name in zip(xs, names):\n    ax.plot(x.mean(1), label=f'{name}')\npicture"


@pytest.mark.parametrize(
    ("source", "later", "folded"),
    [
        (DRAWS, "plots.film_strip(paths)", True),
        (DRAWS, "picture, ax = plots.panels()\npicture", True),
        (DRAWS, "picture.alt", False),
        (DRAWS.replace("x.mean(1)", "D(x, 1.0)"), "", False),
        (DRAWS.replace("x.mean(1)", "D.log_prob(x, 1.0)"), "", False),
        (DRAWS.replace("x.mean(1)", "geometry.deviation(x)"), "", False),
        (DRAWS.replace("picture\n", "picture\nprint(xs)\n") + "\nprint(xs)", "", False),
        ("plots.film_strip(paths)", "", False),
        ("a = 1\nb = 2\nc = [a, b]\nc", "", False),
    ],
)
def test_only_cells_that_only_draw_are_folded(source, later, folded):
    assert folding.only_draws(source, [later]) == folded


def test_folding_follows_the_rule_and_leaves_solutions():
    cells = [nbformat.v4.new_code_cell(DRAWS), nbformat.v4.new_code_cell(DRAWS), nbformat.v4.new_code_cell("xs")]
    cells[1].metadata |= {"tags": ["solution"], "jupyter": {"source_hidden": True}}
    book = nbformat.v4.new_notebook(cells=cells)
    folding.fold(book)
    assert book.cells[0].metadata == {"tags": ["drawing"], "jupyter": {"source_hidden": True}}
    assert book.cells[1].metadata == {"tags": ["solution"], "jupyter": {"source_hidden": True}}
    assert "tags" not in book.cells[2].metadata
    book.cells[2].source = "picture"
    folding.fold(book)
    assert "tags" not in book.cells[0].metadata
    assert not book.cells[0].metadata.jupyter.get("source_hidden")


# --- the tools themselves, on tiny notebooks -----------------------------------------------------------------------


def tiny(path, *sources, tags=()):
    cells = [nbformat.v4.new_markdown_cell("# Tiny")] + [nbformat.v4.new_code_cell(source) for source in sources]
    cells[-1].metadata["tags"] = list(tags)
    run_course.write(run_course.normalise(nbformat.v4.new_notebook(cells=cells), path.stem), path)
    return path


def nbval(*paths):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "conftest", "--nbval", *paths]
    settings = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=paths[0].parent, env=settings, capture_output=True, text=True)


@pytest.mark.slow
def test_nbval_sees_one_percent_and_forgives_only_pixels(tmp_path, capsys):
    picture = "from teachkit.course import plots\nplots.image_grid([[[0.0, 1.0], [1.0, 0.0]]], title='{} square')"
    path = tiny(tmp_path / "00_tiny.ipynb", "print(f'{1 / 3:.3f}')", picture.format("One"))
    assert run_course.run(path, in_place=True, out=tmp_path / "out")
    stored = path.read_text()
    edits = {
        "same": ("0.333", "0.333"),
        "one percent": ("0.333", "0.336"),
        "pixels": ("iVBORw0KGgo", "iVBORw0KGgp"),
        "text of a picture": ("One square: 1 images", "One square: 2 images"),
    }
    books = {name: tmp_path / f"{name}.ipynb" for name in edits}
    for name, (old, new) in edits.items():
        assert old in stored
        books[name].write_text(stored.replace(old, new))
    told = nbval(*books.values()).stdout
    failed = {name for name in edits if f"FAILED {name}.ipynb" in told}
    assert failed == {"one percent", "text of a picture"}, told
    assert "0.336" in told


@pytest.mark.slow
def test_nbval_sees_a_check_that_takes_a_spoilt_answer(tmp_path):
    grading = "class grading:\n    def check(name, answer):\n        print('✓' if answer else '✗ not quite')"
    path = tiny(tmp_path / "00_checked.ipynb", grading, "answer = 42\ngrading.check('it', answer)", tags=["solution"])
    assert run_course.run(path, in_place=True, out=tmp_path / "out")
    assert "does not refuse a spoilt answer: ✓" in nbval(path).stdout


@pytest.mark.slow
def test_running_in_place_twice_changes_nothing(tmp_path):
    source = "import sys\nprint('note', file=sys.stderr)\nprint(1)\nprint(2)"
    path = tiny(tmp_path / "01_twice.ipynb", source)
    assert run_course.run(path, in_place=True, out=tmp_path / "out")
    first = path.read_text()
    assert run_course.run(path, in_place=True, out=tmp_path / "out")
    assert path.read_text() == first
    (cell,) = code_cells(read(path))
    assert [output.get("name") for output in cell.outputs] == ["stdout"]
    assert "iopub" not in first


@pytest.mark.slow
def test_a_failing_lesson_stops_nothing_and_is_told(tmp_path, monkeypatch, capsys):
    tiny(tmp_path / "01_bad.ipynb", "print('before')", "1 / 0")
    good = tiny(tmp_path / "02_good.ipynb", "print('one measured number: 1')", tags=["claim"])
    before = good.read_text()
    monkeypatch.setattr(run_course, "LESSONS", tmp_path)
    monkeypatch.setattr(run_course, "OUT", tmp_path / "out")
    assert run_course.main([]) == 1
    printed = capsys.readouterr().out
    assert re.search(r"01_bad +FAILED", printed)
    assert "ZeroDivisionError" in printed
    assert re.search(r"02_good +ok", printed)
    assert "one measured number: 1" in printed
    assert good.read_text() == before, "only --in-place may change a lesson"
    assert "before" in json.dumps(read(tmp_path / "out" / "01_bad.ipynb"))
    assert run_course.main(["02"]) == 0


def test_unknown_lesson_is_named():
    with pytest.raises(SystemExit, match="no notebook called 'nonsense'"):
        run_course.find(["nonsense"])


def test_features_of_published_models_are_computed_on_the_device():
    """Inception on a CPU takes hours for what a GPU does in minutes: pictures go there first, features come back."""
    path = ROOT / "notebooks" / f"{outline.name('real_gpu_models')}.ipynb"
    code = [ast.parse(cell.source) for cell in code_cells(read(path))]
    functions = {f.name: ast.unparse(f) for tree in code for f in ast.walk(tree) if isinstance(f, ast.FunctionDef)}
    calls = [call for tree in code for call in ast.walk(tree) if isinstance(call, ast.Call)]
    called = [ast.unparse(call) for call in calls if ast.unparse(call.func) == "features"]
    assert called == ["features(images.to(device).clamp(-1, 1))"]
    assert ".cpu()" not in functions["draw"]
