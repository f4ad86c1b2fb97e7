#!/usr/bin/env python3
"""Sets `repro run` beside GNU make, and ninja and DVC if they are there, on a pipeline of many small stages.

    cargo build --release
    python3 benches/scale.py                  # 5,000 chains of two stages and one that joins them
    python3 benches/scale.py --chains 500     # a tenth of it, in seconds

Every program gets the same work in a folder of its own: each chain has one parameter, its first stage writes
it beside the content of a file that all read, its second copies that, and the last stage joins all copies.
repro gets it twice: as one table per stage, and as two stages with a matrix. After one cold run each, the
programs take turns; the medians over rounds count. How many stages ran is checked, not assumed.

DVC gets a smaller one, with the others beside it: what it takes grows with the square of the number of stages.

The last part is a stage that reads a folder of many files, beside a program that asks the file system
for each file's size and times and does nothing else.

Writes `scale.json` (every measurement) and `scale.md` (the tables) beside this file. Needs nothing but
Python and the programs (`pip install dvc` for the second table). Close everything else first.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from compare import load, machine
from compare_report import table

HERE = Path(__file__).resolve().parent


# --- the programs: each writes its project and knows its commands -----------------------------------


class Repro:
    """One table for each stage, one parameter for each chain."""

    name = "repro, a table per stage"

    def __init__(self, folder, chains, args):
        self.folder, self.chains, self.program = folder, chains, args.repro
        self.commands = {
            "run": [args.repro, "run", "--jobs", str(args.jobs)],
            "status": [args.repro, "status"],
        }

    def write(self, first):
        lines = ["[params]", *(f"c{n} = {first if n == 0 else n}" for n in range(self.chains))]
        for n in range(self.chains):
            lines.append(stage(f"a{n}", "cat src.txt > $OUT/x; echo $P >> $OUT/x", f'deps = ["src.txt"]\nvalues.P = "${{c{n}}}"'))
            lines.append(stage(f"b{n}", "cat $IN_A/x > $OUT/x", f'needs.a = "a{n}"'))
        needs = ", ".join(f'"b{n}"' for n in range(self.chains))
        lines.append(stage("join", JOIN, f"needs.all = [{needs}]"))
        self.put("\n".join(lines))

    def put(self, text):
        (self.folder / "pipeline.toml").write_text(text, encoding="utf-8")

    def ran(self, said):
        """Stages that ran, and stages whose earlier result came back without running."""
        counts = [re.search(rf"\b{word} (\d+)", said) for word in ("ran", "restored")]
        return [int(count.group(1)) if count else 0 for count in counts]


class ReproMatrix(Repro):
    """Two stages with a matrix, whose one axis is the parameter."""

    name = "repro, a matrix"

    def write(self, first):
        axis = [first, *range(1, self.chains)]
        matrix = 'matrix.p = "${chain}"'
        a = stage("a", "cat src.txt > $OUT/x; echo $AXIS_P >> $OUT/x", f'deps = ["src.txt"]\n{matrix}')
        b = stage("b", "cat $IN_A/x > $OUT/x", f'needs.a = "a"\n{matrix}')
        self.put(f"[params]\nchain = {axis}\n{a}{b}" + stage("join", JOIN, 'needs.all = "b"'))


JOIN = r"sed 's,$,/x,' $IN_ALL_LIST | xargs cat > $OUT/x"


def stage(name, run, more):
    return f'\n[stage.{name}]\nkind = "command"\nrun = "{run}"\noutputs = ["x"]\n{more}\n'


class Files:
    """make and ninja: the parameters are files, because only files can be newer."""

    def __init__(self, folder, chains, args):
        self.folder, self.chains = folder, chains
        for below in ("p", "a", "b"):
            (folder / below).mkdir()
        self.written = False
        self.build(args)

    def write(self, first):
        if not self.written:
            for n in range(1, self.chains):
                (self.folder / f"p/{n}").write_text(f"{n}\n", encoding="utf-8")
        self.written = True
        (self.folder / "p/0").write_text(f"{first}\n", encoding="utf-8")

    def rules(self):
        for n in range(self.chains):
            yield f"a/{n}", ["src.txt", f"p/{n}"], f"cat src.txt > a/{n}; cat p/{n} >> a/{n}"
            yield f"b/{n}", [f"a/{n}"], f"cat a/{n} > b/{n}; true"
        yield "join", [f"b/{n}" for n in range(self.chains)], "cat b/* > join; true"


class Make(Files):
    name = "GNU make"

    def build(self, args):
        rules = (f"{out}: {' '.join(needs)}\n\t{run}\n" for out, needs, run in self.rules())
        (self.folder / "Makefile").write_text("all: join\n" + "".join(rules), encoding="utf-8")
        self.commands = {"run": ["make", f"-j{args.jobs}"], "status": ["make", "-q"]}

    def ran(self, said):
        return [sum(line.startswith("cat ") for line in said.splitlines()), 0]


class Ninja(Files):
    name = "ninja"

    def build(self, args):
        text = "rule sh\n  command = $run\n"
        text += "".join(f"build {out}: sh {' '.join(needs)}\n  run = {run}\n" for out, needs, run in self.rules())
        (self.folder / "build.ninja").write_text(text, encoding="utf-8")
        self.commands = {"run": ["ninja", f"-j{args.jobs}"], "status": ["ninja", "-n"]}

    def ran(self, said):
        counts = re.findall(r"\[(\d+)/\d+\]", said)
        return [int(counts[-1]) if counts else 0, 0]


class Dvc:
    """DVC: one parameter for each chain, in the one file that it reads by itself."""

    name = "DVC"

    def __init__(self, folder, chains, _):
        self.folder, self.chains = folder, chains
        self.commands = {"run": ["dvc", "repro"], "status": ["dvc", "status"]}
        os.environ["DVC_NO_ANALYTICS"] = "1"
        subprocess.run(["dvc", "init", "--quiet", "--no-scm"], cwd=folder, check=True)
        for below in ("a", "b"):
            (folder / below).mkdir()
        lines = ["stages:"]
        for n in range(chains):
            run = f"cat src.txt > a/{n}; echo ${{c{n}}} >> a/{n}"
            lines.append(f'  a{n}: {{cmd: "{run}", deps: [src.txt], params: [c{n}], outs: [a/{n}]}}')
            lines.append(f'  b{n}: {{cmd: "cat a/{n} > b/{n}", deps: [a/{n}], outs: [b/{n}]}}')
        needs = ", ".join(f"b/{n}" for n in range(chains))
        lines.append(f'  join: {{cmd: "cat b/* > join", deps: [{needs}], outs: [join]}}')
        (folder / "dvc.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def write(self, first):
        lines = [f"c{n}: {first if n == 0 else n}\n" for n in range(self.chains)]
        (self.folder / "params.yaml").write_text("".join(lines), encoding="utf-8")

    def ran(self, said):
        return [said.count("Running stage "), said.count(" is cached - skipping run")]


# --- measuring -------------------------------------------------------------------------------------


def timed(line, folder):
    """Runs a command and says how long it took, its processor time, its peak memory, and its words."""
    with tempfile.TemporaryFile("w+") as words, tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        process = subprocess.Popen(line, cwd=folder, stdout=words, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        words.seek(0)
        errors.seek(0)
        said, failed = words.read(), errors.read()
    if process.returncode != 0:
        words = (said + failed)[-2000:]
        sys.exit(f"scale: `{' '.join(line)}` in {folder} ended with exit code {process.returncode}\n{words}")
    unit = 1 if sys.platform == "darwin" else 1024
    cpu = usage.ru_utime + usage.ru_stime
    return {"wall_s": wall, "cpu_s": cpu, "peak_rss_bytes": usage.ru_maxrss * unit}, said


def step(program, what, ran=None, restored=None):
    measured, said = timed(program.commands["status" if what == "status" else "run"], program.folder)
    counts = program.ran(said) if what != "status" else [0, 0]
    for wanted, count, word in ((ran, counts[0], "ran"), (restored, counts[1], "were restored")):
        if wanted is not None and wanted != count:
            sys.exit(f"scale: {program.name}, {what}: {count} stages {word} instead of {wanted}\n{said[-2000:]}")
    print(f"  {program.name}: {what} {measured['wall_s']:.3f} s", file=sys.stderr)
    return {"ran": counts[0], "restored": counts[1], **measured}


def measure(kinds, root, chains, rounds, args):
    """Everything, interleaved: what else the machine does meets all alike."""
    programs = []
    for kind in kinds:
        folder = root / f"{kind.__name__}-{chains}"
        folder.mkdir()
        (folder / "src.txt").write_text("what every chain reads\n", encoding="utf-8")
        programs.append(kind(folder, chains, args))
    results = {program.name: {} for program in programs}
    def note(program, what, **counts):
        results[program.name].setdefault(what, []).append(step(program, what, **counts))

    for program in programs:
        program.write(0)
        note(program, "cold", ran=2 * chains + 1)
    for turn in range(rounds):
        for program in programs:
            note(program, "nothing to do", ran=0, restored=0)
        for program in programs:
            note(program, "status")
        for program in programs:
            program.write(chains + turn)
            note(program, "one parameter", ran=3)
        for program in programs:
            program.write(0)
            # Without a cache of results, going back is one more change.
            note(program, "and back", ran=3 if isinstance(program, Files) else 0)
    return results


FLOOR = """
import os, sys
def walk(folder):
    for entry in os.scandir(folder):
        if entry.is_dir(): walk(entry.path)
        else: entry.stat()
