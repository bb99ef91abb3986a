from tests.api.conftest import *  # noqa: F403 - the same databases
