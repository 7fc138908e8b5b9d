/**
 * `vpae bench scale`: updates whose arithmetic is a sleep, on 1, 2 and 4 ranks of this machine, so that what is measured is the transport;
 * the model of an update's time beside it, and what that says of 8 GPUs over a network.
 */
import { spawn } from 'node:child_process';
import process from 'node:process';
import { open, type Device } from '../../engine/runtime/device.ts';
import { updateSeconds, type Rates } from '../../train/ranks/model.ts';
import { launchedBy } from '../../train/ranks/mpi.ts';
import type { Ranks } from '../../train/ranks/ranks.ts';
import { Sums } from '../../train/ranks/sums.ts';
import { draw } from '../common/table.ts';
import { together } from '../common/together.ts';
import { slowest } from './reduce.ts';
import { number } from './report.ts';

const RANKS = [1, 2, 4];
const UPDATE = { accumulate: 4, bytes: 2 ** 24, compute: 0.5 };
/** A model of 1.3 B weights, all trained, whose micro-batch takes a second. */
const LARGE = { ranks: 8, accumulate: 8, bytes: 4 * 1.42e9, compute: 1 };
const GBITS = [25, 100, 400];

/** An update as measured, and as its parts say. */
interface Scaled {
  ranks: number;
  seconds: number;
  /** By the model, and the rates it was given; not of one process alone. */
  model?: number;
  rates?: Rates;
}

const sleep = (): Promise<void> => new Promise((done) => setTimeout(done, 1000 * UPDATE.compute));

/** Rates of each part of the way by itself. */
async function ratesOf(device: Device, ranks: Ranks, size: number): Promise<Rates> {
  const host = new Float32Array(size);
  const tensor = device.tensor(host, [size]);
  const [own, others] = [size / ranks.size, (4 * size * (ranks.size - 1)) / ranks.size];
  const parts = Array<number>(ranks.size).fill(own);
  const into = new Float32Array(size);
  const rates = {
    read: (4 * size) / (await slowest(ranks, () => tensor.bits())),
    write:
      (4 * size) /
      (await slowest(ranks, async () => {
        device.write(tensor.buffer, tensor.offset, host, 'f32');
        await device.idle();
      })),
    link: others / (await slowest(ranks, () => ranks.queue((mpi) => mpi.exchange(host, parts, into, own)))),
    add: (4 * size) / (await slowest(ranks, () => ranks.queue((mpi) => mpi.add(host, into)))),
  };
  tensor.free();
  return rates;
}

async function scaled(device: Device, ranks: Ranks): Promise<Scaled> {
  const size = UPDATE.bytes / 4;
  const gradient = device.tensor(new Float32Array(size), [size]);
  const sums = new Sums(ranks, device);
  const seconds = await slowest(ranks, async () => {
    for (let i = 0; i < UPDATE.accumulate; i += ranks.size) {
      await sleep();
      sums.add({ gradient });
    }
    await sums.total();
    await device.idle();
  });
  sums.free();
  gradient.free();
  const rates = await ratesOf(device, ranks, size);
  return { ranks: ranks.size, seconds, rates, model: updateSeconds({ ...UPDATE, ranks: ranks.size }, rates) };
}

/** One process alone: the sleeps are all there is. */
async function alone(): Promise<Scaled> {
  const from = performance.now();
  for (let i = 0; i < UPDATE.accumulate; i++) await sleep();
  return { ranks: 1, seconds: (performance.now() - from) / 1000 };
}

/** This command on so many ranks. @throws one line with what they said */
function launch(count: number): Promise<Scaled> {
  return new Promise((resolve, reject) => {
    const words = [...process.execArgv, process.argv[1]!, 'bench', 'scale', '--json'];
    const child = spawn('mpirun', ['-q', '--oversubscribe', '-n', String(count), process.execPath, ...words], {
      env: { ...process.env, OMPI_ALLOW_RUN_AS_ROOT: '1', OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: '1' },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let [stdout, stderr] = ['', ''];
    child.stdout.on('data', (d: Buffer) => (stdout += d.toString()));
    child.stderr.on('data', (d: Buffer) => (stderr += d.toString()));
    child.on('error', (error) =>
      reject(new Error(`[bench] there is no mpirun here (${error.message}): apt install openmpi-bin`)),
    );
    child.on('close', (code) => {
      if (code === 0) resolve(JSON.parse(stdout) as Scaled);
      else reject(new Error(`[bench] mpirun -n ${count}: ${stderr.trim().split('\n').at(-1)}`));
    });
  });
}

/** A rank of this command says what it found; the command itself starts them. */
export async function benchScale(asJson: boolean): Promise<void> {
  if (launchedBy(process.env))
    return together('stopped; nothing was written', async ({ device, ranks }) => {
      console.log(JSON.stringify(await scaled(device, ranks!)));
    });
  const device = await open();
  console.error(`adapter: ${device.info.name} (${device.info.kind}); the ranks share this machine`);
  device.close();
  const found: Scaled[] = [];
  for (const count of RANKS) found.push(await (count === 1 ? alone() : launch(count)));
  if (asJson) return console.log(JSON.stringify(found));
  print(found);
}

function print(found: readonly Scaled[]): void {
  const one = UPDATE.accumulate * UPDATE.compute;
  console.log(
    draw(
      ['ranks', 'ms an update', 'ms by the model', 'efficiency'],
      found.map(({ ranks, seconds, model }) => [
        String(ranks),
        number(1000 * seconds),
        model === undefined ? '–' : number(1000 * model),
        `${((100 * one) / ranks / seconds).toFixed(0)} %`,
      ]),
    ),
  );
  console.log(
    `${UPDATE.accumulate} micro-batches of ${1000 * UPDATE.compute} ms, in which nothing is computed, and ${UPDATE.bytes / 2 ** 20} MiB of gradients. Efficiency: against the same by as many ranks without any transport; all ranks share this machine's cores.`,
  );
  const { rates } = found.at(-1)!;
  console.log(
    draw(
      [`${LARGE.ranks} GPUs over`, 's an update', 'efficiency'],
      GBITS.map((gbits) => {
        const seconds = updateSeconds(LARGE, { ...rates!, link: (1e9 * gbits) / 8 });
        return [`${gbits} Gb/s`, number(seconds), `${((100 * LARGE.compute) / seconds).toFixed(0)} %`];
      }),
    ),
  );
  console.log(
    `By the model: ${number(LARGE.bytes / 1e9)} GB of gradients, ${LARGE.compute} s of arithmetic each; host's rates as measured here on ${found.at(-1)!.ranks} ranks.`,
  );
}
