"""Tests of the assignments, their grader and the grading itself."""
