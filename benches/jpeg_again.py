#!/usr/bin/env python3
"""What does it cost to encode the images as JPEG? Encodes those of a JPEG copy of CIFAR-10 once more, trains on both.

    cargo build --release
    python3 benches/jpeg_again.py --images target/cifar10

The second time is like the first (quality 75, colours at half the resolution), but on blocks that begin four pixels
further up and left, since on the same blocks it would change nearly nothing. Training and test images alike. The trainings are
those of `experiments/precision.toml --profile hour` in float32; what they came to on the first copy is taken from `artifacts/`.
Writes `jpeg_again.json` and `jpeg_again.md` beside this file. Needs NumPy and Pillow; a quarter of an hour on two cores.
"""

import argparse
import io
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import tempfile

import numpy
from PIL import Image

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
FILE, PROFILE = "experiments/precision.toml", "hour"
MODES, SEEDS, SHIFT, QUALITY = ["all", "bn"], [0, 1], 4, 75


def again(path, to):
    """Encodes one image on shifted blocks; returns by how much a value of a pixel changed on average."""
    first = numpy.asarray(Image.open(path).convert("RGB"))
    framed = Image.fromarray(numpy.pad(first, [(SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)], mode="edge"))
    jpeg = io.BytesIO()
    framed.save(jpeg, "JPEG", quality=QUALITY, subsampling="4:2:0")
    second = numpy.asarray(Image.open(jpeg).convert("RGB"))[SHIFT:-SHIFT, SHIFT:-SHIFT]
    Image.fromarray(second).save(to)  # PNG: no third time
    return numpy.abs(second.astype(int) - first).mean()


def copy(images, to):
    changes = []
    for path in sorted(images.glob("t*/*/*")):
        target = (to / path.relative_to(images)).with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        changes.append(again(path, target))
    return len(changes), float(numpy.mean(changes))


def accuracies(artifacts):
    """Per cent by mode, for each seed."""
    def top1(mode, seed):
        folder = f"arch=resnet14,mode={mode},precision=f32,seed={seed}"
        file = artifacts / "experiments/precision" / PROFILE / "evaluate" / folder / "metrics.json"
        return 100 * json.loads(file.read_text(encoding="utf-8"))["top1"]
    return {mode: [top1(mode, seed) for seed in SEEDS] for mode in MODES}


def trained(repro, images):
    """Trains in a project of its own, so that nothing of this one is touched."""
    with tempfile.TemporaryDirectory() as folder:
        project = pathlib.Path(folder)
        (project / "experiments").mkdir()
        for file in ("pipeline.toml", FILE):  # the first says where the project begins
            shutil.copy(ROOT / file, project / file)
        settings = {
            "stage.data.path": json.dumps(str(images)),
            "seeds": json.dumps(SEEDS),
            "modes": json.dumps(MODES),
            "precisions": '["f32"]',
        }
        sets = [part for key, value in settings.items() for part in ("-S", f"{key}={value}")]
        command = [str(repro), "-C", str(project), "-f", FILE, "run", "--profile", PROFILE, *sets, "evaluate"]
        # What `once` stands for was trained on a processor, and a card rounds otherwise.
        subprocess.run(command, check=True, env={**os.environ, "REPRO_DEVICE": "cpu"})
        return accuracies(project / "artifacts")


def page(report):
    rows = []
    for mode in MODES:
        once, twice = (report[key][mode] for key in ("once", "twice"))
        change = [two - one for one, two in zip(once, twice)]
        said = lambda values: " and ".join(f"{value:.2f}" for value in values)
        rows.append(f"| {mode} | {said(once)} | {said(twice)} | {statistics.mean(change):+.2f} |")
    return f"""# JPEG once more

Written by `python3 benches/jpeg_again.py`. Top-1 test accuracy (%) of ResNet-14, variant `origin`, in float32 as
`{FILE} --profile {PROFILE}` trains it, seeds {" and ".join(map(str, SEEDS))}: on the JPEG copy of CIFAR-10, and on the same images
encoded a second time (quality {QUALITY}, 4:2:0, on blocks shifted by {SHIFT} pixels), for training and test alike. That changed a value
of a pixel by {report["mean_change"]:.1f} of 255 on average, over {report["images"]:,} images.

| mode | JPEG once | JPEG twice | change, points |
|---|---:|---:|---:|
""" + "\n".join(rows) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=pathlib.Path, required=True, help="folder with train/CLASS/* and test/CLASS/*")
    parser.add_argument("--repro", type=pathlib.Path, default=ROOT / "target/release/repro")
    args = parser.parse_args()
    if not args.repro.exists():
        parser.error(f"there is no `{args.repro}`; cargo build --release")
    with tempfile.TemporaryDirectory() as folder:
        count, change = copy(args.images, pathlib.Path(folder))
        twice = trained(args.repro.resolve(), folder)
    report = {"images": count, "mean_change": change, "once": accuracies(ROOT / "artifacts"), "twice": twice}
    (HERE / "jpeg_again.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    (HERE / "jpeg_again.md").write_text(page(report), encoding="utf-8")


if __name__ == "__main__":
    main()
