"""Student copies of the assignments: `build` strips the instructor sources and refuses to write a copy that leaks."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import nbformat

from teachkit import checks
from teachkit.course.assignments import notebook as nb
from teachkit.course.assignments.pictures import linked
from teachkit.files import write_whole

__all__ = ["build", "write_text"]

PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp")


def build(source_dir: Path | str, out: Path | str) -> list[Path]:
    """Write a student copy of every source notebook: solutions replaced by a stub, hidden tests and outputs gone.

    Pictures that the text shows go with them: attached ones in the copy, files beside the source to the same place.

    Parameters
    ----------
    source_dir : path
        A folder of instructor sources, or one notebook.
    out : path
        The folder for the copies, another than that of the sources; made if need be.

    Returns
    -------
    list of Path
        The copies.

    Raises
    ------
    ValueError
        If there is no source, one breaks a rule (`notebook.validate`) or shows a picture that is not there, or a copy
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
    texts, files = dict[str, str](), dict[str, Path]()
    for path in paths:
        source = nb.read(path)
        nb.validate(source, path.name)
        copy = nb.student_copy(source)
        text = nbformat.writes(copy) + "\n"
        if leaked := nb.leaks(source, text):
            raise ValueError(f"{path.name}: the student copy would still show {leaked[0]!r}")
        texts[path.name] = text
        links = [link for cell in copy.cells if cell.cell_type == "markdown" for link in linked(cell.source)]
        files |= {link: _picture(path, link) for link in links if not re.match(r"[a-z][a-z0-9+.-]+:|//", link, re.I)}
    for link, file in files.items():
        (out / link).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, out / link)
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_text(out / name, text)
    return [out / name for name in texts]


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
