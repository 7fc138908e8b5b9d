/** The child in which the tuner tries configurations: a bad one may crash or hang it. */
import { open, type Device } from '../../engine/runtime/device.ts';
import type { NDArray } from '../../engine/runtime/ndarray.ts';
import { evaluate } from '../../engine/frontend/oracle.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { trace } from '../../engine/frontend/trace.ts';
import { host } from '../../engine/frontend/tree.ts';
import { numel } from '../../kernels/kernel.ts';
import { toF16 } from '../../model/halves.ts';
import { sample, type Sample } from '../bench/clock.ts';
import { errorOf } from '../bench/works.ts';
import { serve } from '../common/child.ts';
import { noise } from '../common/noise.ts';
import { insisting, programOf, type Input, type Seen } from './problems.ts';

export type Question =
  | { problem: Pick<Seen, 'family' | 'shape' | 'problem' | 'rule'>; exact: boolean }
  | { config: object; samples: number };
/** Relative error against the reference, and milliseconds of the first call and of each sample. */
export interface Trial {
  error: number;
  firstMs: number;
  samples: Sample[];
}

const CALLS_MS = 20; // a sample repeats short calls until it is this long

interface Bench {
  question: Pick<Seen, 'family' | 'shape'>;
  inputs: NDArray[];
  fn: (...x: Tensor[]) => readonly Tensor[];
  reference: ArrayLike<number>[];
}

let device: Device | undefined;
let bench: Bench | undefined;

/** Normals that large inputs repeat, instead of waiting seconds for more; a prime, so that no two rows are the same. */
const BLOCK = 1_048_573;

function numbers({ shape, below }: Input, i: number): Float32Array | Uint32Array {
  if (below === undefined) {
    const all = new Float32Array(numel(shape));
    const block = noise([Math.min(all.length, BLOCK)], i).data as Float32Array;
    for (let at = 0; at < all.length; at += BLOCK) all.set(block.subarray(0, all.length - at), at);
    return all;
  }
  return Uint32Array.from({ length: numel(shape) }, (_, k) => 1 + ((7 * k + 3) % below));
}

function upload(d: Device, input: Input, data: Float32Array | Uint32Array): NDArray {
  return d.tensor(input.dtype === 'f16' ? toF16(data as Float32Array) : data, input.shape, input.dtype);
}

async function answerOf(
  d: Device,
  { inputs, fn, question }: Omit<Bench, 'reference'>,
  config: object,
  samples: number,
): Promise<Trial & { answer: Float32Array[] }> {
  d.caps.tuning = insisting(question.family, question.shape, config);
  const program = d.compile((x: Tensor[]) => fn(...x), { name: question.family });
  let results: readonly NDArray[] = [];
  const timed = {
    call: async () => {
      results = await program(inputs);
    },
    settle: () => d.idle(),
  };
  try {
    const first = await sample(timed);
    const answer = await Promise.all(results.map((r) => r.read()));
    const all: Sample[] = [];
    const { ms } = samples ? await sample(timed) : first;
    const calls = Math.max(1, Math.ceil(CALLS_MS / ms));
    for (let i = 0; i < samples; i++) all.push(await sample(timed, calls));
    return { error: 0, firstMs: first.ms, samples: all, answer };
  } finally {
    await program.free();
  }
}

serve(async (question: Question): Promise<Trial | true> => {
  const d = (device ??= await open());
  if ('problem' in question) {
    const { problem: asked, exact } = question;
    for (const x of bench?.inputs ?? []) x.free();
    const { inputs, fn } = programOf(asked.family, asked.problem)!;
    const data = inputs.map(numbers);
    const made = { question: asked, fn, inputs: inputs.map((input, i) => upload(d, input, data[i]!)) };
    if (exact) {
      const { graph, outputs } = trace(fn as never, inputs);
      const reference = evaluate(
        graph,
        outputs,
        data.map((x, i) => host(x, inputs[i]!.shape, inputs[i]!.dtype)),
      );
      bench = { ...made, reference: reference.map((t) => t.data) };
    } else bench = { ...made, reference: (await answerOf(d, made, asked.rule, 0)).answer };
    return true;
  }
  const { answer, ...trial } = await answerOf(d, bench!, question.config, question.samples);
  return {
    ...trial,
    error: errorOf(
      answer,
      bench!.reference.map((r) => Float64Array.from(r)),
    ),
  };
});
