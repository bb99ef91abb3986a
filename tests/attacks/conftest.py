"""Databases and quick retries, as for the end-to-end tests."""

from tests.e2e.conftest import (  # noqa: F401
    any_database,
    database,
    postgres,
    quick,
    shared_database,
)
