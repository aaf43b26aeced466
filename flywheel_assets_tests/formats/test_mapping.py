"""A mapping turns the columns of any table into events, and says what is wrong with itself."""

from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.errors import InvalidEventError, InvalidRuleError, UnknownNameError
from flywheel_assets.formats.mapping import read_mapping
from flywheel_assets.formats.record import Record
from flywheel_assets_tests.formats.landings import land
from flywheel_assets_tests.formats.pages import name_kind

PAGE = Path(__file__).parents[2] / "docs" / "formats.md"


EDITED = {"q": "x", "a": "y", "f": "z"}


def convert(given: str, **row: Any) -> list[dict[str, Any]]:
    return land(read_mapping([given]).convert(Record(row)))


def kinds(given: str, **row: Any) -> list[str]:
    return [name_kind(event) for event in read_mapping([given]).convert(Record(row))]


@pytest.mark.parametrize(
    ("given", "row", "expected"),
    [
        ("prompt=q,output=a,final_text=f", {"q": "x", "a": "y", "f": "z"}, ["edit"]),
        ("prompt=q,output=a,final_text=f", {"q": "x", "a": "y", "f": None}, ["prediction"]),
        ("prompt=q,output=a,final_text=f,thumb=t", {**EDITED, "t": 1}, ["prediction", "edit", "thumb"]),
        ("prompt=q,output=a,final_text=f,thumb=t", {"q": "x", "a": "y", "f": "z", "t": ""}, ["edit"]),
        ("prompt=q,output=a,final_text=f,thumb=t", {"q": "x", "a": "y", "f": "", "t": 1}, ["prediction", "thumb"]),
        ("prompt=q,output=a,final_text=f,thumb=t", {"q": "x", "a": "y", "f": "", "t": ""}, ["prediction"]),
        ("prompt=q,output=a,final_text=f", {"q": "x", "a": "y", "f": ""}, ["edit"]),
        ("prompt=q,output=a,rating=r,comment=c", {"q": "x", "a": "y", "r": "0.5", "c": "ok"}, ["prediction", "rating"]),
        ("prompt=q,output=a,comment=c", {"q": "x", "a": "y", "c": "ok"}, ["prediction", "comment"]),
        ("prompt=q,chosen=g,rejected=b", {"q": "x", "g": "y", "b": "z"}, ["choice"]),
        ("prompt=q,final_text=f", {"q": "x", "f": "z"}, ["demonstration"]),
        ("prompt=q,output=a", {"q": "x", "a": "y"}, ["prediction"]),
        ("prediction_id=p,thumb=t", {"p": 7, "t": "👎"}, ["thumb"]),
        ("prediction_id=p,label=l,known_at=k", {"p": 7, "l": "fraud", "k": "2026-01-02"}, ["label"]),
        ("prediction_id=p,thumb=t", {"p": 7, "t": None}, []),
    ],
)  # fmt: skip
def test_what_is_mapped_and_filled_decides_the_event(given: str, row: dict[str, Any], expected: list[str]) -> None:
    assert kinds(given, **row) == expected
    land(read_mapping([given]).convert(Record(row)))


def test_messages_that_end_with_an_answer_hold_the_output() -> None:
    """Chat logs with an edited answer became demonstrations; their prompts ended with the answer that was replaced."""
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "x"}]
    answer = {"role": "assistant", "content": "y"}
    given = "prompt=m,final_text=f,thumb=t"
    assert kinds(given, m=[*turns, answer], f="z", t=None) == ["edit"]
    assert kinds(given, m=[*turns, answer], f=None, t="down") == ["prediction", "thumb"]
    assert kinds(given, m=turns, f="z", t=None) == ["demonstration"]
    [prediction, edit] = convert("prompt=m,final_text=f", m=[*turns, answer], f="z")
    assert prediction["output"] == "y"
    assert "assistant" not in prediction["prompt"]
    assert edit["final_text"] == "z"


def test_a_feedback_meets_the_prediction_it_names() -> None:
    [prediction] = convert("prompt=q,output=a,prediction_id=p", q="x", a="y", p=7)
    [thumb] = convert("prediction_id=p,thumb=t", p="7", t="good")
    assert prediction["prediction_id"] == thumb["prediction_id"] == "7"


def test_paths_constants_times_and_systems() -> None:
    [prediction, feedback] = convert(
        "prompt=q,output=a,final_text=f,user_id=agent.email,model_version==v7,occurred_at=at,system=s,do_not_train=n",
        q="x", a="y", f="z", agent={"email": "ann@example.com"}, at=1767225600, s="Be brief.", n="yes",
    )  # fmt: skip
    assert prediction["prompt"] == '[{"role":"system","content":"Be brief."},{"role":"user","content":"x"}]'
    for row in (prediction, feedback):
        assert (row["user_id"], row["model_version"]) == ("ann@example.com", "v7")
        assert row["occurred_at"] == "2026-01-01T00:00:00.000000Z"
        assert row["do_not_train"] is True


