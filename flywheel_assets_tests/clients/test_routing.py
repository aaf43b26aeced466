"""The router: one answer in every language, for ever, and nobody changes the model while its share grows."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel_client import assign, assign_by_event, routing_position

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "clients" / "routing_vectors.json"
SALT = "assistant/dpo_gold_v7"


def test_the_vectors_for_other_languages_hold() -> None:
    vectors = json.loads(VECTORS.read_text())["vectors"]
    assert len(vectors) == 20
    for vector in vectors:
        user, salt = vector["user_id"], vector["salt"]
        assert routing_position(user, salt) == vector["position"]
        for share, version in vector["assigned"].items():
            assert assign(user, [("new", float(share)), ("old", 1 - float(share))], salt) == version


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_function_in_the_docs_gives_the_same_in_javascript() -> None:
    function = re.search(r"```js\n(.*?)```", (ROOT / "docs" / "clients.md").read_text(), re.DOTALL)
    assert function is not None
    check = f"""{function[1]}
    const {{ vectors }} = JSON.parse(fs.readFileSync({json.dumps(str(VECTORS))}, "utf8"));
    for (const v of vectors) for (const [share, version] of Object.entries(v.assigned)) {{
      const arms = [{{ gold_version: "new", share: +share }}, {{ gold_version: "old", share: 1 - share }}];
      const got = assign(v.user_id, {{ salt: v.salt, arms }});
      if (got !== version) throw new Error(`${{JSON.stringify(v)}} at ${{share}}: ${{got}}`);
    }}
    console.log(vectors.length);"""
    done = subprocess.run(["node", "-e", f"const fs = require('fs');{check}"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "20"), done.stderr


@given(st.text(), st.floats(0, 1), st.floats(0, 1))
def test_who_has_the_new_model_keeps_it_while_its_share_grows(user: str, first: float, second: float) -> None:
    small, large = sorted((first, second))
    if assign(user, [("new", small), ("old", 1 - small)], SALT) == "new":
        assert assign(user, [("new", large), ("old", 1 - large)], SALT) == "new"


@pytest.mark.parametrize("template", ["{}", "user-{}", "{:032x}"])
def test_consecutive_users_are_split_at_the_stated_shares(template: str) -> None:
    arms = [("new", 0.1), ("old", 0.7), ("base", 0.2)]
    got = [assign(template.format(number), arms, SALT) for number in range(20_000)]
    for version, share in arms:
        assert abs(got.count(version) - 20_000 * share) <= 4 * (20_000 * share * (1 - share)) ** 0.5


def test_the_next_rollout_tries_other_users() -> None:
    users = [f"user-{number}" for number in range(20_000)]
    arms = [("new", 0.1), ("old", 0.9)]
    both = [user for user in users if all(assign(user, arms, salt) == "new" for salt in (SALT, "assistant/v8"))]
    assert abs(len(both) - 200) <= 4 * 200**0.5


@pytest.mark.parametrize("arms", [[], [("a", 0.5)], [("a", -0.5), ("b", 1.5)], [("a", 0.9), ("b", 0.9)]])
def test_shares_that_are_none_are_refused(arms: list[tuple[str, float]]) -> None:
    with pytest.raises(ValueError, match="shares from 0 on whose sum is 1"):
        assign("ada", arms, SALT)


def test_the_event_of_the_hook_is_all_that_is_needed() -> None:
    arms = [{"gold_version": "dpo_gold_v7", "share": 1.0}, {"gold_version": None, "share": 0.0}]
    assert assign_by_event("ada", {"traffic": {"salt": SALT, "arms": arms}}) == "dpo_gold_v7"
    assert assign_by_event("ada", {"traffic": {"salt": SALT, "arms": [{"gold_version": None, "share": 1.0}]}}) is None
    with pytest.raises(ValueError, match="need the object with salt and arms"):
        assign_by_event("ada", {"traffic": None})
