/**
 * A stack of equal blocks as one compiled program that runs once a block, so that it compiles once and the device may hold the
 * weights of one or two of them instead of all.
 */
import type { CompiledFunction, CompileOptions, Feed } from '../engine/runtime/compile.ts';
import type { Device } from '../engine/runtime/device.ts';
import type { NDArray } from '../engine/runtime/ndarray.ts';
import type { Tensor } from '../engine/frontend/tensor.ts';
import { uploadWeights, type Placement } from './files/upload.ts';
import type { Weights } from './files/weights.ts';
import { Scope, type Params } from './params.ts';

export type BlockWeights = Readonly<Record<string, NDArray>>;

/** Where the weights of block `i` come from, under names of its own, and what happens to them once it has run. */
export interface BlockSource {
  fetch(i: number): Promise<BlockWeights>;
  release(weights: BlockWeights): void;
}

/** Blocks `prefix.0`, `prefix.1`, … read from files when their turn comes and freed after it. @param placement as stored unless given */
export const storedBlocks = (
  device: Device,
  weights: Weights,
  prefix: string,
  placement: Placement = {},
): BlockSource => ({
  async fetch(i) {
    const own = `${prefix}.${i}.`;
    const names = [...weights.entries.keys()].filter((name) => name.startsWith(own));
    const read = await uploadWeights(device, weights, { names, ...placement });
    return Object.fromEntries(Object.entries(read).map(([name, t]) => [name.slice(own.length), t]));
  },
  release(read) {
    for (const t of Object.values(read)) t.free();
  },
});

export interface RunOptions {
  /** Told after every block. */
  onProgress?: ((done: number, total: number) => void) | undefined;
  signal?: AbortSignal | undefined;
}

/** `C` is what every block is told beside its tokens. */
export class BlockStack<C> {
  private readonly device: Device;
  private readonly program: CompiledFunction<[{ x: Tensor }, Params, C], { x: Tensor }>;

  constructor(
    device: Device,
    block: (s: Scope, x: Tensor, context: C) => Tensor,
    options: Pick<CompileOptions, 'name' | 'operands' | 'onRanges'>,
  ) {
    this.device = device;
    this.program = device.compile(
      ({ x }: { x: Tensor }, params: Params, context: C) => ({ x: block(new Scope(params), x, context) }),
      { donate: [0], ...options },
    );
  }

  /** x through the first `count` blocks, in its own place. While one computes, the next one's weights are fetched. */
  async run(
    x: NDArray,
    context: Feed<C>,
    count: number,
    source: BlockSource,
    { onProgress, signal }: RunOptions = {},
  ): Promise<void> {
    let ahead: Promise<BlockWeights> | undefined;
    try {
      for (let i = 0; i < count; i++) {
        const weights = await (ahead ?? source.fetch(i));
        ahead = undefined;
        try {
          signal?.throwIfAborted();
          await this.program({ x }, weights, context);
          if (i + 1 < count) ahead = source.fetch(i + 1);
          ahead?.catch(() => {}); // told when it is awaited
          await this.device.idle();
        } finally {
          source.release(weights);
        }
        onProgress?.(i + 1, count);
      }
    } finally {
      await ahead?.then(
        (weights) => source.release(weights),
        () => {},
      );
    }
  }

  /** Gives back the program's memory. */
  free(): Promise<void> {
    return this.program.free();
  }
}
