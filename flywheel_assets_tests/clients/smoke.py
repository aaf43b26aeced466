"""A product in one file, for any Python: uses every call of the client against a server in its own process.

Argument: the folder that holds `flywheel_client`. Prints one JSON object: which events arrived, what was counted.
"""

import json
import os
import sys
import threading
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer


def main(folder: str) -> None:
    sys.path.insert(0, folder)
    from flywheel_client import DeliveryLimits, FlywheelClient, Output

    arrived, refusals = [], [503]

    class Capture(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = refusals.pop() if refusals else 202
            if status == 202:
                arrived.extend(json.loads(body))
            self.send_response(status)
            if status == 503:
                self.send_header("Retry-After", formatdate(0, usegmt=True))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Capture)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    limits = DeliveryLimits(linger_s=0.0, first_pause_s=0.001)
    url = f"http://127.0.0.1:{server.server_port}"
    client = FlywheelClient(url, "assistant", positive_share=1.0, limits=limits)
    with client.interaction("How?", "Thus.", user_id="ada") as interaction:
        interaction.edited("Like this.")
        interaction.thumbs_down()
    with client.interaction([{"role": "user", "content": "How?"}], "Thus.") as interaction:
        interaction.copied()
    client.prediction("How?", "Thus.", prediction_id="p-1")
    client.feedback("p-1", "rating", {"value": 0.5})
    client.scored_prediction({"distance": 7.5}, 0.7, prediction_id="t-1", amount=12.5)
    client.label("t-1", True, labeling_source="analyst")
    client.label("t-1", True, known_at="yesterday")
    session = client.edit_session("How?", {"content": "Thus.", "tool_calls": []}, thread_id="t")
    session.save("So.")
    session.undo()
    client.prediction("How?", "Thus.", prediction_id="p-2", thread_id="t")
    client.feedback(None, "thumb", {"value": 1.0}, thread_id="t", revision=1)
    first, second = Output("p-1", "Thus."), Output("p-2", "So.")
    client.regenerate(first, second, prompt="How?")
    client.choose(second, first, prompt="How?")
    client.demonstrate("How?", "Just so.")
    client.retract(prediction_id="p-2")
    client.retract(feedback_id="f/1")
    is_flushed = client.flush(30.0)
    child = os.fork()
    if child == 0:
        client.feedback("p-1", "copy")
        os._exit(0 if client.flush(30.0) else 1)
    child_status = os.waitpid(child, 0)[1]
    client.close()
    counts = client.counts()
    signals = [event["data"].get("signal", event["type"]) for event in arrived]
    print(
        json.dumps(
            {
                "signals": signals,
                "is_flushed": is_flushed,
                "child_status": child_status,
                "accepted": counts.delivery.accepted,
                "dropped": counts.delivery.dropped,
                "retries": counts.delivery.retries,
                "failures": counts.failures,
            }
        )
    )
    sys.stdout.flush()
    server.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])
