"""The cell that installs teachkit in a hosted notebook: in every lesson, silent where teachkit is installed."""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import hosted  # noqa: E402


def lesson():
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A lesson")])
    book.cells += [nbformat.v4.new_code_cell("1 + 1", execution_count=1)]
    book.cells[1].outputs = [nbformat.v4.new_output("execute_result", {"text/plain": "2"}, execution_count=1)]
    return book


def test_every_lesson_has_it():
    assert not [path.name for path in hosted.changes()], "run python tools/hosted.py"


def test_it_comes_once_and_counts_the_cells_below():
    once = hosted.with_cell(lesson(), None)
    assert once["cells"][1]["metadata"] == {"jupyter": {"source_hidden": True}, "tags": ["hosted"]}
    assert [cell["execution_count"] for cell in once["cells"][1:]] == [1, 2]
    assert once["cells"][2]["outputs"][0]["execution_count"] == 2
    assert hosted.with_cell(once, None) == once
    nbformat.validate(nbformat.from_dict(once))
    (there,) = (c for c in hosted.with_cell(once, "https://somewhere/teachkit")["cells"] if c["id"] == hosted.TAG)
    assert 'SOURCE = "git+https://somewhere/teachkit"' in "".join(there["source"])


def test_the_address_is_the_one_of_the_project(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\n[project.urls]\nRepository = "https://here"\n')
    assert hosted.repository(tmp_path) == "https://here"
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "00_a.ipynb").write_text(json.dumps(lesson()))
    (text,) = hosted.changes(tmp_path).values()
    assert "git+https://here" in text


@pytest.mark.parametrize("installed", [True, False, "a folder of that name"])
@pytest.mark.parametrize("source", ["", "a.whl"])
def test_it_installs_only_where_teachkit_is_not(tmp_path, installed, source):
    """Run with a pip that only writes down what it was asked for."""
    (tmp_path / "pip.py").write_text("import sys\nopen('asked', 'w').write(' '.join(sys.argv[1:]))")
    if installed is True:
        (tmp_path / "teachkit.py").write_text("")
    elif installed:
        (tmp_path / "teachkit").mkdir()
    cell = hosted.CELL.format(source=source)
    done = subprocess.run([sys.executable, "-S", "-c", cell], cwd=tmp_path, env={}, capture_output=True, text=True)
    asked = (tmp_path / "asked").read_text() if (tmp_path / "asked").exists() else None
    if installed is True:
        assert (done.returncode, done.stdout, done.stderr, asked) == (0, "", "", None)
    elif source:
        assert (done.returncode, asked) == (0, "install -q teachkit[course] @ a.whl")
    else:
        assert "put its address into SOURCE" in done.stderr
        assert asked is None
