"""What every test of the pages needs."""

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def main_module() -> Iterator[None]:
    """Streamlit's AppTest puts the page in place of `__main__`, which new processes import."""
    kept = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = kept
