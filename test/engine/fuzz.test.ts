/**
 * Drawn programs against the float64 oracle: an anchor of drawn sizes (1, primes, multiples of 4), a drawn chain of what rides on it,
 * now and then a second reader, numbers of drawn magnitude. One seed, so a failure comes again.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { vjp } from '../../engine/frontend/autodiff.ts';
import { open } from '../../engine/runtime/device.ts';
import { attention, conv3d, gelu, silu } from '../../engine/frontend/functional.ts';
import { typeOf } from '../../engine/frontend/graph.ts';
import { evaluate } from '../../engine/frontend/oracle.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { trace } from '../../engine/frontend/trace.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { numel } from '../../kernels/kernel.ts';

const device = await open();
let state = 20261122;
const uniform = (): number => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
const pick = <T>(list: readonly T[]): T => list[Math.floor(uniform() * list.length)]!;
const length = (): number => pick([1, 2, 3, 4, 7, 8, 13, 16, 20, 31, 36]);
const numbers = (shape: readonly number[], scale: number): HostTensor =>
  host(
    Float32Array.from({ length: numel(shape) }, () => scale * (2 * uniform() - 1)),
    shape,
  );

/** A draw: inputs, and a function of them. */
interface Draw {
  name: string;
  inputs: HostTensor[];
  fn: (...x: Tensor[]) => Tensor[];
}

type Anchor = (scale: number) => { name: string; inputs: HostTensor[]; of: (...x: Tensor[]) => Tensor };
const ANCHORS: readonly Anchor[] = [
  (scale) => {
    const [batch, m, n, k, ta, tb] = [
      pick([1, 1, 3]),
      length(),
      length(),
      pick([1, 5, 12, 64, 131]),
      uniform() < 0.5,
      uniform() < 0.5,
    ];
    const stack = batch > 1 ? [batch] : [];
    return {
      name: `matmul ${batch}x${m}x${n}x${k}${ta ? ' ta' : ''}${tb ? ' tb' : ''}`,
      inputs: [
        numbers([...stack, ...(ta ? [k, m] : [m, k])], scale),
        numbers([...stack, ...(tb ? [n, k] : [k, n])], 1),
      ],
      of: (a, b) => a!.matmul(b!, { transA: ta, transB: tb }),
    };
  },
  (scale) => {
    const [rows, cols, op] = [length(), pick([7, 12, 64, 131]), pick(['layerNorm', 'rmsNorm', 'softmax'] as const)];
    return {
      name: `${op} ${rows}x${cols}`,
      inputs: [numbers([rows, cols], op === 'softmax' ? 80 : scale)],
      of: (x) => (op === 'softmax' ? x!.softmax() : x![op](1e-5)),
    };
  },
  (scale) => {
    const [c, o, t, h, w, kt, kw, stride] = [
      pick([1, 3]),
      pick([2, 5]),
      pick([1, 3]),
      pick([4, 5]),
      length() + 2,
      pick([1, 3]),
      pick([1, 3]),
      pick([1, 2]),
    ];
    return {
      name: `conv3d ${c}>${o} ${t}x${h}x${w} k${kt}${kw}${kw} s${stride}`,
      inputs: [numbers([1, c, t, h, w], scale), numbers([o, c, kt, kw, kw], 1)],
      of: (x, f) =>
        conv3d(x!, f!, undefined, { stride: [1, stride, stride], padLo: [kt - 1, 0, 1], padHi: [0, kw - 1, 0] }),
    };
  },
  () => {
    const [n, l, d] = [length(), length(), pick([4, 7, 32])];
    return {
      name: `attention ${n}x${l}x${d}`,
      inputs: [numbers([2, n, 2, d], 2), numbers([2, l, 2, d], 2), numbers([2, l, 2, d], 1)],
      of: (q, k, v) => attention(q!, k!, v!),
    };
  },
  (scale) => {
    const [a, b, axis] = [length(), pick([1, 13, 64, 131]), pick([0, 1])];
    return { name: `sum ${a}x${b} over ${axis}`, inputs: [numbers([a, b], scale)], of: (x) => x!.sum([axis], true) };
  },
];

