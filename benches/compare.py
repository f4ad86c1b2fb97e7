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
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
# A configuration that was that much slower than the fastest one is not tried again.
HOPELESS = 1.15
LAYOUTS = {"contiguous": [], "channels-last": ["--channels-last"]}


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
            self.network(arch, variant, [("bn", "f32"), ("random", "f32"), ("all", "f32"), ("bn", "bf16")], args.batch)
        if not quick:
            for arch in ("resnet14-8", "vgg16"):
                self.network(arch, "paper", [("bn", "f32"), ("all", "f32")], args.batch)
            self.less_memory()
            self.scaling()

    def network(self, arch, variant, modes, batch):
        programs = []
        for threads in self.threads:
            for mode, precision in modes:
                programs.append(ours(arch, variant, mode, precision, batch, threads))
                if mode == "random":
                    continue  # stands beside PyTorch's bn
                for compiled in self.compiled:
                    for layout in LAYOUTS:
                        programs.append(torch(arch, variant, mode, precision, batch, threads, layout, compiled))
            programs.append(ours(arch, variant, "bn", "f32", batch, threads, predict=True))
        self.sections[f"{arch} {variant}"] = programs

    def less_memory(self):
        for variant, third in (("paper", 480e6), ("origin", 180e6)):  # of what PyTorch's process grew by
            network = ("resnet110", variant, "bn", "f32", 128, self.threads[0])
            self.sections[f"less memory {variant}"] = [ours(*network, memory=m) for m in (None, int(third), 0)]

    def scaling(self):
        threads = self.threads[0]
        depths = [ours(f"resnet{d}", "paper", "bn", "f32", 128, threads) for d in (14, 20, 32, 44, 56, 110, 218)]
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


def name(program):
    words = [program["program"], program["mode"], program["precision"], f"{program['threads']} threads"]
    words += ["evaluation"] if program["pass"] == "predict" else []
    words += [f"batch {program['batch']}"] if program["batch"] != 128 else []
    words += [f"within {program['memory'] / 1e6:.0f} MB"] if "memory" in program else []
    words += [configuration(program)] if program["program"] == "torch" else []
    return f"{program['arch']} {program['variant']}: {', '.join(words)}"


def configuration(program):
    return program["layout"] + (", compiled" if program["compiled"] else "")


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


def rate(result):
    return statistics.median(r["images_per_second"] for r in result["runs"]) if result["runs"] else 0.0


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


# --- the report ---------------------------------------------------------------------------------


class Report:
    def __init__(self, sections):
        self.results = [r for section in sections.values() for r in section["results"]]
        self.sections = sections

    def find(self, **keys):
        found = [r for r in self.results if all(r.get(key) == value for key, value in keys.items())]
        return [r for r in found if r["runs"]]

    def ours(self, **keys):
        keys = {"pass": "train", "precision": "f32", "memory": None} | keys
        found = self.find(program="repro", **keys)
        return found[0] if found else None

    def torch(self, **keys):
        keys = {"precision": "f32"} | keys
        return max(self.find(program="torch", **keys), key=rate, default=None)

    def networks(self):
        seen = {}
        for section, found in self.sections.items():
            if not section.startswith(("scaling", "less memory")) and found["results"]:
                seen[(found["results"][0]["arch"], found["results"][0]["variant"])] = found
        return seen

    def threads(self):
        return sorted({r["threads"] for r in self.results})


def table(heading, lines):
    if not lines:
        return "Not measured.\n"
    rows = ["| " + " | ".join(heading) + " |", "|" + " --- |" * len(heading)]
    return "\n".join(rows + ["| " + " | ".join(str(cell) for cell in line) + " |" for line in lines]) + "\n"


def megabytes(count):
    return "?" if count is None else f"{count / 1e6:.0f}"


def goal(arch, mode, precision):
    if precision == "bf16":
        return 1.5
    if mode == "all":
        return 1.5 if arch.startswith("resnet") and "-" not in arch else None
    return 2.0 if arch.startswith("resnet") and "-" not in arch else 1.2


def speed_table(report):
    lines = []
    for arch, variant in report.networks():
        for threads in report.threads():
            for mode, precision in (("bn", "f32"), ("random", "f32"), ("all", "f32"), ("bn", "bf16")):
                keys = {"arch": arch, "variant": variant, "threads": threads, "precision": precision}
                own = report.ours(mode=mode, **keys)
                other = report.torch(mode="bn" if mode == "random" else mode, **keys)
                if own is None or other is None:
                    continue
                ratio, wanted = rate(own) / rate(other), goal(arch, mode, precision)
                against = "bn, " + configuration(other) if mode == "random" else configuration(other)
                lines.append([
                    arch, variant, mode, precision, threads, f"{rate(own):.0f}", f"{rate(other):.0f}", against,
                    f"**{ratio:.2f}**", f"{wanted:.1f}" if wanted else "",
                    "" if wanted is None else "yes" if ratio >= wanted else "no",
                ])
    heading = ["network", "variant", "mode", "precision", "threads", "repro", "PyTorch", "its fastest", "ratio"]
    return table(heading + ["goal", "reached"], lines)


