"""Makes the whole network again: every weight from its seed, bit for bit, then what was trained.

    pip install blake3 numpy safetensors torch
    python rebuild.py model.safetensors     # draws the weights, checks their digest, loads them

From Python: `network = load("model.safetensors")`, then `network(images)` with images `N 3 32 32`,
normalised as `config.json` says. Needs Python 3.10 or newer. Without PyTorch: `initial` needs the parameters' shapes only.

All random numbers are the extendable output of BLAKE3, one stream for each parameter, drawn in
float64 and rounded once. The logarithm, sine and cosine are those of FreeBSD's libm written out,
because Python's own differ from machine to machine in the last bit; numpy's +, -, *, / and sqrt do
not.
"""

import sys

import numpy as np
from blake3 import blake3

# --- random numbers ---


def stream(seed, name):
    """The random bytes called `name`."""
    key = seed.to_bytes(8, "little") + name.encode()
    return blake3(key, derive_key_context="repro random stream v1")


def integers(source, count):
    """64-bit numbers."""
    return np.frombuffer(source.digest(length=8 * count), "<u8")


def uniform(source, count):
    """In [0, 1), 53 bits."""
    return (integers(source, count) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normal(source, count):
    """Standard normals by Box-Muller: two numbers give a cosine and a sine."""
    u = uniform(source, count + count % 2)
    radius = np.sqrt(-2.0 * log(1.0 - u[0::2]))
    sin, cos = sincos(2.0 * np.pi * u[1::2])
    return np.stack([radius * cos, radius * sin], axis=1).ravel()[:count]


def log(x):
    """Natural logarithm of normal, positive numbers (FreeBSD's e_log.c)."""
    bits = x.view(np.int64)
    high = (bits >> 32) + (0x3FF00000 - 0x3FE6A09E)
    k = ((high >> 20) - 0x3FF).astype(np.float64)
    high = (high & 0xFFFFF) + 0x3FE6A09E
    f = (high << 32 | bits & 0xFFFFFFFF).view(np.float64) - 1.0
    half = 0.5 * f * f
    s = f / (2.0 + f)
    z = s * s
    w = z * z
    t1 = w * (3.999999999940941908e-01 + w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01))
    t2 = w * (1.818357216161805012e-01 + w * 1.479819860511658591e-01)
    t2 = z * (6.666666666666735130e-01 + w * (2.857142874366239149e-01 + t2))
    high, low = 6.93147180369123816490e-01, 1.90821492927058770002e-10
    return s * (half + (t2 + t1)) + k * low - half + f + k * high


def sincos(x):
    """Sine and cosine of numbers in [0, 2 pi] (FreeBSD's e_rem_pio2.c, k_sin.c and k_cos.c)."""
    high = x.view(np.int64) >> 32
    quarter = sum((high > bound).astype(np.int64) for bound in (0x3FE921FB, 0x4002D97C, 0x400F6A7A, 0x4015FDBC))
    n = quarter.astype(np.float64)
    # x - n pi/2 as y + tail; where that cancels, with more and more digits of pi.
    r = x - n * 1.57079632673412561417e00
    w = n * 6.07710050650619224932e-11
    y = r - w
    exponent = lambda v: v.view(np.int64) >> 52 & 0x7FF
    close = np.isin(high, (0x3FF921FB, 0x400921FB, 0x4012D97C, 0x401921FB))
    for bits, part, rest in (
        (16, 6.07710050630396597660e-11, 2.02226624879595063154e-21),
        (49, 2.02226624871116645580e-21, 8.47842766036889956997e-32),
    ):
        close = close & (exponent(x) - exponent(y) > bits)
        t = r
        w2 = n * part
        r2 = t - w2
        w2 = n * rest - ((t - r2) - w2)
        r, w = np.where(close, r2, r), np.where(close, w2, w)
        y = r - w
    tail = (r - y) - w
    z = y * y
    w = z * z
    v = z * y
    p = 8.33333333332248946124e-03 + z * (-1.98412698298579493134e-04 + z * 2.75573137070700676789e-06)
    p = p + z * w * (-2.50507602534068634195e-08 + z * 1.58969099521155010221e-10)
    s1 = -1.66666666666666324348e-01
    sin = np.where(quarter == 0, y + v * (s1 + z * p), y - ((z * (0.5 * tail - v * p) - tail) - v * s1))
    p = z * (4.16666666666666019037e-02 + z * (-1.38888888888741095749e-03 + z * 2.48015872894767294178e-05))
    q = -2.75573143513906633035e-07 + z * (2.08757232129817482790e-09 + z * -1.13596475577881948265e-11)
    p = p + w * w * q
    half = 0.5 * z
    w = 1.0 - half
    cos = w + (((1.0 - w) - half) + (z * p - y * tail))
    turn = quarter & 3
    return np.choose(turn, [sin, cos, -sin, -cos]), np.choose(turn, [cos, -sin, -cos, sin])


