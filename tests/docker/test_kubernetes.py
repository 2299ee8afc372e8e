"""The kustomize base of one partner: restricted pods, no secrets written down, nothing open."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

FOLDER = Path(__file__).parents[2] / "docker" / "kubernetes"
BASE = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
OBJECTS: list[dict[str, Any]] = [
    each for file in BASE["resources"] for each in yaml.safe_load_all((FOLDER / file).read_text())
]
PODS = {
    f"{o['kind']} {o['metadata']['name']}": o["spec"]["template"]["spec"]
    for o in OBJECTS
    if "template" in o.get("spec", {})
}
SERVERS = {name: pod for name, pod in PODS.items() if not name.startswith("Job")}


def test_the_base_names_every_file_and_the_projects_version() -> None:
    files = {file.name for file in FOLDER.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(BASE["resources"]) == files
    version = tomllib.loads((FOLDER.parents[1] / "pyproject.toml").read_text())["project"][
        "version"
    ]
    assert BASE["images"] == [{"name": "coterie", "newTag": version}]


def test_every_object_has_a_kind_a_version_and_a_name_of_its_own() -> None:
    names = [(o["kind"], o["metadata"]["name"]) for o in OBJECTS]
    assert all(o["apiVersion"] for o in OBJECTS)
    assert len(names) == len(set(names))
    assert {kind for kind, _ in names} == {
        "Namespace", "ServiceAccount", "PersistentVolumeClaim", "Job", "StatefulSet",
        "Deployment", "Service", "NetworkPolicy",
    }  # fmt: skip


def test_the_namespace_takes_restricted_pods_only() -> None:
    (namespace,) = [o for o in OBJECTS if o["kind"] == "Namespace"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("name", PODS)
def test_every_pod_meets_the_restricted_standard(name: str) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/, and more."""
    pod = PODS[name]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    # Else keys are made readable to the group at each start.
    assert pod["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"} & pod.keys()
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert container["image"] == "coterie"
        assert container["resources"]["limits"]["memory"]
        assert "command" not in container, "the image's entrypoint runs"
    for volume in pod["volumes"]:
        assert volume.keys() & {"persistentVolumeClaim", "emptyDir", "secret"}
        assert "hostPath" not in volume


@pytest.mark.parametrize("name", PODS)
def test_every_mount_is_a_volume_and_every_claim_exists(name: str) -> None:
    pod = PODS[name]
    claims = {o["metadata"]["name"] for o in OBJECTS if o["kind"] == "PersistentVolumeClaim"}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounted = {m["name"] for c in pod["containers"] for m in c["volumeMounts"]}
    assert mounted == set(volumes)
    for volume in volumes.values():
        claim = volume.get("persistentVolumeClaim", {}).get("claimName")
        assert claim is None or claim in claims


def claims_of(name: str) -> set[str]:
    found = (v.get("persistentVolumeClaim", {}).get("claimName") for v in PODS[name]["volumes"])
    return {claim for claim in found if claim}


def test_the_node_never_holds_its_owners_key() -> None:
    assert claims_of("StatefulSet north") == {"north-node"}
    assert "north-node" not in claims_of("Deployment north-dashboard")
    assert {"north-node", "north-owner"} <= claims_of("Job north-setup")


@pytest.mark.parametrize("name", SERVERS)
def test_every_server_is_watched(name: str) -> None:
    for container in SERVERS[name]["containers"]:
        ports = {port["name"] for port in container["ports"]}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[probe]["httpGet"]["port"] in ports
    (node,) = PODS["StatefulSet north"]["containers"]
    assert node["livenessProbe"]["httpGet"] == {
        "path": "/healthz", "port": "https", "scheme": "HTTPS",
    }  # fmt: skip


def test_only_one_node_ever_writes_its_ledger() -> None:
    (node,) = [o for o in OBJECTS if o["kind"] == "StatefulSet"]
    assert node["spec"]["replicas"] == 1


def test_no_secret_is_written_down() -> None:
    assert not any(o["kind"] in ("Secret", "ConfigMap") for o in OBJECTS)
    for pod in PODS.values():
        for container in pod["containers"]:
            assert {each["name"] for each in container.get("env", [])} <= {"COTERIE_SECRETS"}
            assert "envFrom" not in container


def test_nothing_is_reachable_that_is_not_named() -> None:
    policies = {o["metadata"]["name"]: o["spec"] for o in OBJECTS if o["kind"] == "NetworkPolicy"}
    assert policies["nothing"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert "egress" not in policies["node"], "a node calls nobody"
    for service in (o for o in OBJECTS if o["kind"] == "Service"):
        assert service["spec"].get("type", "ClusterIP") == "ClusterIP"
        selectors = [o["spec"]["template"]["metadata"]["labels"] for o in OBJECTS
                     if "template" in o.get("spec", {})]  # fmt: skip
        assert service["spec"]["selector"] in selectors


@pytest.mark.parametrize("name", PODS)
def test_every_command_is_one_that_coterie_has(name: str) -> None:
    from coterie.cli import app

    for container in PODS[name]["containers"]:
        result = CliRunner().invoke(app, [*container["args"], "--help"])
        assert result.exit_code == 0, result.output
