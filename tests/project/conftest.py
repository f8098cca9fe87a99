"""What tests of the project as a whole share."""

import pytest
from helpers import SCRIPTS


@pytest.fixture(autouse=True)
def tools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules of scripts/tools/ find each other, as when one of them is run."""
    monkeypatch.syspath_prepend(SCRIPTS / "tools")
