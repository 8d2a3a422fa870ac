"""``teachkit assignments build | check | grade``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from teachkit.cli.base import app

group = typer.Typer(help="Student copies, instant feedback and grading of the assignments.", no_args_is_help=True)
app.add_typer(group, name="assignments")


@group.command()
def build(
    out: Annotated[Path, typer.Argument(help="Folder for the student copies.")],
    source: Annotated[Path, typer.Option(help="Folder of instructor sources, or one.")] = Path("notebooks/assignments"),
    students: Annotated[Path | None, typer.Option(help="Names, one a line: a copy for each, with its own id.")] = None,
) -> None:
    """Write student copies without solutions and hidden tests."""
    from teachkit.course import assignments

    names = students.read_text(encoding="utf-8-sig").splitlines() if students else None
    for path in assignments.build(source, out, names and [name.strip() for name in names if name.strip()]):
        typer.echo(path)


@group.command()
def check(file: Annotated[Path, typer.Argument(help="Your notebook.")]) -> None:
    """Run a notebook and its visible tests, and say what is right and what is not yet (then exit code 1)."""
    from teachkit.course import assignments

    report = assignments.check(file)
    typer.echo(assignments.summary(report))
    raise typer.Exit(0 if report.points == report.maximum else 1)


@group.command()
def grade(
    submissions: Annotated[Path, typer.Argument(help="Folder with a notebook, or a folder, per student.")],
    source: Annotated[Path, typer.Option(help="The instructor source.")],
    out: Annotated[Path, typer.Option(help="Folder for grades.csv, marking/ and feedback/.")] = Path("grades"),
    seed: Annotated[int | None, typer.Option(help="Of the cohort; default: the last one used in --out.")] = None,
    jobs: Annotated[int, typer.Option(help="Submissions run at a time.", min=1)] = 1,
    seconds: Annotated[float, typer.Option(help="Time for one submission.", min=1)] = 600,
    memory: Annotated[int, typer.Option(help="Megabytes for one submission.", min=64)] = 2048,
    ids: Annotated[Path | None, typer.Option(help="The ids.csv of build, for names in grades.csv.")] = None,
) -> None:
    """Grade a folder of submissions with the hidden tests; exit code 1 if a person must look at one."""
    from teachkit.course import assignments

    limits = assignments.Limits(total_seconds=seconds, memory_megabytes=memory)
    reports = assignments.grade(submissions, source, out, seed=seed, jobs=jobs, limits=limits, ids=ids, progress=True)
    unsure = [report for report in reports if report.failed or report.untested]
    for report in unsure:
        typer.echo(f"{report.student}: {'; '.join(report.notes)}", err=True)
    typer.echo(out / "grades.csv")
    raise typer.Exit(1 if unsure else 0)
