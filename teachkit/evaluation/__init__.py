"""Evaluation at scale: many samples, on any number of processes, resumable, with the same result each time.

Work is cut into shards of fixed content: shard k holds the samples 64 k to 64 k + 63, whoever computes it. A shard is
a file, whole or absent, in a folder named after everything that matters, so a run that was killed goes on where it was,
and 50,000 samples need the memory of one shard. Under ``torchrun`` the shards are dealt out to the processes; what is
gathered are their statistics, in the order of the shards, so the result is the same to the last bit for 1, 2 or 8
processes. `table` makes a table of methods and numbers of evaluations, as papers print them.
See docs/SCALE.md.
"""

from teachkit.evaluation.shards import SHARD, Shards
from teachkit.evaluation.streams import GeometryStatistics, features_for, geometry_of, samples_of
from teachkit.evaluation.table import Method, Row, identify, methods, table
from teachkit.fingerprints import fingerprint
from teachkit.launcher import Processes, processes

__all__ = ["SHARD", "GeometryStatistics", "Method", "Processes", "Row", "Shards"]
__all__ += ["features_for", "fingerprint", "geometry_of", "identify", "methods", "processes", "samples_of", "table"]
