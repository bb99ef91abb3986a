"""Stand-in for the package of MicroPython."""
