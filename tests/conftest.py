"""What all tests share."""

from __future__ import annotations

import pytest
import tiny


@pytest.fixture(scope="session", autouse=True)
def tiny_is_known() -> None:
    """A network that trains in seconds. Not known yet when tests are made from lists of models."""
    tiny.register()
