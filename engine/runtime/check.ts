/** A run kernel by kernel: `NANCHECK=1` stops at the first non-finite value, `VALIDATE=1` at the first that differs from the oracle. */
import type { Device } from './device.ts';
import { EngineError } from '../host/errors.ts';
import { flags } from '../host/flags.ts';
import { type Group } from '../compiler/fuse.ts';
import { keyOf, printType, typeOf, type Value } from '../frontend/graph.ts';
import { isNarrow } from '../frontend/ops/op.ts';
import { reference } from '../frontend/oracle.ts';
import type { HostTensor } from '../frontend/tree.ts';

export interface Checked {
  group: Group;
  label: string;
  spanOf: (v: Value) => { buffer: GPUBuffer; offset: number; bytes: number };
  encode: (pass: GPUComputePassEncoder) => void;
}

/** Largest difference from the float64 reference that f32 may show, against the largest value. */
const TOLERANCE = 1e-3;

export async function checkRun(device: Device, program: string, kernels: readonly Checked[]): Promise<void> {
  for (const { group, label, spanOf, encode } of kernels) {
    const read = async (v: Value): Promise<HostTensor> => {
      const { buffer, offset, bytes } = spanOf(v);
      const bits = await device.readBuffer(buffer, offset, bytes);
      const { shape, dtype } = typeOf(v);
      return {
        shape,
        dtype,
        data: dtype === 'u32' ? new Uint32Array(bits) : dtype === 'i32' ? new Int32Array(bits) : new Float32Array(bits),
      };
    };
    const comparable = flags.VALIDATE && [...group.leaves, ...group.roots].every((v) => !isNarrow(typeOf(v).dtype));
    const known = new Map<string, HostTensor>(); // read before: a kernel may write over what it reads
    if (comparable) for (const v of group.leaves) known.set(keyOf(v), await read(v));
    const encoder = device.gpu.createCommandEncoder();
    const pass = encoder.beginComputePass();
    encode(pass);
    pass.end();
    device.gpu.queue.submit([encoder.finish()]);
    for (const root of group.roots) {
      const { site, id } = root.node;
      const what = `${program}: %${id} ${printType(typeOf(root))}`;
      if (typeOf(root).dtype !== 'f32') continue;
      const got = (await read(root)).data;
      const bad = got.findIndex((x) => !Number.isFinite(x));
      if (flags.NANCHECK && bad >= 0)
        throw new EngineError(root.node.op, `${what} has ${got[bad]} at element ${bad} (${label})`, site);
      if (!comparable) continue;
      const want = Array.from(expected(root, known).data);
      const scale = want.reduce((m, x) => Math.max(m, Math.abs(x)), 1e-6);
      const worst = want.findIndex((x, i) => !(Math.abs(x - got[i]!) <= TOLERANCE * scale));
      if (worst >= 0)
        throw new EngineError(
          root.node.op,
          `${what} is ${got[worst]} at element ${worst}, the oracle says ${want[worst]} (${label})`,
          site,
        );
    }
  }
}

/** The reference's value of v, down to the leaves that are known. */
function expected(v: Value, known: Map<string, HostTensor>): HostTensor {
  const found = known.get(keyOf(v));
  if (found) return found;
  reference(
    v.node,
    v.node.inputs.map((x) => expected(x, known)),
  ).forEach((t, out) => known.set(keyOf({ node: v.node, out }), t));
  return known.get(keyOf(v))!;
}
