"""In place of Home Assistant's pages, 150 MB that no test looks at."""

from pathlib import Path


def where() -> Path:
    return Path(__file__).parent
