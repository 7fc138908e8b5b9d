"""Times PyTorch on the cases of a report that `vpae bench --save` wrote, and prints a report of the same form.

    npm run bench -- kernels --save ours.json
    python3 cli/bench/pytorch.py ours.json > torch.json       # --device cpu or cuda; cuda where there is one
    npm run bench -- kernels --against torch.json           # how many times as fast as PyTorch we are

Sizes are read from the cases' own texts. Products are full f32 (no TF32) unless the case says f16; a block runs eagerly.
"""
import argparse
import json
import math
import re
import resource
import sys
import time

import torch
import torch.nn.functional as F

CAUSAL = (1, 1, 1, 1, 2, 0)  # F.pad: width, height, then two frames in front
HALF = {"f32": torch.float32, "f16": torch.float16}


def numbers(text):
    return [int(n) for n in re.findall(r"\d+", text.replace("3³", ""))]


def dtype_of(name):
    return HALF.get(name.split()[-1], torch.float32)


def make(*shape, dtype=torch.float32):
    return (0.1 * torch.randn(*shape)).to(DEVICE, dtype)


def linear(name, text):
    rows, k, n, _ = numbers(text)
    dtype = dtype_of(name)
    x, w = make(rows, k, dtype=dtype), make(n, k, dtype=dtype)
    return lambda: x @ w.T


def input_gradient(_, text):
    rows, n, _, k = numbers(text)
    g, w = make(rows, n), make(n, k)
    return lambda: g @ w


def weight_gradient(_, text):
    rows, n, _, k = numbers(text)
    g, x = make(rows, n), make(rows, k)
    return lambda: g.T @ x


def scores(_, text):
    batch, tokens, size = numbers(text)[:3]
    a, b = make(batch, tokens, size), make(batch, tokens, size)
    return lambda: a @ b.transpose(1, 2)


def attend(q, k, v):
    """[batch, tokens, heads, size] each, by the fused operator where this PyTorch has it."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if hasattr(F, "scaled_dot_product_attention"):
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    return (torch.softmax(q @ k.transpose(2, 3) / math.sqrt(q.shape[-1]), -1) @ v).transpose(1, 2)


def heads_of(text):
    batch, tokens, heads, size = numbers(text)[:4]
    return batch, tokens, heads, size


def attention(name, text):
    q, k, v = (make(*heads_of(text), dtype=dtype_of(name)) for _ in range(3))
    return lambda: attend(q, k, v)


def attention_gradient(name, text):
    q, k, v = (make(*heads_of(text), dtype=dtype_of(name)).requires_grad_() for _ in range(3))
    o = attend(q, k, v)
    dy = make(*o.shape, dtype=o.dtype)
    return lambda: torch.autograd.grad(o, (q, k, v), dy, retain_graph=True)


def cross_attention(_, text):
    batch, tokens, heads, size, keys = numbers(text)
    q, k, v = make(batch, tokens, heads, size), make(batch, keys, heads, size), make(batch, keys, heads, size)
    return lambda: attend(q, k, v)


def convolution(which):
    def case(_, text):
        n, c, t, h, w, _ = numbers(text)
        x, weight = make(n, c, t, h, w).requires_grad_(), make(c, c, 3, 3, 3).requires_grad_()
        run = lambda: F.conv3d(F.pad(x, CAUSAL), weight)
        if which is None:
            return run
        y = run()
        dy = make(*y.shape)
        wanted = (x, weight)[which]
        return lambda: torch.autograd.grad(y, wanted, dy, retain_graph=True)
    return case


def rows(fn):
    def case(_, text):
        x = make(*numbers(text))
        return lambda: fn(x)
    return case


def gelu(_, text):
    count, width = numbers(text)
    x, b = make(count, width), make(width)
    return lambda: F.gelu(x + b, approximate="tanh")


def adamw(_, text):
    p = torch.nn.Parameter(make(*numbers(text)))
    p.grad = make(*p.shape)
    return torch.optim.AdamW([p], lr=1e-4, betas=(0.9, 0.99), weight_decay=0.01).step


def rms(x):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


KERNELS = {
    "projection": linear, "feed-forward": linear, "input gradient": input_gradient, "weight gradient": weight_gradient,
    "scores, batched": scores, "attention": attention, "attention gradient": attention_gradient, "cross-attention": cross_attention,
    "conv3d": convolution(None), "conv3d, input gradient": convolution(0), "conv3d, weight gradient": convolution(1),
    "layer norm": rows(lambda x: F.layer_norm(x, x.shape[-1:])), "RMS norm": rows(rms), "softmax": rows(lambda x: x.softmax(-1)),
    "GELU of x + b": gelu, "AdamW": adamw,
}


def clocked(run):
    def settle():
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    def sample(calls):
        cpu, start = time.process_time(), time.perf_counter()
        for _ in range(calls):
            run()
        settle()
        return 1000 * (time.perf_counter() - start) / calls, 1000 * (time.process_time() - cpu) / calls

    first, once = sample(1), sample(1)[0]
    samples, calls = (3 if once > 1000 else 9), max(1, math.ceil(40 / once))
    walls, cpus = zip(*(sample(calls) for _ in range(samples)))
    at = lambda xs, share: sorted(xs)[round(share * (len(xs) - 1))]
    ms = at(walls, 0.5)
    return {
        "firstMs": first[0], "firstCpuMs": first[1], "ms": ms, "bestMs": min(walls), "cpuMs": at(cpus, 0.5), "bestCpuMs": min(cpus),
        "spread": (at(walls, 0.75) - at(walls, 0.25)) / 2 / ms,
    }


def main():
    global DEVICE
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    DEVICE = args.device
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    results, skipped = [], []
    with open(args.report, encoding="utf8") as file:
        cases = json.load(file)["results"]
    for case in cases:
        of = {key: case[key] for key in ("of", "name", "shape")}
        build = KERNELS.get(re.sub(r" f(16|32)$", "", case["name"]))
        if build is None:
            skipped.append({**of, "reason": "no such case in pytorch.py"})
            continue
        try:
            run = build(case["name"], case["shape"])
            print(f"{case['of']}: {case['name']} {case['shape']} …", file=sys.stderr)
            results.append({**of, **clocked(run)})
        except RuntimeError as error:
            skipped.append({**of, "reason": str(error).splitlines()[0]})
    name = torch.cuda.get_device_name() if DEVICE == "cuda" else "CPU"
    json.dump({
        "adapter": f"PyTorch on {name}", "driver": f"PyTorch {torch.__version__}", "kind": "gpu" if DEVICE == "cuda" else "software", "tier": "",
        "clock": "wall", "cores": torch.get_num_threads(), "peakHostBytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "roofline": {"gflops": 0, "copies": []}, "results": results, "skipped": skipped,
    }, sys.stdout, indent=1)


DEVICE = "cpu"
main()
