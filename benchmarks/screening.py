"""A screening head against the word list that it replaces, on texts that it has not seen.

Claim: half as much recall again as the word list on unseen comments, at no more false positives on comments.
Data: surge_toxicity (the half that was read trains, the other half is counted), XSTest's safe prompts, post-edits of
MLQE-PE, news articles of DeFacto, and the part of the functional suite that neither trains nor sets a threshold.
Command: .venv/bin/python -m benchmarks.screening [--edits 2000] [--without-examples]
    [--suite-budget 0.07] [--examples-budget 0.02]

The peer is the word list, in the same run. CPU is that of the encoder's process, with one thread.
"""

import argparse
import resource
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from benchmarks.policy import articles, chats, surge, xstest
from flywheel_assets.screening.heads.encoder import EncoderProcess, find_encoder
from flywheel_assets.screening.heads.gate import HeadLimits, judge_head
from flywheel_assets.screening.heads.signals import list_word_hits
from flywheel_assets.screening.heads.training import Example, TrainingRules, find_stopped, train_head
from flywheel_assets_tests.real_data import real_edits


def count(name: str, texts: Sequence[str], head: npt.NDArray[np.bool_], words: npt.NDArray[np.bool_]) -> None:
    """Print one row."""
    print(f"  {name:44}{len(texts):7,}{head.mean():9.1%}{words.mean():11.1%}", flush=True)


def main() -> None:
    """Train on what was read, and count what was not."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--edits", type=int, default=2000)
    parser.add_argument("--without-examples", action="store_true", help="train on the shipped suite alone")
    parser.add_argument("--suite-budget", type=float, default=TrainingRules.most_harmless_suite)
    parser.add_argument("--examples-budget", type=float, default=TrainingRules.most_harmless_examples)
    options = parser.parse_args()
    rules = TrainingRules(most_harmless_suite=options.suite_budget, most_harmless_examples=options.examples_budget)
    process = EncoderProcess(folder=find_encoder())
    examples = [Example(text, toxic, "en") for toxic in (True, False) for text in surge(toxic=toxic, half=0)]
    measured = train_head([] if options.without_examples else examples, process.encode, process.digest, rules)
    texts = [example.text for example in measured.examples]
    suite = [case.text for case in measured.suite]
    report = judge_head(measured, "word list", list_word_hits(texts), list_word_hits(suite), HeadLimits())
    print(report.sentence)
    print(f"  {'':44}{'texts':>7}{'head':>9}{'word list':>11}")
    words = list_word_hits(suite)
    harmful = np.array([case.is_harmful for case in measured.suite])
    for kind, rows in (("harmful", harmful), ("harmless", ~harmful)):
        count(f"suite, unseen part: {kind}", [*np.array(suite)[rows]], measured.suite_stopped[rows], words[rows])
        for name in sorted({case.functionality for case, is_in in zip(measured.suite, rows, strict=True) if is_in}):
            few = rows & np.array([case.functionality == name for case in measured.suite])
            count(f"    {name}", [*np.array(suite)[few]], measured.suite_stopped[few], words[few])
    for name, stopped in (("head", measured.suite_stopped), ("word list", words)):
        print(f"  margin of the {name}: {stopped[harmful].mean() - stopped[~harmful].mean():.1%}")
    edits = [edit["final_user_edit"] for edit in real_edits()]
    sets = {
        "surge, toxic, never looked at": surge(toxic=True, half=1),
        "surge, not toxic, never looked at": surge(toxic=False, half=1),
        "xstest, safe prompts": xstest("safe"),
        "mlqe_pe, post-edits": edits[:: max(1, len(edits) // options.edits)],
        "realhumaneval, chat turns": chats()[::10],
        "defacto, articles": articles()[::10],
    }
    for name, given in sets.items():
        stopped = find_stopped(measured.head, given, ("en",) * len(given), process.encode)
        count(name, given, stopped, list_word_hits(given))
    encoded = len(suite) * 2 + len(texts) + sum(map(len, sets.values()))
    process.close()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"encoder: {(used.ru_utime + used.ru_stime) / encoded * 1000:.1f} ms of CPU per text, start included")


if __name__ == "__main__":
    main()
