"""What is measured against peers: ``python -m benchmarks [NAME ...]``.

Each ``bench_NAME.py`` has a text ``ABOUT`` (what is timed, how, and what would be good), the ``PEERS`` whose versions
matter, and ``run()``, which returns its rows: mappings from column to a number or a text. The runner makes the table
and writes it, with the machine and the versions, into ``RESULTS.md``.
"""