def threads_table(report):
    lines = []
    for arch, variant in report.networks():
        for mode, precision in (("bn", "f32"), ("random", "f32"), ("all", "f32"), ("bn", "bf16")):
            keys = {"arch": arch, "variant": variant, "mode": mode, "precision": precision}
            one = report.ours(threads=1, **keys)
            for threads in report.threads():
                many = report.ours(threads=threads, **keys)
                if threads == 1 or one is None or many is None:
                    continue
                torch_pair = [report.torch(threads=t, **keys) for t in (1, threads)]
                torch_ratio = f"{rate(torch_pair[1]) / rate(torch_pair[0]):.2f}" if all(torch_pair) else ""
                ratio = f"**{rate(many) / rate(one):.2f}**"
                lines.append([arch, variant, mode, precision, threads, ratio, torch_ratio])
    return table(["network", "variant", "mode", "precision", "threads", "repro", "PyTorch"], lines)


# Until then an engine's buffers did not count the filters of which `random` trains a part.
ALL_COUNTED = "2026-11-27 11:59"


def memory_table(report):
    lines = []
    for (arch, variant), section in report.networks().items():
        for mode in ("bn", "random", "all"):
            keys = {"arch": arch, "variant": variant, "threads": report.threads()[0]}
            own = report.ours(mode=mode, **keys)
            others = report.find(program="torch", precision="f32", mode="bn" if mode == "random" else mode, **keys)
            if own is None:
                continue
            buffers, growth = own["runs"][0]["buffer_bytes"], own["runs"][0]["rss_growth_bytes"]
            growths = [r["rss_growth_bytes"] for other in others for r in other["runs"]]
            torch_growth = min(growths, default=None)
            shares = [f"**{x / torch_growth:.2f}**" if x and torch_growth else "" for x in (buffers, growth)]
            sizes = [megabytes(x) for x in (buffers, growth, torch_growth)]
            older = mode == "random" and section["machine"]["date"] < ALL_COUNTED
            lines.append([arch, variant, mode + " (older engine)" * older, *sizes, *shares])
    heading = ["network", "variant", "mode", "buffers, MB", "process grew by, MB", "PyTorch's grew by, MB"]
    text = table(heading + ["buffers / PyTorch", "process / PyTorch"], lines)
    if any("older" in line[2] for line in lines):
        text += """
The older engine did not count, in `random`, the filters of which it trains a part. Today's does: stages of kind
`memory` tell its numbers.
"""
    return text


def less_memory_table(report):
    lines = []
    for section, found in report.sections.items():
        results = [r for r in found["results"] if section.startswith("less memory") and r["runs"]]
        for result in results:
            last = result["runs"][-1]
            again = last["engine"].partition("f32, ")[2] or "none"
            asked = megabytes(result["memory"]) if "memory" in result else "nothing"
            ratio = f"**{rate(result) / rate(results[0]):.2f}**"
            sizes = [megabytes(last[key]) for key in ("buffer_bytes", "rss_growth_bytes")]
            lines.append([result["arch"], result["variant"], asked, again, *sizes, f"{rate(result):.0f}", ratio])
    heading = ["network", "variant", "asked for, MB", "computed again", "buffers, MB", "process grew by, MB"]
    return table(heading + ["images/s", "against the first"], lines)


def evaluation_table(report):
    lines = []
    for arch, variant in report.networks():
        for threads in report.threads():
            keys = {"arch": arch, "variant": variant, "mode": "bn", "threads": threads}
            train, predict = report.ours(**keys), report.ours(**keys | {"pass": "predict"})
            if train and predict:
                ratio = f"**{rate(predict) / rate(train):.2f}**"
                lines.append([arch, variant, threads, f"{rate(train):.0f}", f"{rate(predict):.0f}", ratio])
    return table(["network", "variant", "threads", "training", "evaluation", "ratio"], lines)


def scaling_tables(report):
    text = []
    for what, of in (("depth", lambda r: int(r["arch"].removeprefix("resnet"))), ("batch", lambda r: r["batch"])):
        section = report.sections.get(f"scaling by {what}", {"results": []})
        found = sorted((r for r in section["results"] if r["runs"]), key=of)
        lines = []
        for result in found:
            first = found[0]
            seconds = result["batch"] / rate(result)
            # Blocks, not layers, are what deeper networks have more of.
            count = [(of(r) - 2) if what == "depth" else of(r) for r in (result, first)]
            linear = seconds / (first["batch"] / rate(first)) / (count[0] / count[1])
            per = 1e3 * seconds / count[0]
            last = result["runs"][-1]
            lines.append([
                result["arch"], result["batch"], f"{1e3 * seconds:.1f}", f"{per:.3f}", f"**{linear:.2f}**",
                f"{last['gflops']:.1f}", megabytes(last["buffer_bytes"]),
            ])
        each = "ms per layer" if what == "depth" else "ms per image"
        heading = ["network", "batch", "ms per step", each, "against the first", "GFLOP/s", "buffers, MB"]
        text.append(f"By {what}:\n\n" + table(heading, lines))
    return "\n".join(text)


