"""Student copies of the assignments: `build` strips the instructor sources and refuses to write a copy that leaks."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

import nbformat

from teachkit import checks
from teachkit.course.assignments import notebook as nb
from teachkit.course.assignments import rules, sheets
from teachkit.course.assignments.pictures import linked
from teachkit.files import write_whole

__all__ = ["build", "read_ids", "write_text"]

IDS = range(100_000, 1_000_000)
PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp")


def build(source_dir: Path | str, out: Path | str, students: Sequence[str] | None = None) -> list[Path]:
    """Write a student copy of every source notebook: solutions replaced by a stub, hidden tests and outputs gone.

    Pictures that the text shows go with them: attached ones in the copy, files beside the source to the same place.

    Parameters
    ----------
    source_dir : path
        A folder of instructor sources, or one notebook.
    out : path
        The folder for the copies, another than that of the sources; made if need be.
    students : sequence of str, optional
        Make a copy for each of these, in a folder of this name, with an id of its own, by which the data of the
        questions on the student's own run are drawn; ``ids.csv`` says whose is which, and whoever stands there keeps
        it. By default one copy, with an id drawn at random.

    Returns
    -------
    list of Path
        The copies.

    Raises
    ------
    ValueError
        If there is no source, one breaks a rule (`rules.validate`) or shows a picture that is not there, or a copy
        would still show a line of a solution, a rubric or a hidden test. Then nothing is written.

    Examples
    --------
    >>> build("no such folder", "copies")
    Traceback (most recent call last):
        ...
    ValueError: source_dir must hold notebooks, but there is none in no such folder
    """
    source_dir, out = checks.path("source_dir", source_dir), checks.path("out", out)
    paths = [source_dir] if source_dir.is_file() else sorted(source_dir.glob("*.ipynb"))
    if not paths:
        raise ValueError(f"source_dir must hold notebooks, but there is none in {source_dir}")
    if out.resolve() == paths[0].resolve().parent:
        raise ValueError("out must be another folder than that of the sources, which it would overwrite")
    folders = [out / _folder(student) for student in students] if students is not None else [out]
    ids = _ids(out / "ids.csv", [] if students is None else students, [path.stem for path in paths])
    texts, files = dict[Path, str](), dict[str, Path]()
    for path in paths:
        source = nb.read(path)
        rules.validate(source, path.name)
        for folder in folders:
            number = ids.get((folder.name, path.stem), secrets.choice(IDS)) if nb.copy_id(source) is not None else None
            copy = nb.student_copy(source, number)
            texts[folder / path.name] = text = nbformat.writes(copy) + "\n"
            if leaked := rules.leaks(source, text):
                raise ValueError(f"{path.name}: the student copy would still show {leaked[0]!r}")
        links = [link for cell in copy.cells if cell.cell_type == "markdown" for link in linked(cell.source)]
        files |= {link: _picture(path, link) for link in links if not re.match(r"[a-z][a-z0-9+.-]+:|//", link, re.I)}
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        for link, file in files.items():
            (folder / link).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, folder / link)
    for file, text in texts.items():
        write_text(file, text)
    if ids:
        rows = [[sheets.safe(who), what, str(number)] for (who, what), number in ids.items()]
        write_text(out / "ids.csv", "\ufeff" + sheets.text([["student", "assignment", "id"], *rows]))
    return list(texts)


def _folder(student: str) -> str:
    """The name of a student's folder. Raises a ValueError if no folder can bear it."""
    if student in ("", ".", "..") or student != student.strip() or re.search(r'[\x00-\x1f<>:"/\\|?*]', student):
        raise ValueError(f"students must be names that a folder can bear, got {student!r}")
    return student


def read_ids(file: Path) -> dict[tuple[str, str], int]:
    """The ids by student and assignment in an ``ids.csv``; none if there is no file."""
    rows = sheets.read(file, ("student", "assignment", "id"))
    try:
        return {(sheets.plain(row["student"]), row["assignment"]): int(row["id"]) for row in rows}
    except ValueError:
        raise ValueError(f"{file.name}: an id must be an integer") from None


def _ids(file: Path, students: Sequence[str], assignments: Sequence[str]) -> dict[tuple[str, str], int]:
    """The ids by student and assignment: those that were given before, and new ones for who has none."""
    ids = read_ids(file) if students else {}
    for key in ((student, name) for student in students for name in assignments):
        while key not in ids:
            number = secrets.choice(IDS)
            ids |= {key: number} if number not in ids.values() else {}
    return ids


def _picture(source: Path, link: str) -> Path:
    """The file that a link of a source shows. Raises a ValueError if it could not be handed out with the copy."""
    file = (source.parent / link).resolve()
    if not file.is_file() or not file.is_relative_to(source.parent.resolve()) or file.suffix.lower() not in PICTURES:
        what = f"{source.name}: shows {link}"
        raise ValueError(f"{what}, which must be a picture in the folder of the source, or below it")
    return file


def write_text(path: Path, text: str) -> None:
    """Write so that no reader ever finds half a file, nor is stopped by a student's half characters."""
    write_whole(path, lambda beside: beside.write_text(text, encoding="utf-8", errors="backslashreplace", newline=""))
