/**
 * Compiles an update step: the state is donated and written in place, the metrics
 * come back as numbers in one read, which nothing waits for.
 */
import type { Ranges } from '../../engine/compiler/ranges.ts';
import type { Feed } from '../../engine/runtime/compile.ts';
import type { Device } from '../../engine/runtime/device.ts';
import { stack } from '../../engine/frontend/functional.ts';
import type { NDArray } from '../../engine/runtime/ndarray.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { mapTree } from '../../engine/frontend/tree.ts';
import { precisionOn, type Precision } from '../../model/pipeline/precision.ts';
import type { Ranks } from '../ranks/ranks.ts';
import type { Stepped } from './accumulate.ts';
import { freeTree } from './checkpoint.ts';
import type { Trained } from './optim.ts';
import { joined, unwatched, type Metrics } from './pending.ts';
import { buffersOf, eachRole, pack, packsOf, unpack, views, type Pack } from './packs.ts';
import { compileShared } from './shared.ts';

export type Args<A extends readonly unknown[]> = [state: Trained<NDArray>, ...args: { [K in keyof A]: Feed<A[K]> }];

export interface Step<A extends readonly unknown[]> {
  /** Queues a call: the state may be used at once. */
  (...args: Args<A>): Promise<Stepped<Trained<NDArray>>>;
  free(): Promise<void>;
}

/**
 * What is compiled of a step: its state comes and goes in packs, its metrics are one tensor; `named` is told their names.
 * @param packs of the state
 */
export const stepOf =
  <A extends readonly unknown[]>(
    fn: (state: Trained, ...args: A) => Trained & { metrics: Record<string, Tensor> },
    packs: readonly Pack[],
    named: (names: string[]) => void = () => {},
  ) =>
  (state: Trained, ...args: A) => {
    const { metrics, ...next } = fn(
      eachRole(state, (tensors) => unpack(tensors, packs)),
      ...args,
    );
    named(Object.keys(metrics));
    return { ...eachRole(next, (tensors) => pack(tensors, packs)), metrics: stack(Object.values(metrics), 0) };
  };

export interface StepOptions {
  /** Micro-batches of an update, 1 unless given: with more the step holds their gradients between its calls. */
  accumulate?: number;
  /** Of operands of products, f32 unless given. */
  precision?: Precision | undefined;
  /** Over which the gradients are added up before the update. */
  ranks?: Ranks | undefined;
}

/**
 * Metrics of operands that left f16's range, under the prefix of the update's `skipped`; of a step that updates nothing, under its name.
 */
const outside =
  (name: string, metrics: readonly string[]) =>
  ({ overflowed, vanished }: Ranges): Metrics => {
    const prefix = metrics.find((m) => /skipped$/i.test(m))?.slice(0, -'skipped'.length) ?? name;
    return prefix ? { [`${prefix}Overflowed`]: overflowed, [`${prefix}Vanished`]: vanished } : { overflowed, vanished };
  };

type Program<A extends readonly unknown[]> = ((...args: Args<A>) => Promise<Trained<NDArray> & { metrics: NDArray }>) &
  Pick<Step<A>, 'free'>;

/**
 * @param fn (state, …) → the state's new tensors under the same names, and `metrics`, scalars by name
 * @returns a step for states of one network, which lie on the device as `start` and `placeState` put them
 * @throws where f16 is asked for and the adapter lacks it
 */
export function compileStep<A extends readonly unknown[]>(
  device: Device,
  name: string,
  fn: (state: Trained, ...args: A) => Trained & { metrics: Record<string, Tensor> },
  { accumulate = 1, precision, ranks }: StepOptions = {},
): Step<A> {
  precisionOn(device.caps, precision);
  if (ranks) return compileShared(device, name, fn, { ranks, accumulate, operands: precision ?? 'f32' });
  let names: string[] = [];
  let ranges: Promise<Ranges> | undefined;
  let made: { packs: Pack[]; program: Program<A> } | undefined;
  let grads: Trained<NDArray>['grads'];
  const of = (state: Trained<NDArray>) => {
    const packs = made?.packs ?? packsOf(state.params);
    made ??= {
      packs,
      program: device.compile(
        stepOf(fn, packs, (found) => {
          names = found;
        }),
        {
          donate: [0],
          name,
          operands: precision ?? 'f32',
          onRanges: (found) => {
            ranges = unwatched(found);
          },
        },
      ) as unknown as Program<A>,
    };
    const buffers = eachRole(state, (tensors) => buffersOf(tensors, packs));
    if (accumulate > 1) grads ??= mapTree(({ shape }: NDArray) => device.zeros(shape), buffers.params);
    return { ...made, buffers: { ...buffers, ...(grads && { grads }) } };
  };
  const run = async (...[state, ...args]: Args<A>) => {
    const { program, buffers, packs } = of(state);
    const { metrics, grads: sums, ...next } = await program(buffers, ...args);
    grads = sums;
    const numbers = metrics.read().then((values) => Object.fromEntries(names.map((n, i) => [n, values[i]!]))); // copied before the next call
    const parts = ranges ? [numbers, ranges.then(outside(name, names))] : [numbers];
    return { state: eachRole(next, (tensors) => views(tensors, packs)), metrics: joined(...parts.map(unwatched)) };
  };
  const free = async () => {
    await made?.program.free();
    if (grads) freeTree(grads);
  };
  return Object.assign(run, { free });
}
