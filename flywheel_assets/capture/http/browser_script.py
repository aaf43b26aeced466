"""`GET /flywheel.js`: the browser's client, the same file for everybody; it needs no key and holds none."""

import hashlib
from functools import cache
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

_CACHED_S = 3600


@cache
def _script() -> tuple[bytes, str]:
    """The file and its entity tag."""
    content = files("flywheel_assets.capture").joinpath("browser", "flywheel.js").read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'


async def browser_script(request: Request) -> Response:
    """Any page may load it: a page's right to send is decided where it sends."""
    content, tag = _script()
    headers = {
        "ETag": tag,
        "Cache-Control": f"public, max-age={_CACHED_S}",
        "Access-Control-Allow-Origin": "*",
        "Cross-Origin-Resource-Policy": "cross-origin",
        "X-Content-Type-Options": "nosniff",
    }
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type="text/javascript")
