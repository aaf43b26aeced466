"""Write the pages of docs/reference that the code itself knows best.

    python docs/write_reference.py            # writes the pages
    python docs/write_reference.py --check    # exit code 1 where a page is out of date

Settings, commands, configuration types, tables, reason codes, metrics and the REST interface are read from the objects
that the product uses, so that no page can name what is not there. docs/reference/events.md is written by hand.
"""

import ast
import inspect
import re
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, get_args

import httpx
import pyarrow as pa
import typer
from prometheus_client.parser import text_string_to_metric_families

from flywheel_assets import cli, config
from flywheel_assets.capture.service import running_capture
from flywheel_assets.lake.tables import specs
from flywheel_assets.records import Reason, read_description
from flywheel_assets.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "reference"
GENERATED = "_Written by `python docs/write_reference.py` from {source}; a test compares them._"
EXPLAINING_PAGES = ("architecture.md", "curation.md", "gold.md", "training.md", "hard_examples.md")
TOPICS: Mapping[str, Sequence[int]] = {
    "Taking events in": (3, 7, 9, 10, 27, 34, 35, 36, 50, 53),
    "The lake: tables, days, locks": (2, 6, 18, 20, 22, 23, 26, 29),
    "The join": (31, 40),
    "What becomes gold": (14, 15, 16, 33, 37),
    "Gold versions": (4, 19, 21, 32, 42, 46),
    "Training": (5, 39, 43, 55),
    "Promotion, and models in production": (38, 41, 44, 45, 54),
    "Erasure": (12, 17),
    "Running it: homes, backups, damage, processes": (47, 48, 49, 51, 52),
    "The shape of the code": (1, 24, 28, 30, 56),
}
"""Numbers of decisions by topic; one that is in none stands under "Others" until it is sorted."""
MEANINGS: Mapping[str, str] = {
    "label_after_window": "the label came after the join window; it is joined all the same, and counted by this copy",
    "duplicate": "another row of the same day, or of the same side and kind in a version, says the same",
    "near_duplicate": "another row of the same side and kind says nearly the same, and is more trusted or newer",
    "secret": "the change brings in a key, a token or a password",
    "personal_data": "the change brings in a mail address, a telephone or card number, or other data of a person",
    "prompt_injection": "the change brings in text that gives instructions to a model",
    "toxic_language": "the change brings in an insult, a slur or a threat",
    "neutrality": "the change brings in a generalisation about a group, or loaded language",
    "destructive_command": "the change brings in a command that destroys data or opens a machine",
    "structural_abuse": "the change brings in characters that hide, flood or break a text",
    "unsupported_fact": "the change brings in a fact that neither prompt nor output has; it waits for others",
    "classifier": "a local classifier, or the head that learns from reviewers, refused the text",
    "judge": "a judge behind HTTP refused the text",
    "check_unavailable": "a check that asks a model could not be asked; a backfill of the day asks again",
    "policy": "a check of the team's own refused the text",
    "sender_held": "a few senders tripped the batch breaker: all their rows of that day are kept out",
    "unscreened_language": "the text is in a language without a threshold of the screening head; it waits",
    "disputed": "at the time of the version, labels contradict each other or a confident score",
    "excluded": "a person excluded the row from later versions",
    "later_than_training": "the example is one of the version's evaluation weeks",
    "unsupported_claim": "only one voice says this; or few say it again and again, and only a share stays",
    "user_cap": "the person brings more rows than one person may",
    "anonymous_cap": "those who are not vouched for bring more rows through this sender than they may",
    "source_cap": "one sender brings more of the version than it may",
    "prompt_cap": "one prompt has more of the version than it may",
}
"""The sentences of reasons that a page explains in a paragraph, not in the row of a table."""


# ── Markdown ──


def escape_cell(text: str) -> str:
    """Make text fit for a cell of a table: one line, and `<` and `|` as themselves."""
    words = " ".join(text.split()).replace("|", r"\|")
    parts = re.split(r"(`[^`]*`)", words)
    return "".join(part if part.startswith("`") else part.replace("<", r"\<") for part in parts)


def code(text: str) -> str:
    """Mark text as code; nothing where there is none."""
    return f"`{text}`" if text else ""


