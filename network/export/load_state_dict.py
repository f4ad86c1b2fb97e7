"""Loads a network that `repro export` wrote into PyTorch and evaluates it there.

    pip install numpy safetensors torch
    repro export 'train[...]' --full network.safetensors
    python network/export/load_state_dict.py network.safetensors DATA/dataset.bin EVALUATE/metrics.json

`load_state_dict(..., strict=True)` must take the file, and PyTorch must find the loss, the accuracy and
the confusion matrix that `metrics.json` (of an `evaluate` stage) says for the test images of the
dataset (of its `dataset` stage), up to the rounding of float32.
"""

import json
import struct
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.nn import functional

import rebuild

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
DEVIATION = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def test_images(path):
    """Images and labels of the test split of a packed dataset (network/data.rs says how it is laid out)."""
    packed = path.read_bytes()
    assert packed.startswith(b"repro32\n"), f"{path} is not a packed dataset"
    [length] = struct.unpack("<I", packed[8:12])
    header = json.loads(packed[12 : 12 + length])
    train, test = header["train"], header["test"]
    start = (12 + length + 63) // 64 * 64
    labels = np.frombuffer(packed, "<u2", train + test, start)[train:]
    pixels = np.frombuffer(packed, np.uint8, (train + test) * 3072, start + 2 * (train + test))
    images = torch.from_numpy(pixels[train * 3072 :].reshape(test, 3, 32, 32).copy())
    return images, torch.from_numpy(labels.astype(np.int64))


def main():
    network_file, dataset, metrics = map(Path, sys.argv[1:])
    with safe_open(network_file, "pt") as file:
        words = file.metadata()
    network = rebuild.build(words["arch"], words["variant"], int(words["classes"]))
    network.load_state_dict(load_file(network_file), strict=True)
    network.eval()
    images, labels = test_images(dataset)
    with torch.no_grad():
        logits = torch.cat([network((part / 255 - MEAN) / DEVIATION) for part in images.split(250)])
    expected = json.loads(metrics.read_text())
    loss = functional.cross_entropy(logits.double(), labels).item()
    guesses = logits.argmax(1)
    classes = int(words["classes"])
    confusion = torch.bincount(labels * classes + guesses, minlength=classes**2).view(classes, classes)
    moved = (confusion - torch.tensor(expected["confusion"])).abs().sum().item() // 2
    print(f"{words['arch']} {words['mode']}: loss {loss:.7f}, expected {expected['loss']:.7f}")
    print(f"{len(labels)} images, {moved} recognised otherwise, top-1 {(guesses == labels).double().mean():.4f}")
    assert abs(loss - expected["loss"]) < 1e-4 * max(1, loss)
    assert moved <= len(labels) // 1000, "more than near-ties can explain"


if __name__ == "__main__":
    main()
