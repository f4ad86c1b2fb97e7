"""Reads exported files with the programs they are meant for.

    pip install blake3 huggingface_hub numpy onnx onnxruntime safetensors tensorboard torch
    python network/export/check.py

First has the test suite write its samples into target/export (`cargo test`), then checks that
PyTorch, onnxruntime and candle compute the same logits from a network of which BatchNorm was
trained, that TensorBoard finds every point of every curve, and that `rebuild.py` makes every weight
of every initialisation and mode with the same bits. Needed only when a format is changed: the digests of
the samples are pinned in tests.rs.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import rebuild

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "target/export"
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
DEVIATION = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def check_networks():
    for path in sorted(FOLDER.glob("networks/*.onnx")):
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        network = rebuild.build(metadata["arch"], metadata["variant"], 10)
        network.load_state_dict(load_file(path.with_suffix(".safetensors")), strict=True)
        network.eval()
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        candle = load_file(path.with_suffix(".candle"))
        images = (candle["images"] / 255 - MEAN) / DEVIATION
        for batch in (1, 7):
            with torch.no_grad():
                expected = network(images[:batch]).numpy()
            [logits] = session.run(["logits"], {"images": images[:batch].numpy()})
            worst = [np.abs(other - expected).max() for other in (logits, candle["logits"][:batch].numpy())]
            print(f"{path.stem}, batch {batch}: logits up to {np.abs(expected).max():.3g};", end=" ")
            print(f"onnxruntime differs by {worst[0]:.1e}, candle by {worst[1]:.1e}")
            assert max(worst) < 1e-4


def check_curves():
    curves = EventAccumulator(str(FOLDER / "curves"))
    curves.Reload()
    points = {
        tag: [(point.wall_time, point.step, point.value) for point in curves.Scalars(tag)]
        for tag in curves.Tags()["scalars"]
    }
    print(f"TensorBoard: {points}")
    assert points == {
        "train/loss": [(1e9, 0, 2.5), (1e9, 391, 1.25)],
        "test/accuracy": [(1e9, 0, float(np.float32(0.1)))],
    }


def check_folders():
    for path in sorted(FOLDER.glob("folders/*.safetensors")):
        folder = path.with_suffix("")
        [result] = ModelCard.load(folder / "README.md").data.eval_results
        assert (result.metric_type, result.metric_value) == ("accuracy", 0.5)
        rebuilt = rebuild.load(folder / "model.safetensors").state_dict()
        expected = load_file(path)
        assert rebuilt.keys() == expected.keys()
        for name, tensor in expected.items():
            assert rebuilt[name].numpy().tobytes() == tensor.numpy().tobytes(), name
        print(f"{folder.name}: {len(expected)} tensors, every bit the same")
    subprocess.run([sys.executable, "rebuild.py"], cwd=folder, check=True)


if __name__ == "__main__":
    command = "cargo test -p repro-network --lib -- --ignored export::tests::write_what_check_py_reads"
    subprocess.run(command.split(), cwd=ROOT, check=True)
    check_networks()
    check_curves()
    check_folders()
    print("all good")
