"""The image, checked as text: what would be unsafe isn't written down.

Nothing is built here. Rules are short functions that give the lines they object to; every rule is
also shown a file that breaks it.
"""

import json
import re
import tomllib
from collections.abc import Callable

import pytest

from tests.docker.dockerfile import DOCKERFILE, ROOT, SECRET, in_last_stage, words

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