# --- initial weights ---


def initial(shapes, seed, init, bn_init):
    """Every parameter of `{name: shape}` (in the order of PyTorch's `state_dict`) before training."""
    weights = {}
    fan_in = None
    for name, shape in shapes.items():
        source, count = stream(seed, name), int(np.prod(shape))
        if len(shape) > 1:  # a convolution or the output layer
            fan_in = count // shape[0]
            data = matrix(source, shape[0], fan_in, init)
        elif name.endswith(".weight"):  # gamma of a BatchNorm
            fan_in = None
            low, high = {"uniform": (0.0, 1.0), "positive-negative": (-1.0, 1.0)}.get(bn_init, (1.0, 1.0))
            data = low + (high - low) * uniform(source, count)
        elif fan_in is None:  # beta
            data = np.full(count, 1.0 if bn_init == "oneone" else 0.0)
        else:  # bias of a convolution or of the output layer
            bound = 1.0 / np.sqrt(float(fan_in))
            data = -bound + (bound - -bound) * uniform(source, count)
        weights[name] = np.ascontiguousarray(data, np.float32).reshape(shape)  # a view may be written to
    return weights


def matrix(source, rows, columns, init):
    """`rows` filters of `columns` weights."""
    count = rows * columns
    deviation = np.sqrt(2.0 / columns)
    if init == "he-normal":
        return deviation * normal(source, count)
    if init == "he-uniform":
        bound = np.sqrt(6.0 / columns)
        return -bound + (bound - -bound) * uniform(source, count)
    if init == "binary":
        draw = deviation * normal(source, count)
        off = draw - total(draw) / count
        size = np.sqrt(total(off * off) / (max(count, 2) - 1))
        return np.where(draw < 0.0, -size, size)
    if init == "orthogonal":
        return orthogonal(source, rows, columns)
    raise ValueError(f"unknown initialisation {init}")


def orthogonal(source, rows, columns):
    """Orthonormal rows, or columns where there are fewer: Gram-Schmidt, twice."""
    count, length = min(rows, columns), max(rows, columns)
    basis = normal(source, count * length).reshape(count, length)
    for i in range(count):
        for _ in range(2):
            for b in basis[:i]:
                basis[i] -= dot(basis[i], b) * b
        basis[i] /= np.sqrt(dot(basis[i], basis[i]))
    return basis if rows <= columns else basis.T


