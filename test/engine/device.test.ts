/** Every op on the device, forward and gradient, against the float64 oracle; and what a program promises. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { MatrixUnit } from '../../kernels/mma.ts';
import { UNITS } from '../kernels/units.ts';
import { vjp } from '../../engine/frontend/autodiff.ts';
import { open } from '../../engine/runtime/device.ts';
import { largestArenas, Scratch } from '../../engine/runtime/scratch.ts';
import {
  adamW,
  attention,
  clipByGlobalNorm,
  concat,
  constant,
  conv3d,
  ema,
  gelu,
  iota,
  linear,
  mse,
  where,
} from '../../engine/frontend/functional.ts';
import type { TensorType } from '../../engine/frontend/graph.ts';
import { evaluate } from '../../engine/frontend/oracle.ts';
import { analyse, type CompileOptions } from '../../engine/compiler/stages.ts';
import { Tensor } from '../../engine/frontend/tensor.ts';
import { trace } from '../../engine/frontend/trace.ts';
import { threefry2x32 } from '../../engine/frontend/ops/random.ts';
import { numel } from '../../kernels/kernel.ts';
import { flatten, host, type HostTensor } from '../../engine/frontend/tree.ts';
import { ALL_CASES, caseInputs } from './cases.ts';

const device = await open();
const list = (x: Tensor | Tensor[]): Tensor[] => (Array.isArray(x) ? x : [x]);

/** Largest difference in units of the reference's largest value. */
function difference(got: ArrayLike<number>, want: ArrayLike<number>): number {
  let worst = 0;
  let scale = 1e-6;
  for (let i = 0; i < want.length; i++) scale = Math.max(scale, Math.abs(want[i]!));
  for (let i = 0; i < want.length; i++)
    worst = Math.max(worst, Number.isFinite(got[i]!) ? Math.abs(got[i]! - want[i]!) : Infinity);
  return worst / scale;
}

async function compare(name: string, fn: (...x: Tensor[]) => Tensor[], inputs: HostTensor[]): Promise<void> {
  const traced = trace(
    fn,
    inputs.map(({ shape, dtype }) => ({ shape, dtype })),
  );
  const want = evaluate(traced.graph, traced.outputs, inputs);
  const compiled = device.compile(fn as (...x: Tensor[]) => Tensor[], { name });
  const got = await compiled(...inputs);
  for (const [i, w] of want.entries()) {
    const error = difference(await got[i]!.read(), w.data);
    assert.ok(error < 2e-5, `${name}: output ${i} differs by ${error}`);
  }
  await compiled.free();
}

/** A fixed cotangent for an output. */
const cotangent = (shape: readonly number[], k: number): HostTensor =>
  host(
    Float32Array.from({ length: numel(shape) }, (_, i) => threefry2x32(11, k, i, 1)[0] / 2 ** 31 - 1),
    shape,
  );

for (const c of ALL_CASES) {
  test(`${c.op}: ${c.name}`, async () => {
    if (c.name.includes('f16') && !device.caps.f16) return;
    const inputs = caseInputs(c);
    await compare(c.name, (...x) => list(c.fn(...x)), inputs);
    if (c.flat) return;
    const types = trace(
      (...x: Tensor[]) => list(c.fn(...x)),
      inputs.map(({ shape, dtype }) => ({ shape, dtype })),
    ).outputs.map((v) => v.node.outs[v.out]!);
    const dy = types.map((t, k) => cotangent(t.shape, k));
    const floats = inputs.map((x) => x.dtype === 'f32');
    const grad = (...x: Tensor[]): Tensor[] => {
      const args = x.slice(0, inputs.length);
      const wrt = args.filter((_, i) => floats[i]);
      return vjp(list(c.fn(...args)), x.slice(inputs.length), wrt);
    };
    await compare(`${c.name} gradient`, grad, [...inputs, ...dy]);
  });
}

/** A two-layer net with AdamW and an EMA: everything a training step has. */
const STEP = (
  state: { p: Record<string, Tensor>; v: Record<string, Tensor>; ema: Record<string, Tensor> },
  x: Tensor,
  y: Tensor,
  t: Tensor,
) => {
  const hidden = gelu(linear(x, state.p.w1!, state.p.b1!));
  const loss = mse(linear(hidden, state.p.w2!), y);
  const { grads, norm, finite } = clipByGlobalNorm(vjp(loss, constant(1), state.p), 1);
  const p: Record<string, Tensor> = {};
  const v: Record<string, Tensor> = {};
  for (const k of Object.keys(state.p)) {
    const next = adamW(
      state.p[k]!,
      grads[k]!,
      { v: state.v[k]! },
      { lr: 0.01, beta1: 0, beta2: 0.99, eps: 1e-8, weightDecay: 0, step: t },
    );
    p[k] = where(finite, next.p, state.p[k]!);
    v[k] = where(finite, next.v, state.v[k]!);
  }
  return { p, v, ema: ema(state.ema, p, 0.9), loss, norm };
};
const SHAPES: Record<string, number[]> = { w1: [24, 12], b1: [24], w2: [5, 24] };
const fresh = (zero: boolean) =>
  Object.fromEntries(
    Object.entries(SHAPES).map(([k, s], i) => [
      k,
      device.tensor(zero ? new Float32Array(numel(s)) : (cotangent(s, i).data as Float32Array), s),
    ]),
  );

