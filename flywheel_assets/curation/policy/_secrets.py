"""Finds credentials by their published formats. A row with one is rejected: a trained model could repeat it.

Formats with a fixed prefix or frame, and values next to a name that says key, token or secret. Entropy rules that look
for "random-looking" strings anywhere fired on every line of code when they were measured, so a password without any
mark is not found.
"""

import math
import re
from collections import Counter
from typing import Any

from flywheel_assets.curation.policy._gitleaks import GITLEAKS_TOKENS
from flywheel_assets.curation.policy.verdicts import Action, Hazard, Pattern
from flywheel_assets.records import Reason

_PLACEHOLDERS = re.compile(
    r"example|your|xxxx|placeholder|dummy|redacted|0123456789|1234567890|abcdefgh", re.IGNORECASE
)
_PLACEHOLDER_PASSWORD = re.compile(
    r"pass|passwo?rd|pass?wd|pwd|secret|my(?:secret)?password|mysecretpassword|changeme|root|admin|user|test|postgres|guest"
    r"|token|key|mysql|.*(?:[${}%\[\]*]|example|your|xxx).*"
)

# Name, expression without its boundaries, and what must occur for it to match (RE2 and Python read both alike).
_TOKENS = (
    ("aws_access_key", r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}", r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{8}"),
    ("github_token", r"gh[pousr]_[A-Za-z0-9]{36,255}", r"gh[pousr]_[A-Za-z0-9]{8}"),
    ("github_fine_grained_token", r"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}", r"github_pat_"),
    (
        "gitlab_token",
        r"gl(?:pat|dt|rt|cbt|ptt|ft|soat|agent)-[A-Za-z0-9_-]{20,}",
        r"gl(?:pat|dt|rt|cbt|ptt|ft|soat|agent)-[A-Za-z0-9_-]{8}",
    ),
    (
        "slack_token",
        r"xox[abeoprs]-[A-Za-z0-9-]{20,}|xapp-[0-9]-[A-Z0-9]+-[0-9]+-[a-z0-9]{32,}",
        r"xox[abeoprs]-[A-Za-z0-9-]{8}|xapp-[0-9]-",
    ),
    (
        "slack_webhook",
        r"hooks\.slack\.com/services/T[A-Z0-9]{6,}/B[A-Z0-9]{6,}/[A-Za-z0-9]{20,}",
        r"hooks\.slack\.com/services/T",
    ),
    ("google_api_key", r"AIza[A-Za-z0-9_-]{35}", r"AIza[A-Za-z0-9_-]{8}"),
    ("google_oauth", r"ya29\.[A-Za-z0-9_-]{30,}|GOCSPX-[A-Za-z0-9_-]{28}", r"ya29\.[A-Za-z0-9_-]{8}|GOCSPX-"),
    (
        "openai_key",
        r"sk-(?:proj|svcacct|admin|None)-[A-Za-z0-9_-]{20,}|sk-[A-Za-z0-9]{32,}",
        r"sk-(?:proj|svcacct|admin|None)-|sk-[A-Za-z0-9]{16}",
    ),
    ("anthropic_key", r"sk-ant-[a-z0-9]+-[A-Za-z0-9_-]{20,}", r"sk-ant-"),
    ("openrouter_key", r"sk-or-v1-[0-9a-f]{64}", r"sk-or-v1-"),
    ("hugging_face_token", r"hf_[A-Za-z]{34}", r"hf_[A-Za-z]{16}"),
    (
        "model_host_key",
        r"gsk_[A-Za-z0-9]{52}|xai-[A-Za-z0-9]{80}|r8_[A-Za-z0-9]{37}|pplx-[A-Za-z0-9]{48}",
        r"gsk_[A-Za-z0-9]{8}|xai-[A-Za-z0-9]{16}|r8_[A-Za-z0-9]{16}|pplx-[A-Za-z0-9]{8}",
    ),
    (
        "stripe_key",
        r"(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9+/]{32,}",
        r"[sr]k_(?:live|test)_|whsec_",
    ),
    ("npm_token", r"npm_[A-Za-z0-9]{36}", r"npm_[A-Za-z0-9]{16}"),
    ("pypi_token", r"pypi-AgE[A-Za-z0-9_-]{50,}", r"pypi-AgE"),
    ("docker_token", r"dckr_[po]at_[A-Za-z0-9_-]{27,}", r"dckr_[po]at_"),
    ("sendgrid_key", r"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}", r"SG\.[A-Za-z0-9_-]{16}"),
    ("twilio_key", r"SK[0-9a-f]{32}", r"SK[0-9a-f]{16}"),
    ("mailgun_key", r"key-[0-9a-f]{32}", r"key-[0-9a-f]{16}"),
    ("digitalocean_token", r"do[opr]_v1_[0-9a-f]{64}", r"do[opr]_v1_"),
    ("shopify_token", r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}", r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{8}"),
    ("databricks_token", r"dapi[0-9a-f]{32}(?:-[0-9])?", r"dapi[0-9a-f]{16}"),
    ("vault_token", r"hv[sbr]\.[A-Za-z0-9_-]{24,}", r"hv[sbr]\.[A-Za-z0-9_-]{8}"),
    ("terraform_token", r"[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_-]{60,}", r"\.atlasv1\."),
    ("grafana_token", r"glsa_[A-Za-z0-9]{32}_[0-9a-f]{8}", r"glsa_[A-Za-z0-9]{8}"),
    ("atlassian_token", r"ATATT3[A-Za-z0-9_=-]{60,}", r"ATATT3"),
    ("linear_key", r"lin_api_[A-Za-z0-9]{40}", r"lin_api_"),
    ("notion_token", r"ntn_[A-Za-z0-9]{43,}", r"ntn_[A-Za-z0-9]{8}"),
    ("figma_token", r"figd_[A-Za-z0-9_-]{40,}", r"figd_[A-Za-z0-9_-]{8}"),
    ("postman_key", r"PMAK-[0-9a-f]{24}-[0-9a-f]{34}", r"PMAK-"),
    ("telegram_bot_token", r"[0-9]{8,10}:AA[A-Za-z0-9_-]{33}", r"[0-9]:AA[A-Za-z0-9_-]{8}"),
    ("age_secret_key", r"AGE-SECRET-KEY-1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}", r"AGE-SECRET-KEY-1"),
    ("azure_storage_key", r"AccountKey=[A-Za-z0-9+/]{86}==", r"AccountKey="),
    ("json_web_token", r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{16,}", r"eyJ[A-Za-z0-9_-]+\.eyJ"),
)

