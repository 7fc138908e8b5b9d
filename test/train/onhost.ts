/** Runs functions of tensors in float64 on the host, and makes small networks and batches for the tests of the losses. */
import { evaluate } from '../../engine/frontend/oracle.ts';
import { trace } from '../../engine/frontend/trace.ts';
import { flatten, host, mapTree, type HostTensor } from '../../engine/frontend/tree.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { numel } from '../../kernels/kernel.ts';
import type { HostParams } from '../../model/params.ts';
import { initDiT } from '../../model/wan/dit.ts';
import { conditioner, ditConfigOf, latentShape, stackRows } from '../../train/methods/conditions.ts';
import { loadPreset } from '../../train/presets/index.ts';
import { Stream } from '../../train/loop/rng.ts';

type OnHost<T> = T extends Tensor ? HostTensor : T extends object ? { [K in keyof T]: OnHost<T[K]> } : T;
type Traced<T> = T extends HostTensor ? Tensor : T extends object ? { [K in keyof T]: Traced<T[K]> } : T;

/** Calls `fn` with the tensors of `args`, trees of them, in float64. */
export function onHost<A extends readonly unknown[], R>(args: [...A], fn: (...args: Traced<A>) => R): OnHost<R> {
  const { graph, outputs, outTree } = trace(fn as (...a: never[]) => unknown, args);
  return outTree.rebuild(evaluate(graph, outputs, flatten<HostTensor>(args).leaves)) as OnHost<R>;
}

export const draw = (shape: readonly number[], role: string, std = 1): HostTensor => {
  const random = new Stream(7, 0, role);
  return host(
    Float32Array.from({ length: numel(shape) }, () => std * random.normal()),
    shape,
  );
};

/** Relative distance in the L2 norm. */
export const close = (a: HostTensor, b: HostTensor): number => {
  let difference = 0;
  let size = 0;
  a.data.forEach((x, i) => {
    difference += (x - b.data[i]!) ** 2;
    size += b.data[i]! ** 2;
  });
  return Math.sqrt(difference / Math.max(size, 1e-300));
};

export const preset = loadPreset('digits-test');
export const dit = ditConfigOf(preset);
export const latent = [2, ...latentShape(preset)];

/** Weights in which no layer is zero, so that every path carries a gradient. */
export const weights = (seed: number, config = dit) =>
  mapTree(
    (t: HostTensor) => {
      const random = new Stream(seed, t.data.length, 'weights');
      return host(
        Float32Array.from(t.data, (x) => x + 0.05 * random.normal()),
        t.shape,
      );
    },
    initDiT(config, seed),
  );

/**
 * The derivative of f at `params` along a random direction, by central differences and by the gradient.
 * @param f a function of weights in float64
 */
export function directional(
  params: HostParams,
  grads: Record<string, HostTensor>,
  f: (moved: HostParams) => number,
): { slope: number; along: number } {
  const h = 1e-5;
  const directions = mapTree((t: HostTensor) => draw(t.shape, `direction ${t.data.length}`), params);
  const moved = (by: number): HostParams =>
    mapTree(
      (t: HostTensor, d: HostTensor) =>
        host(
          Float64Array.from(t.data, (x, i) => x + by * d.data[i]!),
          t.shape,
        ),
      params,
      directions,
    );
  let along = 0;
  for (const [name, d] of Object.entries(directions))
    d.data.forEach((x, i) => {
      along += x * grads[name]!.data[i]!;
    });
  return { slope: (f(moved(h)) - f(moved(-h))) / (2 * h), along };
}

/** Two samples of a preset. */
export const batch = (p = preset) => {
  const { size } = p.data;
  const frame = stackRows(
    [draw([size * size], 'frame 0').data as Float32Array, draw([size * size], 'frame 1').data as Float32Array],
    [1, size, size],
  );
  return {
    x0: draw(latent, 'x0'),
    c: conditioner(p).condition(['a 3 moving up', 'a 7 moving down-left'], frame, draw(latent, 'image')),
  };
};
