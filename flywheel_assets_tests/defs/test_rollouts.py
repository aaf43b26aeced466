"""A rollout by hand: shares are stored, audited and announced, and a crash in between loses none of the three."""

import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from flywheel_assets.application import PreferenceApplication, PromotionHook
from flywheel_assets.applications.assistant import APPLICATION
from flywheel_assets.defs.resources import Stores
from flywheel_assets.defs.rollouts import announce_step, change_share
from flywheel_assets.errors import InvalidRuleError, RolloutError, VersionConflictError
from flywheel_assets.lake.tables.specs import ROLLBACKS
from flywheel_assets.models.rollout.events import RolloutEvent
from flywheel_assets_tests.command_line import flywheel
from flywheel_assets_tests.defs.promoted import V1, V2, promote_two_versions
from flywheel_assets_tests.models.tracked import client_of
from flywheel_client import assign_by_event

AT = datetime(2026, 3, 9, 12, tzinfo=UTC)


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    """The second version has a tenth of the users."""
    stores = Stores(home=str(tmp_path))
    promote_two_versions(stores, share=0.1)
    return stores


def hooked(tmp_path: Path) -> PreferenceApplication:
    """An application whose hook adds each event as a line to `told`."""
    write = f"import sys; open({str(tmp_path / 'told')!r}, 'a').write(sys.stdin.read() + chr(10))"
    return replace(APPLICATION, on_promotion=PromotionHook(command=(sys.executable, "-c", write)))


def list_told(tmp_path: Path) -> list[RolloutEvent]:
    return [msgspec.json.decode(line, type=RolloutEvent) for line in (tmp_path / "told").read_text().splitlines()]


def test_a_promotion_is_announced_with_both_arms_and_what_to_fetch(stores: Stores, tmp_path: Path) -> None:
    announce_step(hooked(tmp_path), stores, {"adapter_dir": "/a"})
    (event,) = list_told(tmp_path)
    assert json.loads((tmp_path / "told").read_text())["adapter_dir"] == "/a", "what hooks read until now"
    assert [(arm.gold_version, arm.share) for arm in event.traffic.arms] == [(V2, 0.1), (V1, 0.9)]
    assert (event.kind, event.replaces, event.registry_version) == ("promotion", V1, "2")
    assert event.uri is not None
    assert event.uri.endswith("/adapter")
    adapter = stores.versions("assistant").folder(V2).training / "adapter"
    shell = "find * -type f | LC_ALL=C sort | xargs sha256sum | sha256sum"
    printed = subprocess.run(["sh", "-c", shell], cwd=adapter, capture_output=True, text=True, check=True).stdout
    assert event.adapter_sha256 == printed.split()[0]
    routed = [assign_by_event(f"user-{n}", msgspec.to_builtins(event)) for n in range(1_000)]
    assert 60 <= routed.count(V2) <= 140


def test_a_share_is_changed_by_hand_with_an_audited_reason(stores: Stores, tmp_path: Path) -> None:
    said = change_share(hooked(tmp_path), stores, 0.5, who="ada", reason="no complaints", now=AT)
    assert said[0] == f"{V2} goes from 10.0% of the users to 50.0%"
    (event,) = list_told(tmp_path)
    assert (event.kind, event.traffic.arms[0].share, event.occurred_at) == ("share_change", 0.5, AT)
    state = stores.registry("assistant").find_rollout()
    assert (state.champion, state.predecessor, state.share, state.is_announced) == (V2, V1, 0.5, True)
    (row,) = stores.lake("assistant").read(ROLLBACKS).to_pylist()
    assert (row["what"], row["to_version"], row["share_before"], row["share_after"]) == ("share", V2, 0.1, 0.5)
    assert (row["decided_by"], row["reason"]) == ("ada", "no complaints")
    assert "already" in change_share(hooked(tmp_path), stores, 0.5, who="ada", reason="again", now=AT)[0]
    assert len(list_told(tmp_path)) == 1


