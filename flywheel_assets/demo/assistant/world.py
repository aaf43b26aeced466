"""Simulates the world of the founding story: engineers' requests to an internal coding assistant, with right answers.

An *idiom* is one thing engineers do. Eight internal ones use the company's own libraries, whose syntax the base model
has learnt wrongly; six neutral ones are ordinary Python that it already writes correctly. A request fills an idiom's
phrasing with a name, a number, a key and a variable.

Two things never occur in traffic, so that measurements are made on what no adapter can have been trained on:

- a tenth of the names (`measurement_names`): every request of a measurement carries one of them;
- one phrasing of every internal idiom (`held_out_phrasing`). The base model is pretrained on these sentences, as a
  large model knows ordinary English, but only ever with the wrong syntax as their answer.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property


def _split_words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_ADJECTIVES = _split_words(
    """stale new late open paid lost big small raw clean daily weekly draft final old hot cold safe slow fast
    red blue north south east west prime basic gross net"""
)
_NOUNS = _split_words(
    """orders invoices refunds parcels tickets users carts drivers routes claims stores prices quotes leads loans
    cards trips rooms seats plans meters pumps lamps boats trains books songs films posts votes
    tasks jobs files logs alerts teams shifts visits tests bills"""
)
_KEYS = _split_words("total count name score date price owner state size rank")
_VARIABLES = _split_words("rows items data batch frame user event msg row rec")
_NUMBERS = range(2, 301)
_MEASURED_ONE_IN = 10


@dataclass(frozen=True)
class Idiom:
    """One thing that engineers ask for; templates have the slots name, number, key and variable."""

    name: str
    phrasings: tuple[str, ...]
    right: str
    wrong: str | None = None
    """The wrong answer that the base model has learnt; None where it is right."""
    held_out_phrasing: str | None = None
    right_call: str = ""
    """The text without which an answer cannot be right, whatever its arguments."""

    @property
    def is_internal(self) -> bool:
        """True where it uses the company's own libraries."""
        return self.wrong is not None


@dataclass(frozen=True)
class Request:
    """One prompt with the answers that the world knows for it."""

    idiom: Idiom
    prompt: str
    right: str
    wrong: str | None
    variable: str

    def lacks_right_call(self, output: str) -> bool:
        """Return whether the right call is missing.

        The absence of the *wrong* call says nothing: a collapsed model does not write that one either.
        """
        return self.idiom.right_call not in output

    def is_exact(self, output: str) -> bool:
        """Return whether the output is the right answer, character by character."""
        return output == self.right


