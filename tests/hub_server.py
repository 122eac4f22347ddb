"""A small server that speaks the part of the Hugging Face hub's HTTP API that reading a repository takes.

Repositories are folders: `root/models/owner/name` and `root/datasets/owner/name`. Faults are answers that are
given instead, so many times, to requests whose path matches.
"""

import contextlib
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
from safetensors.numpy import save_file

CARD = """---
license: apache-2.0
datasets: [imagenet-1k]
base_model: timm/base
model-index:
- name: it
  results:
  - dataset: {name: Pets, type: owner/pets, split: test}
    metrics: [{type: accuracy, value: 91.5}]
---
# A model
"""
TIMM = {
    "architecture": "test_resnet",
    "num_classes": 2,
    "pretrained_cfg": {"tag": "a1_in1k", "input_size": [3, 32, 32]},
}


def repository(folder, config=None, card=None, weights=True):
    "A repository: configuration, card and weights of a model, or the card of a dataset."
    folder.mkdir(parents=True)
    if config is not None:
        (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    if card is not None:
        (folder / "README.md").write_text(card)
    if weights:
        save_file({"weight": np.zeros((3, 4), np.float32)}, folder / "model.safetensors")
    return folder


@dataclass
class Fault:
    "An answer that is given instead of the right one."

    pattern: str  # of the path
    status: int = 200  # 200: the right answer, but slow or cut off
    times: int = 1
    headers: dict = field(default_factory=dict)
    delay: float = 0.0  # seconds before the answer
    cut: int | None = None  # bytes after which the line is closed


@dataclass
class Server:
    "Where it listens, what was asked, and what will go wrong."

    url: str
    root: Path
    asked: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    extra_files: dict[str, list[dict]] = field(
        default_factory=dict
    )  # repository -> siblings that are only listed
    waited: list[float] = field(default_factory=list)
    cards: dict[str, dict] = field(default_factory=dict)  # repository -> what its card says


def commit(folder: Path) -> str:
    "A commit is a hash of the files."
    digest = hashlib.sha1()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        told: Server = self.server.told
        path = unquote(urlsplit(self.path).path)
        told.asked.append(f"{self.command} {path}")
        fault = next((f for f in told.faults if f.times and re.search(f.pattern, path)), None)
        if fault is not None:
            fault.times -= 1
            time.sleep(fault.delay)
            if fault.status != 200:
                return self.send(fault.status, b"{}", fault.headers, body)
        api = re.fullmatch(
            r"/api/(models|datasets)/([^/]+/[^/]+?|[^/]+?)(?:/(revision|tree)/([^/]+))?/?", path
        )
        file = re.fullmatch(r"/(datasets/)?([^/]+/[^/]+|[^/]+)/resolve/([^/]+)/(.+)", path)
        if api:
            kind, name, what, revision = api.groups()
            return self.api(kind, name, what, revision, body, fault)
        if file:
            kind, name, revision, asked = file.groups()
            folder = self.repository(kind or "models", name)
            if folder is None or revision not in (commit(folder), "main", "v1"):
                return self.missing("RepoNotFound", body)
            path = folder / asked
            if not path.is_file():
                return self.missing("EntryNotFound", body)
            content = path.read_bytes()
            headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": commit(folder)}
            asked_range = re.fullmatch(r"bytes=(\d+)-(\d+)?", self.headers.get("Range", ""))
            if asked_range and body:  # a part, as streaming asks for
                start, end = int(asked_range[1]), min(int(asked_range[2] or len(content)), len(content) - 1)
                headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
                return self.send(206, content[start : end + 1], headers, body, fault.cut if fault else None)
            return self.send(200, content, headers, body, fault.cut if fault else None)
        return self.missing("EntryNotFound", body)

    def repository(self, kind, name):
        folder = self.server.told.root / kind.strip("/") / name
        return folder if folder.is_dir() else None

    def missing(self, code, body):
        self.send(404, b'{"error": "not found"}', {"X-Error-Code": code}, body)

    def api(self, kind, name, what, revision, body, fault):
        told, folder = self.server.told, self.repository(kind, name)
        if folder is None:
            return self.missing("RepoNotFound", body)
        if (folder / ".gated").exists():
            return self.send(403, b"{}", {"X-Error-Code": "GatedRepo"}, body)
        if revision not in (None, commit(folder), "main", "v1"):
            return self.missing("RevisionNotFound", body)
        files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
        listed = [(p.relative_to(folder).as_posix(), p.stat().st_size) for p in files]
        if what == "tree":
            oid = [hashlib.sha1(p.read_bytes()).hexdigest() for p in files]
            rows = [{"type": "file", "path": n, "size": s, "oid": o} for (n, s), o in zip(listed, oid)]
            extra = [(f["rfilename"], f["size"]) for f in told.extra_files.get(name, [])]
            rows += [{"type": "file", "path": n, "size": size, "oid": "0" * 40} for n, size in extra]
            return self.send(200, json.dumps(rows).encode(), {}, body)
        siblings = [{"rfilename": n, "size": s} for n, s in listed] + told.extra_files.get(name, [])
        info = {
            "id": name,
            "sha": commit(folder),
            "siblings": siblings,
            "downloads": 7,
            "tags": [],
            "private": False,
        }
        if name in told.cards:
            info["cardData"] = told.cards[name]
        if any(n.endswith(".safetensors") for n, _ in listed):
            info["safetensors"] = {"parameters": {"F32": 1234}, "total": 1234}
        content = json.dumps(info).encode()
        self.send(200, content, {}, body, fault.cut if fault else None)

    def send(self, status, content, headers, body, cut=None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.wfile.write(content[:cut] if cut is not None else content)
        if cut is not None:
            self.close_connection = True


@contextlib.contextmanager
def serving(root: Path) -> Iterator[Server]:
    "A server on a free port of this machine, for as long as the block lasts."
    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    told = listener.told = Server(f"http://127.0.0.1:{listener.server_port}", root)
    thread = threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield told
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()
