/**
 * Gradients of all ranks, added up: device → host → the rank that adds a part → all hosts → device. Each rank adds a part of every tensor,
 * in the order of the micro-batches, as one process alone would: the same bits come out whatever the number of ranks.
 */
import type { Device } from '../../engine/runtime/device.ts';
import type { NDArray } from '../../engine/runtime/ndarray.ts';
import { unwatched } from '../loop/pending.ts';
import type { Ranks } from './ranks.ts';

/** Parts begin where a kernel may bind. */
const ALIGNED = 64;

/** Numbers of each rank's part of `size`. */
export function partsOf(size: number, ranks: number): number[] {
  const each = Math.ceil(size / ranks / ALIGNED) * ALIGNED;
  return Array.from({ length: ranks }, (_, i) => Math.max(0, Math.min(each, size - i * each)));
}

/** A tensor on its way. */
interface Way {
  counts: readonly number[];
  /** This rank's part of the sum so far. */
  sum: Float32Array;
  /** The whole sum, and where it lies on the device. */
  whole: Float32Array;
  total: NDArray;
}

export class Sums {
  private readonly ranks: Ranks;
  private readonly device: Device;
  private readonly ways = new Map<string, Way>();
  /** Parts of all ranks, one behind the other; one tensor at a time. */
  private received = new Float32Array(0);

  constructor(ranks: Ranks, device: Device) {
    this.ranks = ranks;
    this.device = device;
  }

  /** Adds a micro-batch of every rank; what it takes of `grads` is copied before it returns. */
  add(grads: Readonly<Record<string, NDArray>>): void {
    const { rank, size } = this.ranks;
    const read = Object.entries(grads).map(([name, g]) => ({ name, g, bits: unwatched(g.bits()) }));
    void this.ranks.queue((mpi) => mpi.meet());
    for (const { name, g, bits } of read) {
      const way = this.wayOf(name, g);
      const { counts, sum } = way;
      void this.ranks.queue(async (mpi) => {
        const own = new Float32Array(await bits, 0, g.size);
        if (this.received.length < sum.length * size) this.received = new Float32Array(sum.length * size);
        await mpi.exchange(own, counts, this.received, counts[rank]!);
        for (let i = 0; i < size; i++) await mpi.add(this.received.subarray(i * sum.length, (i + 1) * sum.length), sum);
      });
    }
  }

  /** The sums on the device, good until the next call. From here on they begin at nothing. */
  async total(): Promise<Record<string, NDArray>> {
    const all = Array.from(this.ways.values(), ({ counts, sum, whole, total }) =>
      this.ranks.queue(async (mpi) => {
        await mpi.gather(sum, whole, counts);
        this.device.write(total.buffer, total.offset, whole, 'f32');
        sum.fill(0);
      }),
    );
    await Promise.all(all);
    return Object.fromEntries(Array.from(this.ways, ([name, { total }]) => [name, total]));
  }

  free(): void {
    for (const { total } of this.ways.values()) total.free();
    this.ways.clear();
  }

  private wayOf(name: string, { size, shape }: NDArray): Way {
    let way = this.ways.get(name);
    if (!way) {
      const counts = partsOf(size, this.ranks.size);
      way = {
        counts,
        sum: new Float32Array(counts[this.ranks.rank]!),
        whole: new Float32Array(size),
        total: this.device.empty(shape),
      };
      this.ways.set(name, way);
    }
    return way;
  }
}
