"""An example product: a reply desk whose model drafts answers, wired to capture from the browser and from its server.

With `make dev` running: `.venv/bin/python docs/examples/reply_desk.py`, then open the address that it prints.
"""

import argparse
import itertools
import socket
import uuid
from pathlib import Path
from urllib.parse import parse_qs

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from flywheel_client import FlywheelClient, Interaction

PROMPT = "Where is my order? I have waited for two weeks."
DRAFTS = itertools.cycle(
    [
        "Your order is delayed. Please wait.",
        "We are sorry for the delay. Your order left our warehouse and will arrive soon.",
    ]
)


class ReplyDesk:
    """The product: its pages, its model and what it tells capture."""

    def __init__(self, capture_url: str, key: str | None, browser_key: str) -> None:
        page = Path(__file__).with_suffix(".html").read_text()
        self.page = page.replace("CAPTURE_URL", capture_url).replace("BROWSER_KEY", browser_key)
        self.client = FlywheelClient(capture_url, "assistant", key=key, source="reply-desk-server")
        self.held: dict[str, Interaction] = {}
        self.app = Starlette(
            routes=[
                Route("/", self.index),
                Route("/draft", self.draft, methods=["POST"]),
                Route("/send", self.send, methods=["POST"]),
            ]
        )

    async def index(self, _: Request) -> Response:
        """The page."""
        return HTMLResponse(self.page)

    async def draft(self, request: Request) -> Response:
        """One prediction. The server holds its interaction where the browser does not."""
        output = next(DRAFTS)
        prediction = {"prediction_id": uuid.uuid4().hex, "thread_id": uuid.uuid4().hex}
        if request.query_params.get("held-by") == "server":
            interaction = self.client.interaction(PROMPT, output, model_version="canned-1", **prediction)
            self.held[interaction.prediction_id] = interaction
        return JSONResponse({"prompt": PROMPT, "output": output, **prediction})

    async def send(self, request: Request) -> Response:
        """The person sent the reply: the interaction ends, and what it was worth is told."""
        form = parse_qs((await request.body()).decode())
        interaction = self.held.pop(form["prediction_id"][0], None)
        if interaction is not None:
            with interaction:
                interaction.edited(form["final_text"][0].replace("\r\n", "\n"))
                interaction.accepted()
        return PlainTextResponse("sent")


def main() -> None:
    """Serve the desk until interrupted."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--capture", default="http://127.0.0.1:8700", help="address of the capture service")
    options.add_argument("--port", type=int, default=8701, help="0 takes a free one")
    options.add_argument("--key", help="a write key, where capture asks for keys")
    options.add_argument("--browser-key", default="", help="a browser key for this page's origin, likewise")
    chosen = options.parse_args()
    with socket.create_server(("127.0.0.1", chosen.port)) as listener:
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        server = uvicorn.Server(
            uvicorn.Config(ReplyDesk(chosen.capture, chosen.key, chosen.browser_key).app, log_level="warning")
        )
        server.run(sockets=[listener])


if __name__ == "__main__":
    main()
