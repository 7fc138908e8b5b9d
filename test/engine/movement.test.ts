/**
 * Drawn programs of what moves, repeats and reduces, in any order, over shapes of rank 0 to 5 with sizes of 1 and primes: their
 * gradients against finite differences in float64, and what the device makes of them against the oracle. One seed.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { vjp } from '../../engine/frontend/autodiff.ts';
import { open } from '../../engine/runtime/device.ts';
import { concat } from '../../engine/frontend/functional.ts';
import { evaluate } from '../../engine/frontend/oracle.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { trace } from '../../engine/frontend/trace.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { numel } from '../../kernels/kernel.ts';

const LENGTH = 7,
  LARGEST = 400;
let state = 20261122;
const uniform = (): number => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
const below = (n: number): number => Math.floor(uniform() * n);
const numbers = (shape: readonly number[]): HostTensor =>
  host(
    Float64Array.from({ length: numel(shape) }, () => 2 * uniform() - 1),
    shape,
  );

type Link = (x: Tensor, first: Tensor) => Tensor;
const some = (x: Tensor): number[] => x.shape.map((_, i) => i).filter(() => uniform() < 0.5);
/** Each gives the same for the same draws. */
const LINKS: readonly Link[] = [
  (x) =>
    x.permute(
      x.shape
        .map((_, i) => [uniform(), i] as const)
        .sort((a, b) => a[0] - b[0])
        .map(([, i]) => i),
    ),
  (x) =>
    x.shape.reduce((y, n, axis) => {
      const from = below(n);
      return y.slice(axis, from, from + 1 + below(n - from), 1 + below(3));
    }, x),
  (x) =>
    x.pad(
      x.shape.map(() => below(3)),
      x.shape.map(() => below(2)),
      x.shape.map(() => below(2)),
    ),
  (x) => x.flip(...some(x)),
  (x) => x.expand([1 + below(3), ...x.shape.map((n) => (n === 1 ? 1 + below(4) : n))]),
  (x) => (x.shape.length ? concat([x, x.mul(0.5), x], below(x.shape.length)) : x.sin()),
  (x) => x.reshape(x.shape.length > 1 ? [-1, x.shape.at(-1)!] : [1, -1]),
  (x) => x.sum(some(x), uniform() < 0.5),
  (x) => x.mean(some(x), true),
  (x) => (x.shape.length ? x.softmax() : x.tanh()),
  (x) => x.sin().mul(x),
  (x, first) => x.add(first.mean()),
];

/** A function that draws the same program at every call. */
function draw(): { x: HostTensor; fn: (x: Tensor) => Tensor } {
  const x = numbers(Array.from({ length: below(6) }, () => [1, 1, 2, 3, 5, 7][below(6)]!));
  const seed = state;
  return {
    x,
    fn(first) {
      const after = state;
      state = seed;
      let y = first;
      for (let i = 0; i < LENGTH; i++) {
        const next = LINKS[below(LINKS.length)]!(y, first);
        if (numel(next.shape) <= LARGEST && next.shape.length <= 6) y = next;
      }
      state = after;
      return y.sin();
    },
  };
}

const run = (fn: (x: Tensor) => Tensor | Tensor[], x: HostTensor): HostTensor[] => {
  const { graph, outputs } = trace(fn, [x]);
  return evaluate(graph, outputs, [x]);
};

test('gradients are those of finite differences', () => {
  for (let i = 0; i < 60; i++) {
    const { x, fn } = draw();
    const way = numbers(x.shape).data;
    const at = (step: number): number =>
      run((t) => fn(t).sum(), { ...x, data: Float64Array.from(x.data, (v, k) => v + step * way[k]!) })[0]!.data[0]!;
    const slope = Array.from(
      run((t) => {
        const y = fn(t).sum();
        return vjp(y, y.like(1), t);
      }, x)[0]!.data,
    ).reduce((sum, g, k) => sum + g * way[k]!, 0);
    const expected = (at(1e-5) - at(-1e-5)) / 2e-5;
    assert.ok(
      Math.abs(slope - expected) <= 1e-5 * (1 + Math.abs(expected)),
      `program ${i} on [${x.shape.join()}]: ${slope}, by differences ${expected}`,
    );
  }
});

test('the device gives what the oracle does', async () => {
  const device = await open();
  for (let i = 0; i < 12; i++) {
    const { x, fn } = draw();
    const [want] = run(fn, x);
    const program = device.compile(fn, { name: 'drawn' });
    const got = await (await program(x)).read();
    want!.data.forEach((v, k) =>
      assert.ok(
        Math.abs(got[k]! - v) <= 2e-4 * (1 + Math.abs(v)),
        `program ${i} on [${x.shape.join()}] at ${k}: ${got[k]}, the oracle says ${v}`,
      ),
    );
    await program.free();
  }
  device.close();
});

test.run();