def draw_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Draw a table; cells are escaped."""
    lines = [head, ["---"] * len(head), *([escape_cell(cell) for cell in row] for row in rows)]
    return "\n".join(" ".join(f"| {' | '.join(line)} |".split("  ")) for line in lines)


def draw_page(title: str, source: str, introduction: str, parts: Sequence[str]) -> str:
    """Draw a page from its parts."""
    filled = textwrap.fill(introduction, 140, break_long_words=False, break_on_hyphens=False)
    return "\n\n".join([f"# {title}", GENERATED.format(source=source), filled, *parts]).rstrip() + "\n"


# ── Settings ──

_GROUPS = {"capture": "Capture", "review": "Review", "price": "Prices on the page of the wheel"}


def write_settings() -> str:
    """Every environment variable, from the fields of `Settings`."""
    groups: dict[str, list[list[str]]] = {"Home and places": []}
    for name, field in Settings.model_fields.items():
        group = _GROUPS.get(name.split("_")[0], "Home and places")
        default = "" if field.default in (None, "") else str(field.default)
        bounds = ", ".join(_describe_bound(each) for each in field.metadata)
        meaning = f"{field.description}{f' Valid: {bounds}.' if bounds else ''}"
        groups.setdefault(group, []).append([code(f"FLYWHEEL_{name.upper()}"), code(default), meaning])
    return draw_page(
        "Settings",
        "`flywheel_assets/settings.py`",
        "Settings say where things lie and how services listen. They come from the environment or from "
        "`.env` in the folder in "
        "which a command runs. What one application does is no setting, but [configuration](configuration.md). "
        "`flywheel doctor` names every value that cannot be used.",
        [f"## {group}\n\n{draw_table(['variable', 'default', 'meaning'], rows)}" for group, rows in groups.items()],
    )


def _describe_bound(bound: Any) -> str:
    words = {"gt": "more than", "ge": "from", "lt": "less than", "le": "to"}
    return " ".join(f"{word} {getattr(bound, name):,}" for name, word in words.items() if hasattr(bound, name))


# ── Commands ──


def write_cli() -> str:
    """Every command with its arguments and options, from the command line itself."""
    group = typer.main.get_command(cli.app)
    commands = sorted(_list_commands("flywheel", group), key=lambda each: each[0])
    rows = [[f"[`{name}`](#{name.replace(' ', '-')})", _first_sentence(command.help)] for name, command in commands]
    return draw_page(
        "Commands",
        "the command line itself",
        "Each command prints the same with `--help`. Exit codes: 0 done, 1 refused or failed, 2 wrong "
        "arguments, 75 a passing "
        "cause: repeat it. A command that destroys prints its plan, and acts with `--yes` only.",
        [draw_table(["command", "does"], rows), *(_draw_command(*each) for each in commands)],
    )


def _list_commands(prefix: str, command: Any) -> Iterator[tuple[str, Any]]:
    for name, each in command.commands.items():
        if hasattr(each, "commands"):
            yield from _list_commands(f"{prefix} {name}", each)
        else:
            yield f"{prefix} {name}", each


def _first_sentence(text: str | None) -> str:
    return re.split(r"(?<=[.!?])\s", " ".join((text or "").split()))[0]


def _draw_command(name: str, command: Any) -> str:
    arguments = [each for each in command.params if each.param_type_name == "argument" and not each.hidden]
    options = [each for each in command.params if each.param_type_name == "option" and not each.hidden]
    shown = [name, "[OPTIONS]" if options else "", *(_name_argument(each) for each in arguments)]
    rows = [
        [code(_name_argument(each)), code(_describe_type(each)), _describe_default(each), each.help or ""]
        for each in arguments
    ]
    rows += [
        [
            ", ".join(code(flag) for flag in [*each.opts, *each.secondary_opts]),
            code(_describe_type(each)),
            _describe_default(each),
            each.help or "",
        ]
        for each in options
    ]
    help_text = textwrap.dedent(command.help or "").replace("\b\n", "").replace("\f", "")
    paragraphs = [" ".join(each.split()) for each in help_text.split("\n\n")]
    parts = [f"## {name}", "\n\n".join(escape_cell(each) for each in paragraphs), code(" ".join(filter(None, shown)))]
    return "\n\n".join([*parts, *([draw_table(["argument", "type", "default", "meaning"], rows)] if rows else [])])


def _name_argument(argument: Any) -> str:
    name = (argument.metavar or argument.name).upper().strip("[]{}.")
    return f"{name}…" if argument.nargs == -1 else name


def _describe_type(parameter: Any) -> str:
    annotation = parameter.type_descriptor.annotation
    kind = next(each for each in get_args(annotation) or (annotation,) if each is not type(None))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "/".join(str(each.value) for each in kind)
    if getattr(parameter, "is_flag", False):
        return ""
    return {"str": "text", "int": "whole number", "float": "number", "datetime": "day"}.get(
        kind.__name__, kind.__name__.lower()
    )


def _describe_default(parameter: Any) -> str:
    default = parameter.default
    if parameter.required:
        return "required"
    if not parameter.show_default or callable(default) or default in (None, "", False) or default == []:
        return ""
    return code(str(getattr(default, "value", default)))


# ── Configuration types ──


def write_configuration() -> str:
    """Every type of `flywheel_assets.config`, from its fields and their docstrings."""
    names = sorted(config.__all__)
    rows = [[f"[`{each}`](#{each.lower()})", _first_sentence(getattr(config, each).__doc__)] for each in names]
    return draw_page(
        "Configuration types",
        "`flywheel_assets/config.py` and the classes behind it",
        "An application is configured in typed Python: `from flywheel_assets.config import "
        "PreferenceApplication`. Every field has a safe "
        "default unless it is required, and a value out of its range is refused when the application is "
        "loaded, in one sentence. "
        "`Count` is a whole number from 1 on, `CountOrZero` from 0 on; `Positive` is above 0, "
        "`NotNegative` from 0 on; `Share` lies "
        "from 0 to 1, `PositiveShare` is not 0, `ShareBelowOne` not 1; `Name` is a text that is not empty.",
        [draw_table(["type", "meaning"], rows), *(_draw_type(each, getattr(config, each)) for each in names)],
    )


def _draw_type(name: str, kind: Any) -> str:
    described = [escape_cell(each) for each in inspect.cleandoc(kind.__doc__ or "").split("\n\n")]
    if described and described[-1].startswith(("Args:", "Raises:", "Returns:")):
        described.pop()
    parts = [f"## {name}", *described]
    if isinstance(kind, type) and issubclass(kind, Enum):
        parts.append(draw_table(["member", "value"], [[code(each.name), code(str(each.value))] for each in kind]))
    elif is_dataclass(kind):
        written = _read_fields(kind)
        rows = [[code(each.name), *written[each.name]] for each in fields(kind) if not each.name.startswith("_")]
        parts.append(draw_table(["field", "type", "default", "meaning"], rows))
    elif not isinstance(kind, type):
        parts.append(code(f"{name}{inspect.signature(kind)}"))
    return "\n\n".join(parts)


def _read_fields(kind: type) -> dict[str, list[str]]:
    """Read [type, default, meaning] of every field as they are written, those of bases included."""
    found: dict[str, list[str]] = {}
    for each in reversed(kind.__mro__):
        if not each.__module__.startswith("flywheel_assets"):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(each))).body[0].body  # type: ignore[attr-defined]
        for node, following in zip(body, [*body[1:], None], strict=True):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                documented = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
                meaning = following.value.value if documented else ""  # type: ignore[union-attr]
                found[node.target.id] = [
                    code(ast.unparse(node.annotation).replace("'", "")),
                    _describe_written_default(node.value),
                    str(meaning),
                ]
    return found


def _describe_written_default(value: ast.expr | None) -> str:
    if value is None:
        return "required"
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "field":
        given = {each.arg: each.value for each in value.keywords}
        if "default_factory" in given:
            factory = ast.unparse(given["default_factory"])
            return code(factory.removeprefix("lambda: ") if factory.startswith("lambda") else f"{factory}()")
        return code(ast.unparse(given["default"])) if "default" in given else "required"
    return code(ast.unparse(value))


# ── Tables ──


def write_tables() -> str:
    """Every table with its columns, from the specifications that make them."""
    of_texts = _name_tables(specs.PREFERENCE_TABLES)
    tables = [each for each in vars(specs).values() if isinstance(each, specs.TableSpec)]
    rows, parts = [], []
    for table in tables:
        used = [
            kind
            for kind, names in (("texts", of_texts), ("scores", _name_tables(specs.CLASSIFICATION_TABLES)))
            if table in names
        ]
        title = (
            f"{table.name} ({used[0]})"
            if len(used) == 1 and sum(each.name == table.name for each in tables) > 1
            else table.name
        )
        anchor = title.replace(" ", "-").replace("(", "").replace(")", "")
        rows.append([f"[`{table.name}`](#{anchor})", ", ".join(used) or "both", code(table.day_column or "")])
        columns = [
            [
                code(column.name),
                code(_describe_column_type(column.type)),
                "yes" if column.nullable else "",
                read_description(column),
            ]
            for column in table.schema
        ]
        parts.append(f"## {title}\n\n{draw_table(['column', 'type', 'may be null', 'meaning'], columns)}")
    return draw_page(
        "Tables",
        "`flywheel_assets/lake/tables/specs.py` and `flywheel_assets/records.py`",
        "Each application has its own Iceberg namespace with these tables. Both kinds of application have "
        "tables of the same "
        "names where they mean the same, with the columns of their kind ([ADR "
        "6](../adr/0006-scores-have-their-own-columns-in-the-same-tables.md)). "
        "Times are UTC. A table changes by columns that may be null only ([upgrading](../upgrading.md)).",
        [draw_table(["table", "of applications for", "partition"], rows), *parts],
    )


def _name_tables(tables: specs.ApplicationTables) -> tuple[specs.TableSpec, ...]:
    return (tables.predictions, tables.joined, tables.gold)


def _describe_column_type(kind: pa.DataType) -> str:
    return "timestamp" if pa.types.is_timestamp(kind) else str(kind)


# ── Reason codes ──


def write_reasons() -> str:
    """Every reason code with its step, and the sentence of the page that explains it."""
    explained = dict(_find_explanations())
    parts = []
    for step, reasons in _list_steps().items():
        rows = [[code(each), *explained[each]] for each in reasons]
        parts.append(f"## {step}\n\n{draw_table(['reason', 'when', 'more'], rows)}")
    return draw_page(
        "Reason codes",
        "`flywheel_assets/records.py` and the pages that explain them",
        "Each row that does not go on has a reason; dashboards may rely on these words. The ledger counts "
        "them by day, `quarantine` holds "
        "the rows themselves, and `flywheel trace` says it of one event.",
        parts,
    )


def _list_steps() -> dict[str, list[str]]:
    """List the reasons by the comment of their step in `Reason`."""
    steps: dict[str, list[str]] = {}
    step = ""
    for line in inspect.getsource(Reason).splitlines():
        stripped = line.strip()
        if stripped.startswith("# "):
            step = stripped.removeprefix("# ")[0].upper() + stripped.removeprefix("# ")[1:]
        elif member := re.match(r"[A-Z_]+ = \"(\w+)\"", stripped):
            steps.setdefault(step, []).append(member[1])
    return steps


def _find_explanations() -> Iterator[tuple[str, tuple[str, str]]]:
    texts = {page: (ROOT / "docs" / page).read_text().splitlines() for page in EXPLAINING_PAGES}
    for reason in Reason:
        candidates = [
            _weigh_line(reason.value, page, number, lines)
            for page, lines in texts.items()
            for number, line in enumerate(lines)
            if f"`{reason.value}`" in line
        ]
        weight, meaning, link = max(candidates, key=lambda each: each[0])
        yield reason.value, (MEANINGS.get(reason.value, meaning if weight else ""), link)


def _weigh_line(reason: str, page: str, number: int, lines: Sequence[str]) -> tuple[int, str, str]:
    """Weigh a line that names a reason: a table's row whose first cells name it explains it best."""
    heading = next((each for each in reversed(lines[:number]) if each.startswith("#")), "# ")
    anchor = re.sub(r"[^\w\- ]", "", heading.lstrip("# ").lower()).replace(" ", "-")
    words = page.removesuffix(".md").replace("_", " ")
    link = f"[{words}](../{page}{f'#{anchor}' if heading.startswith('##') else ''})"
    cells = [each.strip() for each in re.split(r"(?<!\\)\|", lines[number])[1:-1]]
    at = next((place for place, cell in enumerate(cells[:2]) if f"`{reason}`" in cell), None)
    if at is None or len(cells) < 2 or not lines[number].startswith("|"):
        return 0, "", link
    others = [cell for place, cell in enumerate(cells) if place != at]
    meaning = re.sub(r"\]\((?!http|#)([^)]+)\)", r"](../\1)", others[-1]).replace("](#", f"](../{page}#")
    is_alone = cells[at] == f"`{reason}`"
    return (2 if is_alone else 1), meaning.replace(r"\|", "|"), link