def configurations_table(report):
    columns = [(layout, compiled) for compiled in (False, True) for layout in LAYOUTS]
    rows, errors = {}, {}
    for result in report.results:
        if result["program"] == "torch":
            key = tuple(str(result[k]) for k in ("arch", "variant", "mode", "precision", "threads"))
            cells = rows.setdefault(key, dict.fromkeys(columns, ""))
            cells[result["layout"], result["compiled"]] = f"{rate(result):.0f}" if result["runs"] else "failed"
            if result["error"]:
                errors.setdefault(f"{configuration(result)}: {result['error']}", None)
    heading = ["network", "variant", "mode", "precision", "threads"]
    heading += [layout + (", compiled" if compiled else "") for layout, compiled in columns]
    text = table(heading, [[*key, *cells.values()] for key, cells in rows.items()])
    return text + "".join(f"\n- {error}" for error in errors) + ("\n" if errors else "")


def missing(report):
    lines = [f"- {name(r)}: {r['error']}" for r in report.results if r["program"] == "repro" and r["error"]]
    return "\n".join(["Not measured, because it failed:", "", *lines, ""]) if lines else ""


def conditions(sections):
    lines = []
    for section, found in sections.items():
        about = found["machine"]
        peaks = [run["fma_peak_gflops"] for r in found["results"] if r["program"] == "repro" and r["threads"] == 1
                 for run in r["runs"]]
        memory = [run["memory_gbytes_per_second"] for r in found["results"]
                  if r["program"] == "repro" and r["threads"] == 1 for run in r["runs"]]
        lines.append([
            section, max((len(r["runs"]) for r in found["results"]), default=0),
            about["date"], about["commit"] or "", about["processor"], about["cores"],
            " to ".join("?" if x is None else str(x) for x in found["load"]),
            f"{statistics.median(peaks):.0f}" if peaks else "", f"{statistics.median(memory):.0f}" if memory else "",
        ])
    heading = ["measured", "rounds", "on", "commit", "processor", "cores", "load", "GFLOP/s", "GB/s"]
    return table(heading, lines)


def write_report(sections, path):
    report = Report(sections)
    versions = sorted({f"{s['machine']['repro']}, PyTorch {s['machine']['torch']}" for s in sections.values()})
    if any(run.get("optimised") is False for result in report.results for run in result["runs"]):
        versions.append("**Some numbers are those of a debug build of repro and say nothing.**")
    path.write_text(f"""# Beside PyTorch

Written by `python3 benches/compare.py`, which anyone can run; `compare.json` holds every measurement.
All numbers are images per second of whole training steps (forward, backward, SGD; ours with augmentation) at
batch 128 where nothing else is said, medians over rounds in which all programs take turns on the same
machine; "Conditions" says how many rounds. PyTorch stands with the fastest of its configurations, channels-last
or not and, where the last table but one has numbers of it, compiled, at the same number of threads.

{chr(10).join("- " + version for version in versions)}

## Speed

`random` trains two weights of each filter and stands beside PyTorch's `bn`, which does not know it. `bf16` is
PyTorch's autocast. In `bn` of variant `origin` PyTorch also trains the BatchNorms of the shortcuts, which the origin
leaves as they are: 224 values more.

{speed_table(report)}
{missing(report)}
## More threads

Speed with so many threads over speed with one.

{threads_table(report)}
## Memory

On one thread, in float32, at batch 128: all buffers of our step, the growth of our process, and that of PyTorch's
process since `import torch` in its most frugal configuration.

{memory_table(report)}
With less memory (`--memory`, or `resources.memory` of a stage) the step keeps fewer outputs of convolutions and
computes the others again on the way back, to the same bits:

{less_memory_table(report)}
## Evaluation

{evaluation_table(report)}
## Linear in depth and in batch

`paper`, mode `bn`. "Against the first": time over what the first line's time predicts; 1 is linear.

{scaling_tables(report)}
## PyTorch's configurations

{configurations_table(report)}
## Conditions

The load is the number of threads that wanted to run, averaged over a minute, before and after. GFLOP/s and
GB/s are this machine's multiplication-additions and memory traffic on one thread, measured within the runs.

{conditions(sections)}""", encoding="utf-8")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repro", default=str(HERE.parent / "target/release/repro"), help="the binary")
    parser.add_argument("--python", default="python3", help="a Python that has PyTorch")
    parser.add_argument("--quick", action="store_true", help="ResNet-32 alone, nothing compiled, two rounds")
    parser.add_argument("--only", default="", metavar="WORDS", help="sections with one of these words, by commas")
    parser.add_argument("--threads", default="1,2", help="numbers of threads, by commas")
    parser.add_argument("--batch", type=int, default=128)
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
        print("\n".join(f"{key}: {value}" for key, value in about.items()), file=sys.stderr)
        if (load() or 0) > 0.5:
            print(f"note: something else runs here (load {load()}); numbers will suffer", file=sys.stderr)
        wanted = [word for word in args.only.split(",") if word]
        for section, programs in Plan(args).sections.items():
            if wanted and not any(word in section for word in wanted):
                continue
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