walk(sys.argv[1])
"""


def folder_of_files(root, args):
    """A stage that reads a folder of many files, and the least that looking at them can cost."""
    folder = root / "folder"
    classes = 20
    for number in range(classes):
        (folder / "images" / str(number)).mkdir(parents=True)
    for number in range(args.files):
        (folder / "images" / str(number % classes) / f"{number}.png").write_text(f"{number}\n" * 40, encoding="utf-8")
    time.sleep(0.1)  # files that are younger than the clock's grain are read again
    program = Repro(folder, 0, args)
    program.put(stage("count", "find images -type f | wc -l > $OUT/x", 'deps = ["images"]'))
    results = {"cold": [step(program, "cold", ran=1)]}
    floor = [sys.executable, "-S", "-c", FLOOR, "images"]
    for turn in range(args.rounds):
        results.setdefault("nothing to do", []).append(step(program, "nothing to do", ran=0, restored=0))
        results.setdefault("looking alone", []).append(timed(floor, folder)[0])
        (folder / "images/0/0.png").write_text(f"turn {turn}\n", encoding="utf-8")
        time.sleep(0.1)
        results.setdefault("one file", []).append(step(program, "one file", ran=1))
    return results


# --- the report ------------------------------------------------------------------------------------


def median(runs, key):
    return statistics.median(run[key] for run in runs)


def compared(programs):
    whats = ["cold", "nothing to do", "status", "one parameter", "and back"]
    lines = []
    for name, results in programs.items():
        walls = [f"{median(results[what], 'wall_s'):.3g}" for what in whats]
        idle = results["nothing to do"]
        lines.append([name, *walls, f"{median(idle, 'cpu_s'):.3g}", f"{median(idle, 'peak_rss_bytes') / 2**20:.0f}"])
    return table(["program", *whats, "nothing to do: CPU, s", "its memory, MiB"], lines)


def beside_dvc(data):
    if not data["few"]:
        return ["(DVC was not there.)", ""]
    stages = 2 * data["few_chains"] + 1
    return [
        f"{stages} stages of the same form, which DVC runs one after the other ({data['dvc']}):",
        "",
        compared(data["few"]),
    ]


def report(data):
    make = data["programs"].get(Make.name)
    ratios = []
    for name, results in data["programs"].items():
        if make and name.startswith("repro"):
            ratio = median(results["cold"], "wall_s") / median(make["cold"], "wall_s")
            ratios.append(f"- {name}: cold {ratio:.2f} times make's")
    folder = [
        [what, f"{median(runs, 'wall_s'):.3g}", f"{median(runs, 'cpu_s'):.3g}"]
        for what, runs in data["folder"].items()
    ]
    facts = data["machine"]
    return "\n".join([
        "# Many stages, and many files",
        "",
        "Written by `python3 benches/scale.py`, which anyone can run and which says what is measured; `scale.json`",
        "holds every measurement. Medians; seconds of wall time where nothing else is said.",
        "",
        f"{2 * data['chains'] + 1:,} stages ({data['chains']:,} chains of two, one that joins them), {data['jobs']} at once:",
        "",
        compared(data["programs"]),
        *ratios,
        "",
        *beside_dvc(data),
        "`one parameter` runs three stages with every program: the chain's two and the join; `and back` runs none with",
        "repro and DVC, whose caches have the result. A process counts as no smaller than the Python that started it: the smallest number here is that, or less.",
        "",
        f"A stage that reads a folder of {data['files']:,} files; `looking alone` is a Python program that asks for each",
        "file's size and times:",
        "",
        table(["", "wall, s", "CPU, s"], folder),
        f"{facts['processor']}, {facts['cores']} cores, {facts['system']}; load before the measurement {data['load']};",
        f"{facts['repro']}, commit {facts['commit']}, {facts['date']}.",
        "",
    ])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repro", default=str(HERE.parent / "target/release/repro"), help="the program to measure")
    parser.add_argument("--chains", type=int, default=5000, help="chains of two stages [5000]")
    parser.add_argument("--few-chains", type=int, default=50, help="chains of two stages beside DVC [50]")
    parser.add_argument("--files", type=int, default=60000, help="files of the folder [60000]")
    parser.add_argument("--rounds", type=int, default=5, help="rounds; medians count [5]")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="stages at once [one per core]")
    parser.add_argument("--out", type=Path, default=HERE, help="where the report goes [beside this file]")
    args = parser.parse_args()
    args.repro, args.python = str(Path(args.repro).resolve()), sys.executable
    if not Path(args.repro).exists():
        sys.exit(f"scale: there is no `{args.repro}`; run `cargo build --release`, or name it with --repro")
    kinds = [Repro, ReproMatrix]
    kinds += [kind for kind, word in ((Make, "make"), (Ninja, "ninja")) if shutil.which(word)]
    before = load()
    with tempfile.TemporaryDirectory(prefix="repro-scale-") as root:
        root = Path(root)
        data = {
            "machine": machine(args), "load": before, "chains": args.chains, "files": args.files, "jobs": args.jobs,
            "programs": measure(kinds, root, args.chains, args.rounds, args), "few": {},
        }
        if shutil.which("dvc"):
            version = subprocess.run(["dvc", "--version"], capture_output=True, text=True, check=True).stdout.strip()
            data |= {
                "dvc": f"version {version}", "few_chains": args.few_chains,
                "few": measure([*kinds, Dvc], root, args.few_chains, args.rounds, args),
            }
        data["folder"] = folder_of_files(root, args)
        # Before the folders are deleted, which takes a while.
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "scale.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        (args.out / "scale.md").write_text(report(data), encoding="utf-8")
        print(args.out / "scale.md")


if __name__ == "__main__":
    main()