def test_a_column_with_a_dot_in_its_name_counts_first() -> None:
    [row] = convert("prompt=a.b,final_text=f", **{"a.b": "flat", "a": {"b": "deep"}, "f": "z"})
    assert row["prompt"] == "flat"


def test_a_scale_is_declared() -> None:
    given = "prediction_id=p,rating=r,rating_scale=1-5"
    assert convert(given, p=1, r="4")[0]["value"] == 0.75
    with pytest.raises(InvalidEventError, match="`rating` is 6; valid: 1 to 5"):
        convert(given, p=1, r=6)


def test_words_for_thumbs_are_declared() -> None:
    given = "prediction_id=p,thumb=t,thumb_up=Super|sent as is,thumb_down=naja"
    assert [convert(given, p=1, t=word)[0]["value"] for word in ("super", "Sent as is", "naja", "down")] == [
        1,
        1,
        -1,
        -1,
    ]
    with pytest.raises(InvalidEventError, match=r"`thumb` is 'hm'; valid: .*thumb_up=WORD"):
        convert(given, p=1, t="hm")


def test_feedback_lands_when_it_became_known() -> None:
    rows = convert(
        "prompt=q,output=a,thumb=t,occurred_at=at,known_at=k", q="x", a="y", t=1, at="2026-01-01", k="2026-01-05"
    )
    assert [row["occurred_at"][:10] for row in rows] == ["2026-01-01", "2026-01-05"]


def test_the_file_of_the_page_is_a_mapping(tmp_path: Path) -> None:
    shown = PAGE.read_text().split("```toml\n")[1].split("```")[0]
    (tmp_path / "mapping.toml").write_text(shown)
    mapping = read_mapping([str(tmp_path / "mapping.toml"), "final_text=answer_sent"])
    row = {
        "question": "x", "suggestion": "y", "answer_sent": "z", "agent": {"email": "ann@example.com"},
        "verdict": "sent as is", "stars": 5, "answered_at": "2026-01-01T10:00:00Z",
    }  # fmt: skip
    rows = land(mapping.convert(Record(row)))
    assert [row.get("signal") for row in rows] == [None, "edit", "thumb", "rating"]
    assert {row["model_version"] for row in rows} == {"v7"}


def test_the_mappings_of_the_page_are_read() -> None:
    shown = [part.split()[0].strip("`'") for part in PAGE.read_text().split("--map ")[1:] if "=" in part.split()[0]]
    assert len(shown) >= 2
    for given in shown:
        if given.startswith("prompt="):
            read_mapping([given])


@pytest.mark.parametrize(
    ("given", "error", "reason"),
    [
        (
            "answer=a",
            UnknownNameError,
            "unknown field in --map 'answer'; known: chosen, .*--map prompt=question",
        ),
        ("prompt", InvalidRuleError, "--map 'prompt' is no pair; valid: FIELD=COLUMN"),
        ("prompt=", InvalidRuleError, "is no pair"),
        ("prompt=q", InvalidRuleError, "of which no event is made; valid: prompt . chosen"),
        ("nothing.toml", InvalidRuleError, "No such file"),
        ("prediction_id=p,rating=r,rating_scale=5", InvalidRuleError, "rating_scale is '5'; valid: .* as 1-5"),
        ("prediction_id=p,rating=r,rating_scale=5-1", InvalidRuleError, "rating_scale"),
        ("prediction_id=p,thumb=t,thumb_up=|", InvalidRuleError, "thumb_up is"),
    ],
)
def test_a_wrong_mapping_says_what_is_valid(given: str, error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=reason):
        read_mapping([given])


@pytest.mark.parametrize("text", ["prompt = ", "prompt = 3\noutput = 'a'"])
def test_a_wrong_file_says_what_is_valid(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.toml").write_text(text)
    with pytest.raises(InvalidRuleError, match="valid:"):
        read_mapping([str(tmp_path / "m.toml")])


def test_a_missing_column_lists_those_that_are_there() -> None:
    mapping = read_mapping(["prompt=question,output=answer,user_id==all"])
    mapping.check_columns([Record({"question": "x"}), Record({"question": "x", "answer": "y"})])
    with pytest.raises(InvalidRuleError, match="no column 'answer' is in the file; there are: question, reply"):
        mapping.check_columns([Record({"question": "x", "reply": "y"})])


def test_an_empty_record_says_what_is_empty() -> None:
    with pytest.raises(InvalidEventError, match=r"empty are `prompt` \(question\)"):
        convert("prompt=question,output=answer", question="", answer="y")


def test_used_columns_are_remembered() -> None:
    record = Record({"q": "x", "a": "y", "other": 1})
    read_mapping(["prompt=q,output=a"]).convert(record)
    assert record.list_unread() == ["other"]
