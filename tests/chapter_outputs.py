"""Run the chapters of nbs/, keep what they print and draw, and say where a new run gives something else.

What is kept is small and the same from run to run: standard output, values and pictures, without addresses,
temporary folders, warnings and progress bars.
"""

import base64
import binascii
import difflib
import io
import json
import multiprocessing
import os
import re
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
MOST_PICTURE, MOST_CHAPTER, MOST_TEXT = 60_000, 200_000, 8_000  # bytes; characters of one cell's text
KINDS = ("text/plain", "text/html", "text/markdown", "text/latex", "image/png")
# Where two machines differ: the last digit that is printed, a hundredth of a number, the edge of a letter.
# Colours, of 255, are compared on average over the picture, and over squares of so many pixels.
RELATIVE, PIXELS, GREY, SQUARE, SQUARE_GREY = 0.01, 2, 4.0, 8, 40.0
NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+(?:\.\d+)?(?:e[-+]?\d{1,2})?|nan|inf)(?!\w)")  # not inside a word
LIGHT = ["execnb.shell", "pandas", "scipy.stats", "matplotlib.pyplot"]  # what chapters import: once for all
HEAVY = ["torch_geometric", "timm", "transformers.models.auto.modeling_auto", "sklearn.ensemble"]
LONGEST = 900  # seconds that a chapter may take
KEPT_ON = ROOT / "tests" / "outputs_kept_on.txt"  # elsewhere they are run and not compared


def processor() -> str:
    "System, Python and kind of processor: others add in another order, and networks learn otherwise."
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        told = ""
    found = dict(re.findall(r"^(model name|cpu family|model|flags)\s*:\s*(.+)$", told, re.M))
    flags = f"{binascii.crc32(found.pop('flags', '').encode()):08x}"
    python = ".".join(map(str, sys.version_info[:2]))
    return ", ".join(
        [sys.platform, f"Python {python}", *(f"{k} {v}" for k, v in sorted(found.items())), flags]
    )


def paths(names: list[str] = ()) -> list[Path]:
    "The chapters with these paths, or those in these folders; all where none is named."
    every = sorted((ROOT / "nbs").glob("[0-9]*.ipynb")) + sorted((ROOT / "nbs").glob("[0-9]*/[0-9]*.ipynb"))
    wanted = [Path(name).resolve() for name in names]
    for path in wanted:
        if not any(path == one or path in one.parents for one in every):
            raise ValueError(f"{path}: no chapter, and no folder of chapters in nbs/")
    return [one for one in every if not names or any(p == one or p in one.parents for p in wanted)]


