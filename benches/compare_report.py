"""The tables of `compare.py`: `compare.md` from what it measured. `table` serves the other reports too."""

import statistics

BATCH = 128
LAYOUTS = {"contiguous": [], "channels-last": ["--channels-last"]}


def name(program):
    words = [program["program"], program["mode"], program["precision"], f"{program['threads']} threads"]
    words += ["evaluation"] if program["pass"] == "predict" else []
    words += [f"batch {program['batch']}"] if program["batch"] != BATCH else []
    words += [f"within {program['memory'] / 1e6:.0f} MB"] if "memory" in program else []
    words += [configuration(program)] if program["program"] == "torch" else []
    return f"{program['arch']} {program['variant']}: {', '.join(words)}"


def configuration(program):
    return program["layout"] + (", compiled" if program["compiled"] else "")


def rate(result):
    return statistics.median(r["images_per_second"] for r in result["runs"]) if result["runs"] else 0.0


def middle(values):
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


class Report:
    """`results` are those of networks: other sections have the same ones at other batches and memory."""

    def __init__(self, sections):
        beside = ("scaling", "less memory")
        self.sections = sections
        self.all = [r for section in sections.values() for r in section["results"]]
        self.of_networks = [found for section, found in sections.items() if not section.startswith(beside)]
        self.results = [r for found in self.of_networks for r in found["results"]]

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
        found = [found for found in self.of_networks if found["results"]]
        return {(own["results"][0]["arch"], own["results"][0]["variant"]): own for own in found}

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
            buffers, growth = (middle(r[key] for r in own["runs"]) for key in ("buffer_bytes", "rss_growth_bytes"))
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
            again = result["runs"][-1]["engine"].partition("f32, ")[2] or "none"
            asked = megabytes(result["memory"]) if "memory" in result else "nothing"
            ratio = f"**{rate(result) / rate(results[0]):.2f}**"
            sizes = [megabytes(middle(r[key] for r in result["runs"])) for key in ("buffer_bytes", "rss_growth_bytes")]
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
    lines = [f"- {name(r)}: {r['error']}" for r in report.all if r["program"] == "repro" and r["error"]]
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
    if any(run.get("optimised") is False for result in report.all for run in result["runs"]):
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
leaves as they are: 224 values more. `goal` is the ratio that was aimed at (docs/performance.md).

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
