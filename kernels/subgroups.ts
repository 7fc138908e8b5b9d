/**
 * Kernels that say how large their subgroups are, on devices that have several sizes: AMD's and Intel's drivers take twice the smallest
 * where nobody says, with half the registers a thread. This is done to a kernel's text, so that no family knows of it.
 */
import { interned, type Caps, type Dispatch } from './kernel.ts';

const ENTRY = /@compute @workgroup_size\((\d+),/;

function sized(wgsl: string, size: number): string {
  const lines = wgsl.split('\n').filter((l) => l !== 'enable subgroups;');
  return interned(
    `enable subgroups;\nenable subgroup_size_control;\n${lines.join('\n').replace(ENTRY, `@subgroup_size(${size}) $&`)}`,
  );
}

/** @returns the dispatch itself where there is nothing to say: the device has one size, or the threads of a row are no whole subgroups */
export function atSize(d: Dispatch, { sized: several, subgroup }: Pick<Caps, 'sized' | 'subgroup'>): Dispatch {
  const across = Number(ENTRY.exec(d.wgsl)?.[1]);
  return several && subgroup && across % subgroup === 0 ? { ...d, wgsl: sized(d.wgsl, subgroup) } : d;
}
