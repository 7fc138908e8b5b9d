/** Reference cases of the samplers: tables and whole trajectories on a linear velocity field. */
import { stack } from '../../engine/frontend/functional.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { schedule, solverStep, startState, type SolverKind, type SolverState } from '../../model/schedulers/index.ts';
import { noise, velocityOf } from '../../train/methods/flow.ts';
import type { Executor } from './executor.ts';
import { judge, type Case, type Fixture, type Verdict } from './format.ts';

/** v[c] = Σ_j M[c,j] x[j] + (t / 1000) b[c]. */
const velocity = (M: Tensor, b: Tensor, x: Tensor, t: number): Tensor =>
  M.matmul(x.reshape([M.shape[0]!, -1]))
    .add(b.unsqueeze(1).mul(t / 1000))
    .reshape(x.shape);

interface Inputs<T> {
  M: T;
  b: T;
  start: SolverState<T>;
  weights: readonly T[];
}

export async function schedulerCase(fixture: Fixture, c: Case, executor: Executor): Promise<Verdict> {
  const { sigmas, timesteps, weights } = schedule(
    c['solver'] as SolverKind,
    c['steps'] as number,
    c['shift'] as number,
  );
  const sample = ({ M, b, start, weights }: Inputs<Tensor>): Record<string, Tensor> => {
    const samples: Tensor[] = [],
      velocities: Tensor[] = [];
    let state = start;
    timesteps.forEach((t, k) => {
      const v = velocity(M, b, state.x, t);
      state = solverStep(state, v, weights[k]!);
      velocities.push(v);
      samples.push(state.x);
    });
    return { samples: stack(samples, 0), velocities: stack(velocities, 0) };
  };
  const x = fixture.get('toy/x0');
  const inputs: Inputs<HostTensor> = {
    M: fixture.get('toy/M'),
    b: fixture.get('toy/b'),
    start: startState(host(x.data, x.shape.slice(1))),
    weights,
  };
  const got = await executor.run(sample, inputs);
  return judge(fixture, c.name, {
    ...got,
    sigmas: host(sigmas, [sigmas.length]),
    timesteps: host(timesteps, [timesteps.length]),
  });
}

/** `diffusers_*`: tables of levels and timesteps. */
export async function diffusersTables(fixture: Fixture): Promise<Verdict> {
  const tables = Object.keys(fixture.entry.tensors)
    .map((name) => /^(diffusers_(?:unipc|flow_euler)\/shift([\d.]+)\/steps(\d+))\/sigmas$/.exec(name))
    .filter((m) => m !== null);
  for (const [, name, shift, steps] of tables) {
    const { sigmas, timesteps } = schedule(
      name!.includes('unipc') ? 'unipc' : 'euler',
      Number(steps),
      Number(shift),
      'diffusers',
    );
    const verdict = judge(fixture, name!, {
      sigmas: host(sigmas, [sigmas.length]),
      timesteps: host(timesteps, [timesteps.length]),
    });
    if (verdict.status !== 'pass') return { ...verdict, note: `${name}: ${verdict.note}` };
  }
  return { status: 'pass', note: `${2 * tables.length} tables` };
}

/** `train/*`: the noised sample and what the network is taught. */
export async function flowCase(fixture: Fixture, executor: Executor): Promise<Verdict> {
  const got = await executor.run(
    ({ x0, eps, sigma }: Record<'x0' | 'eps' | 'sigma', Tensor>) => ({
      x_t: noise(x0, eps, sigma),
      target: velocityOf(x0, eps),
    }),
    { x0: fixture.get('train/x0'), eps: fixture.get('train/eps'), sigma: fixture.get('train/sigma') },
  );
  return judge(fixture, 'train', got);
}
