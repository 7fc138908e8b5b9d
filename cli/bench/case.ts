/**
 * A thing that `bench` times. What it costs is known before anything is allocated, so that what does not fit or would not end is left out.
 */
import type { Device } from '../../engine/runtime/device.ts';
import { normal } from '../../engine/frontend/functional.ts';
import type { NDArray } from '../../engine/runtime/ndarray.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { isStorage } from '../../engine/frontend/ops/op.ts';
import { flatten, host, mapTree, type HostTensor } from '../../engine/frontend/tree.ts';
import { numel, storageBytes, type DType } from '../../kernels/kernel.ts';
import { leastMs, type Roofline } from './roofline.ts';
import { time, type Timed, type Times } from './clock.ts';

export interface Cost {
  flops: number;
  /** Bytes that must cross memory once. */
  traffic: number;
  /** Bytes of the program and its inputs. */
  bytes: number;
  /** Operands are f16. */
  half?: boolean;
}

export interface Opened extends Timed {
  close: () => Promise<void>;
}
export interface Case {
  name: string;
  shape: string;
  /** Absent for whole training steps, whose parts are other programs. */
  cost?: () => Promise<Cost>;
  /** Bytes that a call moves, where no ceiling is known for it. */
  moves?: number;
  open(): Promise<Opened>;
}

/** A case's times, and the bytes it has on the device at most. */
export async function measure(device: Device, c: Case): Promise<Times & { peak: number }> {
  const before = device.allocated;
  device.peak = before;
  const { close, ...timed } = await c.open();
  try {
    return { ...(await time(timed)), peak: device.peak - before };
  } finally {
    await close();
  }
}

/** A tensor to be made: filled with small normals, unless its numbers are given. */
export type Wanted = { shape: readonly number[]; dtype: DType } | HostTensor;
export const wanted = (shape: readonly number[], dtype: DType = 'f32'): Wanted => ({ shape, dtype });
const given = (w: Wanted): w is HostTensor => 'data' in w;

/** Bits of bf16 from 1/8 to 1/2, or of packed blocks, all of whose scales are finite. */
function someBits({ shape, dtype }: Wanted): Uint8Array | Uint16Array {
  if (dtype === 'bf16') return Uint16Array.from({ length: numel(shape) }, (_, i) => 0x3e00 | ((i * 37) & 0xff));
  return Uint8Array.from({ length: storageBytes(dtype, numel(shape)) }, (_, i) => (i * 37) & 0x3f);
}

/** Normals of deviation 0.1 made on the device: a large model's inputs would take minutes to draw here. */
async function fill(
  device: Device,
  args: readonly unknown[],
): Promise<{ values: unknown[]; free: () => Promise<void> }> {
  const tree = flatten<Wanted>(args);
  const { leaves } = tree;
  const drawn = (w: Wanted): boolean => !given(w) && !isStorage(w.dtype);
  const draw = device.compile(
    (key: Tensor) => leaves.filter(drawn).map((w) => normal(key, w.shape).mul(0.1).cast(w.dtype)),
    { name: 'inputs' },
  );
  const made = (await draw(host(Uint32Array.of(1, 2), [2]))) as NDArray[];
  const kept: NDArray[] = leaves.map((w) => {
    if (given(w)) return device.tensor(w.data as Float32Array, w.shape, w.dtype);
    return drawn(w) ? made.shift()! : device.tensor(someBits(w), w.shape, w.dtype);
  });
  return {
    values: tree.rebuild(kept) as unknown[],
    async free() {
      await draw.free();
      for (const x of kept) x.free();
    },
  };
}

/** A case that calls one compiled function on these arguments, trees of what is wanted. */
export function programCase(
  device: Device,
  name: string,
  shape: string,
  args: readonly unknown[],
  fn: (...args: never[]) => unknown,
): Case {
  const program = () => device.compile(fn as (...args: unknown[]) => unknown, { name });
  const leaves = flatten<Wanted>(args).leaves;
  const half = leaves.some((w) => w.dtype === 'f16');
  return {
    name,
    shape,
    async cost() {
      // Planning looks at shapes only.
      const nothing = mapTree(
        (w: Wanted): HostTensor => ({ shape: w.shape, dtype: w.dtype, data: new Float32Array() }),
        args,
      ) as unknown[];
      const { flops, traffic, bytes } = await program().plan(...(nothing as never[]));
      return {
        flops,
        traffic,
        half,
        bytes: bytes + leaves.reduce((sum, w) => sum + storageBytes(w.dtype, numel(w.shape)), 0),
      };
    },
    async open() {
      const [run, inputs] = [program(), await fill(device, args)];
      return {
        call: () => run(...(inputs.values as never[])),
        settle: () => device.idle(),
        async close() {
          await run.free();
          await inputs.free();
        },
      };
    },
  };
}

/** Kernels reach about this share of the ceilings; each case is called at least five times. */
export const EFFICIENCY = 0.2;
const CALLS = 5;

/** Why a case is left out, or what it costs. */
export async function judge(
  device: Device,
  c: Case,
  roof: Roofline,
  budgetSeconds: number,
): Promise<{ skipped: string } | { cost: Cost | undefined }> {
  try {
    const cost = await c.cost?.();
    if (!cost) return { cost };
    const seconds = (CALLS * leastMs(roof, cost)) / EFFICIENCY / 1000;
    if (cost.bytes > device.budget) return { skipped: `needs ${gib(cost.bytes)}, there are ${gib(device.budget)}` };
    if (seconds > budgetSeconds)
      return { skipped: `would take about ${seconds.toPrecision(2)} s here, over --budget ${budgetSeconds}` };
    return { cost };
  } catch (error) {
    return { skipped: (error as Error).message.split('\n')[0]! };
  }
}

const gib = (bytes: number): string => `${(bytes / 2 ** 30).toPrecision(3)} GiB`;
