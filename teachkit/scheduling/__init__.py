"""Schedules by dynamic programming."""

from teachkit.scheduling.costs import METRICS, cost_matrix
from teachkit.scheduling.paths import path_cost, shortest_path, shortest_paths

__all__ = ["METRICS", "cost_matrix", "path_cost", "shortest_path", "shortest_paths"]
