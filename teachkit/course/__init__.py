"""The course: what serves notebooks and a class, on top of the library.

    outline       the list of lessons: numbers, names, and what follows from them
    claims        statements of the paper, each with a measured number and a verdict
    grading       instant checks for the exercises of the lessons
    plots         pictures that describe themselves
    widgets       explorers with sliders
    latents       a small pipeline in the latents of an autoencoder, as one's own would be
    assignments   graded problem sets: student copies, checks, marks

The library never imports any of it; each part is imported by its name, ``from teachkit.course import plots``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def needs(extra: str, what: str) -> Iterator[None]:
    """Around imports of what not every installation has: name the extra that brings it.

    Parameters
    ----------
    extra : str
        The extra of teachkit, such as ``course``.
    what : str
        Who needs it, for the message.

    Yields
    ------
    None
        The imports stand in the body.

    Raises
    ------
    ModuleNotFoundError
        If an import inside fails; says ``pip install 'teachkit[extra]'``.

    Examples
    --------
    >>> with needs("course", "the pictures"):
    ...     import no_such_package
    Traceback (most recent call last):
    ModuleNotFoundError: the pictures need no_such_package: pip install 'teachkit[course]'
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "teachkit":
            raise
        raise ModuleNotFoundError(
            f"{what} need {error.name}: pip install 'teachkit[{extra}]'", name=error.name
        ) from None
