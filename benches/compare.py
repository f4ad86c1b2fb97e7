#!/usr/bin/env python3
"""Sets `repro bench step` beside PyTorch's training step, on this machine, and writes a report.

    cargo build --release
    python3 benches/compare.py --quick                    # one network, a few minutes
    python3 benches/compare.py --python ~/venv/bin/python # everything, some hours
    python3 benches/compare.py --only resnet110,scaling   # some of it; the rest of the report stays

All programs that are compared run in turns: each round runs every one of them once, as a process of its
own, and the median over rounds counts. PyTorch runs in each of its configurations (channels-last or
not, compiled or not) in the first round, and in later rounds in those that may still be its fastest.
Needs nothing but Python; PyTorch is that of `--python`.

Writes `compare.json` (every measurement) and `compare.md` (the tables) beside this file. Close
everything else first: what else runs on the machine is in the numbers, and its load in the report.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

from compare_report import BATCH, LAYOUTS, name, rate, write_report

HERE = Path(__file__).resolve().parent
# A configuration that was that much slower than the fastest one is not tried again.
HOPELESS = 1.15


class Plan:
    """What to measure: sections of networks, each with the programs that take turns."""

    def __init__(self, args):
        quick = args.quick
        self.threads = args.threads
        self.compiled = [False] if quick or args.no_compile else [False, True]
        self.sections = {}
        small = [("resnet32", "paper")] if quick else [
            (f"resnet{depth}", variant) for depth in (32, 56, 110) for variant in ("paper", "origin")
        ]
        for arch, variant in small:
            self.network(arch, variant, [("bn", "f32"), ("random", "f32"), ("all", "f32"), ("bn", "bf16")])
        if not quick:
            for arch in ("resnet14-8", "vgg16"):
                self.network(arch, "paper", [("bn", "f32"), ("all", "f32")])
            self.less_memory()
            self.scaling()

    def network(self, arch, variant, modes):
        programs = []
        for threads in self.threads:
            for mode, precision in modes:
                programs.append(ours(arch, variant, mode, precision, BATCH, threads))
                if mode == "random":
                    continue  # stands beside PyTorch's bn
                for compiled in self.compiled:
                    for layout in LAYOUTS:
                        programs.append(torch(arch, variant, mode, precision, BATCH, threads, layout, compiled))
            programs.append(ours(arch, variant, "bn", "f32", BATCH, threads, predict=True))
        self.sections[f"{arch} {variant}"] = programs

    def less_memory(self):
        for variant, third in (("paper", 480e6), ("origin", 180e6)):  # of what PyTorch's process grew by
            network = ("resnet110", variant, "bn", "f32", BATCH, self.threads[0])
            self.sections[f"less memory {variant}"] = [ours(*network, memory=m) for m in (None, int(third), 0)]

    def scaling(self):
        threads = self.threads[0]
        depths = [ours(f"resnet{d}", "paper", "bn", "f32", BATCH, threads) for d in (14, 20, 32, 44, 56, 110, 218)]
        batches = [ours("resnet32", "paper", "bn", "f32", b, threads) for b in (32, 64, 128, 256, 512, 1024)]
        self.sections["scaling by depth"] = depths
        self.sections["scaling by batch"] = batches


def ours(arch, variant, mode, precision, batch, threads, predict=False, memory=None):
    key = {"program": "repro", "arch": arch, "variant": variant, "mode": mode, "precision": precision}
    key |= {} if memory is None else {"memory": memory}
    return key | {"batch": batch, "threads": threads, "pass": "predict" if predict else "train"}


def torch(arch, variant, mode, precision, batch, threads, layout, compiled):
    key = ours(arch, variant, mode, precision, batch, threads) | {"program": "torch"}
    return key | {"layout": layout, "compiled": compiled}


def command(program, args, steps):
    shape = ["--arch", program["arch"], "--variant", program["variant"], "--mode", program["mode"]]
    shape += ["--batch", str(program["batch"]), "--threads", str(program["threads"])]
    if program["program"] == "repro":
        line = [args.repro, "bench", "step", *shape, "--precision", program["precision"]]
        line += ["--repeats", str(steps), "--warmup", str(args.warmup), "--engine", args.engine, "--json"]
        line += ["--memory", str(program["memory"])] if "memory" in program else []
        return line + (["--predict"] if program["pass"] == "predict" else [])
    line = [args.python, str(HERE / "torch_step.py"), *shape, "--steps", str(steps), "--warmup", str(args.warmup)]
    line += LAYOUTS[program["layout"]] + (["--compile"] if program["compiled"] else [])
    return line + (["--bf16"] if program["precision"] == "bf16" else [])


def run(program, args):
    """One measurement, or an explanation of why there is none."""
    line = command(program, args, args.steps)
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=args.timeout, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"took more than {args.timeout} s"}
    except OSError as error:
        sys.exit(f"compare: cannot start `{line[0]}`: {error.strerror}; see --repro and --python")
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        errors = [line.removeprefix("error: ") for line in said if line.startswith("error: ")]
        return {"error": (errors or said)[-1][:200]}
    return json.loads(done.stdout)


def measure(programs, args, until):
    """Runs the programs in turns. Returns those with at least one measurement or error."""
    results = [{**program, "runs": [], "error": None} for program in programs]
    for turn in range(args.rounds):
        for result in results:
            if time.monotonic() > until and any(r["runs"] for r in results):
                print("  time is up", file=sys.stderr)
                return [r for r in results if r["runs"] or r["error"]]
            if result["error"] or turn and hopeless(result, results):
                continue
            found = run(result, args)
            result["error"] = found.get("error")
            if result["error"] is None:
                result["runs"].append(found)
            said = result["error"] or f"{found['images_per_second']:.0f} images/s"
            print(f"  {turn + 1}/{args.rounds} {name(result)}: {said}", file=sys.stderr)
    return results


def same(result, other, *keys):
    return all(result[key] == other[key] for key in keys)


def hopeless(result, results):
    """Is it a configuration of PyTorch that another one has clearly beaten?"""
    if result["program"] != "torch":
        return False
    keys = ("program", "arch", "variant", "mode", "precision", "batch", "threads")
    best = max(rate(other) for other in results if same(result, other, *keys))
    return rate(result) * HOPELESS < best


def machine(args):
    def first(path, word):
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith(word))
        except (OSError, StopIteration):
            return None

    def said(line):
        try:
            return subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return None

    probe = "import torch; print(torch.__version__, torch.backends.cpu.get_cpu_capability())"
    return {
        "processor": first("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "torch": said([args.python, "-c", probe]),
        "repro": said([args.repro, "--version"]),
        "commit": said(["git", "-C", str(HERE), "rev-parse", "--short=10", "HEAD"]),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "uptime": said(["uptime"]),
    }


def load():
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return None


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repro", default=str(HERE.parent / "target/release/repro"), help="the binary")
    parser.add_argument("--python", default="python3", help="a Python that has PyTorch")
    parser.add_argument("--quick", action="store_true", help="ResNet-32 alone, nothing compiled, two rounds")
    parser.add_argument("--only", default="", metavar="WORDS", help="sections with one of these words, by commas")
    parser.add_argument("--threads", default="1,2", help="numbers of threads, by commas")
    parser.add_argument("--engine", default="auto", help="engine of repro")
    parser.add_argument("--rounds", type=int, help="turns of every program [default: 3, quick: 2]")
    parser.add_argument("--steps", type=int, help="steps that a run times [default: 6, quick: 4]")
    parser.add_argument("--warmup", type=int, default=2, help="steps before them")
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile")
    parser.add_argument("--timeout", type=int, default=900, help="seconds that one run may take")
    parser.add_argument("--minutes", type=float, default=24 * 60, help="start nothing after so many")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of compare.json and compare.md")
    parser.add_argument("--report", action="store_true", help="measure nothing; write compare.md from compare.json")
    args = parser.parse_args()
    args.threads = sorted({int(n) for n in args.threads.split(",")})
    args.rounds = args.rounds or (2 if args.quick else 3)
    args.steps = args.steps or (4 if args.quick else 6)
    return args


def main():
    args = arguments()
    store, report = args.out / "compare.json", args.out / "compare.md"
    sections = json.loads(store.read_text(encoding="utf-8")) if store.exists() else {}
    if not args.report:
        until = time.monotonic() + 60 * args.minutes
        about = machine(args)
        words = [word for word in args.only.split(",") if word]
        plan = Plan(args).sections.items()
        wanted = {name: programs for name, programs in plan if not words or any(word in name for word in words)}
        if about["torch"] is None and any(p["program"] == "torch" for programs in wanted.values() for p in programs):
            sys.exit(f"compare: `{args.python}` has no PyTorch; see --python")
        args.out.mkdir(parents=True, exist_ok=True)
        print("\n".join(f"{key}: {value}" for key, value in about.items()), file=sys.stderr)
        if (load() or 0) > 0.5:
            print(f"note: something else runs here (load {load()}); numbers will suffer", file=sys.stderr)
        for section, programs in wanted.items():
            if time.monotonic() > until:
                print(f"time is up: nothing measured of {section}", file=sys.stderr)
                continue
            print(section, file=sys.stderr)
            before = load()
            results = measure(programs, args, until)
            sections[section] = {"machine": about, "load": [before, load()], "results": results}
            store.write_text(json.dumps(sections, indent=1) + "\n", encoding="utf-8")
    if not sections:
        sys.exit("compare: nothing was measured; see --only")
    write_report(sections, report)
    print(report)


if __name__ == "__main__":
    main()
