/** Reference cases of the samplers: tables and whole trajectories on a linear velocity field. */
import { stack } from '../../engine/functional.ts';
import type { Tensor } from '../../engine/tensor.ts';
import { host, type HostTensor } from '../../engine/tree.ts';
import { eulerSchedule, eulerStep } from '../../model/schedule.ts';
import { noise, velocityOf } from '../../train/flow.ts';
import type { Executor } from './executor.ts';
import { judge, type Case, type Fixture, type Verdict } from './format.ts';

/** v[c] = Σ_j M[c,j] x[j] + (t / 1000) b[c]. */
const velocity = (M: Tensor, b: Tensor, x: Tensor, t: number): Tensor =>
  M.matmul(x.reshape([M.shape[0]!, -1])).add(b.unsqueeze(1).mul(t / 1000)).reshape(x.shape);

export async function schedulerCase(fixture: Fixture, c: Case, executor: Executor): Promise<Verdict> {
  if (c['solver'] !== 'euler') return { status: 'skip', note: `solver ${c['solver']} is not part of the project` };
  const { sigmas, timesteps } = eulerSchedule(c['steps'] as number, c['shift'] as number);
  const sample = ({ M, b, x0 }: Record<'M' | 'b' | 'x0', Tensor>): Record<string, Tensor> => {
    const samples: Tensor[] = [], velocities: Tensor[] = [];
    let x = x0.squeeze(0);
    timesteps.forEach((t, i) => {
      const v = velocity(M, b, x, t);
      x = eulerStep(x, v, sigmas[i]!, sigmas[i + 1]!);
      velocities.push(v);
      samples.push(x);
    });
    return { samples: stack(samples, 0), velocities: stack(velocities, 0) };
  };
  const got = await executor.run(sample, fixture.under('toy/') as Record<'M' | 'b' | 'x0', HostTensor>);
  return judge(fixture, c.name, { ...got, sigmas: host(sigmas, [sigmas.length]), timesteps: host(timesteps, [timesteps.length]) });
}

/** `train/*`: the noised sample and what the network is taught. */
export async function flowCase(fixture: Fixture, executor: Executor): Promise<Verdict> {
  const got = await executor.run(
    ({ x0, eps, sigma }: Record<'x0' | 'eps' | 'sigma', Tensor>) => ({ x_t: noise(x0, eps, sigma), target: velocityOf(x0, eps) }),
    { x0: fixture.get('train/x0'), eps: fixture.get('train/eps'), sigma: fixture.get('train/sigma') });
  return judge(fixture, 'train', got);
}
