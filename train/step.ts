/** Compiles an update step: the state is donated and written in place, the metrics come back as numbers in one read. */
import { compile, type Concrete, type Feed } from '../engine/compile.ts';
import type { Device } from '../engine/device.ts';
import { stack } from '../engine/functional.ts';
import type { Plan } from '../engine/plan.ts';
import type { NDArray } from '../engine/ndarray.ts';
import type { Tensor } from '../engine/tensor.ts';
import type { Metrics } from './loop.ts';
import type { Trained } from './optim.ts';

export interface Step<A extends readonly unknown[]> {
  (state: Trained<NDArray>, ...args: { [K in keyof A]: Feed<A[K]> }): Promise<{ state: Trained<NDArray>; metrics: Metrics }>;
  /** What a call costs; nothing is run. */
  plan(state: Trained<NDArray>, ...args: { [K in keyof A]: Feed<A[K]> }): Promise<Plan>;
  free(): Promise<void>;
}

/** What is compiled of a step: its metrics are one tensor; `named` is told their names. */
export const stepOf = <A extends readonly unknown[]>(fn: (state: Trained, ...args: A) => Trained & { metrics: Record<string, Tensor> }, named: (names: string[]) => void = () => {}) =>
  (state: Trained, ...args: A) => {
    const { metrics, ...next } = fn(state, ...args);
    named(Object.keys(metrics));
    return { ...next, metrics: stack(Object.values(metrics), 0) };
  };

/** @param fn (state, …) → the state's new tensors under the same names, and `metrics`, scalars by name */
export function compileStep<A extends readonly unknown[]>(device: Device, name: string, fn: (state: Trained, ...args: A) => Trained & { metrics: Record<string, Tensor> }): Step<A> {
  let names: string[] = [];
  const program = compile(device, stepOf(fn, (found) => { names = found; }), { donate: [0], name });
  const run = async (...args: Parameters<typeof program>) => {
    const { metrics, ...state } = await program(...args) as Concrete<Trained & { metrics: Tensor }>;
    const values = await metrics.read();
    return { state, metrics: Object.fromEntries(names.map((n, i) => [n, values[i]!])) };
  };
  return Object.assign(run, { plan: (...args: Parameters<typeof program>) => program.plan(...args), free: () => program.free() }) as unknown as Step<A>;
}
