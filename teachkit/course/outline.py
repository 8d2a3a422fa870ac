"""The course in one list: which lessons there are, in which order, and what each is about.

Numbers follow from the order, and from the numbers all else: the names of the notebooks, their headings and links, the
tables of README.md and INSTRUCTORS.md, where a claim is taught, what an assignment builds on. After a change of this
list ``python tools/renumber.py`` makes all of them agree with it; ``--check`` says what does not.
"""

from __future__ import annotations

import difflib
from typing import NamedTuple

__all__ = ["ASSIGNMENTS", "LESSONS", "PARTS", "Assignment", "Lesson", "lesson", "name", "number"]


class Lesson(NamedTuple):
    """A lesson: its name without a number, and what its heading and the tables of contents say.

    ``needs`` and ``helps`` are names of lessons to be read before, and of those that are of use; ``part`` is one of
    `PARTS`.

    Examples
    --------
    >>> lesson("the_ode").title
    'The ODE'
    """

    slug: str
    part: str
    title: str
    question: str
    idea: str
    needs: tuple[str, ...] = ()
    helps: tuple[str, ...] = ()


class Assignment(NamedTuple):
    """A graded problem set: the name of its notebook, its subject, hours, points, and the lessons it needs.

    Examples
    --------
    >>> ASSIGNMENTS[0].needs[-1]
    'mean_shift'
    """

    name: str
    subject: str
    hours: str
    points: int
    needs: tuple[str, ...]


PARTS = {
    "start": "show what it is about",
    "plane": "build the tools on data you can see in the plane",
    "digits": "take the same code to real digits",
    "networks": "to trained networks",
}

LESSONS = (
    Lesson("start_here", "start", "Start here: the boomerang", "why are five steps enough?",
           "A diffusion model walks from noise to a picture. Five steps are enough if they are the right ones, for the "
           "walk is nearly a straight line with one bend, of nearly the same shape for every picture."),
    Lesson("noise_and_denoising", "plane", "Noise and denoising",
           "what is D(x; sigma), and why does it point along the score?",
           "What a denoiser is, why the best one is an average, and why it points where the data gets denser.",
           needs=("start_here",)),
    Lesson("mean_shift", "plane", "Mean shift", "why is a denoiser an old clustering algorithm?",
           "The best denoiser of a data set is a clustering step from 1975, and a sampler takes the same steps with "
           "a shrinking bandwidth, each cut short.", needs=("noise_and_denoising",)),
    Lesson("the_ode", "plane", "The ODE", "which curve does a sampler follow, and in which stages?",
           "The sampler follows a curve that obeys an equation. Every step is an average of two points you can name, "
           "and the walk has three stages.", needs=("noise_and_denoising", "mean_shift")),
    Lesson("solvers", "plane", "Solvers", "how do Euler, Heun and multistep methods follow it?",
           "Every solver is a guess at what the direction does during a step. You will derive the main ones from one "
           "integral, measure their orders, and learn to recognise a broken one by its plots.",
           needs=("the_ode",)),
    Lesson("five_evaluations", "plane", "Five evaluations",
           "what goes wrong with five evaluations, and what does noise repair?",
           "With five evaluations a high order promises nothing. Two things go wrong: coarse steps choose the wrong "
           "digit, and negative weights leave the data.", needs=("solvers",)),
    Lesson("high_dimensions", "digits", "High dimensions",
           "what changes, and what becomes simple, in 784 dimensions?",
           "The code that moved dots in the plane draws digits in 784 dimensions, unchanged. What changes is the "
           "geometry, and it becomes simpler.", needs=("the_ode",)),
    Lesson("one_line_and_a_bend", "digits", "One line and a bend",
           "how straight is a path, and where does it bend?",
           "A sampling path is a straight line but for one small bend. You measure it, derive how high it is and "
           "where, predict what a paper reports, and find what any smooth curve would do as well.",
           needs=("the_ode", "high_dimensions")),
    Lesson("the_boomerang", "digits", "The boomerang", "is it really one shape? the controls",
           "Seen along its chord, every sampling path bends the same way. Most of what seems to prove it proves "
           "nothing; this lesson finds the part that does.", needs=("high_dimensions", "one_line_and_a_bend")),
    Lesson("curvature_and_torsion", "digits", "Curvature and torsion", "where does a path turn, and can you tell?",
           "A ruler that is too long finds its own length. You see it invent a peak, and measure how a path turns "
           "without any ruler.", needs=("one_line_and_a_bend", "the_boomerang")),
    Lesson("gaussians", "digits", "Gaussians", "how far do a mean and a covariance carry?",
           "A mean and a covariance stand in for a denoiser at large noise: how far, until when, and which of the two "
           "saves evaluations of a network.",
           needs=("the_ode", "solvers", "high_dimensions"), helps=("one_line_and_a_bend", "the_boomerang")),
    Lesson("stages", "digits", "Stages", "when is it decided what a sample will be?",
           "A path moves straight, turns while several images compete, and moves straight again. You watch it turn, "
           "find when it chooses its class, and catch a statistic that would find a choice in anything.",
           needs=("the_ode", "high_dimensions", "gaussians"), helps=("one_line_and_a_bend",)),
    Lesson("training_edm", "networks", "Training an EDM network", "how is a denoiser learned?",
           "A denoiser can be learned by regression. Four constants decide whether that is easy or hopeless, and "
           "three of them follow from one line each.", needs=("noise_and_denoising", "the_ode"), helps=("solvers",)),
    Lesson("learned_vs_optimal", "networks", "Learned against optimal",
           "where does a network differ from the exact denoiser?",
           "The best possible denoiser of a data set can only replay it. A trained network is a worse denoiser of "
           "that set, and a better model of digits.", needs=("high_dimensions", "one_line_and_a_bend", "training_edm")),
    Lesson("schedules_by_dynamic_programming", "networks", "Schedules by dynamic programming",
           "where should a sampler stop if it may stop only five times?",
           "With six evaluations to spend, where do you stop? All paths have one shape, so a few of them can answer "
           "for all. You derive the paper's method, find what its coefficient does, and go beyond it.",
           needs=("solvers", "one_line_and_a_bend"), helps=("training_edm",)),
    Lesson("learned_solvers", "networks", "Learned solvers", "what is the best solver of all?",
           "A solver is a table of weights. You fit one to the paths of a network by least squares, learn one by "
           "gradients, see which gets further, and look for what neither can reach.",
           needs=("schedules_by_dynamic_programming",), helps=("training_edm",)),
    Lesson("one_step", "networks", "One step", "what can distillation do that no solver can?",
           "No solver can get from one evaluation what its network does not say there. So the network is taught to "
           "say it. You distil a sampler to a single step, find a control that it must beat, and see what is lost.",
           needs=("solvers", "training_edm", "learned_solvers")),
    Lesson("real_gpu_models", "networks", "Real GPU models (so far: digits, on a CPU)",
           "does all of it hold for published networks?",
           "The same cells, a published network: load it safely, sample, measure the boomerang, find a schedule, "
           "fill in the table.",
           needs=("solvers", "one_line_and_a_bend"),
           helps=("the_boomerang", "training_edm", "schedules_by_dynamic_programming")),
    Lesson("your_own_model", "networks", "Your own model", "what is all of it worth to you on Monday?",
           "A network that predicts noise or a velocity, in latents, guided by a prompt: one line makes it a denoiser, "
           "and everything in this course applies to it, at the guidance you use.",
           needs=("solvers", "one_line_and_a_bend", "schedules_by_dynamic_programming"), helps=("real_gpu_models",)),
)  # fmt: skip

