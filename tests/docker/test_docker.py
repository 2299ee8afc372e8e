"""The image and the compose file, checked as text: what would be unsafe isn't written down.

Nothing is built here. Rules are short functions that give the lines they object to; every rule is
also shown a file that breaks it.
"""

import ipaddress
import json
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()
COMPOSE_TEXT = (ROOT / "docker" / "compose.yaml").read_text()
COMPOSE = yaml.safe_load(COMPOSE_TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PARTNERS = ("north", "east", "south")
SETUP = {name for name, service in SERVICES.items() if service.get("profiles") == ["setup"]}
RUNNING = sorted(SERVICES.keys() - SETUP)
OTHERS = {"proxy": "nginxinc/nginx-unprivileged", "north-database": "postgres"}
OURS = sorted(SERVICES.keys() - OTHERS.keys())
NGINX = (ROOT / "docker" / "nginx.conf").read_text()
SECRET = re.compile(r"pass(word|phrase|wd)|secret|token|api_?key|private_?key|credential", re.I)


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile, continuation lines joined, and its stage's number."""

    word: str
    text: str
    stage: int

    def __str__(self) -> str:
        return f"{self.word} {self.text}"


def instructions(dockerfile: str) -> list[Instruction]:
    lines = [line for line in dockerfile.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    found: list[Instruction] = []
    stage = -1
    for line in filter(None, map(str.strip, joined.splitlines())):
        word, _, text = line.partition(" ")
        stage += word.upper() == "FROM"
        found.append(Instruction(word.upper(), text.strip(), stage))
    return found


def words(dockerfile: str, *wanted: str) -> list[Instruction]:
    return [i for i in instructions(dockerfile) if i.word in wanted]


def in_last_stage(dockerfile: str, word: str) -> list[Instruction]:
    last = max(i.stage for i in instructions(dockerfile))
    return [i for i in words(dockerfile, word) if i.stage == last]


# Rules for a Dockerfile. The numbers are hadolint's for the same rule, where it has one.

Rule = Callable[[str], list[str]]


def base_without_version(dockerfile: str) -> list[str]:
    """DL3006, DL3007: every base image has a full version as its tag, or is an earlier stage."""
    stages: set[str] = set()
    wrong = []
    for base in words(dockerfile, "FROM"):
        image, *named = re.split(r"\s+AS\s+", base.text, flags=re.I)
        if image not in stages and not re.search(
            r":\d+\.\d+\.\d+\S*$|@sha256:[0-9a-f]{64}$", image
        ):
            wrong.append(str(base))
        stages.update(named)
    return wrong


def runs_as_root(dockerfile: str) -> list[str]:
    """DL3002: the last user is a number other than 0, so that orchestrators can tell."""
    users = in_last_stage(dockerfile, "USER")
    if not users:
        return ["no USER in the last stage"]
    return [] if re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", users[-1].text) else [str(users[-1])]


def leaves_apt_lists(dockerfile: str) -> list[str]:
    """DL3009, DL3014, DL3015: update, install -y without recommendations, clean up: one layer."""
    needed = (
        "apt-get update",
        "install -y",
        "--no-install-recommends",
        "rm -rf /var/lib/apt/lists",
    )
    return [
        str(run)
        for run in words(dockerfile, "RUN")
        if re.search(r"\bapt(-get)?\b", run.text) and not all(part in run.text for part in needed)
    ]


def installs_unpinned(dockerfile: str) -> list[str]:
    """DL3013, DL3042: pip keeps no cache and takes the versions of the constraints file."""
    return [
        str(run)
        for run in words(dockerfile, "RUN")
        if re.search(r"\bpip3? install\b", run.text)
        and not ("--no-cache-dir" in run.text and "-c constraints.txt" in run.text)
    ]


def runs_what_it_downloads(dockerfile: str) -> list[str]:
    """DL3004, DL3020, DL4006: no ADD, no sudo, nothing piped into a shell."""
    added = [str(add) for add in words(dockerfile, "ADD")]
    return added + [
        str(run)
        for run in words(dockerfile, "RUN")
        if re.search(r"\b(sudo|curl|wget)\b|\|\s*(ba)?sh\b", run.text)
    ]


def starts_through_a_shell(dockerfile: str) -> list[str]:
    """DL3025: commands are JSON lists, so that the process itself receives the stop signal."""
    wrong = []
    for start in words(dockerfile, "ENTRYPOINT", "CMD", "HEALTHCHECK"):
        command = start.text.partition("CMD ")[2] if start.word == "HEALTHCHECK" else start.text
        try:
            is_list = isinstance(json.loads(command), list)
        except ValueError:
            is_list = False
        wrong += [] if is_list else [str(start)]
    return wrong


def lacks_one_entrypoint_and_check(dockerfile: str) -> list[str]:
    """DL4003, DL4004, DL3012: exactly one ENTRYPOINT, one CMD, one HEALTHCHECK."""
    return [
        f"{len(in_last_stage(dockerfile, word))} {word}"
        for word in ("ENTRYPOINT", "CMD", "HEALTHCHECK")
        if len(in_last_stage(dockerfile, word)) != 1
    ]


def has_relative_workdir(dockerfile: str) -> list[str]:
    """DL3000, DL3003: WORKDIR is absolute, and nothing relies on cd."""
    wrong = [str(i) for i in words(dockerfile, "WORKDIR") if not i.text.startswith("/")]
    return wrong + [str(i) for i in words(dockerfile, "RUN") if re.search(r"\bcd ", i.text)]


def bakes_in_a_secret(dockerfile: str) -> list[str]:
    """No variable that sounds like a secret: it would stay in the image's history."""
    return [str(i) for i in words(dockerfile, "ENV", "ARG") if SECRET.search(i.text)]


def copies_everything(dockerfile: str) -> list[str]:
    """Folders are copied by name: a stray data file in the checkout can't end in a layer."""
    return [
        str(copy)
        for copy in words(dockerfile, "COPY")
        if "--from=" not in copy.text and re.match(r"(--\S+\s+)*(\.|\./|\*)\s", copy.text)
    ]


BASE = "FROM python:3.11.13-slim-bookworm\n"
RULES: dict[Rule, list[str]] = {
    base_without_version: ["FROM python", "FROM python:latest", "FROM python:3-slim"],
    runs_as_root: [BASE, BASE + "USER root", BASE + "USER 10001:10001\nUSER 0:0"],
    leaves_apt_lists: [
        BASE + "RUN apt-get update\nRUN apt-get install -y --no-install-recommends gcc",
        BASE + "RUN apt-get update && apt-get install -y gcc && rm -rf /var/lib/apt/lists/*",
        BASE + "RUN apt-get update && \\\n  apt-get install -y --no-install-recommends gcc",
    ],
    installs_unpinned: [
        BASE + "RUN pip install -c constraints.txt .",
        BASE + "RUN pip install --no-cache-dir .",
    ],
    runs_what_it_downloads: [
        BASE + "ADD https://example.com/x.tar /",
        BASE + "RUN curl https://example.com/x | sh",
        BASE + "RUN sudo true",
    ],
    starts_through_a_shell: [
        BASE + "ENTRYPOINT coterie",
        BASE + "CMD coterie up",
        BASE + "HEALTHCHECK CMD curl localhost",
    ],
    lacks_one_entrypoint_and_check: [BASE + 'ENTRYPOINT ["a"]\nENTRYPOINT ["b"]\nCMD ["c"]'],
    has_relative_workdir: [BASE + "WORKDIR src", BASE + "RUN cd /src && true"],
    bakes_in_a_secret: [BASE + "ENV ADMIN_PASSWORD=x", BASE + "ARG GITHUB_TOKEN"],
    copies_everything: [BASE + "COPY . .", BASE + "COPY --chown=1:1 . /src"],
}
BROKEN = [(rule, text) for rule, texts in RULES.items() for text in texts]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_dockerfile_keeps_the_rule(rule: Rule) -> None:
    assert rule(DOCKERFILE) == [], rule.__doc__


@pytest.mark.parametrize(("rule", "text"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
def test_the_rule_notices_a_dockerfile_that_breaks_it(rule: Rule, text: str) -> None:
    assert rule(text) != []


def test_the_image_is_coterie_on_the_projects_python() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11,<3.12"
    assert all(base.text.startswith("python:3.11.") for base in words(DOCKERFILE, "FROM"))
    (entrypoint,) = in_last_stage(DOCKERFILE, "ENTRYPOINT")
    assert json.loads(entrypoint.text) == ["coterie"]


def test_the_image_holds_every_package_of_the_project_and_no_more() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = {name.rstrip("*") for name in setuptools["packages"]["find"]["include"]}
    copied = [copy.text.split() for copy in words(DOCKERFILE, "COPY") if "--from=" not in copy.text]
    folders = {source for *sources, _ in copied for source in sources if (ROOT / source).is_dir()}
    assert folders == packages


def test_the_build_sees_exactly_what_it_copies() -> None:
    """The ignore file lists what is let in; all else in the checkout stays out of the build."""
    lines = (ROOT / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = [copy.text.split() for copy in words(DOCKERFILE, "COPY") if "--from=" not in copy.text]
    assert rules[0] == "*"
    assert let_in == {source for *sources, _ in copied for source in sources}


# The compose file


def test_there_are_three_partners_a_hub_and_a_dashboard_each() -> None:
    dashboards = {f"{name}-dashboard" for name in PARTNERS}
    assert set(RUNNING) == {"hub", "proxy", "north-database", *PARTNERS, *dashboards}
    assert {*(f"{name}-setup" for name in PARTNERS), "proxy-setup"} == SETUP


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", service["user"])
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["pids_limit"] > 0
    assert service["mem_limit"]
    forbidden = {"privileged", "cap_add", "devices", "pid", "ipc", "userns_mode", "extra_hosts"}
    assert not forbidden & service.keys()
    assert service.get("network_mode") in (None, "none")


@pytest.mark.parametrize("name", OTHERS)
def test_images_of_others_are_pinned_to_a_full_version(name: str) -> None:
    image, _, version = SERVICES[name]["image"].partition(":")
    assert image == OTHERS[name]
    assert re.match(r"\d+\.\d+(\.\d+)?-", version)
    assert "build" not in SERVICES[name]


@pytest.mark.parametrize("name", OURS)
def test_every_image_has_the_projects_version(name: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert SERVICES[name]["image"] == f"coterie:{version}"
    build = SERVICES[name]["build"]
    assert (ROOT / "docker" / build["context"] / build["dockerfile"]).is_file()


@pytest.mark.parametrize("name", RUNNING)
def test_every_running_service_has_a_health_check_on_its_own_port(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    assert check["test"][0] == "CMD"
    if name in ("hub", *PARTNERS):
        assert check["test"][1:] == ["python", "-m", "network.alive", "8080"]
    elif name == "proxy":
        assert check["test"][-1] == "http://127.0.0.1:8081/"
        assert "listen 127.0.0.1:8081;" in NGINX
    elif name == "north-database":
        assert check["test"][1] == "pg_isready"
    else:
        port = SERVICES[name]["ports"][0].rpartition(":")[2]
        assert f"127.0.0.1:{port}/" in check["test"][-1]
    assert {"interval", "timeout", "retries", "start_period"} <= check.keys()


def test_ports_are_published_to_this_machine_only_and_once() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert len({port.split(":")[1] for port in ports}) == len(ports)


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_is_given_a_secret_or_a_folder_of_the_host(name: str) -> None:
    """Keys and passwords are generated inside volumes; nothing is passed by environment."""
    service = SERVICES[name]
    assert not {"env_file", "secrets"} & service.keys()
    assert "configs" not in service or name == "proxy"
    for variable, value in service.get("environment", {}).items():
        assert name == "north-database"
        assert not SECRET.search(variable) or value.startswith("/var/lib/coterie/database/")
    for option, value in pairwise(map(str, service.get("command", []))):
        assert not SECRET.search(option) or value.startswith("/var/lib/coterie/database/")
        assert not re.search(r"://[^/@]*:[^/@]*@", value), "a URL with a password in it"
    for volume in service.get("volumes", []):
        assert volume.split(":")[0] in COMPOSE["volumes"]
    assert "docker.sock" not in COMPOSE_TEXT


def volumes_of(name: str) -> set[str]:
    return {volume.split(":")[0] for volume in SERVICES[name]["volumes"]}


def test_no_two_running_services_share_a_volume_but_public_certificates() -> None:
    mounted = [volume for name in RUNNING for volume in volumes_of(name)]
    private = [volume for volume in mounted if volume != "certificates"]
    assert len(private) == len(set(private))
    assert set(mounted) == set(COMPOSE["volumes"])
    for name in RUNNING:
        for volume in SERVICES[name]["volumes"]:
            if volume.split(":")[0] in ("certificates", "north-password", "proxy"):
                assert volume.endswith(":ro")


@pytest.mark.parametrize("partner", PARTNERS)
def test_a_nodes_container_never_holds_its_owners_key(partner: str) -> None:
    assert volumes_of(partner) == {f"{partner}-node"}
    assert volumes_of(f"{partner}-dashboard") == {f"{partner}-owner", "certificates"}
    assert volumes_of(f"{partner}-setup") >= {f"{partner}-node", f"{partner}-owner"}
    assert SERVICES[f"{partner}-setup"]["network_mode"] == "none"


@pytest.mark.parametrize("partner", PARTNERS)
def test_a_dashboard_reaches_its_own_partners_node_only(partner: str) -> None:
    desk = f"{partner}-desk"
    assert SERVICES[f"{partner}-dashboard"]["networks"] == [desk]
    members = {name for name in RUNNING if desk in SERVICES[name]["networks"]}
    assert members == {partner, f"{partner}-dashboard"}


@pytest.mark.parametrize("partner", [*PARTNERS, "hub"])
def test_a_server_believes_the_forwarded_addresses_of_its_proxy_alone(partner: str) -> None:
    edge = f"{partner}-edge"
    members = {name for name in RUNNING if edge in SERVICES[name].get("networks", [])}
    assert members == {partner, "proxy"}
    started = SERVICES["hub" if partner == "hub" else f"{partner}-setup"]["command"]
    subnet = COMPOSE["networks"][edge]["ipam"]["config"][0]["subnet"]
    assert started[started.index("--proxy") + 1] == subnet
    ipaddress.ip_network(subnet)


@pytest.mark.parametrize("partner", PARTNERS)
def test_nodes_serve_tls_and_the_proxy_checks_their_certificates(partner: str) -> None:
    assert "--tls" in SERVICES[f"{partner}-setup"]["command"]
    assert f"server_name {partner}.localhost;" in NGINX
    assert f"proxy_pass https://{partner}:8080;" in NGINX
    assert f"proxy_ssl_trusted_certificate /var/lib/coterie/certificates/{partner}.pem;" in NGINX
    assert f"https://{partner}:8080" in SERVICES[f"{partner}-dashboard"]["command"]


def test_the_proxy_speaks_tls_1_3_and_drops_what_callers_claim() -> None:
    assert NGINX.count("{") == NGINX.count("}")
    assert "ssl_protocols TLSv1.3;" in NGINX
    assert "proxy_ssl_verify on;" in NGINX
    assert "proxy_set_header X-Forwarded-For $remote_addr;" in NGINX
    assert "proxy_set_header X-Forwarded-Proto $scheme;" in NGINX
    assert "$proxy_add_x_forwarded_for" not in NGINX
    assert not re.search(r"listen (?!127\.0\.0\.1:)\S+;", NGINX), "no unencrypted port"
    assert SERVICES["proxy"]["ports"] == ["127.0.0.1:8443:8443"]


def test_the_database_is_reached_by_its_own_node_only() -> None:
    members = {name for name in RUNNING if "north-data" in SERVICES[name].get("networks", [])}
    assert members == {"north", "north-database"}
    assert COMPOSE["networks"]["north-data"]["internal"] is True
    assert "ports" not in SERVICES["north-database"]


def test_the_database_makes_its_folder_itself_as_it_runs_as_another_user_than_its_image() -> None:
    service = SERVICES["north-database"]
    folder = Path(service["environment"]["PGDATA"])
    (volume,) = [v.split(":")[1] for v in service["volumes"] if v.startswith("north-rows:")]
    assert folder.parent == Path(volume)


def test_volumes_lie_on_folders_that_the_image_makes_for_its_user() -> None:
    made = next(run.text for run in words(DOCKERFILE, "RUN") if "install -d" in run.text)
    assert "-m 0700 -o 10001 -g 10001" in made
    for name, service in SERVICES.items():
        assert service["user"] == "10001:10001"
        for volume in service["volumes"]:
            if name in OURS:
                assert volume.split(":")[1] in made.split()


@pytest.mark.parametrize("name", OURS)
def test_every_command_is_one_that_coterie_has(name: str) -> None:
    """Parsed by the real command line: `--help` stops it before anything runs."""
    from coterie.cli import app

    result = CliRunner().invoke(app, [*SERVICES[name]["command"], "--help"])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("name", [*PARTNERS, "hub"])
def test_servers_stay_in_the_foreground(name: str) -> None:
    assert SERVICES[name]["command"][-1] == "--foreground"