_URL_PASSWORD = re.compile(
    r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@\"'<>]{1,64}:(?P<password>[^\s/:@\"'<>]{4,128})@[A-Za-z0-9.-]+"
)
_CURL_USER = re.compile(
    r"\bcurl\b[^\n|;]{0,300}?[ \t](?:-u|--user)[ =]?[ \t]*(?P<quote>[\"']?)[^\s:\"']{1,64}:"
    r"(?P<password>[^\s\"']{4,128})(?P=quote)"
)
# A name that says so, and a value that no person would type: gitleaks' generic rule, with a longer value.
_NAMED_KEY = re.compile(
    r"(?i:secret|api[_-]?key|access[_-]?key|auth[_-]?key|private[_-]?key|token|passw(?:or)?d)[A-Za-z0-9_]{0,24}"
    r"[\"']?[ \t]*(?:=|:|=>|:=)[ \t]*[\"'`]?(?P<value>[A-Za-z0-9+/_~-]{20,150}={0,2})(?![A-Za-z0-9+/_.(\[~=-])"
)
# Words and numbers in a row: names of things more often than keys.
_NO_KEY = re.compile(r"(?:[A-Za-z]+\d{0,4}|\d{1,8})(?:[_/-]+(?:[A-Za-z]+\d{0,4}|\d{1,8}))+|[A-Za-z]+\d{0,4}")
# A name more often than a key, but not as the value of an environment variable: some services issue such keys.
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ENVIRONMENT_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*=[\"']?")
_LEAST_ENTROPY_BITS = 3.7
_PRIVATE_KEY = re.compile(r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----")


def is_credential(match: re.Match[str]) -> bool:
    """Exclude a manual's placeholder: too few different characters, or a word that manuals use."""
    token = match.group()
    return len(set(token)) >= 10 and not _PLACEHOLDERS.search(token)


def is_password(match: re.Match[str]) -> bool:
    """Exclude a manual's placeholder and a variable to be filled in."""
    return not _PLACEHOLDER_PASSWORD.fullmatch(match["password"].lower())


def is_named_key(match: re.Match[str]) -> bool:
    """Accept a value whose letters and digits are as mixed as a random key's; no path or name.

    A UUID counts only behind an environment variable (`SERVICE_TOKEN=7c1d9f02-…`).

    Entropy is in bits per character (Shannon 1948), from the value's own character counts.
    """
    value = match["value"]
    if _UUID.fullmatch(value):
        return is_credential(match) and _ENVIRONMENT_VARIABLE.match(match.group()) is not None
    counts = Counter(value)
    entropy = -sum(count / len(value) * math.log2(count / len(value)) for count in counts.values())
    is_mixed = sum(map(str.isdigit, value)) >= 2 and sum(map(str.isalpha, value)) >= 3
    return (
        is_mixed
        and entropy >= _LEAST_ENTROPY_BITS
        and not _PLACEHOLDERS.search(value)
        and not _NO_KEY.fullmatch(value)
        and value.count("/") <= 2
    )


def _make_secret_pattern(name: str, expression: re.Pattern[str], prefilter: str, **options: Any) -> Pattern:
    return Pattern(name, expression, prefilter, Action.REJECT, Reason.SECRET, Hazard.SECRET, **options)


SECRETS = (
    _make_secret_pattern("private_key", _PRIVATE_KEY, r"PRIVATE KEY"),
    *(
        _make_secret_pattern(
            name, re.compile(rf"(?<![A-Za-z0-9])(?:{expression})(?![A-Za-z0-9])"), prefilter, accepts=is_credential
        )
        for name, expression, prefilter in (*_TOKENS, *GITLEAKS_TOKENS)
    ),
    _make_secret_pattern("password_in_url", _URL_PASSWORD, r"://[^\s/:@\"'<>]+:[^\s/:@\"'<>]+@", accepts=is_password),
    _make_secret_pattern("password_for_curl", _CURL_USER, r"\bcurl\b[^\n|;]*[ \t](?:-u|--user)", accepts=is_password),
    _make_secret_pattern(
        "named_key",
        _NAMED_KEY,
        r"(?i:secret|key|token|passw(?:or)?d)[A-Za-z0-9_]*[\"']?[ \t]*(?:=|:|=>|:=)[ \t]*[\"'`]?[A-Za-z0-9+/_~-]{6}",
        accepts=is_named_key,
        revision=2,
    ),
)
