"""Edits kept behind a shared system prompt of any length, as messages and as plain text.

Claim: of the edits that a version keeps without a system prompt it keeps at least 98 % behind one of 0 to 2,000 words,
and no person counts as support of an unrelated text.
Data: MLQE-PE post-edits and DeFacto's corrected summaries (the article is part of the prompt), a system prompt of
made-up words; `--half` names the half of each set that is read: `first` to develop, `second` to report.
Command: .venv/bin/python -m benchmarks.shared_prompts [--half second] [--rows 1000]
"""

import argparse
import json
import random
from collections.abc import Iterator
from itertools import islice

from flywheel_assets.curation.texts.gate import GateRules, curate
from flywheel_assets.curation.texts.resolution import ResolutionRules, resolve
from flywheel_assets.records import JOINED_FEEDBACK
from flywheel_assets_tests.builders import APPLICATION, make_joined, table
from flywheel_assets_tests.real_data import REAL_DATA, real_edits

WORDS = (0, 200, 400, 800, 1_600, 2_000)
Edit = tuple[str, str, str]


def read_post_edits(half: str) -> Iterator[Edit]:
    """Read (source, machine translation, human edit) where a person changed something."""
    for number, edit in enumerate(real_edits()):
        if number % 2 == (half == "second") and edit["original_llm_output"] != edit["final_user_edit"]:
            yield edit["prompt"], edit["original_llm_output"], edit["final_user_edit"]


def read_summaries(half: str) -> Iterator[Edit]:
    """Read (article, summary, corrected summary) where a person changed something."""
    with open(REAL_DATA / "defacto" / "val.jsonl") as lines:
        for number, line in enumerate(lines):
            row = json.loads(line)
            corrected = row["feedback"]["summary"]
            if number % 2 == (half == "second") and corrected and corrected != row["candidate"]:
                yield f"Summarise:\n{row['article']}", row["candidate"], corrected


def write_system_prompt(words: int) -> str:
    """Write an ordinary-looking text of so many made-up words, the same in every run."""
    rng = random.Random("system prompt")
    syllables = [first + second for first in "bdfgklmnprstvz" for second in "aeiou"]
    return " ".join("".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(words))


def count_kept(edits: list[Edit], system: str, *, as_messages: bool) -> tuple[int, int]:
    """Count the training pairs of a version of these edits, and the most people who support one."""
    rows = []
    for number, (prompt, output, final) in enumerate(edits):
        turns = [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
        fields = {"prompt": f"{system}\n\n{prompt}" if system else prompt}
        if as_messages:
            fields = {"prompt": json.dumps(turns[not system :]), "prompt_format": "messages"}
        rows.append(make_joined(user_id=f"user-{number}", output=output, final_text=final, **fields))
    curated = curate(table(JOINED_FEEDBACK, rows), APPLICATION, GateRules())
    train = resolve(curated.kept, ResolutionRules(holdout_share=0.0)).train
    return train.num_rows, max(train["support_users"].to_pylist(), default=0)


def main() -> None:
    """Print one line per set, form and length."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--half", choices=("first", "second"), default="second")
    parser.add_argument("--rows", type=int, default=1_000)
    options = parser.parse_args()
    for name, read in (("post-edits", read_post_edits), ("summaries", read_summaries)):
        edits = list(islice(read(options.half), options.rows))
        for form in ("messages", "text"):
            kept = {
                words: count_kept(edits, write_system_prompt(words), as_messages=form == "messages") for words in WORDS
            }
            alone = max(1, kept[0][0])
            shares = "  ".join(
                f"{words}: {rows} ({rows / alone:.1%}, {people})" for words, (rows, people) in kept.items()
            )
            print(f"{name:10} {form:8} of {len(edits)} edits  {shares}")


if __name__ == "__main__":
    main()
