/** Properties of the samplers; whole trajectories are checked against the reference tensors. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { host } from '../../engine/frontend/tree.ts';
import {
  schedule,
  SOLVER_KINDS,
  solverStep,
  startState,
  type SolverKind,
  type SolverState,
} from '../../model/schedulers/index.ts';
import { oracle } from '../golden/executor.ts';

/** The sample after all steps along the exact velocity field of one data point d: v = (x - d) / σ, or of N(0, 1) data. */
async function sampled(
  kind: SolverKind,
  steps: number,
  shift: number,
  velocity: (x: Tensor, sigma: number) => Tensor,
): Promise<number> {
  const { sigmas, weights } = schedule(kind, steps, shift);
  const { x } = await oracle.run(
    ({ start, weights }: { start: SolverState; weights: readonly Tensor[] }) => {
      const end = weights.reduce((state, w, k) => solverStep(state, velocity(state.x, sigmas[k]!), w), start);
      return { x: end.x };
    },
    { start: startState(host([1.5], [1])), weights },
  );
  return x!.data[0]!;
}

test('levels fall from 1 to 0, bent by the shift', () => {
  const { sigmas, timesteps } = schedule('euler', 4, 5);
  assert.equal(
    sigmas.map((s) => Math.round(s * 1e4) / 1e4),
    [1, 0.9375, 0.8333, 0.625, 0],
  );
  assert.equal(timesteps.map(Math.round), [1000, 938, 833, 625]);
  assert.equal(schedule('unipc', 3, 5).timesteps, [999, 908, 713]);
  assert.equal(schedule('unipc', 4, 3, 'diffusers').timesteps, [999, 900, 750, 500]);
  for (const kind of SOLVER_KINDS)
    for (const layout of ['original', 'diffusers'] as const) assert.is(schedule(kind, 1, 5, layout).sigmas.length, 2);
});

test('a single data point is reached in any number of steps', async () => {
  for (const kind of SOLVER_KINDS) {
    for (const steps of [1, 2, 7])
      assert.ok(
        Math.abs((await sampled(kind, steps, 5, (x, sigma) => x.sub(0.25).div(sigma))) - 0.25) < 1e-6,
        `${kind} ${steps}`,
      );
  }
});

test('on data N(0, 1) Euler converges with order 1, the multistep samplers with nearly 2', async () => {
  // v = E[ε - x0 | x] = (2σ - 1) x / ((1 - σ)² + σ²); the exact flow from level σ multiplies by 1 / √((1 - σ)² + σ²).
  const velocity = (x: Tensor, s: number) => x.mul((2 * s - 1) / ((1 - s) ** 2 + s ** 2));
  const error = async (kind: SolverKind, steps: number) => {
    const first = schedule(kind, steps, 1).sigmas[0]!;
    return Math.abs((await sampled(kind, steps, 1, velocity)) - 1.5 / Math.hypot(1 - first, first));
  };
  for (const kind of SOLVER_KINDS) {
    const gain = (await error(kind, 20)) / (await error(kind, 40));
    assert.ok(
      kind === 'euler' ? gain > 1.7 && gain < 2.4 : gain > 2.6,
      `${kind}: halving the steps' size divides the error by ${gain.toFixed(2)}`,
    );
  }
});

test('steps and shifts that make no schedule are refused', () => {
  assert.throws(() => schedule('unipc', 0, 5), /steps must be a whole number of 1 or more, got 0/);
  assert.throws(() => schedule('euler', 4, -1), /shift must be above 0, got -1/);
});

test.run();
