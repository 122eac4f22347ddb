"""How many small faults in the library do its tests notice? Mutants by cosmic-ray, a process for each.

    .venv/bin/pip install -r benchmarks/requirements.txt
    .venv/bin/python benchmarks/mutants.py zoo graph evaluate scores --out mutants

Of each pool of modules 150 mutants are drawn: places first, then one of the faults that fit there, so that an
operator with a dozen replacements does not crowd out the rest; a place comes again where there are no others.
Mutants that differ in annotations, docstrings or `TYPE_CHECKING` blocks only can't change what the code does
and are not drawn. A mutant is written to a copy of the package, never to the checkout. The tests run that
reach its line, quick ones first, until one fails or they have taken `--budget` seconds on the unchanged code
(for a line outside functions, or in one whose value is cached: any tests of the pool, within the budget);
tests that are not run could only notice more. A mutant that takes ten times as long as the unchanged code,
and a minute, is a timeout and counts as noticed: it hangs. That pytest cannot find a test is no notice: such
a run stops the script. The table has a row per mutant and names the test that noticed; `--only` runs some
again by number, `--unchanged` runs the same selections on the unchanged code, where everything has to
survive.
"""

import argparse
import ast
import contextlib
import csv
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "transfergraph"
POOLS = {  # name -> modules or parts; files of tests or parts; tests left out: they take most of the time
    "zoo": (["zoo.tables", "zoo.matrices"], ["zoo"], "round_trip or ensemble or command_line"),
    "graph": (["graph.build"], ["graph/test_build.py"], "test_no_finetuning_edge or targets_accuracies"),
    "evaluate": (["evaluate", "metrics"], ["evaluate"], "several_processes or ctrl_c"),
    "scores": (["scores"], ["scores"], ""),
}
COLUMNS = ["pool", "number", "module", "line", "operator", "before", "after", "outcome", "by", "seconds"]
FAILED = 1  # pytest's exit code where a test fails
BROKEN = 2  # and where a module of tests cannot be imported


def modules_of(name):
    "A module by its dotted name; of a part, all modules."
    part = LIBRARY / name
    return [f"{name}.{p.stem}" for p in sorted(part.glob("[!_]*.py"))] if part.is_dir() else [name]


def source_of(module, library=LIBRARY):
    return library.joinpath(*module.split(".")).with_suffix(".py")


class Bare(ast.NodeTransformer):
    "What the code does: without annotations, docstrings and what is for type checkers only."

    def visit_FunctionDef(self, node):
        self.generic_visit(node)
        node.returns = None
        for arg in ast.walk(node.args):
            if isinstance(arg, ast.arg):
                arg.annotation = None
        return self._silent(node)

    def visit_ClassDef(self, node):
        self.generic_visit(node)
        return self._silent(node)

    visit_Module = visit_ClassDef

    def visit_AnnAssign(self, node):
        self.generic_visit(node)
        node.annotation = ast.Constant(None)
        return node

    def visit_If(self, node):
        return None if getattr(node.test, "id", "") == "TYPE_CHECKING" else self.generic_visit(node)

    def _silent(self, node):
        first = node.body[0] if node.body else None
        if isinstance(first, ast.Expr) and isinstance(getattr(first.value, "value", None), str):
            node.body = node.body[1:] or [ast.Pass()]
        return node


def meaning(source):
    return ast.dump(Bare().visit(ast.parse(source)))


def draw(modules, n, seed):
    "Mutants as (module, line, operator, occurrence): a place at random, then a fault at random."
    from cosmic_ray import plugins
    from cosmic_ray.ast import ast_nodes, get_ast

    places = {}
    for module in modules:
        source = source_of(module).read_text(encoding="utf-8")
        tree = get_ast(source)
        skipped = source.index("__all__") if "__all__" in source else 0
        first = source[:skipped].count("\n") + 1
        for name in sorted(plugins.operator_names()):
            kind = plugins.get_operator(name)
            if kind.arguments():
                continue
            positions = (p for node in ast_nodes(tree) for p in kind().mutation_positions(node))
            for occurrence, (start, end) in enumerate(positions):
                if start[0] > first:
                    places.setdefault((module, start, end), []).append((name, occurrence))
    rng, drawn = random.Random(seed), []
    order = sorted(places)
    rng.shuffle(order)
    while len(drawn) < n and any(places.values()):
        for place in order:
            if len(drawn) == n or not places[place]:
                continue
            (module, start, _), (name, occurrence) = place, rng.choice(places[place])
            places[place].remove((name, occurrence))
            source = source_of(module).read_text(encoding="utf-8")
            mutant = mutate(module, name, occurrence)
            try:
                same = meaning(mutant) == meaning(source)
            except SyntaxError:
                continue
            if not same:
                drawn.append((module, start[0], name, occurrence))
    return drawn