ASSIGNMENTS = (
    Assignment("A1_denoisers_and_mean_shift", "denoisers and mean shift", "5–7", 30,
               ("start_here", "noise_and_denoising", "mean_shift")),
    Assignment("A2_solvers", "solvers", "5–7", 30,
               ("start_here", "noise_and_denoising", "mean_shift", "the_ode", "solvers")),
    Assignment("A3_geometry", "geometry", "5–7", 30, ("high_dimensions", "one_line_and_a_bend", "the_boomerang")),
    Assignment("A4_scheduling", "scheduling", "7–9", 40,
               ("solvers", "one_line_and_a_bend", "schedules_by_dynamic_programming", "learned_solvers")),
)  # fmt: skip


def lesson(slug: str) -> Lesson:
    """The lesson of this name.

    Parameters
    ----------
    slug : str
        Name of a lesson, without its number.

    Returns
    -------
    Lesson

    Raises
    ------
    ValueError
        If there is none; the nearest name is suggested.

    Examples
    --------
    >>> lesson("solvers").title
    'Solvers'
    """
    names = [entry.slug for entry in LESSONS]
    if slug not in names:
        near = difflib.get_close_matches(str(slug), names, n=1)
        raise ValueError(f"slug must be one of {names}, got {slug!r}" + (f"; {near[0]!r}?" if near else ""))
    return LESSONS[names.index(slug)]


def number(slug: str) -> str:
    """The number of a lesson, two digits, by its place in the list; the first is 00.

    Parameters
    ----------
    slug : str
        Name of a lesson, without its number.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If there is no such lesson.

    Examples
    --------
    >>> number("start_here")
    '00'
    """
    return f"{LESSONS.index(lesson(slug)):02d}"


def name(slug: str) -> str:
    """Number and name of a lesson, which its notebook is called after.

    Parameters
    ----------
    slug : str
        Name of a lesson, without its number.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If there is no such lesson.

    Examples
    --------
    >>> name("start_here")
    '00_start_here'
    """
    return f"{number(slug)}_{slug}"
