/** A step of one network on several ranks: its gradients, their sum over all ranks' micro-batches, and then the update, on every rank. */
import type { CompileOptions, Feed } from '../../engine/runtime/compile.ts';
import type { Device } from '../../engine/runtime/device.ts';
import { constant, stack } from '../../engine/frontend/functional.ts';
import type { NDArray } from '../../engine/runtime/ndarray.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { isMatrix } from '../../model/params.ts';
import type { Ranks } from '../ranks/ranks.ts';
import { Sums } from '../ranks/sums.ts';
import { applied, type AdamConfig, type Rates, type Trained } from './optim.ts';
import { buffersOf, eachRole, packsOf, unpack, views, type Pack } from './packs.ts';
import { unwatched, type Metrics, type Pending } from './pending.ts';
import type { Args, Step } from './step.ts';

type Tensors = Record<string, Tensor>;
type Arrays = Record<string, NDArray>;
type StepFunction<A extends readonly unknown[]> = (
  state: Trained,
  ...args: A
) => Trained & { metrics: Record<string, Tensor> };

/** What a step's function told of itself while it was traced. */
interface Told {
  config: AdamConfig;
  /** Metrics of a micro-batch, in order. */
  own: readonly string[];
  /** What the function calls the update's own metrics. */
  norm: string;
  skipped: string;
}

/** What is compiled of a step up to its gradients, which come in packs; its last argument are the update's rates. */
const gradientsOf =
  <A extends readonly unknown[]>(fn: StepFunction<A>, packs: readonly Pack[], told: (found: Told) => void = () => {}) =>
  (state: Pick<Trained, 'params' | 'ema'>, ...args: A): { grads: Tensors; metrics?: Tensor } => {
    let handed: { grads: Tensors; config: AdamConfig } | undefined;
    const whole = { norm: constant(0), skipped: constant(0) };
    const hand: Rates['hand'] = (grads, config) => {
      handed = { grads, config };
      return whole;
    };
    const all = [...args.slice(0, -1), { ...(args.at(-1) as object), hand }] as unknown as A;
    const unpacked = eachRole(state as Trained, (tensors) => unpack(tensors, packs));
    const { metrics } = fn(unpacked, ...all);
    const { grads, config } = handed!;
    const names = Object.keys(metrics);
    const called = (x: Tensor): string => names.find((name) => metrics[name] === x)!;
    const [norm, skipped] = [called(whole.norm), called(whole.skipped)];
    const own = names.filter((name) => name !== norm && name !== skipped);
    told({ config, own, norm, skipped });
    return {
      grads,
      ...(own.length && {
        metrics: stack(
          own.map((name) => metrics[name]!),
          0,
        ),
      }),
    };
  };

/** The update by summed gradients, all in packs. */
const updateOf =
  (config: AdamConfig, decays: (name: string) => boolean) =>
  (state: Trained, sums: Tensors, { share, ...rates }: Omit<Rates, 'hand' | 'micro'> & { share: Tensor }) => {
    const micro = { share, last: constant(1) };
    const { state: next, norm, skipped } = applied(state, sums, config, { ...rates, micro }, decays);
    return { ...next, metrics: stack([norm, skipped], 0) };
  };

interface SharedOptions {
  ranks: Ranks;
  /** Micro-batches of an update, over all ranks. */
  accumulate: number;
  operands: NonNullable<CompileOptions['operands']>;
}

/** As `compileStep`. */
export function compileShared<A extends readonly unknown[]>(
  device: Device,
  name: string,
  fn: StepFunction<A>,
  { ranks, accumulate, operands }: SharedOptions,
): Step<A> {
  const sums = new Sums(ranks, device);
  let told: Told | undefined;
  let packs: Pack[] | undefined;
  let gradients: ReturnType<typeof compileGradients> | undefined;
  let update: ReturnType<typeof compileUpdate> | undefined;
  const compileGradients = (of: readonly Pack[]) =>
    device.compile(
      gradientsOf(fn, of, (found) => (told = found)),
      { name: `${name}, gradients`, operands },
    ) as unknown as ((...args: unknown[]) => Promise<{ grads: Arrays; metrics?: NDArray }>) & { free(): Promise<void> };
  const compileUpdate = (params: Arrays) =>
    device.compile(
      updateOf(told!.config, (weight) => isMatrix(weight, params[weight]!.shape)),
      { name: `${name}, update`, donate: [0] },
    );

  const run = async (...[state, ...args]: Args<A>) => {
    packs ??= packsOf(state.params);
    gradients ??= compileGradients(packs);
    const buffers = eachRole(state, (tensors) => buffersOf(tensors, packs!));
    const { params, ema } = buffers;
    const { grads, metrics } = await gradients({ params, ...(ema && { ema }) }, ...args);
    const { own, norm, skipped } = told!;
    const numbers = unwatched(metrics ? metrics.read() : Promise.resolve(new Float32Array(0)));
    const ofBatch = numbers.then((values): Metrics => Object.fromEntries(own.map((n, i) => [n, values[i]!])));
    sums.add(grads);
    const { lr, count, decay, micro } = args.at(-1) as Feed<Rates>;
    if (!micro!.last) return { state, metrics: unwatched(ofBatch) };
    update ??= compileUpdate(state.params);
    const rates = { lr, count, ...(decay !== undefined && { decay }), share: 1 / accumulate };
    const { metrics: whole, ...next } = await update(buffers, await sums.total(), rates);
    const ofUpdate = whole.read().then(([n, s]): Metrics => ({ [norm]: n!, [skipped]: s! }));
    return {
      state: eachRole(next as Trained<NDArray>, (tensors) => views(tensors, packs!)),
      metrics: unwatched(ofBatch),
      whole: unwatched(ofUpdate) as Pending,
    };
  };
  const free = async () => {
    await Promise.all([gradients?.free(), update?.free()]);
    sums.free();
  };
  return Object.assign(run, { free });
}
