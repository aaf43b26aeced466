"""Finds commands that destroy data or give the machine to another user, where neither prompt nor model had them.

An assistant may explain `dd` to a user who asked about it. An edit that brings such a command into an answer to another
question is sabotage or a slip, and a person decides which.
"""

import re

from flywheel_assets.curation.policy.verdicts import Action, Hazard, Pattern
from flywheel_assets.records import Reason

_ROOT = (
    r"(?:/(?:\*|[ \t\"'`;)]|$)|/(?:etc|usr|var|home|bin|boot|lib|opt|root)(?:/\*?)?(?:[ \t\"'`;)]|$)"
    r"|~/?(?:[ \t\"'`;)]|$)|\$HOME|\*(?:[ \t\"'`;)]|$)|--no-preserve-root|[cC]:)"
)

# Name and expression; RE2 and Python read them alike.
_EXPRESSIONS = (
    (
        "delete_everything",
        rf"\brm[ \t]+(?:-[a-zA-Z-]+[ \t]+)*-(?:[a-zA-Z]*[rR][a-zA-Z]*"
        rf"|-recursive)[ \t]+(?:-[a-zA-Z-]+[ \t]+)*[\"']?{_ROOT}"
        rf"|\brmtree\([ \t]*[\"'](?:/|~|[cC]:)[/\\]{{0,2}}[\"']"
        r"|\b(?:del|rd|rmdir)[ \t]+(?:/[a-zA-Z][ \t]+)*/[sS][ \t]+(?:/[a-zA-Z][ \t]+)*[\"']?[a-zA-Z]:"
        r"|\bRemove-Item\b[^\n|;]*-Recurse\b[^\n|;]*[\"' ](?:[a-zA-Z]:\\?|/|~)[\"' ]"
        r"|\bfind[ \t]+/[ \t][^\n;|]*-delete\b",
    ),
    (
        "overwrite_disk",
        r"\bdd[ \t]+[^\n;|]*of=/dev/(?:sd|hd|vd|nvme|disk|mapper)|>[ \t]*/dev/(?:sd|hd|vd|nvme)[a-z0-9]"
        r"|\bmkfs(?:\.[a-z0-9]+)?[ \t]+[^\n;|]*/dev/|\bshred[ \t]+[^\n;|]*/dev/|\bformat[ \t]+[a-zA-Z]:[ \t]*/",
    ),
    ("fork_bomb", r":\(\)[ \t]*\{[ \t]*:[ \t]*\|[ \t]*:[ \t]*&[ \t]*\}[ \t]*;[ \t]*:|%0\|%0"),
    (
        "run_from_network",
        r"\b(?:curl|wget|iwr|Invoke-WebRequest)\b[^\n;|]{0,200}\|[ \t]*(?:sudo[ \t]+)?(?:ba|z|da|k)?sh\b"
        r"|\b(?:bash|sh|zsh)[ \t]+(?:-c[ \t]+)?[\"']?(?:<\(|\$\()[ \t]*(?:curl|wget)\b|\b(?:iex"
        r"|Invoke-Expression)\b[^\n]{0,80}(?:DownloadString|iwr\b|Invoke-WebRequest)"
        r"|\b(?:exec|eval)\((?:requests\.get|urllib\.request\.urlopen|urlopen)\(|\bbase64[ \t]+(?:-d|-D"
        r"|--decode)\b[^\n]{0,80}\|[ \t]*(?:ba)?sh\b",
    ),
    (
        "reverse_shell",
        r"/dev/tcp/[0-9a-zA-Z.]+/[0-9]+|\bnc(?:at)?[ \t]+[^\n;|]*-[a-z]*e[ \t]+/bin/"
        r"|\bpowershell(?:\.exe)?[ \t]+[^\n]*-(?:enc|EncodedCommand|e)[ \t]+[A-Za-z0-9+/=]{20}",
    ),
    (
        "drop_data",
        r"(?i:\bdrop[ \t]+database\b[ \t]+[a-z_\"'`])|(?i:;[ \t]*drop[ \t]+(?:table|schema)\b)"
        r"|(?i:\bdelete[ \t]+from[ \t]+[a-z_.]+[ \t]+where[ \t]+(?:1[ \t]*=[ \t]*1|true)\b)",
    ),
    ("open_to_all", r"\bchmod[ \t]+(?:-R[ \t]+)?(?:a\+rwx|0?777)[ \t]+(?:-R[ \t]+)?/(?:[ \t\"';)]|$|etc|usr|var)"),
)

DESTRUCTIVE_COMMANDS = tuple(
    Pattern(
        name,
        re.compile(expression, re.ASCII),
        expression,
        Action.QUARANTINE,
        Reason.DESTRUCTIVE_COMMAND,
        Hazard.NON_VIOLENT_CRIMES,
        fields=("chosen",),
        score=0.8,
        known_from=("prompt", "rejected", "operator"),
    )
    for name, expression in _EXPRESSIONS
)
