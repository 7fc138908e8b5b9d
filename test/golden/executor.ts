/** Two ways to run one traced function on host tensors: the float64 oracle, and the compiled program on a device. */
import type { Caps } from '../../kernels/kernel.ts';
import type { CompileOptions } from '../../engine/compiler/stages.ts';
import type { Device } from '../../engine/runtime/device.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { evaluate } from '../../engine/frontend/oracle.ts';
import { opOf } from '../../engine/frontend/ops/index.ts';
import { typeOf } from '../../engine/frontend/graph.ts';
import { trace } from '../../engine/frontend/trace.ts';
import { flatten, type HostTensor } from '../../engine/frontend/tree.ts';

/** A tree of host tensors as the function sees it. */
export type Traced<T> = T extends HostTensor ? Tensor : T extends object ? { [K in keyof T]: Traced<T[K]> } : T;

export interface Executor {
  readonly name: string;
  /** Of matrix products. */
  readonly operands: NonNullable<CompileOptions['operands']>;
  /** Where weights may lie as their files have them. */
  readonly device?: Device;
  run<T>(fn: (inputs: Traced<T>) => Record<string, Tensor>, inputs: T): Promise<Record<string, HostTensor>>;
}

/** Thrown by an executor that leaves a case to the other one. */
export class Skip extends Error {}

/** Twenty seconds of the oracle. */
const ORACLE_FLOPS = 3e9;

export const oracle: Executor = {
  name: 'oracle (float64)',
  operands: 'f32',
  run(fn, inputs) {
    const flat = flatten<HostTensor>(inputs);
    const types = flat.rebuild(flat.leaves.map(({ shape, dtype }) => ({ shape, dtype })));
    const { graph, outputs, outTree } = trace(fn, [types]);
    const flops = graph.nodes.reduce((sum, n) => sum + opOf(n.op).flops(n.inputs.map(typeOf), n.outs, n.attrs), 0);
    if (flops > ORACLE_FLOPS) throw new Skip(`${(flops / 1e9).toFixed(1)} GFLOP are too many for the oracle`);
    return Promise.resolve(outTree.rebuild(evaluate(graph, outputs, flat.leaves)) as Record<string, HostTensor>);
  },
};

/** Opens the default device, or one with other capabilities. @throws if `operands` are f16 and the adapter has none */
export async function deviceExecutor(
  operands: Executor['operands'] = 'f32',
  caps: Partial<Caps> = {},
): Promise<Executor> {
  const { open } = await import('../../engine/runtime/device.ts');
  const opened = await open();
  const device = Object.assign(Object.create(opened) as typeof opened, { caps: { ...opened.caps, ...caps } });
  if (operands !== 'f32' && !device.caps.f16) throw new Error(`${device.info.name} has no f16`);
  return {
    name: operands === 'f32' ? device.info.name : `${device.info.name}, operands in ${operands}`,
    operands,
    device,
    async run(fn, inputs) {
      const program = device.compile(fn as (inputs: unknown) => Record<string, Tensor>, { operands });
      try {
        const out = await program(inputs as never);
        const read: Record<string, HostTensor> = {};
        for (const [name, nd] of Object.entries(out))
          read[name] = { shape: nd.shape, dtype: nd.dtype, data: await nd.read() };
        return read;
      } finally {
        await program.free();
      }
    },
  };
}