def test_a_share_that_the_serving_side_did_not_take_is_announced_by_repeating_it(
    stores: Stores, tmp_path: Path
) -> None:
    broken = replace(APPLICATION, on_promotion=PromotionHook(command=(sys.executable, "-c", "raise SystemExit(3)")))
    with pytest.raises(RolloutError):
        change_share(broken, stores, 0.5, who="ada", reason="r", now=AT)
    assert not stores.registry("assistant").find_rollout().is_announced
    change_share(hooked(tmp_path), stores, 0.5, who="ada", reason="r", now=datetime.now(UTC))
    (event,) = list_told(tmp_path)
    assert event.occurred_at == AT, "the same step, and so the same id"
    assert stores.lake("assistant").read(ROLLBACKS).num_rows == 1


def test_two_people_do_not_overwrite_each_other(stores: Stores) -> None:
    registry = stores.registry("assistant")
    seen = registry.find_rollout()
    change_share(APPLICATION, stores, 0.5, who="ada", reason="r", now=AT)
    with pytest.raises(VersionConflictError, match="serves 50% of the users now"):
        registry.replace_rollout(seen, msgspec.structs.replace(seen, share=1.0))


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1])
def test_a_share_that_is_none_is_refused(stores: Stores, share: float) -> None:
    with pytest.raises(InvalidRuleError, match="flywheel rollback"):
        change_share(APPLICATION, stores, share, who="ada", reason="r", now=AT)


def test_an_alias_that_was_moved_by_other_means_has_all_users(stores: Stores) -> None:
    """As after a crash between state and alias: the state names another champion and counts for nothing."""
    client_of(stores.registry("assistant")).set_registered_model_alias("assistant", "champion", "1")
    assert stores.registry("assistant").find_rollout().list_shares() == [(V1, 1.0)]
    with pytest.raises(InvalidRuleError, match="no predecessor is on record"):
        change_share(APPLICATION, stores, 0.5, who="ada", reason="r", now=AT)


@pytest.mark.long
def test_the_command_line_shows_changes_and_ends_a_rollout(stores: Stores, tmp_path: Path) -> None:
    shown = flywheel(tmp_path, "rollout", "-a", "assistant")
    assert f"{V2} serves 10.0% of the users" in shown.stdout, shown.stderr
    assert f"{V1} serves 90.0% of the users" in shown.stdout
    assert "next: 100.0%, by flywheel rollout -a assistant --next" in shown.stdout
    planned = flywheel(tmp_path, "rollout", "--share", "0.5", "--reason", "r")
    assert "from 10.0% of the users to 50.0%" in planned.stdout
    assert "add --reason TEXT" in flywheel(tmp_path, "rollout", "--share", "0.5", "--yes").stderr
    done = flywheel(tmp_path, "rollout", "--share", "0.5", "--reason", "fine", "--yes", "--who", "ada")
    assert "to 50.0%" in done.stdout, done.stderr
    on = flywheel(tmp_path, "rollout", "--next", "--reason", "fine", "--yes")
    assert "from 50.0% of the users to 100.0%" in on.stdout, on.stderr
    assert "no further step" in flywheel(tmp_path, "rollout", "--next", "--reason", "r").stderr
    ended = flywheel(tmp_path, "rollback", "--reason", "worse", "--yes")
    assert f"goes from {V2} to {V1}, for all users" in ended.stdout, ended.stderr
    assert "Name the gold version" in flywheel(tmp_path, "rollback", "--reason", "worse").stderr, "not to the worse one"
    assert "next promotion begins" in flywheel(tmp_path, "rollout", "--share", "0.5", "--reason", "r", "--yes").stderr
    based = flywheel(tmp_path, "rollback", "--to", "base", "--reason", "worse", "--yes")
    assert "to the base model" in based.stdout, based.stderr
    assert "the base model serves 100.0% of the users" in flywheel(tmp_path, "rollout").stdout
    assert "has no champion" in flywheel(tmp_path, "rollout", "--share", "1", "--reason", "r", "--yes").stderr