/** What may follow: each is given the value and a tensor of its last axis or of its shape. */
const LINKS: Record<
  string,
  { shape: (s: readonly number[]) => readonly number[]; of: (y: Tensor, t: Tensor) => Tensor }
> = {
  bias: { shape: (s) => s.slice(-1), of: (y, t) => y.add(t) },
  gate: { shape: (s) => s.slice(-1), of: (y, t) => y.mul(t) },
  residual: { shape: (s) => s, of: (y, t) => t.add(y) },
  gelu: { shape: () => [], of: (y) => gelu(y) },
  silu: { shape: () => [], of: (y) => silu(y) },
  rotation: {
    shape: (s) => s,
    of: (y, t) => (y.shape.at(-1)! % 2 ? y.mul(t) : y.add(y.reshape([-1, 2]).flip(1).reshape(y.shape).mul(t))),
  },
};

function draw(anchor: Anchor, scale: number): Draw {
  const { name, inputs, of } = anchor(scale);
  const links = Array.from({ length: Math.floor(uniform() * 4) }, () => pick(Object.keys(LINKS)));
  const { shape } = typeOf(trace((...x: Tensor[]) => of(...x), inputs).outputs[0]!);
  const extra = links.map((link) => numbers(LINKS[link]!.shape(shape), scale > 1 ? scale : 1));
  const again = uniform() < 0.5;
  return {
    name: `${name} ${links.join(' ')}${again ? ', read again' : ''}`,
    inputs: [...inputs, ...extra],
    fn: (...x) => {
      const first = of(...x);
      const last = links.reduce((y, link, i) => LINKS[link]!.of(y, x[inputs.length + i]!), first);
      return again ? [last, first.square().sum()] : [last];
    },
  };
}

async function check({ name, inputs, fn }: Draw, tolerance: number): Promise<void> {
  const traced = trace(fn, inputs);
  const want = evaluate(traced.graph, traced.outputs, inputs);
  const program = device.compile(fn, { name: 'drawn' });
  const got = await program(...inputs);
  for (const [i, w] of want.entries()) {
    const values = await got[i]!.read();
    const most = Array.from(w.data).reduce((m, v) => Math.max(m, Math.abs(v)), 0);
    Array.from(w.data).forEach((v, at) => {
      // 1e-37: some drivers flush denormals.
      if (!(Math.abs(values[at]! - v) <= tolerance * most + 1e-37))
        assert.unreachable(`${name}, output ${i} at ${at}: ${values[at]}, the oracle says ${v}`);
    });
  }
  await program.free();
}

test('forward', async () => {
  for (let i = 0; i < 15; i++) await check(draw(ANCHORS[i % ANCHORS.length]!, 1), 2e-5);
});

test('large, small and denormal numbers', async () => {
  for (const scale of [1e15, 1e-15, 1e-39]) {
    const { name, inputs, of } = ANCHORS[0]!(scale);
    await check({ name: `${name} of ${scale}`, inputs, fn: (...x) => [of(...x)] }, 2e-6);
  }
});

test('a norm and the rotation of its pairs', async () => {
  for (const cols of [12, 10]) {
    const { shape, of } = LINKS.rotation!;
    await check(
      {
        name: `rotated norm of ${cols}`,
        inputs: [numbers([9, cols], 1), numbers(shape([9, cols]), 1)],
        fn: (x, t) => [of(x!.rmsNorm(), t!)],
      },
      5e-6,
    );
  }
});

test('gradients', async () => {
  for (let i = 0; i < 5; i++) {
    const { name, inputs, fn } = draw(ANCHORS[i]!, 1);
    await check(
      {
        name: `gradient of ${name}`,
        inputs,
        fn: (...x) => {
          const [y] = fn(...x) as [Tensor];
          return vjp(y, y.sin(), x);
        },
      },
      1e-4,
    );
  }
});

test.run();
