"""PyTorch's side of `vpae bench --vs`: it runs one work on a GPU where there is one, else on the CPU.

Requests are lines of JSON on stdin, answers lines of JSON on stdout; raw little-endian f32 follows where a line counts it.

    {"work": …, "shapes": […], "block": {…}} + the inputs  → {"version", "on"}, or {"on": null}: no such work
    {"calls": n}                                           → {"ms", "cpuMs", "peakBytes"}, a call
    {"answer": true}                                       → {"counts": […]} + the outputs of the last call
    what fails                                             → {"error"}

Products are full f32 (no TF32); a training step runs eagerly.
"""
import json
import math
import resource
import sys
import time

import torch
import torch.nn.functional as F

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def attend(q, k, v):
    """[batch, tokens, heads, size] each."""
    return F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)


def conv_gradient(x, w, dy):
    return [torch.nn.grad.conv3d_input(x.shape, w, dy, padding=1), torch.nn.grad.conv3d_weight(x, w.shape, dy, padding=1)]


def training(block, x, target, *parameters):
    """A pre-norm block with a head, squared error and Adam; parameters in the order of PARAMETERS in works.ts."""
    g1, b1, wq, wk, wv, wo, g2, b2, up, ub, down, db, head = w = [p.requires_grad_() for p in parameters]
    adam = block["adam"]
    optimizer = torch.optim.Adam(w, lr=adam["lr"], betas=(adam["beta1"], adam["beta2"]), eps=adam["eps"])
    split = lambda h: h.reshape(block["batch"], block["tokens"], block["heads"], -1)
    norm = lambda h, gain, bias: F.layer_norm(h, h.shape[-1:], gain, bias, 1e-5)

    def step():
        optimizer.zero_grad()
        n = norm(x, g1, b1)
        h = x + attend(split(n @ wq), split(n @ wk), split(n @ wv)).reshape(x.shape) @ wo
        y = h + F.gelu(norm(h, g2, b2) @ up + ub, approximate="tanh") @ down + db
        loss = F.mse_loss(y @ head, target)
        loss.backward()
        optimizer.step()
        return [loss.detach()]
    return step


WORKS = {
    "matmul 512": lambda a, b: [a @ b], "matmul 1024": lambda a, b: [a @ b],
    "attention": lambda q, k, v: [attend(q, k, v)],
    "conv3d": lambda x, w: [F.conv3d(x, w, padding=1)], "conv3d gradient": conv_gradient,
    "layer norm": lambda x, g, b: [F.layer_norm(x, x.shape[-1:], g, b, 1e-5)],
    "GELU": lambda x: [F.gelu(x, approximate="tanh")],
}


def prepare(request, inputs):
    if request["work"] == "training step":
        return training(request["block"], *inputs)
    work = WORKS.get(request["work"])
    return work and (lambda: work(*inputs))


def timed(run, calls):
    cpu, start = time.process_time(), time.perf_counter()
    for _ in range(calls):
        results = run()
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    took = {"ms": 1000 * (time.perf_counter() - start) / calls, "cpuMs": 1000 * (time.process_time() - cpu) / calls}
    return results, {**took, "peakBytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


def say(line, raw=()):
    out = sys.stdout.buffer
    out.write(json.dumps(line).encode() + b"\n")
    for data in raw:
        out.write(data)
    out.flush()


def main():
    source, run, results = sys.stdin.buffer, None, []
    while line := source.readline():
        request = json.loads(line)
        raw = [bytearray(source.read(4 * math.prod(shape))) for shape in request.get("shapes", [])]
        try:
            if "work" in request:
                run = prepare(request, [torch.frombuffer(x, dtype=torch.float32).reshape(shape).to(DEVICE) for x, shape in zip(raw, request["shapes"])])
                say({"version": torch.__version__, "on": {"cuda": "CUDA", "cpu": "CPU"}[DEVICE] if run else None})
            elif "calls" in request:
                results, took = timed(run, request["calls"])
                say(took)
            else:
                raw = [r.float().cpu().contiguous().numpy().tobytes() for r in results]
                say({"counts": [len(data) // 4 for data in raw]}, raw)
        except (RuntimeError, AttributeError) as error:  # out of memory; an operator that this PyTorch lacks
            say({"error": str(error).splitlines()[0]})


main()
