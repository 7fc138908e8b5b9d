/** The child of run.ts: compiles kernels for the adapter that the environment names, and runs none of them. Markers on stderr stand between the driver's dumps. */
import { writeSync } from 'node:fs';
import { analyse } from '../../../engine/compiler/stages.ts';
import { flatten } from '../../../engine/frontend/tree.ts';
import type { TensorType } from '../../../engine/frontend/graph.ts';
import { open } from '../../../engine/runtime/device.ts';
import { serve } from '../../common/child.ts';
import { isaCases, type IsaCase } from './cases.ts';
import type { Compiled } from './kernel.ts';
import { marker, type Answer } from './marks.ts';

const STDERR = 2;

const threadsOf = (wgsl: string): number =>
  /@workgroup_size\((.*?)\)/
    .exec(wgsl)![1]!
    .split(',')
    .reduce((product, n) => product * Number(n), 1);

serve(async ({ only }: { only: string }): Promise<Answer> => {
  const device = await open();
  const pattern = new RegExp(only, 'i');
  const seen = new Set<string>();
  const kernels: Omit<Compiled, 'dump'>[] = [];
  const dispatches = (c: IsaCase) => {
    const args = c.inputs.map((w) => flatten<TensorType>({ shape: w.shape, dtype: w.dtype }));
    const call = { name: c.name, fn: c.fn as (...x: unknown[]) => unknown, args, fromHost: args.map(() => false) };
    const stages = analyse(call, device.caps, c.operands ? { operands: c.operands } : {});
    return stages.lowered.flatMap((l) => l.launch.dispatches);
  };
  for (const c of isaCases(device.caps)) {
    for (const { label, wgsl, params } of dispatches(c)) {
      const name = `${c.name}, ${c.text}`;
      if (seen.has(wgsl) || !(pattern.test(name) || pattern.test(label))) continue;
      seen.add(wgsl);
      writeSync(STDERR, marker(kernels.length, 'begin'));
      const error = await device.pipeline(wgsl, label).then(
        () => undefined,
        (e: unknown) => (e as Error).message.split('\n')[0]!,
      );
      writeSync(STDERR, marker(kernels.length, 'end'));
      kernels.push({ name, label, threads: threadsOf(wgsl), wgsl, params, ...(error !== undefined && { error }) });
    }
  }
  return { adapter: device.info.name, driver: device.info.driver, kernels };
});
