"""The course: what serves notebooks and a class, on top of the library.

    outline       the list of lessons: numbers, names, and what follows from them
    claims        statements of the paper, each with a measured number and a verdict
    grading       instant checks for the exercises of the lessons
    plots         pictures that describe themselves
    widgets       explorers with sliders
    assignments   graded problem sets: student copies, checks, marks

The library never imports any of it; each part is imported by its name, ``from teachkit.course import plots``.
"""
