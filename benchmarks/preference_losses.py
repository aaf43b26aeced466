"""What objections and comparisons add to the one stage, and what it costs to write the winners of comparisons.

Claims: (1) where few people correct and many only object, a loss of objections makes the old answer rarer than the
corrections alone do; (2) to write the winner of a comparison that was not accepted teaches what was the lesser evil.
Data: the week of `benchmarks.preference_recipes`, of whose corrections 120 are pairs.
Objections: the other training people's outputs that an honest person corrected, without the correction, as a reviewer
confirms them. "as corrections" has the corrections, too: what the objections could be worth.
Comparisons: for 2,000 other requests the base samples two answers at temperature 1; a person who is not held out takes
the one that is nearer to the right text, and says nothing where they are equally far. No winner is accepted.
Arms: the product's one stage in the demo's recipe; "longer" takes as many steps as the arms with more rows.
Measured as in `benchmarks.preference_recipes`. A finished arm is a line of the output file.
Command: python -m benchmarks.preference_losses --models FOLDER --out results.jsonl [--only objections] [--seeds 0 1 2]
[--bases 5 6 7] [--arms ...]; with --table only the tables of a file.
"""

import argparse
import json
import random
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.preference_recipes import (
    IDIOMS,
    Answered,
    Traffic,
    answer_requests,
    collect_traffic,
    is_held_out,
    make_row,
    measure,
    print_arms,
    read_cells,
    write,
)
from flywheel_assets.demo.assistant.base_model import BaseConfig, ensure_base_model
from flywheel_assets.demo.assistant.people import People
from flywheel_assets.demo.assistant.run import DEMO_RECIPE
from flywheel_assets.demo.assistant.world import Workload, World
from flywheel_assets.lake.versions.exports import ExportedRow
from flywheel_assets.measures.texts import normalized_edit_distances
from flywheel_assets.models.generation import load_model, use_cpu_threads
from flywheel_assets.models.rendering import RowEncoder
from flywheel_assets.records import ExampleKind
from flywheel_assets.training import _stages as stages
from flywheel_assets.training.examples import Example, encode
from flywheel_assets.training.recipes import AdapterRecipe

_PAIRS, _ACCEPTED = 120, 180
_COMPARED = 2_000


@dataclass(frozen=True)
class Arm:
    """Names the rows of a training and the changes of its recipe."""

    more: str = ""
    """Rows beside the pairs and accepted outputs: objections, corrections or comparisons."""
    written: bool = False
    """The winners of comparisons are written."""
    longer_by: str = ""
    """Rows whose number of steps it takes without having them."""
    recipe: Mapping[str, Any] | None = None


ARMS: Mapping[str, Mapping[str, Arm]] = {
    "objections": {
        "without": Arm(),
        "without, longer": Arm(longer_by="objections"),
        "KTO": Arm("objections", recipe={"objection_weight": 1.0}),
        "KTO, objections only": Arm("objections", recipe={"objection_weight": 1.0, "desirable_ratio": 0.0}),
        "APO-zero": Arm("objections", recipe={"objection_weight": 1.0, "objection_loss": "apo_zero"}),
        "as corrections": Arm("corrections"),
    },
    "comparisons": {
        "without": Arm(),
        "without, longer": Arm(longer_by="comparisons"),
        "preferred": Arm("comparisons"),
        "preferred and written": Arm("comparisons", written=True),
    },
}
_PEER = "without, longer"


@dataclass(frozen=True)
class _Week:
    traffic: Traffic
    more: Mapping[str, Sequence[Example]]
    right_winners: float


