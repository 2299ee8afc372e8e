"""What a dashboard is started with: nodes' keys from their owners, not from the hub."""

import json
from pathlib import Path

import pytest

from dashboard.options import OptionsError, read_keys, read_options
from network.hub import Card

KEY, OTHER = "a" * 64, "b" * 64


def card(name: str, key: str = KEY) -> Card:
    return Card(
        name=name, url="http://127.0.0.1:1", node_key=key, owner_key=OTHER, time=0, signature=""
    )


def test_a_domain_whose_key_isnt_the_owners_is_doubted(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"north": KEY, "east": {"node_key": KEY, "password": "x"}}))
    options = read_options(["--hub", "http://127.0.0.1:2", "--keys", str(file)])
    listed = {"north": card("north"), "east": card("east", OTHER), "south": card("south")}
    assert options.doubts(listed) == {"east": "other_key", "south": "no_key"}
    assert read_options(["--hub", "http://127.0.0.1:2"]).doubts(listed) == {}


@pytest.mark.parametrize("written", ["", "[]", '{"north": 1}', '{"north": "abc"}', '{"n": {}}'])
def test_a_file_of_keys_that_is_none_is_refused(tmp_path: Path, written: str) -> None:
    file = tmp_path / "keys.json"
    file.write_text(written)
    with pytest.raises(OptionsError, match="must be JSON"):
        read_keys(file)