def mutate(module, name, occurrence):
    from cosmic_ray import plugins
    from cosmic_ray.mutating import mutate_code

    source = source_of(module).read_text(encoding="utf-8")
    return mutate_code(source, plugins.get_operator(name)(), occurrence)


def in_child(work, limit):
    "Run a function in a forked process group; its exit code, or None where it took too long."
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        code = 1
        try:
            code = int(work())
        finally:
            os._exit(code)
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def run_tests(package, tests, *options, plugins=()):
    "The tests on the package in a folder, in this process; a later import of the library finds that one."
    import pytest

    sys.path.insert(0, str(package))
    os.environ["PYTHONPATH"] = str(package)
    os.environ["PYTHONSAFEPATH"] = "1"  # or processes that tests start would find the checkout first
    os.chdir(ROOT)
    common = ["-x", "-q", "--tb=no", "-p", "no:cacheprovider", "--hypothesis-seed=0", "-W", "ignore"]
    common += [f"--basetemp={package / 'scratch'}"]
    return pytest.main([*common, *options, *tests], plugins=list(plugins))


def coverage_of(files, slow, folder):
    "Seconds of each test, and which tests reach which line; imports what the tests import, for all children."
    shutil.copytree(ROOT / "transfergraph", folder / "transfergraph")
    cover, report = folder / ".coverage", folder / "report.xml"

    def work():
        os.environ["COVERAGE_FILE"] = str(cover)
        options = [f"--cov={folder / 'transfergraph'}", "--cov-context=test", "--cov-report="]
        options += ["-k", f"not ({slow})"] if slow else []
        code = run_tests(folder, files, *options, f"--junitxml={report}", "-o", "junit_family=xunit1")
        own = ("transfergraph", "test_", "conftest", "tests", "_pytest", "pytest", "coverage", "__m")
        (folder / "imported").write_text("\n".join(m for m in sys.modules if not m.startswith(own)))
        return code

    if code := in_child(work, 1800):
        raise SystemExit(f"the tests fail on the unchanged code (exit code {code}): {' '.join(files)}")
    for module in (folder / "imported").read_text().split():
        with contextlib.suppress(Exception):
            __import__(module)
    from xml.etree import ElementTree

    import coverage

    seconds = {}
    for case in ElementTree.parse(report).iter("testcase"):
        seconds[f"{case.get('file')}::{case.get('name')}"] = float(case.get("time"))
    reached, known = {}, coverage.CoverageData(basename=str(cover))
    known.read()
    for file in known.measured_files():
        for line, contexts in known.contexts_by_lineno(file).items():
            names = {c.rpartition("|")[0] for c in contexts if c}
            module = ".".join(
                Path(file).relative_to(folder.resolve() / "transfergraph").with_suffix("").parts
            )
            reached[module, line] = None if "" in contexts and not names else names
    return seconds, reached


def decorators(function):
    return getattr(function, "decorator_list", [])


def inside_functions(module):
    "Lines that run at each call of a function: not at import, and not at a first call whose value is kept."
    tree = ast.parse(source_of(module).read_text(encoding="utf-8"))
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
    functions = [n for n in ast.walk(tree) if isinstance(n, kinds)]
    kept = [n for n in functions if {"functools.cache", "cache"} & set(map(ast.unparse, decorators(n)))]
    bodies = [n.body if isinstance(n.body, list) else [n.body] for n in functions]
    lines = {line for body in bodies for line in range(body[0].lineno, body[-1].end_lineno + 1)}
    return lines - {line for n in kept for line in range(n.lineno, n.end_lineno + 1)}


