/** Named parameters: how a model lists them, draws their first values, and reads them back under a prefix. */
import { fail } from '../engine/host/errors.ts';
import { linear } from '../engine/frontend/functional.ts';
import { randomElement, threefry2x32 } from '../engine/frontend/ops/random.ts';
import type { Like, Tensor } from '../engine/frontend/tensor.ts';
import { host, type HostTensor } from '../engine/frontend/tree.ts';
import { numel } from '../kernels/kernel.ts';

/** Flat, under the names of the checkpoint. */
export type Params = Readonly<Record<string, Tensor>>;
export type HostParams = Record<string, HostTensor>;

/** `uniform` lies in ±value, `normal` has the standard deviation value. */
export type Init = { readonly law: 'constant' | 'uniform' | 'normal'; readonly value: number };
interface Spec {
  readonly shape: readonly number[];
  readonly init: Init;
}
export type Specs = Record<string, Spec>;

export const zeros: Init = { law: 'constant', value: 0 };
export const ones: Init = { law: 'constant', value: 1 };
export const normal = (std: number): Init => ({ law: 'normal', value: std });
/** PyTorch's xavier_uniform_. */
export const xavier = (fanIn: number, fanOut: number): Init => ({
  law: 'uniform',
  value: Math.sqrt(6 / (fanIn + fanOut)),
});
/** PyTorch's default for layers: kaiming_uniform_ with a = √5. */
export const kaiming = (fanIn: number): Init => ({ law: 'uniform', value: 1 / Math.sqrt(fanIn) });

/** Puts `specs` under a prefix. */
export const under = (prefix: string, specs: Specs): Specs =>
  Object.fromEntries(Object.entries(specs).map(([name, spec]) => [`${prefix}.${name}`, spec]));

/** Weight [out, in] and bias of a linear layer; Xavier unless told otherwise. */
export const linearSpecs = (inputs: number, outputs: number, weight: Init = xavier(inputs, outputs)): Specs => ({
  weight: { shape: [outputs, inputs], init: weight },
  bias: { shape: [outputs], init: zeros },
});

/** Gain and bias of a layer norm. */
export const normSpecs = (dim: number): Specs => ({
  weight: { shape: [dim], init: ones },
  bias: { shape: [dim], init: zeros },
});

/** Name → shape. */
export const shapesOf = (specs: Specs): Record<string, readonly number[]> =>
  Object.fromEntries(Object.entries(specs).map(([name, { shape }]) => [name, shape]));

/** n numbers decided by (seed, name) alone, by the engine's own generator: standard normals, or uniform in [0, 1). */
export function draw(dist: 'normal' | 'uniform', seed: number, name: string, n: number): Float32Array<ArrayBuffer> {
  let hash = 0x811c9dc5; // FNV-1a
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  const [k0, k1] = threefry2x32(seed >>> 0, Math.floor(seed / 2 ** 32), hash >>> 0, 0);
  const out = new Float32Array(n);
  for (let i = 0; i < n; i++) out[i] = randomElement(dist, k0, k1, i, 0);
  return out;
}

function first({ shape, init: { law, value } }: Spec, seed: number, name: string): HostTensor {
  const n = numel(shape);
  if (law === 'constant') return host(new Float32Array(n).fill(value), shape);
  const data = draw(law, seed, name, n);
  return host(data.map(law === 'normal' ? (z) => z * value : (u) => (2 * u - 1) * value), shape);
}

/** What may be stored in half precision: vectors and modulations are small, and matter more. */
export const isMatrix = (name: string, shape: readonly number[]): boolean =>
  name.endsWith('.weight') && shape.length > 1;

/** First values, decided by (seed, name) alone. */
export const materialise = (specs: Specs, seed: number): HostParams =>
  Object.fromEntries(Object.entries(specs).map(([name, spec]) => [name, first(spec, seed, name)]));

/** Low-rank additions to some of the linears: `name.lora_A.weight` [r, in], `name.lora_B.weight` [out, r], times `scale`. */
interface Adapter {
  readonly params: Params;
  readonly scale: Like;
}

/** Parameters seen from one module, `scope.scope('blocks').scope(0).scope('self_attn')`. */
export class Scope {
  readonly params: Params;
  readonly prefix: string;
  readonly adapters: readonly Adapter[];

  constructor(params: Params, prefix = '', adapters: readonly Adapter[] = []) {
    this.params = params;
    this.prefix = prefix;
    this.adapters = adapters;
  }

  static of(params: Params | Scope): Scope {
    return params instanceof Scope ? params : new Scope(params);
  }

  private name(name: string): string {
    return this.prefix ? `${this.prefix}.${name}` : name;
  }

  scope(name: string | number): Scope {
    return new Scope(this.params, this.name(String(name)), this.adapters);
  }

  has(name: string): boolean {
    return this.name(name) in this.params;
  }

  get(name: string): Tensor {
    const full = this.name(name);
    return (
      this.params[full] ?? fail('params', `no parameter "${full}" among the ${Object.keys(this.params).length} given`)
    );
  }

  /** x Wᵀ + b, and what the adapters add to it. The kernel of a convolution over patches is a matrix [out, in of a patch]. */
  linear(name: string, x: Tensor): Tensor {
    const weight = this.get(`${name}.weight`);
    const matrix = weight.shape.length > 2 ? weight.reshape([weight.shape[0]!, -1]) : weight;
    let y = linear(x, matrix, this.has(`${name}.bias`) ? this.get(`${name}.bias`) : undefined);
    for (const { params, scale } of this.adapters) {
      const down = params[`${this.name(name)}.lora_A.weight`];
      const up = params[`${this.name(name)}.lora_B.weight`];
      if (down && up) y = y.add(linear(linear(x, down).mul(scale), up));
    }
    return y;
  }

  /** Layer norm over the last axis with gain and bias. */
  layerNorm(name: string, x: Tensor, eps: number): Tensor {
    return x
      .layerNorm(eps)
      .mul(this.get(`${name}.weight`))
      .add(this.get(`${name}.bias`));
  }

  /** RMS norm over the last axis with gain. */
  rmsNorm(name: string, x: Tensor, eps: number): Tensor {
    return x.rmsNorm(eps).mul(this.get(`${name}.weight`));
  }
}
