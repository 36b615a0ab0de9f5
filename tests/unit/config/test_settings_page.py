"""docs/settings.md says what the code does."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_settings_page_is_in_step_with_the_code():
    spec = importlib.util.spec_from_file_location("settings_page", ROOT / "scripts" / "settings_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert written == module.page(), "run: .venv/bin/python scripts/settings_page.py > docs/settings.md"