# ── Metrics and REST ──

_EDIT = {"id": "1", "prompt": "p", "original_llm_output": "a", "final_user_edit": "b"}


def ask_capture() -> tuple[str, dict[str, Any]]:
    """Ask a running service for its metrics, after one accepted and one refused event, and for its OpenAPI document."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running_capture(Path(folder), {"assistant": None}) as capture,
        httpx.Client(base_url=capture.url) as client,
    ):
        client.post("/v1/assistant/edits", json=[_EDIT, _EDIT, {**_EDIT, "final_user_edit": "c"}, {}])
        return client.get("/metrics").text, client.get("/openapi.json").json()


def write_metrics(exposition: str) -> str:
    """Every metric of capture, from its own `/metrics`."""
    rows = []
    for family in text_string_to_metric_families(exposition):
        if family.name.endswith("_created"):
            continue
        labels = sorted({name for sample in family.samples for name in sample.labels if name != "le"})
        name = f"{family.name}_total" if family.type == "counter" else family.name
        rows.append([code(name), family.type, ", ".join(map(code, labels)), family.documentation])
    return draw_page(
        "Metrics",
        "`/metrics` of a running service",
        "Capture serves Prometheus' text format at `/metrics`. Where keys exist, it needs a key of `*` "
        "with the scope `admin` "
        "([who may send](../capture.md#who-may-send)). Alert on the 99th percentile of "
        "`flywheel_capture_fsync_seconds`, on "
        "`flywheel_capture_unpublished_segments` above 0, and on `flywheel_capture_clock_off_seconds` "
        "other than 0. Runs, checks and late "
        "days are [Dagster's and the alerts'](../operations.md#alerts).",
        [draw_table(["metric", "type", "labels", "meaning"], sorted(rows))],
    )


def write_rest(document: Mapping[str, Any]) -> str:
    """Every endpoint and body of capture, from its own OpenAPI document."""
    events = document["paths"]["/v1/{application}/events"]["post"]["responses"]
    common = {status: each["description"] for status, each in events.items() if status > "400"}
    parts = [_draw_endpoint(path, item, common) for path, item in document["paths"].items()]
    refusals = draw_table(["answer", "means"], list(common.items()))
    bodies = [_draw_schema(name, schema) for name, schema in document["components"]["schemas"].items()]
    return draw_page(
        "REST interface",
        "`/openapi.json` of a running service",
        "A running service answers `/openapi.json` with this interface for programs (OpenAPI 3.1), made "
        "from the types that decode the requests. "
        "Send a key as `Authorization: Bearer …`; a service on loopback without keys needs none ([who may "
        "send](../capture.md#who-may-send)). "
        "[Events](events.md) has a body for every signal. `/` is the [page of the "
        "wheel](../wheel_page.md), `/review` the [review](../review.md).",
        [
            "## Refusals\n\nEvery endpoint that takes events may answer these, with a [Problem](#problem) "
            "that says what to do. "
            "429 and 503 have `Retry-After`.",
            refusals,
            *parts,
            "## Bodies",
            *bodies,
        ],
    )


def _draw_endpoint(path: str, item: Mapping[str, Any], common: Mapping[str, str]) -> str:
    method, operation = next((name, value) for name, value in item.items() if name in ("get", "post", "delete"))
    parts = [f"## {method.upper()} {path}", escape_cell(operation.get("summary", ""))]
    parameters = item.get("parameters", [])
    if parameters:
        rows = [
            [code(each["name"]), each["in"], "yes" if each.get("required") else "", each.get("description", "")]
            for each in parameters
        ]
        parts.append(draw_table(["parameter", "in", "required", "meaning"], rows))
    if "requestBody" in operation:
        rows = [
            [code(media_type), _describe_schema(content.get("schema", {}))]
            for media_type, content in operation["requestBody"]["content"].items()
        ]
        parts.append(draw_table(["media type", "body"], rows))
    rows = [
        [status, answer.get("description", ""), " or ".join(_list_answers(answer))]
        for status, answer in operation["responses"].items()
        if status not in common
    ]
    parts.append(draw_table(["answer", "means", "body"], rows))
    return "\n\n".join(parts)


def _list_answers(answer: Mapping[str, Any]) -> list[str]:
    described = {_describe_schema(each.get("schema", {})) for each in answer.get("content", {}).values()}
    return sorted(each for each in described if "[" in each)


def _draw_schema(name: str, schema: Mapping[str, Any]) -> str:
    parts = [f"### {name}", *([escape_cell(schema["description"])] if "description" in schema else [])]
    if "enum" in schema:
        parts.append("One of " + ", ".join(code(str(each)) for each in schema["enum"]) + ".")
    required = set(schema.get("required", ()))
    rows = [
        [code(field), _describe_schema(each), "yes" if field in required else "", code(_describe_json_default(each))]
        for field, each in schema.get("properties", {}).items()
    ]
    if rows:
        parts.append(draw_table(["field", "type", "required", "default"], rows))
    return "\n\n".join(parts)


def _describe_json_default(schema: Mapping[str, Any]) -> str:
    default = schema.get("default")
    return "" if default is None else str(default).lower() if isinstance(default, bool) else str(default)


def _describe_schema(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_describe_schema(each) for each in schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return " or ".join(code(str(each)) for each in schema.get("enum", [schema.get("const")]))
    kind = schema.get("type", "any")
    name = " or ".join(kind) if isinstance(kind, list) else str(kind)
    if kind == "array" and schema.get("items"):
        name = f"array of {_describe_schema(schema['items'])}"
    bounds = [
        f"{word} {schema[key]:,}"
        for key, word in (
            ("minimum", "from"),
            ("exclusiveMinimum", "above"),
            ("maximum", "to"),
            ("maxLength", "at most"),
        )
        if key in schema
    ]
    unit = " characters" if "maxLength" in schema else ""
    form = f" ({schema['format']})" if schema.get("format") else ""
    return f"{name}{form}{', ' + ' '.join(bounds) + unit if bounds else ''}"


# ── Decisions ──


def write_decisions() -> str:
    """Every decision by its topic, from the titles of the pages."""
    titles = {
        int(path.name[:4]): (path.name, path.read_text().splitlines()[0].lstrip("# "))
        for path in sorted((ROOT / "docs" / "adr").glob("0*.md"))
    }
    sorted_numbers = {number for numbers in TOPICS.values() for number in numbers}
    others = [number for number in titles if number not in sorted_numbers]
    topics = {**TOPICS, **({"Others": others} if others else {})}
    parts = [
        f"## {topic}\n\n"
        + "\n".join(f"- [{titles[number][1]}](../adr/{titles[number][0]})" for number in numbers if number in titles)
        for topic, numbers in topics.items()
    ]
    return draw_page(
        "Decisions by topic",
        "the titles in docs/adr",
        "Each page says what was decided, in which situation, and what was rejected. The "
        "[index](../adr/README.md) has them by date.",
        parts,
    )


def draw_pages() -> dict[str, str]:
    """Draw every page: file name → content."""
    exposition, document = ask_capture()
    return {
        "settings.md": write_settings(),
        "cli.md": write_cli(),
        "configuration.md": write_configuration(),
        "tables.md": write_tables(),
        "reasons.md": write_reasons(),
        "metrics.md": write_metrics(exposition),
        "rest.md": write_rest(document),
        "decisions.md": write_decisions(),
    }


def main() -> int:
    """Write the pages, or compare them."""
    stale = []
    for name, page in draw_pages().items():
        path = FOLDER / name
        if path.exists() and path.read_text() == page:
            continue
        stale.append(name)
        if "--check" not in sys.argv:
            path.write_text(page)
    if stale and "--check" in sys.argv:
        sys.stderr.write(f"out of date: {', '.join(stale)}; run `python docs/write_reference.py`\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
