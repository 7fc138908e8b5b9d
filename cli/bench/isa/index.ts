/** `vpae bench --isa`: what a GPU's own compiler makes of the kernels, on a machine that has no such GPU. */
import { readFileSync } from 'node:fs';
import { AMD_GPUS, type AmdGpu } from '../../../engine/host/compilers.ts';
import { writeWhole } from '../../../train/loop/files.ts';
import type { JobName } from '../../../train/planning/jobs.ts';
import { UsageError } from '../../common/errors.ts';
import { willWrite } from '../../common/files.ts';
import { subjectsOf, type ReleasedArgs } from '../../common/released.ts';
import { draw } from '../../common/table.ts';
import { share, type KernelNumbers } from './kernel.ts';
import { RELEASED_JOBS } from '../released.ts';
import { compileFor, type IsaReport } from './run.ts';

export const isaOptions = {
  isa: {
    choices: Object.keys(AMD_GPUS) as AmdGpu[],
    describe:
      'in place of the cases: compile every kernel, or all that `steps` of a preset launch, for this GPU, which need not be there, and count registers and instructions (Linux; fetches a driver once)',
  },
  only: { type: 'string', describe: 'of --isa: kernels whose name or label matches this regular expression' },
  asm: { type: 'string', describe: 'of --isa: print WGSL and machine code of the kernels that match, too' },
} as const;

interface IsaArgs extends ReleasedArgs {
  what: string;
  job?: JobName | undefined;
  only?: string | undefined;
  asm?: string | undefined;
  save?: string | undefined;
  against?: string | undefined;
  json?: boolean | undefined;
}

function readTable(path: string, isa: AmdGpu): IsaReport {
  let table: Partial<IsaReport>;
  try {
    table = JSON.parse(readFileSync(path, 'utf8')) as Partial<IsaReport>;
  } catch (error) {
    throw new Error(`--against ${path}: ${(error as Error).message}`, { cause: error });
  }
  if (table.isa !== isa || !Array.isArray(table.kernels))
    throw new Error(`--against ${path}: it is no table of \`vpae bench --isa ${isa} --save\``);
  return table as IsaReport;
}

const regex = (name: string, text: string): RegExp => {
  try {
    return new RegExp(text, 'i');
  } catch (error) {
    throw new UsageError(`--${name}: ${(error as Error).message}`);
  }
};

const percent = (x: number | undefined): string => (x === undefined ? '–' : `${Math.round(100 * x)}`);

function row(k: KernelNumbers, before: KernelNumbers | undefined): string[] {
  const was = (now: string, old: string | undefined): string =>
    old === undefined || old === now ? now : `${old} → ${now}`;
  const cells = (n: KernelNumbers): string[] => {
    const { hot, panel } = n;
    return [
      `${n.vgprs}${n.spills || n.scratch ? ` + ${n.spills} spilled` : ''}`,
      `${n.workgroupBytes}`,
      `${n.waves}`,
      hot ? `${hot.wmma || hot.fma + 2 * hot.packed}/${hot.valu}` : '–',
      percent(n.hotShare),
      percent(panel && share(panel)),
      hot ? [hot.shared128, hot.shared64, hot.shared32, hot.shared16].join('/') : '–',
      panel ? [panel.load128, panel.load64, panel.load32, panel.load16].join('/') : '–',
      percent(n.bound),
    ];
  };
  if (k.error !== undefined) return [k.label, k.error];
  const old = before && cells(before);
  return [k.label, ...cells(k).map((c, i) => was(c, old?.[i]))];
}

const COLUMNS = [
  'kernel',
  'registers',
  'memory, B',
  'subgroups',
  'hot loop',
  '%',
  'panel, %',
  'reads',
  'loads',
  'peak, %',
];

export async function isa(gpu: AmdGpu, args: IsaArgs): Promise<void> {
  const { only = '.', asm, save, against, json, what, job } = args;
  const before = against === undefined ? undefined : readTable(against, gpu);
  if (save !== undefined) willWrite(save);
  regex('only', only);
  const shown = asm === undefined ? undefined : regex('asm', asm);
  if (what === 'steps') subjectsOf(args)([]); // tells here what is wrong with them
  const steps = what === 'steps' && { ...args, jobs: job ? [job] : RELEASED_JOBS };
  const report = await compileFor(gpu, { only, ...(steps && { steps }) }, (label, text) => {
    if (shown?.test(label)) console.log(`// ${label}\n${text}`);
  });
  if (save !== undefined) writeWhole(save, `${JSON.stringify(report, undefined, 1)}\n`);
  if (json) return console.log(JSON.stringify(report));
  const old = new Map(before?.kernels.map((k) => [k.label, k]));
  console.log(
    `${gpu} (${AMD_GPUS[gpu].what}) by ${report.driver}: ${report.kernels.length} kernels compiled, none run`,
  );
  console.log(
    draw(
      COLUMNS,
      report.kernels.map((k) => row(k, old.get(k.label))),
    ),
  );
  console.log(
    [
      'memory: of a workgroup; subgroups: that a SIMD holds at a time; hot loop: FMAs, or matrix instructions, of all that take a slot of the vector unit.',
      "%: FMAs for 100 slots (RDNA3 pairs them, so up to 200), or the matrix unit's part of the cycles; panel: with staging.",
      'reads: of workgroup memory in the hot loop, loads: of storage in a panel, of 128/64/32/16 bits. peak: at most, as issue and workgroup memory allow; nothing was timed.',
    ].join('\n'),
  );
}
