"""How long a round that dies may look for who is missing: as long as this machine needs."""

import pytest

from openrlhf_mtp.sync import transport
from tests.patience import seconds


@pytest.fixture(autouse=True)
def patient_diagnosis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "DIAGNOSIS_S", seconds(transport.DIAGNOSIS_S))
