/** The child in which one engine runs one work: it opens, answers, and is then timed a sample at a time. */
import process from 'node:process';
import { waiting } from '../../../engine/host/runtime.ts';
import { serve } from '../../common/child.ts';
import { sample, type Sample, type Timed } from '../clock.ts';
import { TRAIN_STEPS, workOf, type WorkName } from '../works.ts';
import { peer as gpujs } from './gpujs.ts';
import { peer as jax } from './jax.ts';
import { peer as ours } from './ours.ts';
import type { EngineName } from './roster.ts';
import { cpu, web } from './ort.ts';
import type { DistantRun, Peer, PeerRun } from './peer.ts';
import { peer as tfjs } from './tfjs.ts';
import { peer as torch } from './torch.ts';

const ENGINES: Record<EngineName, () => Promise<Peer>> = {
  ours,
  'gpu.js': gpujs,
  tfjs,
  'jax-js': jax,
  'onnxruntime-web': web(false),
  'onnxruntime-web, fused': web(true),
  'onnxruntime-node': cpu,
  torch,
};

export type Question = { open: { engine: EngineName; work: WorkName; numbers: Float32Array[] } } | { calls: number };
/** null: the peer has no such operation. */
export type Opened = {
  version: string;
  on: string;
  first: Sample;
  answer: ArrayLike<number>[];
  peakBytes: number;
} | null;

/** Dawn spins while it waits, which takes a core from a software adapter: every engine waits as ours does. */
const patient = ({ call, settle }: Timed): Timed => ({ call: () => waiting(call()), settle: () => waiting(settle()) });

let run: PeerRun | DistantRun | undefined;
let peakBytes = 0;

async function take(run: PeerRun | DistantRun, calls = 1): Promise<Sample> {
  if ('call' in run) {
    const took = await sample(patient(run), calls);
    peakBytes = 1024 * process.resourceUsage().maxRSS;
    return took;
  }
  const { peakBytes: peak, ...took } = await run.sample(calls);
  peakBytes = peak;
  return took;
}

async function open({
  engine: which,
  work: name,
  numbers,
}: Extract<Question, { open: unknown }>['open']): Promise<Opened> {
  const work = workOf(name);
  const engine = await waiting(ENGINES[which]());
  run = await waiting(engine.open(work, numbers));
  if (!run) return null;
  const first = await take(run);
  const answer = [...(await waiting(run.answer()))];
  if (name === 'training step') {
    const losses = [answer[0]![0]!];
    while (losses.length < TRAIN_STEPS) {
      await take(run);
      losses.push((await waiting(run.answer()))[0]![0]!);
    }
    answer[0] = losses;
  }
  const { version, on } = engine;
  return { version, on, first, answer, peakBytes };
}

serve(async (question: Question): Promise<Opened | Sample> =>
  'open' in question ? open(question.open) : take(run!, question.calls),
);
