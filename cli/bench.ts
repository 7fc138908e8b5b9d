/** `vpae bench`: how fast this machine's adapter runs our kernels and training steps. */
import type { CommandModule } from 'yargs';
import type { Device } from '../engine/device.ts';
import { kernelCases, stepCases, type Case } from './benchcases.ts';
import { matmulOfGpuJs } from './benchpeer.ts';
import { json, preset, presetOf, type Args } from './options.ts';
import { roofline, type Roofline } from './roofline.ts';
import { session } from './session.ts';
import { draw } from './table.ts';

const options = {
  ...preset, ...json,
  vs: { choices: ['gpu.js'] as const, describe: 'run its matmul on the same numbers too' },
} as const;
type BenchArgs = Args<typeof options> & { what: 'kernels' | 'steps' | 'all' };

interface Result {
  name: string;
  shape: string;
  /** The first call: tracing, compiling, running. */
  firstMs: number;
  /** Median of the samples, a call. */
  ms: number;
  /** Half the distance between the quartiles of the samples, as a share of the median. */
  spread: number;
  gflops: number;
  gbs: number;
  /** Of the time that the roofline allows. Absent for whole steps. */
  share?: number;
}

const SAMPLES = 9;
const FEW = 3; // samples where a call takes more than a second
const SAMPLE_MS = 40; // a sample repeats short calls until it is this long

/** Times a call that may only have been queued: a sample ends when the device is idle. */
async function time(device: Device, call: () => Promise<unknown>): Promise<Pick<Result, 'firstMs' | 'ms' | 'spread'>> {
  const sample = async (calls: number): Promise<number> => {
    const start = performance.now();
    for (let i = 0; i < calls; i++) await call();
    await device.idle();
    return (performance.now() - start) / calls;
  };
  const firstMs = await sample(1);
  const once = await sample(1);
  const [samples, calls] = [once > 1000 ? FEW : SAMPLES, Math.max(1, Math.ceil(SAMPLE_MS / once))];
  const times: number[] = [];
  for (let i = 0; i < samples; i++) times.push(await sample(calls));
  times.sort((a, b) => a - b);
  const at = (share: number): number => times[Math.round(share * (samples - 1))]!;
  return { firstMs, ms: at(0.5), spread: (at(0.75) - at(0.25)) / 2 / at(0.5) };
}

async function measure(device: Device, c: Case, roof?: Roofline): Promise<Result> {
  const { flops, traffic, call, close } = await c.open();
  try {
    const times = await time(device, call);
    const [gflops, gbs] = [flops / times.ms / 1e6, traffic / times.ms / 1e6];
    const least = roof && Math.max(flops / roof.gflops, traffic / roof.gbs) / 1e6;
    return { name: c.name, shape: c.shape, ...times, gflops, gbs, ...(least && { share: least / times.ms }) };
  } finally {
    await close();
  }
}

const number = (x: number): string => (x < 100 ? x.toPrecision(3) : x.toFixed(0));

function line(r: Result): string[] {
  const rate = r.gflops >= 1 ? `${number(r.gflops)} GFLOP/s` : '–';
  return [r.name, r.shape, `${number(r.ms)} ± ${(100 * r.spread).toFixed(0)} %`, rate, r.gbs ? `${number(r.gbs)} GB/s` : '–', r.share ? `${(100 * r.share).toFixed(0)} %` : '–', number(r.firstMs)];
}

async function bench(args: BenchArgs): Promise<void> {
  const p = presetOf(args);
  await session('stopped; nothing was written', async ({ device, signal }) => {
    const software = device.info.kind === 'software' ? 'software adapter: these are numbers of a CPU' : undefined;
    const roof = args.what === 'steps' ? undefined : await roofline(device);
    const cases = [...(args.what === 'steps' ? [] : kernelCases(device, p)), ...(args.what === 'kernels' ? [] : stepCases(device, p))];
    const results: Result[] = [];
    for (const c of cases) {
      signal.throwIfAborted();
      console.error(`${c.name} ${c.shape} …`);
      results.push(await measure(device, c, roof));
    }
    const peer = args.vs && await matmulOfGpuJs(device, 512);
    if (args.json) {
      console.log(JSON.stringify({ adapter: device.info.name, driver: device.info.driver, kind: device.info.kind, tier: device.caps.tier, roofline: roof, results, peer }));
      return;
    }
    console.log(`${device.info.name}, ${device.info.driver}, tier ${device.caps.tier}${software ? `; ${software}` : ''}`);
    if (roof) console.log(`roofline, measured now: ${number(roof.gflops)} GFLOP/s of multiply-add in registers, ${number(roof.gbs)} GB/s of copying`);
    console.log(draw(['', 'shape', 'ms a call', 'arithmetic', 'memory', 'of roofline', 'first call, ms'], results.map(line)));
    if (peer) {
      console.log(`gpu.js ${peer.version} (mode ${peer.mode}), matmul ${peer.size}³: ${number(peer.ms)} ms against our ${number(peer.ourMs)} ms, `
        + `ours is ${number(peer.ms / peer.ourMs)} times as fast; largest difference of the answers ${peer.difference.toExponential(1)}`);
    }
  });
}

const command: CommandModule<object, BenchArgs> = {
  command: 'bench [what]',
  describe: 'speed of kernels and training steps on this machine, beside its measured roofline',
  builder: (y) => y
    .positional('what', { choices: ['kernels', 'steps', 'all'] as const, default: 'all' as const, describe: 'kernels one by one, or whole training steps of the preset' })
    .options(options)
    .example('$0 bench kernels --vs gpu.js', 'the kernels, and gpu.js on the same matmul')
    .example('$0 bench steps --json', 'for scripts'),
  handler: bench,
};
export default command;