async function train(
  steps: number,
): Promise<{ losses: number[]; bits: Uint32Array; created: (typeof device.counters)[] }> {
  const step = device.compile(STEP, { donate: [0], name: 'net' });
  const state = { p: fresh(false), v: fresh(true), ema: fresh(false) };
  const [x, y] = [cotangent([9, 12], 20), cotangent([9, 5], 21)];
  const losses: number[] = [];
  const created: (typeof device.counters)[] = [];
  for (let t = 1; t <= steps; t++) {
    const out = await step(state, x, y, t);
    losses.push(await out.loss.item());
    created.push({ ...device.counters });
    assert.is(out.p.w1, state.p.w1, 'a donated tensor is updated in place');
  }
  const bits = new Uint32Array(await state.ema.w1!.bits());
  await step.free();
  return { losses, bits, created };
}

test('a mask made of places, the same for a row, lets its kernel read four at a time', async () => {
  const first = (x: Tensor, a: Tensor): Tensor => where(iota([1, 6, 1], 1).lt(2), a, x).mul(2);
  const [x, a] = [
    host(
      Array.from({ length: 48 }, (_, i) => i),
      [1, 6, 8],
    ),
    host(
      Array.from({ length: 8 }, (_, i) => -i),
      [1, 1, 8],
    ),
  ];
  const program = device.compile(first);
  const got = await (await program(x, a)).read();
  assert.equal(
    [...got],
    Array.from({ length: 48 }, (_, i) => 2 * (i < 16 ? -(i % 8) : i)),
  );
  await program.free();
});

test('a training step lowers the loss, gives the same bits twice, and creates nothing after the first call', async () => {
  const a = await train(30);
  const b = await train(30);
  assert.ok(a.losses[29]! < 0.5 * a.losses[0]!, `${a.losses[0]} → ${a.losses[29]}`);
  assert.equal(a.losses, b.losses);
  assert.equal(a.bits, b.bits);
  const { dispatches: _, ...first } = a.created[0]!;
  const { dispatches: __, ...last } = a.created[29]!;
  assert.equal(first, last);
});

test('the device path agrees with the oracle on a whole training step', async () => {
  const types = { p: SHAPES, v: SHAPES, ema: SHAPES };
  const state = (zero: (k: string) => boolean) =>
    Object.fromEntries(
      Object.keys(types).map((part) => [
        part,
        Object.fromEntries(
          Object.entries(SHAPES).map(([k, s], i) => [
            k,
            host(zero(part) ? new Float32Array(numel(s)) : (cotangent(s, i).data as Float32Array), s),
          ]),
        ),
      ]),
    );
  const args = [state((part) => part === 'v'), cotangent([9, 12], 20), cotangent([9, 5], 21), host([1], [])];
  const traced = trace(STEP as unknown as (...x: Tensor[]) => unknown, args);
  const want = evaluate(traced.graph, traced.outputs, flatten<HostTensor>(args).leaves);
  const out = flatten<{ read(): Promise<Float32Array> }>(
    await device.compile(STEP)(
      ...(args as unknown as Parameters<
        ReturnType<typeof device.compile<Parameters<typeof STEP>, ReturnType<typeof STEP>>>
      >),
    ),
  );
  for (const [i, w] of want.entries())
    assert.ok(difference(await out.leaves[i]!.read(), w.data) < 1e-4, traced.outTree.paths[i]);
});

test('the planned peak is what is allocated, and programs share their arenas', async () => {
  const fresh = Object.create(device) as typeof device; // counts for itself, without the programs of other tests
  Object.assign(fresh, {
    scratch: new Scratch(
      (n) => fresh.buffer(n),
      (b) => fresh.release(b),
    ),
  });
  const before = fresh.allocated;
  const first = fresh.compile((x: Tensor) => x.matmul(x.transpose()).softmax().matmul(x).sum([0]), { name: 'first' });
  const second = fresh.compile((x: Tensor) => x.exp().matmul(x).amax(), { name: 'second' });
  const [small, large] = [cotangent([64, 64], 1), cotangent([96, 96], 2)];
  const plans = [await first.plan(small), await second.plan(large)] as const;
  assert.is(fresh.allocated, before, 'a plan allocates nothing');
  const want = await (await first(small)).read();
  assert.is(fresh.allocated - before, plans[0].bytes);
  await second(large);
  const own = plans.map((p) => p.bytes - p.memory.arenas.reduce((a, b) => a + b, 0));
  const arenas = largestArenas(plans.map((p) => p.memory.arenas)).reduce((a, b) => a + b, 0);
  assert.is(fresh.allocated - before, own[0]! + own[1]! + arenas);
  assert.equal(await (await first(small)).read(), want, 'the arenas moved under it');
  await second.free();
  await first(small);
  assert.is(fresh.allocated - before, plans[0].bytes);
  await first.free();
  assert.is(fresh.allocated, before);
});

