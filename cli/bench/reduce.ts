/**
 * `vpae bench reduce` under mpirun: gradients from device to device through all ranks, beside Open MPI's own all-reduce of the same bytes.
 */
import type { Device } from '../../engine/runtime/device.ts';
import type { Ranks } from '../../train/ranks/ranks.ts';
import { Sums } from '../../train/ranks/sums.ts';
import { UsageError } from '../common/errors.ts';
import { draw } from '../common/table.ts';
import { together } from '../common/together.ts';
import { number } from './report.ts';

const SIZES = [2 ** 20, 2 ** 23, 2 ** 25]; // numbers
const TIMES = 5; // the median counts

interface Reduced {
  bytes: number;
  /** Device → host → Open MPI → host → device, and Open MPI alone: seconds. */
  whole: number;
  plain: number;
}

/** The median of what the slowest rank takes. */
export async function slowest(ranks: Ranks, work: () => Promise<unknown>): Promise<number> {
  const times: number[] = [];
  for (let i = 0; i <= TIMES; i++) {
    await ranks.meet();
    const from = performance.now();
    await work();
    const all = await ranks.gather(Float32Array.of(performance.now() - from));
    if (i > 0) times.push(Math.max(...all.map(([ms]) => ms!)) / 1000); // the first makes buffers
  }
  return times.sort((a, b) => a - b)[TIMES >> 1]!;
}

async function reduced(device: Device, ranks: Ranks, size: number): Promise<Reduced> {
  const own = new Float32Array(size).fill(ranks.rank + 1);
  const gradient = device.tensor(own, [size]);
  const sums = new Sums(ranks, device);
  let total: Float32Array | undefined;
  const whole = await slowest(ranks, async () => {
    sums.add({ gradient });
    const { gradient: sum } = await sums.total();
    await device.idle();
    total ??= (await sum!.read()) as Float32Array;
  });
  const expected = (ranks.size * (ranks.size + 1)) / 2;
  if (!total!.every((x) => x === expected))
    throw new Error(`[bench] ranks 1 to ${ranks.size} do not add up to ${expected}`);
  const into = new Float32Array(size);
  const plain = await slowest(ranks, () => ranks.queue((mpi) => mpi.allreduce(own, into)));
  sums.free();
  gradient.free();
  return { bytes: 4 * size, whole, plain };
}

/** @throws one line where there is one process alone */
export const benchReduce = (asJson: boolean): Promise<void> =>
  together('stopped; nothing was written', async ({ device, ranks }) => {
    if (!ranks) throw new UsageError('bench reduce is for several ranks: mpirun -n 2 vpae bench reduce');
    const rows: Reduced[] = [];
    for (const size of SIZES) rows.push(await reduced(device, ranks, size));
    if (asJson) return console.log(JSON.stringify({ ranks: ranks.size, reduced: rows }));
    const rate = (bytes: number, seconds: number): string => number(bytes / seconds / 1e9);
    console.log(
      draw(
        ['gradients, MiB', 'device to device, ms', 'GB/s', 'all-reduce alone, ms', 'GB/s'],
        rows.map(({ bytes, whole, plain }) => [
          String(bytes / 2 ** 20),
          number(1000 * whole),
          rate(bytes, whole),
          number(1000 * plain),
          rate(bytes, plain),
        ]),
      ),
    );
    console.log(
      `${ranks.size} ranks, median of ${TIMES}, the slowest rank's time; GB/s: bytes of the gradients by that time`,
    );
  });