def cells(notebook: dict) -> list[dict]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def small_png(data: str) -> str:
    "A PNG in base64 with 256 colours, or with fewer where it is too large then."
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    if image.mode == "P":
        return data
    rgba = image.convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    for colours in (256, 64, 32):
        out = io.BytesIO()
        few = image.quantize(colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        few.save(out, "PNG", optimize=True)
        if out.tell() <= MOST_PICTURE:
            break
    return binascii.b2a_base64(out.getvalue(), newline=False).decode()


def clean_text(text: str, scratch: str = "") -> str:
    "Text without what another run or another machine would have otherwise."
    text = re.sub(r"[^\n\r]*\r(?!\n)", "", text)  # what a progress bar has written over
    text = re.sub(r"(?s)<style scoped>.*?</style>\s*", "", text)  # of a table: the same each time
    for folder, name in ((scratch, "scratch"), (str(ROOT), "."), (str(Path.home()), "~")):
        text = text.replace(folder, name) if folder else text
    text = re.sub(r"\btmp[a-z0-9_]{8}\b", "tmp", text)
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def clean(outputs: list[dict], scratch: str = "") -> list[dict]:
    "Outputs as they are kept: no standard error, text without chance in it, pictures with few colours."
    kept = []
    for output in outputs:
        if output["output_type"] == "stream":
            if output["name"] == "stdout":
                text = clean_text("".join(output["text"]), scratch)
                kept.append({"output_type": "stream", "name": "stdout", "text": text.splitlines(True)})
            continue
        data = {}
        for kind in KINDS:
            if kind in output.get("data", {}):
                value = output["data"][kind]
                value = value if isinstance(value, str) else "".join(value)
                data[kind] = (
                    small_png(value) if kind == "image/png" else clean_text(value, scratch).splitlines(True)
                )
        if "image/png" in data:
            data["text/plain"] = ["<Figure>"]
        new = {"output_type": output["output_type"], "data": data, "metadata": {}}
        kept += [new | ({"execution_count": None} if new["output_type"] == "execute_result" else {})]
    return [output for output in kept if output.get("data") or output.get("text")]


def too_large(outputs: list[list[dict]]) -> list[str]:
    "What of a chapter's outputs, a list for each cell, is over a limit."
    found = []
    for number, cell in enumerate(outputs, 1):
        for output in cell:
            for kind, value in ({"text": output["text"]} if "text" in output else output["data"]).items():
                size, most = len("".join(value)), MOST_PICTURE * 4 // 3 if "image" in kind else MOST_TEXT
                if size > most:
                    found.append(f"code cell {number}: {size} characters of {kind}, at most {most}")
    total = len(json.dumps(outputs))
    return found + ([f"{total} bytes of outputs, at most {MOST_CHAPTER}"] if total > MOST_CHAPTER else [])


def _picture(data: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"), dtype=float)


def _other_text(old: str, new: str) -> bool:
    "Do two texts differ in more than spaces and the last digits of numbers that have a point?"
    if " ".join(NUMBER.sub("0", old).split()) != " ".join(NUMBER.sub("0", new).split()):
        return True
    for a, b in zip(NUMBER.findall(old), NUMBER.findall(new)):
        digits = len(re.sub(r"e.*", "", a).partition(".")[2])
        exponent = int(a.partition("e")[2] or 0)
        unit = 1.01 * 10.0 ** (exponent - digits) if "." in a or "e" in a else 0
        if a != b and not abs(float(a) - float(b)) <= max(unit, RELATIVE * abs(float(a)) if unit else 0):
            return True
    return False


def other(old: list[dict], new: list[dict]) -> str:
    "How the outputs of one cell differ, '' where they are the same."
    if [o["output_type"] for o in old] != [o["output_type"] for o in new]:
        return f"{len(old)} outputs are kept, a run gives {len(new)}"
    for a, b in zip(old, new):
        a, b = ({"text": o["text"]} if "text" in o else o["data"] for o in (a, b))
        if a.keys() != b.keys():
            return f"kept as {', '.join(a)}, a run gives {', '.join(b)}"
        for kind in a:
            one, two = "".join(a[kind]), "".join(b[kind])
            if kind != "image/png":
                if _other_text(one, two):
                    lines = difflib.unified_diff(one.splitlines(), two.splitlines(), lineterm="", n=0)
                    return "\n    ".join(["kept (-), and what a run gives (+)", *list(lines)[2:14]])
                continue
            one, two = _picture(one), _picture(two)
            if max(abs(np.subtract(one.shape, two.shape))) > PIXELS:
                return f"a picture of {one.shape[:2]} pixels is kept, a run gives {two.shape[:2]}"
            h, w = np.minimum(one.shape, two.shape)[:2] // SQUARE * SQUARE
            one, two = (p[:h, :w].reshape(h // SQUARE, SQUARE, w // SQUARE, SQUARE, 3) for p in (one, two))
            if (mean := abs(one - two).mean()) > GREY:
                return f"the pixels of a picture differ by {mean:.1f} of 255, at most {GREY}"
            if (most := abs(one.mean((1, 3)) - two.mean((1, 3))).max(initial=0)) > SQUARE_GREY:
                return f"a part of a picture differs by {most:.1f} of 255, at most {SQUARE_GREY}"
    return ""


def _execute(path: str, out: str, scratch: str) -> None:
    "In a process of its own: run a notebook, write its outputs as a list for each code cell."
    import random

    from execnb.shell import CaptureShell

    os.environ["TMPDIR"] = tempfile.tempdir = scratch  # what a chapter leaves there goes with it
    os.chdir(Path(path).parent)
    sys.path[:] = [str(ROOT), *(p for p in sys.path if Path(p) != ROOT / "tests")]
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    shell, found = CaptureShell(mpl_format="png"), []
    for number, cell in enumerate(cells(json.loads(Path(path).read_text(encoding="utf-8"))), 1):
        found.append(shell.run("".join(cell["source"])))
        if shell.exc:
            shell._cell_idx, shell._fname = number, path
            Path(out).write_text(json.dumps({"error": shell.prettytb()}), encoding="utf-8")
            break
    else:
        Path(out).write_text(json.dumps({"outputs": found}), encoding="utf-8")


def run(path: Path, scratch: str) -> tuple[list[list[dict]], float]:
    "Cleaned outputs of every code cell of a chapter, and seconds; RuntimeError where a cell fails."
    start, context = time.monotonic(), multiprocessing.get_context("forkserver")
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        out = Path(folder) / "outputs.json"
        process = context.Process(target=_execute, args=(str(path), str(out), scratch))
        process.start()
        process.join(LONGEST)
        if process.is_alive():
            process.kill()
            raise RuntimeError(f"{path.relative_to(ROOT)}: not done after {LONGEST} seconds")
        if not out.is_file():
            raise RuntimeError(f"{path.relative_to(ROOT)}: its process ended with {process.exitcode}")
        found = json.loads(out.read_text(encoding="utf-8"))
    if "error" in found:
        raise RuntimeError(found["error"])
    return [clean(outputs, scratch) for outputs in found["outputs"]], time.monotonic() - start


def store(path: Path, outputs: list[list[dict]]) -> bool:
    "Write outputs into a chapter; was anything changed?"
    text = path.read_text(encoding="utf-8")
    notebook = json.loads(text)
    for cell, new in zip(cells(notebook), outputs, strict=True):
        cell["outputs"] = new
    new = json.dumps(notebook, sort_keys=True, indent=1, ensure_ascii=False) + "\n"
    path.write_text(new, encoding="utf-8")
    return new != text


def compare(path: Path, outputs: list[list[dict]]) -> list[str]:
    "Where a chapter keeps other outputs than those of a run."
    kept = [cell["outputs"] for cell in cells(json.loads(path.read_text(encoding="utf-8")))]
    found = [(n, other(old, new)) for n, (old, new) in enumerate(zip(kept, outputs, strict=True), 1)]
    return [f"code cell {n}: {what}" for n, what in found if what]


def run_all(names: list[str], write: bool, workers: int) -> list[str]:
    "Run chapters; what is wrong with them, one paragraph each. `write` keeps their outputs."
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "IN_TEST": "1", "COLUMNS": "100"}
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    chosen, here = paths(names), processor()
    there = KEPT_ON.read_text(encoding="utf-8").strip() if KEPT_ON.is_file() else ""
    if write and names and here != there:
        raise ValueError(
            f"outputs are kept on {there}, and this is {here}: run all chapters, by `make outputs`"
        )
    if write:
        KEPT_ON.write_text(here + "\n", encoding="utf-8")
    elif here != there:
        print(f"outputs are kept on {there}, and this is {here}: they are not compared", file=sys.stderr)
    preload = [*LIGHT, *HEAVY] if len(chosen) > len(HEAVY) else LIGHT
    multiprocessing.get_context("forkserver").set_forkserver_preload(preload)

    def one(path):
        name = path.relative_to(ROOT).as_posix()
        try:
            outputs, seconds = run(path, scratch)
        except RuntimeError as error:
            print(f"{name}: fails", file=sys.stderr)
            return f"{name}: {error}"
        wrong = too_large(outputs)
        if write and not wrong:
            said = "written" if store(path, outputs) else "as it was"
        else:
            wrong += compare(path, outputs) if here == there and not write else []
            said = f"{len(wrong)} outputs too large or not those that are kept" if wrong else ""
        print(f"{name}: {seconds:.0f} s{said and ', ' + said}", file=sys.stderr, flush=True)
        return "\n  ".join([f"{name}:", *wrong]) if wrong else ""

    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(workers) as pool:
        return [wrong for wrong in pool.map(one, chosen) if wrong]
