"""The command line, ``teachkit COMMAND`` or ``python -m teachkit COMMAND``; ``teachkit --help`` lists the commands.

What a command prints for further use goes to stdout, everything else to stderr. Exit codes: 0 done, 1 could not be done
(one line says why; ``teachkit --debug COMMAND`` shows the traceback), 2 wrong usage, 130 interrupted. The heavy modules
are imported inside the commands.
"""

from teachkit.cli import assignments, claims, environment, evaluation, lessons, models, sampling
from teachkit.cli.base import app, main

__all__ = ["app", "assignments", "claims", "environment", "evaluation", "lessons", "main", "models", "sampling"]
