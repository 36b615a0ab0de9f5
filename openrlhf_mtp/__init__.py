"""Multi-token-prediction heads for OpenRLHF: equip, train, draft inside vLLM, keep in sync."""

__version__ = "0.1.0"