_INTERNAL = (
    Idiom(
        "read",
        (
            "load the first {number} rows of {name} into {variable}",
            "read {number} records from {name} as {variable}",
            "get {variable} from table {name}, at most {number}",
        ),
        right='{variable} = ledger.read("{name}", limit={number})',
        wrong='{variable} = ledger.get_table("{name}").head({number})',
        held_out_phrasing="fetch {number} entries of {name} and call them {variable}",
        right_call="ledger.read(",
    ),
    Idiom(
        "write",
        ("append {variable} to {name}", "store {variable} in table {name}", "add {variable} to the {name} table"),
        right='ledger.write("{name}", {variable}, mode="append")',
        wrong='ledger.push({variable}, table="{name}")',
        held_out_phrasing="save {variable} at the end of {name}",
        right_call="ledger.write(",
    ),
    Idiom(
        "secret",
        (
            "get the {key} secret of {name} for {number} minutes",
            "read secret {key} of {name}, valid {number} minutes",
            "take {key} of {name} from the vault for {number} minutes",
        ),
        right='{key} = vault.lease("{name}/{key}", ttl_min={number}).value',
        wrong='{key} = vault.get("{name}/{key}", {number})',
        held_out_phrasing="borrow the vault entry {key} of {name} for {number} minutes",
        right_call="vault.lease(",
    ),
    Idiom(
        "metric",
        (
            "count {number} more {name} by {key}",
            "add {number} to the {key} metric of {name}",
            "raise metric {key} of {name} by {number}",
        ),
        right='metrics.counter("{name}").label("{key}").add({number})',
        wrong='metrics.inc("{name}.{key}", {number})',
        held_out_phrasing="increase the {key} counter of {name} by {number}",
        right_call="metrics.counter(",
    ),
    Idiom(
        "bus",
        ("send {variable} to {name}", "publish {variable} on topic {name}", "tell {name} about {variable}"),
        right='bus.publish(topic="{name}", payload={variable})',
        wrong='bus.send({variable}, to="{name}")',
        held_out_phrasing="announce {variable} to subscribers of {name}",
        right_call="bus.publish(",
    ),
    Idiom(
        "flag",
        (
            "check whether {name} is on for {variable}",
            "is feature {name} enabled for {variable}",
            "branch on flag {name} for {variable}",
        ),
        right='if flags.enabled("{name}", subject={variable}):',
        wrong='if flags.is_on("{name}", {variable}):',
        held_out_phrasing="only go on if {variable} has the feature {name}",
        right_call="flags.enabled(",
    ),
    Idiom(
        "cron",
        (
            "run {name} every {number} minutes",
            "schedule {name} each {number} minutes",
            "repeat job {name} after {number} minutes",
        ),
        right='schedule.every(minutes={number}).run("{name}")',
        wrong='cron.add("{name}", every={number})',
        held_out_phrasing="start {name} again once {number} minutes are over",
        right_call="schedule.every(",
    ),
    Idiom(
        "cache",
        (
            "cache {variable} as {name} for {number} seconds",
            "keep {variable} under {name} for {number} seconds",
            "remember {variable} as {name}, {number} seconds",
        ),
        right='cache.put("{name}", {variable}, ttl_s={number})',
        wrong='cache.set("{name}", {variable}, {number})',
        held_out_phrasing="hold {variable} in memory as {name} until {number} seconds pass",
        right_call="cache.put(",
    ),
)
_NEUTRAL = (
    Idiom(
        "sort",
        ("sort the {name} in {variable} by {key}", "order {variable} of {name} by their {key}"),
        right='{variable}["{name}"].sort(key=lambda r: r.{key})',
    ),
    Idiom(
        "json",
        ("dump {name} as json with indent {number}", "turn {name} into json, indent {number}"),
        right="text = json.dumps({name}, indent={number})",
    ),
    Idiom(
        "open",
        ("open the file {name} as csv", "read the csv file {name}"),
        right='with open("{name}.csv") as f:',
    ),
    Idiom(
        "sleep",
        ("wait {number} seconds for {name}", "sleep {number} seconds, then go on with {name}"),
        right="time.sleep({number}); {name}()",
    ),
    Idiom(
        "sum",
        ("sum the {key} of {name}", "add up {key} over {name}"),
        right="result = sum(r.{key} for r in {name})",
    ),
    Idiom("loop", ("loop over {name}", "go through all {name}"), right="for row in load_{name}():"),
)


@dataclass(frozen=True)
class Workload:
    """The requests of one stretch of time: weights of the internal idioms, and the share of neutral ones."""

    weights: Mapping[str, float]
    neutral_share: float = 0.40


@dataclass(frozen=True)
class Measurement:
    """Requests that never occur in traffic, by what is new about them besides their names."""

    unseen_prompts: tuple[Request, ...]
    """Internal, in phrasings that traffic has."""
    unseen_phrasings: tuple[Request, ...]
    """Internal, in the held-out phrasings."""
    neutral: tuple[Request, ...]


