"""The README says what is true: its table of lessons is current, its links lead somewhere, its program runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
sys.path.insert(0, str(ROOT / "tools"))
import readme_table  # noqa: E402


def test_the_table_of_lessons_is_current():
    assert readme_table.render(README) == README, "run python tools/readme_table.py"


@pytest.mark.parametrize("page", ["README.md", "data/README.md", "CONTRIBUTING.md", "INSTRUCTORS.md", "CHANGELOG.md"])
def test_links_and_pictures_lead_somewhere(page):
    folder = (ROOT / page).parent
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", (ROOT / page).read_text()):
        assert (folder / target).exists(), target


@pytest.mark.slow
def test_the_program_in_the_readme_runs():
    program = re.search(r"```python\n(.+?)```", README, re.S)[1]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert re.search(r"largest deviation: 0\.5\d % of the chord", done.stdout), done.stdout
