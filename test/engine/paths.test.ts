/** Attention as products over scores in memory: what takes that path, and that it gives what the fused kernels give. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { vjp } from '../../engine/frontend/autodiff.ts';
import { open } from '../../engine/runtime/device.ts';
import type { TensorType } from '../../engine/frontend/graph.ts';
import { evaluate } from '../../engine/frontend/oracle.ts';
import { checkpoint } from '../../engine/frontend/remat.ts';
import { analyse } from '../../engine/compiler/stages.ts';
import { make, type Tensor } from '../../engine/frontend/tensor.ts';
import { trace } from '../../engine/frontend/trace.ts';
import { flatten, host, type HostTensor } from '../../engine/frontend/tree.ts';
import { attentionPath, type AttentionProblem } from '../../kernels/attention/plan.ts';
import type { Caps } from '../../kernels/kernel.ts';
import { numel } from '../../kernels/kernel.ts';
import type { Tuning } from '../../kernels/tuning.ts';

const device = await open();
const insisting = (path: 'fused' | 'composed'): Tuning => ({
  find: ({ family }) => (family.endsWith('Path') ? ({ path } as never) : undefined),
});
const wave = (shape: readonly number[], k: number): HostTensor =>
  host(
    Float32Array.from({ length: numel(shape) }, (_, i) => 1.5 * Math.sin(i * (1.7 + k) + k)),
    shape,
  );

type Fn = (...x: Tensor[]) => Tensor[];
const attend = ([q, k, v, ...n]: Tensor[]): Tensor[] => make('attention', [q!, k!, v!, ...n], { scale: 0.4 });
const cases: [string, Fn, HostTensor[]][] = [
  [
    'cross, with its log-sum-exp',
    (...x) => attend(x),
    [wave([2, 5, 3, 8], 0), wave([2, 7, 3, 8], 1), wave([2, 7, 3, 8], 2)],
  ],
  [
    'lengths',
    (...x) => attend(x),
    [wave([2, 9, 2, 4], 0), wave([2, 11, 2, 4], 1), wave([2, 11, 2, 4], 2), host(Uint32Array.of(1, 6), [2], 'u32')],
  ],
  [
    'gradient',
    (q, k, v, dy, n) => vjp(attend([q!, k!, v!, n!])[0]!, dy!, [q!, k!, v!]),
    [
      wave([2, 9, 2, 5], 0),
      wave([2, 11, 2, 5], 1),
      wave([2, 11, 2, 5], 2),
      wave([2, 9, 2, 5], 3),
      host(Uint32Array.of(1, 6), [2], 'u32'),
    ],
  ],
  [
    'in a checkpoint',
    (x, dy) => [vjp(checkpoint((t: Tensor) => attend([t, t.mul(0.5), t.exp()])[0]!)(x!).add(x!), dy!, x!)],
    [wave([1, 12, 2, 4], 0), wave([1, 12, 2, 4], 1)],
  ],
];

function labels(fn: Fn, inputs: readonly HostTensor[], caps: Caps): string[] {
  const types = inputs.map(({ shape, dtype }) => flatten<TensorType>({ shape, dtype }));
  return analyse(
    { name: 'attention', fn: fn as never, args: types, fromHost: types.map(() => false) },
    caps,
    {},
  ).lowered.flatMap((l) => l.launch.dispatches.map((d) => d.label));
}

for (const [name, fn, inputs] of cases) {
  test(`composed: ${name}`, async () => {
    const traced = trace(
      fn as never,
      inputs.map(({ shape, dtype }) => ({ shape, dtype })),
    );
    const want = evaluate(traced.graph, traced.outputs, inputs);
    const { tuning } = device.caps;
    try {
      for (const path of ['composed', 'fused'] as const) {
        device.caps.tuning = insisting(path);
        assert.is(
          labels(fn, inputs, device.caps).some((l) => l.startsWith('attention')),
          path === 'fused',
        );
        const compiled = device.compile(fn, { name });
        const got = await Promise.all((await compiled(...inputs)).map((t) => t.read()));
        for (const [i, w] of want.entries()) {
          const scale = Math.max(...Array.from(w.data, Math.abs));
          assert.ok(
            Array.from(got[i]!).every((x, at) => Math.abs(x - w.data[at]!) <= 2e-5 * scale),
            `${path}, output ${i}`,
          );
        }
        await compiled.free();
      }
    } finally {
      if (tuning) device.caps.tuning = tuning;
      else delete device.caps.tuning;
    }
  });
}

test('the planner: fused, but gradients over many tokens on a CPU driver, or what was measured; never scores without bound', () => {
  const { tuning: _none, ...caps } = device.caps;
  const cpu: Caps = { ...caps, tier: 'scalar', maxBindingBytes: 2 ** 27 };
  const gpu: Caps = { ...cpu, tier: 'tiled' };
  const of = (N: number, L: number): AttentionProblem => ({
    B: 2,
    N,
    L,
    H: 4,
    D: 32,
    scale: 1,
    lengths: false,
    access: [],
  });
  const path = (c: Caps, op: 'attention' | 'attentionGrad', N: number, L = N) => attentionPath(c, op, of(N, L));
  assert.equal(
    [
      path(cpu, 'attentionGrad', 48),
      path(cpu, 'attentionGrad', 256),
      path(cpu, 'attentionGrad', 1024, 16),
      path(cpu, 'attention', 256),
      path(gpu, 'attentionGrad', 256),
    ],
    ['fused', 'composed', 'fused', 'fused', 'fused'],
  );
  assert.equal(
    [
      path({ ...gpu, tuning: insisting('composed') }, 'attention', 256),
      path({ ...cpu, tuning: insisting('fused') }, 'attentionGrad', 256),
    ],
    ['composed', 'fused'],
  );
  assert.is(path({ ...cpu, tuning: insisting('composed') }, 'attentionGrad', 32_760), 'fused');
});

test.run();