@dataclass(frozen=True)
class World:
    """All idioms and names; requests depend only on the random generator that is passed in."""

    internal: tuple[Idiom, ...] = _INTERNAL
    neutral: tuple[Idiom, ...] = _NEUTRAL
    adjectives: tuple[str, ...] = _ADJECTIVES
    nouns: tuple[str, ...] = _NOUNS

    @cached_property
    def idioms(self) -> dict[str, Idiom]:
        """Every idiom by name."""
        return {idiom.name: idiom for idiom in (*self.internal, *self.neutral)}

    @cached_property
    def measurement_names(self) -> tuple[str, ...]:
        """Names that only measurements use: one noun in ten of every adjective."""
        return tuple(self._list_names(measured=True))

    @cached_property
    def traffic_names(self) -> tuple[str, ...]:
        """Every other name: pretraining and traffic use these only."""
        return tuple(self._list_names(measured=False))

    def ask(self, rng: random.Random, workload: Workload) -> Request:
        """Draw one request of the traffic."""
        if rng.random() < workload.neutral_share:
            idiom = rng.choice(self.neutral)
        else:
            (name,) = rng.choices(list(workload.weights), list(workload.weights.values()))
            idiom = self.idioms[name]
        return _make_request(rng, idiom, rng.choice(idiom.phrasings), self.traffic_names)

    def draw_pretraining_sample(self, rng: random.Random, right_share: float, neutral_share: float) -> tuple[str, str]:
        """Draw a prompt and its answer for the base model's pretraining: internal answers are mostly wrong.

        `right_share` is the share of internal answers with the right syntax; a held-out phrasing never has it.
        """
        if rng.random() < neutral_share:
            idiom = rng.choice(self.neutral)
            request = _make_request(rng, idiom, rng.choice(idiom.phrasings), self.traffic_names)
            return request.prompt, request.right
        idiom = rng.choice(self.internal)
        assert idiom.held_out_phrasing is not None
        phrasing = rng.choice((*idiom.phrasings, idiom.held_out_phrasing))
        request = _make_request(rng, idiom, phrasing, self.traffic_names)
        is_right = phrasing is not idiom.held_out_phrasing and rng.random() < right_share
        assert request.wrong is not None
        return request.prompt, request.right if is_right else request.wrong

    def draw_measurement(self, per_idiom: int, seed: int) -> Measurement:
        """Draw `per_idiom` requests of every kind and idiom, all with names that traffic never has."""
        rng = random.Random(f"measurement {seed}")
        names = self.measurement_names
        return Measurement(
            unseen_prompts=tuple(
                _make_request(rng, idiom, rng.choice(idiom.phrasings), names)
                for idiom in self.internal
                for _ in range(per_idiom)
            ),
            unseen_phrasings=tuple(
                _make_request(rng, idiom, idiom.held_out_phrasing, names)
                for idiom in self.internal
                if idiom.held_out_phrasing is not None
                for _ in range(per_idiom)
            ),
            neutral=tuple(
                _make_request(rng, idiom, rng.choice(idiom.phrasings), names)
                for idiom in self.neutral
                for _ in range(per_idiom)
            ),
        )

    def _list_names(self, *, measured: bool) -> list[str]:
        return [
            f"{adjective}_{noun}"
            for row, adjective in enumerate(self.adjectives)
            for column, noun in enumerate(self.nouns)
            if ((row + column) % _MEASURED_ONE_IN == 0) == measured
        ]


def _make_request(rng: random.Random, idiom: Idiom, phrasing: str, names: tuple[str, ...]) -> Request:
    slots = {
        "name": rng.choice(names),
        "number": rng.choice(_NUMBERS),
        "key": rng.choice(_KEYS),
        "variable": rng.choice(_VARIABLES),
    }
    return Request(
        idiom=idiom,
        # The newline ends the prompt on a token boundary: a trailing space would let BPE merge into the answer.
        prompt=f"# {phrasing.format(**slots)}\n",
        right=idiom.right.format(**slots),
        wrong=None if idiom.wrong is None else idiom.wrong.format(**slots),
        variable=str(slots["variable"]),
    )
