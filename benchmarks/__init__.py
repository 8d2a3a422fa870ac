"""What is measured against peers. ``python -m benchmarks [NAME ...]`` runs the ``run()`` of every ``bench_NAME.py``."""
