"""A Dockerfile as text: its instructions, in their stages."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()
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