def choose(module, line, seconds, reached, budget):
    "The tests that could notice a change of a line, quick ones first, as many as fit the budget of seconds."
    names = reached.get((module, line)) if line in inside_functions(module) else None
    names = (names or set()) & set(seconds) or set(seconds)
    chosen, spent = [], 0.0
    for test in sorted(names, key=lambda t: (seconds[t], t)):
        spent += seconds[test]
        if chosen and spent > budget:
            break
        chosen.append(test)
    return chosen


def judge(mutant, tests, seconds):
    "What the tests say of one mutant: killed, timeout or survived, and the test that noticed."
    module, _, name, occurrence = mutant
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder)
        shutil.copytree(ROOT / "transfergraph", package / "transfergraph")
        path = source_of(module, package / "transfergraph")
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
            compiled.unlink()
        if name is not None:
            path.write_text(mutate(module, name, occurrence), encoding="utf-8")
        for some in [tests[:40], tests[40:]]:
            if not some:
                continue
            noted = package / "failed"

            def work(some=some, noted=noted):
                class Note:
                    def pytest_runtest_logreport(self, report):
                        if report.failed:
                            noted.write_text(report.nodeid, encoding="utf-8")

                return run_tests(package, some, plugins=[Note()])

            code = in_child(work, 60 + 10 * sum(seconds[t] for t in some))
            if code is None:
                return "timeout", ""
            if code in (FAILED, BROKEN):
                return "killed", noted.read_text(encoding="utf-8") if noted.exists() else "(import)"
            if code == 4 and name is not None:  # conftest imports nothing of the library
                raise SystemExit(f"pytest cannot run {len(some)} tests (exit code {code}): {some[0]} ...")
            if code:  # the process died or pytest itself broke
                return "killed", f"(exit code {code})"
    return "survived", ""


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pools", nargs="+", choices=POOLS)
    parser.add_argument("--n", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("mutants"))
    parser.add_argument("--only", type=int, nargs="*", help="numbers of mutants, as in the table")
    parser.add_argument("--budget", type=float, default=60, help="seconds of tests for a mutant")
    parser.add_argument("--unchanged", action="store_true", help="the same selections of tests, no mutant")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for pool in args.pools:
        names, files, slow = POOLS[pool]
        modules = [module for name in names for module in modules_of(name)]
        files = [f"tests/{file}" for file in files]
        drawn = draw(modules, args.n, args.seed)
        with tempfile.TemporaryDirectory() as folder:
            seconds, reached = coverage_of(files, slow, Path(folder))
        rows = []
        took = sum(seconds.values())
        print(f"{pool}: {len(drawn)} mutants, {len(seconds)} tests of {took:.0f} s", flush=True)
        for number, mutant in enumerate(drawn):
            if args.only and number not in args.only:
                continue
            module, line, name, occurrence = mutant
            old = source_of(module).read_text(encoding="utf-8").splitlines()
            new = mutate(module, name, occurrence).splitlines()
            changed = next((i for i, (a, b) in enumerate(zip(old, new)) if a != b), line - 1)
            began = time.monotonic()
            tests = choose(module, line, seconds, reached, args.budget)
            outcome, by = judge((module, line, None, 0) if args.unchanged else mutant, tests, seconds)
            kind = name.rpartition("/")[2]
            texts = old[changed].strip(), new[changed].strip() if changed < len(new) else ""
            spent = round(time.monotonic() - began, 1)
            rows.append([pool, number, module, changed + 1, kind, *texts, outcome, by, spent])
            if outcome == "survived":
                print(f"  {number}: {module}.py:{changed + 1} {kind}: {texts[0]}  ->  {texts[1]}", flush=True)
            with open(args.out / f"{pool}.csv", "w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([COLUMNS, *rows])
        killed = sum(row[7] != "survived" for row in rows)
        print(f"{pool}: {killed} of {len(rows)} noticed ({killed / max(1, len(rows)):.0%})", flush=True)


if __name__ == "__main__":
    main()
