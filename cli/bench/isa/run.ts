/** Compiles the kernels for a GPU that need not be there, in a child process, and reads what its driver prints. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AMD_GPUS, amdEnvironment, type AmdGpu } from '../../../engine/host/compilers.ts';
import { flags } from '../../../engine/host/flags.ts';
import { Child } from '../../common/child.ts';
import { kernelNumbers, type KernelNumbers } from './kernel.ts';
import { marker, type Answer, type Question } from './marks.ts';

const LIMIT_MS = 600_000;

export interface IsaReport {
  isa: AmdGpu;
  adapter: string;
  driver: string;
  kernels: KernelNumbers[];
}

/** @param keep hears of each kernel's WGSL and machine code */
export async function compileFor(
  isa: AmdGpu,
  question: Question,
  keep?: (label: string, text: string) => void,
): Promise<IsaReport> {
  const env = await amdEnvironment(isa, !flags.NO_FETCH, (line) => console.error(line));
  const dir = mkdtempSync(join(tmpdir(), 'vpae-isa-'));
  const log = join(dir, 'dump.txt');
  const child = new Child(new URL('./child', import.meta.url), { env, log });
  try {
    const { adapter, driver, kernels } = await child.ask<Answer>(question, LIMIT_MS);
    const text = readFileSync(log, 'latin1');
    const { dual } = AMD_GPUS[isa];
    return {
      isa,
      adapter,
      driver,
      kernels: kernels.map((k, i) => {
        const begin = marker(i, 'begin');
        const from = text.indexOf(begin) + begin.length;
        const dump = text.slice(from, text.indexOf(marker(i, 'end'), from));
        keep?.(k.label, `${k.wgsl}\n${dump}`);
        return kernelNumbers({ ...k, dump }, dual);
      }),
    };
  } catch (error) {
    throw new Error(`${isa}: ${(error as Error).message}${lastLine(log)}`, { cause: error });
  } finally {
    child.close();
    rmSync(dir, { recursive: true, force: true });
  }
}

const lastLine = (log: string): string => {
  const line = readFileSync(log, 'latin1').trim().split('\n').at(-1);
  return line ? `: ${line}` : '';
};
