"""A server on this machine that gives out the files of a folder, and goes wrong where it is told to."""

import contextlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Files(SimpleHTTPRequestHandler):
    "Answers of `SimpleHTTPRequestHandler`, but for paths that end in a key of `faults`."

    faults: dict
    asked: list

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.asked.append(self.path)
        fault = next((fault for end, fault in self.faults.items() if self.path.endswith(end)), None)
        if isinstance(fault, int):
            return self.send_error(fault)
        if fault is None:
            return super().do_GET()
        content = Path(self.translate_path(self.path)).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        # a cut download ends in the middle; a wrong file is as long as the right one
        self.wfile.write(content[: len(content) // 2] if fault == "cut" else b"x" * len(content))
        self.close_connection = True


@contextlib.contextmanager
def serving_files(root: Path) -> Iterator[tuple[str, dict, list]]:
    "Its address, what is to go wrong (end of a path -> a status, cut or wrong), and the paths asked for."
    faults, asked = {}, []
    handler = partial(type("Told", (Files,), {"faults": faults, "asked": asked}), directory=str(root))
    listener = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    listener.daemon_threads = True
    thread = threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.server_port}", faults, asked
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()