def dot(a, b):
    """Eight partial sums, then their sum, each from left to right."""
    products = np.zeros(-(-len(a) // 8) * 8)
    products[: len(a)] = a * b
    return total(np.add.accumulate(products.reshape(-1, 8), axis=0)[-1])


def total(x):
    """The sum from left to right (numpy's `sum` adds in pairs)."""
    return np.add.accumulate(x)[-1]


def digest(weights):
    """BLAKE3 over each tensor in order of names: name, zero byte, length, elements."""
    hasher = blake3()
    for name in sorted(weights):
        data = weights[name].astype("<f4").tobytes()
        hasher.update(name.encode() + b"\0" + (len(data) // 4).to_bytes(8, "little") + data)
    return hasher.hexdigest()


# --- what was trained ---


def state(path, shapes):
    """The whole state: parameters of `{name: shape}` and running statistics."""
    recipe, trained = read(path)
    seed = int(recipe["seed"])
    weights = initial(shapes, seed, recipe["init"], recipe["bn_init"])
    if digest(weights) != recipe["initial"]:
        raise ValueError(f"the weights drawn have the digest {digest(weights)}, not {recipe['initial']}")
    gammas = [name for name in shapes if len(shapes[name]) == 1 and name.endswith(".weight")]
    for kept, suffix in [
        ("gamma", "weight"),
        ("beta", "bias"),
        ("running_mean", "running_mean"),
        ("running_var", "running_var"),
    ]:
        if kept in trained:
            packed = trained.pop(kept)
            norms = gammas
            if len(packed) < sum(shapes[name][0] for name in gammas):  # those of shortcuts did not train
                norms = [name for name in gammas if ".shortcut." not in name]
            ends = np.cumsum([shapes[name][0] for name in norms])
            if ends[-1] != len(packed):
                raise ValueError(f"which {len(packed)} values of {kept} the mode {recipe['mode']} trains is not known here")
            for name, values in zip(norms, np.split(packed, ends[:-1]), strict=True):
                weights[name.removesuffix("weight") + suffix] = values
    if "values" in trained:
        packed = trained.pop("values")
        for name in [name for name in shapes if len(shapes[name]) == 4]:
            at = positions(seed, name, shapes[name], packed.shape[1])
            weights[name].reshape(-1)[at] = packed[: shapes[name][0]].ravel()
            packed = packed[shapes[name][0] :]
    for name in gammas:
        weights[name.removesuffix("weight") + "num_batches_tracked"] = np.int64(recipe["steps"])
    return weights | trained


def read(path):
    """Metadata and tensors of a safetensors file."""
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}


def positions(seed, name, shape, k):
    """Which `k` weights of each filter trained, as flat indices."""
    fan_in = int(np.prod(shape[1:]))
    numbers = iter(integers(stream(seed, name + " positions"), shape[0] * k).tolist())
    chosen = []
    for filter in range(shape[0]):
        order = list(range(fan_in))
        for i in range(k):
            j = i + (next(numbers) * (fan_in - i) >> 64)
            order[i], order[j] = order[j], order[i]
        chosen += [filter * fan_in + position for position in sorted(order[:k])]
    return np.array(chosen)


# --- the network in PyTorch ---


def build(arch, variant, classes):
    """The module, with names as in the files."""
    from torch import nn

    class Block(nn.Module):
        def __init__(self, cin, cout, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(cout)
            self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(cout)
            self.shortcut = nn.Sequential()
            if stride != 1 or cin != cout:
                self.shortcut = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))

        def forward(self, x):
            y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
            return (y + self.shortcut(x)).relu()

    class ResNet(nn.Module):
        def __init__(self, blocks, width):
            super().__init__()
            self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            cin = width
            for stage in range(3):
                cout = width << stage
                strides = [2 if stage > 0 or variant == "origin" else 1] + [1] * (blocks - 1)
                inputs = [cin] + [cout] * (blocks - 1)
                layer = nn.Sequential(*(Block(c, cout, s) for c, s in zip(inputs, strides)))
                setattr(self, f"layer{stage + 1}", layer)
                cin = cout
            self.linear = nn.Linear(cin, classes)

        def forward(self, x):
            x = self.bn1(self.conv1(x)).relu()
            x = self.layer3(self.layer2(self.layer1(x)))
            return self.linear(x.mean((2, 3)))

    class ConvBlock(nn.Module):
        def __init__(self, cin, cout):
            super().__init__()
            self.conv = nn.Conv2d(cin, cout, 3, 1, 1)
            self.bn = nn.BatchNorm2d(cout)

        def forward(self, x):
            return self.bn(self.conv(x)).relu()

    class Vgg(nn.Module):
        def __init__(self, groups):
            super().__init__()
            layers, cin = [], 3
            for group, (convs, cout) in enumerate(zip(groups, (64, 128, 256, 512, 512))):
                layers += [nn.MaxPool2d(2)] if group > 0 else []
                for _ in range(convs):
                    layers.append(ConvBlock(cin, cout))
                    cin = cout
            self.layers = nn.Sequential(*layers)
            self.linear = nn.Linear(cin, classes)

        def forward(self, x):
            return self.linear(self.layers(x).mean((2, 3)))

    if arch.startswith("vgg"):
        third = {11: 2, 13: 2, 16: 3, 19: 4}[int(arch[3:])]
        first = 1 if arch == "vgg11" else 2
        return Vgg([first, first, third, third, third])
    if not arch.startswith("resnet"):
        raise ValueError(f"no network is called {arch} here")
    depth, _, width = arch.removeprefix("resnet").partition("-")
    return ResNet((int(depth) - 2) // 6, 16 * int(width or 1))


def load(path):
    """The trained network, ready to recognise images."""
    import torch

    recipe, _ = read(path)
    network = build(recipe["arch"], recipe["variant"], int(recipe["classes"]))
    shapes = {name: tuple(value.shape) for name, value in network.named_parameters()}
    tensors = {name: torch.tensor(value) for name, value in state(path, shapes).items()}
    network.load_state_dict(tensors, strict=True)
    return network.eval()


if __name__ == "__main__":
    network = load(sys.argv[1] if len(sys.argv) > 1 else "model.safetensors")
    count = sum(value.numel() for value in network.parameters())
    print(f"{count:,} parameters rebuilt; the digest of the initial ones is the one in the file")
