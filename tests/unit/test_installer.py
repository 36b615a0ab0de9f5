"""Set-up by uv: from where pip would install, and by pip itself where uv cannot be had."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from uv_environment import pip_settings, uv_environment  # noqa: E402


def variables(listing, environ=None):
    return uv_environment(pip_settings(listing), environ or {})


def test_every_place_that_pip_looks_at_is_handed_on():
    found = variables(
        "global.index-url='https://mirror.example/simple'\n"
        "global.extra-index-url='https://a.example/simple\\nhttps://b.example/simple'\n"
        ":env:.find-links='/wheels https://c.example/wheels'\n"
        "global.trusted-host='a.example b.example:8443'\n"
        "global.cert='/etc/ca.crt'\n"
        "global.proxy='http://proxy.example:3128'\n"
        ":env:.default-timeout='300'"
    )
    assert found == {
        "UV_DEFAULT_INDEX": "https://mirror.example/simple",
        "UV_INDEX": "https://a.example/simple https://b.example/simple",
        "UV_FIND_LINKS": "/wheels,https://c.example/wheels",
        "UV_INSECURE_HOST": "a.example b.example:8443",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_HTTP_TIMEOUT": "300",
        "SSL_CERT_FILE": "/etc/ca.crt",
        "HTTPS_PROXY": "http://proxy.example:3128",
        "HTTP_PROXY": "http://proxy.example:3128",
    }


def test_the_environment_wins_over_the_command_and_that_over_the_files():
    listing = ":env:.index-url='https://env/s'\ninstall.index-url='https://install/s'\nglobal.index-url='https://file/s'"
    assert variables(listing)["UV_DEFAULT_INDEX"] == "https://env/s"
    assert variables(listing.partition("\n")[2])["UV_DEFAULT_INDEX"] == "https://install/s"


def test_settings_of_other_commands_do_not_count():
    assert "UV_DEFAULT_INDEX" not in variables("download.index-url='https://other/s'")


def test_what_the_user_told_uv_stays():
    found = variables("global.index-url='https://mirror/s'", {"UV_DEFAULT_INDEX": "https://mine/s"})
    assert "UV_DEFAULT_INDEX" not in found


def test_a_host_without_an_index_is_left_to_pip():
    with pytest.raises(ValueError, match="no-index"):
        variables("global.no-index='true'")


def test_pips_own_listing_is_understood():
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "uv_environment.py"],
        env={"PATH": "/usr/bin:/bin", "PIP_INDEX_URL": "https://mirror.example/it's/simple"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "export UV_DEFAULT_INDEX='https://mirror.example/it'\"'\"'s/simple'\n" in done.stdout


@pytest.fixture
def venv(tmp_path):
    """A stand-in whose pip and uv write down what they are asked; `broken` holds words at which they fail."""
    (tmp_path / "venv/bin").mkdir(parents=True)
    (tmp_path / "uv/bin").mkdir(parents=True)
    (tmp_path / "broken").write_text("")
    script = f"""#!/bin/bash
echo "$(basename "$0") $*" >> {tmp_path}/calls
while read -r word; do [[ "$(basename "$0") $*" == *$word* ]] && exit 1; done < {tmp_path}/broken
exit 0
"""
    for tool in ("venv/bin/pip", "uv/bin/uv"):
        (tmp_path / tool).write_text(script)
        (tmp_path / tool).chmod(0o755)
    (tmp_path / "venv/bin/python").symlink_to(sys.executable)
    return tmp_path


def install(venv, what=("tests",), **environ):
    done = subprocess.run(
        ["bash", ROOT / "docker/install.sh", what[0], venv / "venv", *what[1:]],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "UV_TOOL": str(venv / "uv"), "UV_CACHE_DIR": str(venv), **environ},
        capture_output=True,
        text=True,
    )
    return done, [line.split()[0] for line in (venv / "calls").read_text().splitlines()]


def test_a_lock_is_installed_by_uv(venv):
    done, tools = install(venv)
    assert (done.returncode, tools) == (0, ["uv"])
    assert "--no-deps -r requirements/test.txt" in (venv / "calls").read_text()


def test_an_examples_requirements_are_installed_like_a_lock(venv):
    done, tools = install(venv, ("example", "examples/smollm2_cpu/requirements.txt"))
    assert (done.returncode, tools) == (0, ["uv"])
    assert "--no-deps -r examples/smollm2_cpu/requirements.txt" in (venv / "calls").read_text()


@pytest.mark.parametrize("broken", ["uv pip install", "uv=="])
def test_pip_does_what_uv_cannot(venv, broken):
    (venv / "broken").write_text(f"{broken}\n")
    if broken == "uv==":
        (venv / "uv/bin/uv").unlink()
    done, tools = install(venv)
    assert done.returncode == 0
    assert tools[-1] == "pip"
    assert "--no-deps -r requirements/test.txt" in (venv / "calls").read_text().splitlines()[-1]
    assert "pip does, which takes longer" in done.stderr


def test_uv_is_not_asked_where_pip_is_wanted(venv):
    assert install(venv, INSTALLER="pip")[1] == ["pip"]


def test_what_neither_can_install_is_an_error(venv):
    (venv / "broken").write_text("install\n")
    assert install(venv)[0].returncode != 0
