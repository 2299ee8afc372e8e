"""The compose file, checked as text: what would be unsafe isn't written down."""

import ipaddress
import re
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from tests.docker.dockerfile import DOCKERFILE, ROOT, SECRET, words

COMPOSE_TEXT = (ROOT / "docker" / "compose.yaml").read_text()
COMPOSE = yaml.safe_load(COMPOSE_TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PARTNERS = ("north", "east", "south")
SETUP = {name for name, service in SERVICES.items() if service.get("profiles") == ["setup"]}
RUNNING = sorted(SERVICES.keys() - SETUP)
OTHERS = {"proxy": "nginxinc/nginx-unprivileged", "north-database": "postgres"}
OURS = sorted(SERVICES.keys() - OTHERS.keys())
NGINX = (ROOT / "docker" / "nginx.conf").read_text()


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