def main() -> None:
    """Run what is missing in the output file, and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("models"), help="where pretrained bases are kept")
    parser.add_argument("--out", type=Path, default=Path("preference_losses.jsonl"))
    parser.add_argument("--only", choices=ARMS, nargs="+", default=list(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--bases", type=int, nargs="+", default=[5, 6, 7])
    parser.add_argument("--arms", nargs="+", help="of these alone")
    parser.add_argument("--table", action="store_true", help="print the tables of --out and end")
    asked = parser.parse_args()
    if not asked.table:
        use_cpu_threads(1)
        for seed in asked.seeds:
            for base in asked.bases:
                _run_cell(asked, base, seed)
    cells = read_cells(asked.out)
    for which, arms in ARMS.items():
        of_kind = [each for each in cells if each["which"] == which]
        if of_kind:
            right = np.mean([each["right_winners"] for each in of_kind])
            rows = np.mean([each["more"] for each in of_kind if each["more"]])
            print(f"\n{which}: {rows:.0f} on average; {right:.2f} of the winners of comparisons have the right call")
            print_arms(of_kind, list(arms), _PEER)


def _run_cell(asked: argparse.Namespace, base_seed: int, seed: int) -> None:
    done = {(each["base"], each["seed"], each["which"], each["arm"]) for each in read_cells(asked.out)}
    missing = [
        (which, name)
        for which in asked.only
        for name in ARMS[which]
        if (base_seed, seed, which, name) not in done and (not asked.arms or name in asked.arms)
    ]
    if not missing:
        return
    world = World()
    base = str(ensure_base_model(world, BaseConfig(seed=base_seed), asked.models).path)
    week = _collect_week(base, world, seed)
    for which, name in missing:
        arm, folder = ARMS[which][name], Path(tempfile.mkdtemp(prefix="losses_"))
        try:
            started = time.process_time()
            learnt, recipe = _prepare(week, arm, replace(DEMO_RECIPE, seed=seed))
            stages.train_one_stage(base, learnt, recipe, folder)
            trained = time.process_time() - started
            found = measure(base, stages.locate_result(folder), world, week.traffic, seed)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        cell = {"which": which, "arm": name, "base": base_seed, "seed": seed, "right_winners": week.right_winners}
        cell |= {"rows": len(learnt), "more": len(week.more[arm.more]) if arm.more else 0}
        with asked.out.open("a") as file:
            file.write(json.dumps({**cell, **found, "cpu_seconds": round(trained, 1)}) + "\n")


def _prepare(week: _Week, arm: Arm, recipe: AdapterRecipe) -> tuple[list[Example], AdapterRecipe]:
    rows = [*week.traffic.pairs, *week.traffic.accepted]
    more = (
        [replace(each, is_written=each.is_written or arm.written) for each in week.more[arm.more]] if arm.more else []
    )
    if arm.longer_by:
        epochs = recipe.sft_epochs * (len(rows) + len(week.more[arm.longer_by])) / len(rows)
        recipe = replace(recipe, sft_epochs=epochs)
    return [*rows, *more], replace(recipe, stages="one_stage", **(arm.recipe or {}))


def _collect_week(base: str, world: World, seed: int) -> _Week:
    answered = answer_requests(base, world, seed)
    traffic = collect_traffic(base, answered, seed, 0)
    model, tokenizer = load_model(base, None, device="cpu")
    encoder = RowEncoder(tokenizer, DEMO_RECIPE.rendering)
    pairs, others = traffic.pairs[:_PAIRS], {each.pair_id for each in traffic.pairs[_PAIRS:]}
    honest = [
        each
        for each in answered
        if not each.person.is_vandal and each.corrected and not is_held_out(each.person.user_id)
    ]
    objected = [_object(each) for each in honest]
    objections = encode(encoder, [row for row in objected if row.pair_id in others])
    kept = {each.pair_id for each in objections}
    comparisons, right = _compare(model, encoder, world, seed)
    return _Week(
        replace(traffic, pairs=pairs, accepted=traffic.accepted[:_ACCEPTED]),
        {
            "objections": objections,
            "corrections": [each for each in traffic.pairs if each.pair_id in kept],
            "comparisons": comparisons,
        },
        right,
    )


def _object(answered: Answered) -> ExportedRow:
    row = make_row(answered.number, answered.request, "", answered.output, answered.person.user_id)
    return _rename(row, ExampleKind.OBJECTION)


def _compare(model: Any, encoder: RowEncoder, world: World, seed: int) -> tuple[list[Example], float]:
    rng, members = random.Random(f"compared {seed}"), People().list_members()
    workload = Workload(dict.fromkeys(IDIOMS, 1.0))
    asked = [world.ask(rng, workload) for _ in range(_COMPARED)]
    first, second = (
        write(model, encoder, [each.prompt for each in asked], temperature=1.0, seed=2 * seed + draw) for draw in (0, 1)
    )
    rows: list[ExportedRow] = []
    right = 0
    for number, (request, *texts) in enumerate(zip(asked, first, second, strict=True)):
        near, far = normalized_edit_distances(texts, [request.right, request.right])
        person = rng.choice(members)
        if near == far or is_held_out(person.user_id):
            continue
        winner, loser = texts if near < far else texts[::-1]
        right += not request.lacks_right_call(winner)
        row = make_row(10_000 + number, request, winner, loser, person.user_id)
        rows.append(_rename(row, ExampleKind.COMPARISON))
    return encode(encoder, rows, "confirmed"), right / len(rows)


def _rename(row: ExportedRow, kind: ExampleKind) -> ExportedRow:
    return msgspec.structs.replace(row, example_kind=kind.value, admitted_as=kind.value)


if __name__ == "__main__":
    main()