test('an impossible plan is refused before anything is allocated, with remedies', async () => {
  const { budget, allocated } = device;
  device.budget = allocated + 100_000;
  try {
    await device.compile((x: Tensor) => x.matmul(x.transpose()).exp().matmul(x), { name: 'big' })(
      device.tensor(new Float32Array(64), [64, 1]).keep(),
    );
    const f = device.compile(
      (x: Tensor) =>
        x
          .expand([300, 400])
          .exp()
          .matmul(x.expand([300, 400]).transpose()),
      { name: 'big' },
    );
    await f(host([1], [1, 1]));
    assert.unreachable();
  } catch (error) {
    assert.match((error as Error).message, /\[memory\] big needs .* the budget is .*Remedies: a smaller batch/s);
  } finally {
    device.budget = budget;
  }
});

test("results are the program's until its next call", async () => {
  const f = device.compile((x: Tensor) => x.add(1), { name: 'plus' });
  const first = await f(2);
  const kept = first.keep();
  const second = await f(5);
  assert.is(await second.item(), 6);
  assert.is(await kept.item(), 3);
  let message = '';
  await first.item().catch((error: Error) => {
    message = error.message;
  });
  assert.match(message, /the program that made this f32\[.*\] has run again/);
  assert.throws(() => device.tensor(new Float32Array(3), [2, 2]), /3 numbers do not fill \[2,2\]/);
});

test('inputs that come back unchanged, swapped or twice have bytes of their own', async () => {
  const state = { a: device.tensor(Float32Array.of(1, 2), [2]), b: device.tensor(Float32Array.of(3, 4), [2]) };
  const out = await device.compile((s: { a: Tensor; b: Tensor }) => ({ a: s.b, b: s.a, c: s.a, d: s.a }), {
    donate: [0],
  })(state);
  assert.equal([...(await out.a.read())], [3, 4]);
  assert.equal([...(await out.b.read())], [1, 2]);
  assert.equal([...(await out.c.read())], [1, 2]);
  assert.equal([...(await out.d.read())], [1, 2]);
});

test('f16 operands keep a product within half precision of the f32 one', async () => {
  if (!device.caps.f16) return;
  const [x, w] = [cotangent([24, 36], 1), cotangent([20, 36], 2)];
  const fn = (a: Tensor, b: Tensor) => gelu(linear(a, b)).matmul(b);
  const f32 = device.compile(fn);
  const f16 = device.compile(fn, { operands: 'f16' });
  const [want, got] = [await (await f32(x, w)).read(), await (await f16(x, w)).read()];
  const error = difference(got, want);
  assert.ok(error > 0 && error < 2e-3, `differs by ${error}`);
});

test('f16 operands let matrix units serve attention, convolution and their gradients; else they stay f32', () => {
  const fn = (q: Tensor) => {
    const o = attention(q, q.mul(2), q.mul(3));
    const x = q.reshape([1, 64, 1, 8, 8]),
      w = q.reshape([64, 32, 2, 1, 1]);
    const y = conv3d(concat([x.slice(1, 0, 32), x.slice(1, 32)], 2), w);
    return { o, y, dq: vjp(o, o.like(1), q), dx: vjp(y, y.like(1), [x, w]) };
  };
  const tiers = (operands: CompileOptions['operands'], unit: MatrixUnit = UNITS.nvidia) => {
    const caps = {
      ...device.caps,
      tier: 'tiled' as const,
      f16: true,
      units: [unit],
      maxInvocations: 256,
      maxWorkgroupBytes: 32768,
    };
    const { lowered } = analyse(
      {
        name: 'attention',
        fn: fn as (...args: unknown[]) => unknown,
        args: [flatten<TensorType>({ shape: [1, 64, 1, 64], dtype: 'f32' })],
        fromHost: [false],
      },
      caps,
      { operands },
    );
    return lowered
      .flatMap((l) => l.launch.dispatches)
      .map((d) => /^(?:attention (?:forward|grad\w+)|conv3d\w*) (tiled|matrix)/.exec(d.label)?.[1])
      .filter((t) => t !== undefined);
  };
  assert.equal(tiers('f16'), Array(6).fill('matrix'));
  assert.equal(tiers('f32'), Array(6).fill('tiled'));
  assert.equal(tiers('f32', UNITS.apple), Array(6).fill('matrix'), 'units of f32 serve what stays f32');
});

test('one tensor may be every operand of an op', async () => {
  const x = cotangent([2, 5, 1, 4], 3);
  await compare(
    'self-attention of one tensor',
    (t) => [attention(t!, t!, t!), t!.reshape([10, 4]).matmul(t!.reshape([10, 4]), { transB: true })],
    [x],
  );
});

test('an argument may lie on the device in one call and on the host in the next', async () => {
  const twice = device.compile((x: Tensor) => x.mul(2), { name: 'twice' });
  const there = device.tensor(Float32Array.of(3), [1]);
  for (const x of [there, host([4], [1]), there]) assert.is((await (await twice(x)).read())[0], x === there ? 6 : 8);
  there.free();
  await twice.free();
});

test.run();
