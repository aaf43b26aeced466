"""Serves the style sheets and scripts of a room's pages, for the review pages and the page of the wheel."""

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

from flywheel_assets.review.sessions import PageRefusal


def answer_asset(request: Request, package: str, media_types: Mapping[str, str]) -> Response:
    """Answer a request for `name` with a file of a package's folder `assets`.

    Where the sender has it already, the answer is 304.

    Raises:
        PageRefusal: it is none of `media_types`.
    """
    name = request.path_params["name"]
    if name not in media_types:
        raise PageRefusal(404, "There is no such file.")
    content, tag = _read_asset(package, name)
    headers = {"ETag": tag, "Cache-Control": "private, max-age=3600"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=media_types[name])


@cache
def _read_asset(package: str, name: str) -> tuple[bytes, str]:
    content = files(package).joinpath("assets", name).read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'
