"""What engineers find beside the code says what is true: workflow, hooks, editor settings."""

import configparser
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
WORKFLOW, HOOKS = ROOT / ".github" / "workflows" / "test.yml", ROOT / ".pre-commit-config.yaml"
sys.path.insert(0, str(ROOT / "tools"))
import check_text  # noqa: E402

yaml = pytest.importorskip("yaml", reason="PyYAML reads the workflow; it comes with the extra test")


def validated(path: Path) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("check_jsonschema", reason="the schema needs the extra test: pip install -e '.[test]'")
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", path]
    return subprocess.run(check, capture_output=True, text=True)


@pytest.mark.slow
def test_the_workflow_is_what_github_reads(tmp_path):
    done = validated(WORKFLOW)
    assert done.returncode == 0, done.stdout
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(WORKFLOW.read_text().replace("runs-on:", "run-on:"))
    assert validated(wrong).returncode == 1
    if shutil.which("actionlint"):  # looks at expressions and shell too, where someone has it
        subprocess.run(["actionlint", WORKFLOW], check=True)


def test_the_workflow_runs_the_whole_check_and_plain_pip_everywhere():
    jobs = yaml.safe_load(WORKFLOW.read_text())["jobs"]
    assert [step["run"] for step in jobs["everything"]["steps"] if "run" in step] == [".ci/run"]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    matrix = jobs["pip"]["strategy"]["matrix"]
    assert {name.partition("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    versions = [c.rpartition(" ")[2] for c in classifiers if re.search(r":: 3\.\d+$", c)]
    assert matrix["python"] == [versions[0], versions[-1]]  # the oldest and the newest that are promised


@pytest.mark.slow
def test_the_sample_of_the_workflow_can_be_drawn(tmp_path):
    jobs = yaml.safe_load(WORKFLOW.read_text())["jobs"]
    (command,) = (s["run"] for s in jobs["pip"]["steps"] if "python -c" in s.get("run", ""))
    program = re.fullmatch(r'python -c "(.+)"', command)[1]
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == "torch.Size([4, 1, 8, 8])", done.stderr


def test_hooks_download_nothing_and_their_programs_come_with_the_environment():
    (repository,) = yaml.safe_load(HOOKS.read_text())["repos"]
    assert repository["repo"] == "local"
    extras = " ".join(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["test"])
    brought = {"lint-imports": "import-linter", "python": "", "ruff": "ruff"}
    for hook in repository["hooks"]:
        assert hook["language"] == "system"
        program, *rest = hook["entry"].split()
        assert brought[program.removeprefix(".venv/bin/")] in extras
        assert all((ROOT / part).is_file() for part in rest if part.startswith("tools/"))


def test_editors_break_lines_where_ruff_does():
    settings = configparser.ConfigParser()
    settings.read_string("[top]\n" + (ROOT / ".editorconfig").read_text())
    ruff = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]
    assert int(settings["*.{py,md}"]["max_line_length"]) == ruff["line-length"]
    assert settings["Makefile"]["indent_style"] == "tab"


TEXTS = [
    path
    for pattern in ("*.md", "*.toml", ".*.yaml", "Makefile", ".editorconfig", "[bdt]*/**/*.py", "docs/*.*")
    for path in ROOT.glob(pattern)
    if path.suffix != ".png" and not {"build", "_data"} & set(path.relative_to(ROOT).parts)
]


def test_texts_end_as_texts_do():
    assert len(TEXTS) > 100
    assert not {str(path): found for path in TEXTS if (found := check_text.faults(path.read_bytes()))}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b"a \nb\n", "blanks"),
        (b"a\r\n", "carriage"),
        (b"a", "no newline"),
        (b"a\n\n", "empty"),
        (b"<<<<<<< a\n", "merge"),
    ],
)
def test_what_is_wrong_with_a_text_is_found(text, fault):
    (found,) = check_text.faults(text)
    assert fault in found
    assert not check_text.faults(b"a\n\nb\n")


def test_the_moving_picture_is_small_loops_and_has_a_still():
    with Image.open(ROOT / "docs" / "ode.png") as moving, Image.open(ROOT / "docs" / "ode_still.png") as still:
        assert moving.n_frames > 20
        assert moving.info["loop"] == 0  # for ever
        assert moving.size == still.size
        assert getattr(still, "n_frames", 1) == 1
    assert (ROOT / "docs" / "ode.png").stat().st_size < 1_000_000
