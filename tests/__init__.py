"""A regular package: ``tests`` is this folder, even where an installed project brings a ``tests`` of its own."""
