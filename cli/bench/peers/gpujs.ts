/**
 * gpu.js with its WebGPU mode. It has no operators: each is written here as its users write them, a plain function of the thread's place.
 */
import { ATTENTION, CONV, type Work } from '../works.ts';
import { lendWebGPU, load, settled, versionOf, type Peer } from './peer.ts';

/** The parts of gpu.js that are used. */
type Handle = { toArray(): Promise<NestedRows>; delete(): void };
type NestedRows = readonly NestedRows[] | Float32Array;
type Kernel = (...inputs: unknown[]) => Promise<Handle>;
interface GpuJs {
  GPU: new (settings: { mode: string }) => { createKernel(fn: unknown, settings: object): Kernel };
  input(data: Float32Array, size: readonly number[]): unknown;
}
/** What gpu.js makes of a kernel's `this` and its arguments. */
interface Thread {
  thread: { x: number; y: number; z: number };
  constants: Record<string, number>;
}
type Rows = number[][];
type Planes = number[][][];

function matmul(this: Thread, a: Rows, b: Rows): number {
  let sum = 0;
  for (let i = 0; i < this.constants.size!; i++) sum += a[this.thread.y]![i]! * b[i]![this.thread.x]!;
  return sum;
}

function gelu(this: Thread, x: Rows): number {
  const v = x[this.thread.y]![this.thread.x]!;
  return 0.5 * v * (1 + Math.tanh(0.7978845608028654 * (v + 0.044715 * v * v * v)));
}

function meanOf(this: Thread, x: Rows): number {
  let sum = 0;
  for (let i = 0; i < this.constants.size!; i++) sum += x[this.thread.x]![i]!;
  return sum / this.constants.size!;
}
function deviationOf(this: Thread, x: Rows, mean: number[]): number {
  let sum = 0;
  for (let i = 0; i < this.constants.size!; i++) {
    const d = x[this.thread.x]![i]! - mean[this.thread.x]!;
    sum += d * d;
  }
  return Math.sqrt(sum / this.constants.size! + 1e-5);
}
function normalise(this: Thread, x: Rows, mean: number[], deviation: number[], g: number[], b: number[]): number {
  return (
    ((x[this.thread.y]![this.thread.x]! - mean[this.thread.y]!) / deviation[this.thread.y]!) * g[this.thread.x]! +
    b[this.thread.x]!
  );
}

/** Rows of [tokens, heads, size] are read as they lie: [token][head][number]. */
function scores(this: Thread, q: Planes, k: Planes): number {
  let sum = 0;
  for (let i = 0; i < this.constants.size!; i++)
    sum += q[this.thread.y]![this.thread.z]![i]! * k[this.thread.x]![this.thread.z]![i]!;
  return sum * this.constants.scale!;
}
function largest(this: Thread, s: Planes): number {
  let top = -1e30;
  for (let i = 0; i < this.constants.tokens!; i++) top = Math.max(top, s[this.thread.y]![this.thread.x]![i]!);
  return top;
}
function total(this: Thread, s: Planes, top: Rows): number {
  let sum = 0;
  for (let i = 0; i < this.constants.tokens!; i++)
    sum += Math.exp(s[this.thread.y]![this.thread.x]![i]! - top[this.thread.y]![this.thread.x]!);
  return sum;
}
function weighted(this: Thread, s: Planes, top: Rows, all: Rows, v: Planes): number {
  let sum = 0;
  for (let i = 0; i < this.constants.tokens!; i++) {
    sum +=
      Math.exp(s[this.thread.y]![this.thread.z]![i]! - top[this.thread.y]![this.thread.z]!) *
      v[i]![this.thread.y]![this.thread.x]!;
  }
  return sum / all[this.thread.y]![this.thread.z]!;
}

/** x as [channels · frames][height][width], w as [outputs][channels][27]; z counts outputs · frames. */
function convolve(this: Thread, x: Planes, w: Planes): number {
  const o = Math.floor(this.thread.z / this.constants.frames!);
  const t = this.thread.z - o * this.constants.frames!;
  let sum = 0;
  for (let c = 0; c < this.constants.channels!; c++) {
    for (let kt = 0; kt < 3; kt++) {
      for (let kh = 0; kh < 3; kh++) {
        for (let kw = 0; kw < 3; kw++) {
          const pt = t + kt - 1;
          const ph = this.thread.y + kh - 1;
          const pw = this.thread.x + kw - 1;
          if (
            pt >= 0 &&
            pt < this.constants.frames! &&
            ph >= 0 &&
            ph < this.constants.height! &&
            pw >= 0 &&
            pw < this.constants.width!
          ) {
            sum += x[c * this.constants.frames! + pt]![ph]![pw]! * w[o]![c]![kt * 9 + kh * 3 + kw]!;
          }
        }
      }
    }
  }
  return sum;
}

export async function peer(): Promise<Peer> {
  const device = await lendWebGPU();
  const library = load('gpu.js') as GpuJs;
  const gpu = new library.GPU({ mode: 'webgpu' });
  /** `output` is [x, y, z]. Results stay on the device, a new buffer each. */
  const kernel = (fn: unknown, output: readonly number[], constants: Record<string, number> = {}): Kernel =>
    gpu.createKernel(fn, { output, constants, pipeline: true, immutable: true, loopMaxIterations: 4096 });

  function programOf(
    work: Work,
  ): { shapes: readonly (readonly number[])[]; run: (x: readonly unknown[]) => Promise<Handle[]> } | undefined {
    const [first] = work.inputs as [readonly number[]];
    switch (work.name) {
      case 'matmul 512':
      case 'matmul 1024': {
        const multiply = kernel(matmul, [first[1]!, first[0]!], { size: first[1]! });
        return { shapes: work.inputs, run: async ([a, b]) => [await multiply(a, b)] };
      }
      case 'GELU': {
        const run = kernel(gelu, [first[1]!, first[0]!]);
        return { shapes: work.inputs, run: async ([x]) => [await run(x)] };
      }
      case 'layer norm': {
        const [rows, size] = first as [number, number];
        const [means, deviations, apply] = [
          kernel(meanOf, [rows], { size }),
          kernel(deviationOf, [rows], { size }),
          kernel(normalise, [size, rows]),
        ];
        return {
          shapes: work.inputs,
          async run([x, g, b]) {
            const mean = await means(x);
            const deviation = await deviations(x, mean);
            return [await apply(x, mean, deviation, g, b), deviation, mean];
          },
        };
      }
      case 'attention': {
        const { tokens, heads, size } = ATTENTION;
        const shape = [tokens, heads, size];
        const score = kernel(scores, [tokens, tokens, heads], { size, scale: size ** -0.5 });
        const [top, sum] = [kernel(largest, [tokens, heads], { tokens }), kernel(total, [tokens, heads], { tokens })];
        const mix = kernel(weighted, [size, heads, tokens], { tokens });
        return {
          shapes: [shape, shape, shape],
          async run([q, k, v]) {
            const s = await score(q, k);
            const m = await top(s);
            const all = await sum(s, m);
            return [await mix(s, m, all, v), all, m, s];
          },
        };
      }
      case 'conv3d': {
        const [frames, height, width] = CONV.size;
        const run = kernel(convolve, [width, height, CONV.co * frames], { channels: CONV.ci, frames, height, width });
        return {
          shapes: [
            [CONV.ci * frames, height, width],
            [CONV.co, CONV.ci, 27],
          ],
          run: async ([x, w]) => [await run(x, w)],
        };
      }
      default:
        return undefined;
    }
  }

  /** Numbers go to the device by a kernel that copies them. */
  async function upload(x: Float32Array, shape: readonly number[]): Promise<Handle> {
    const output = [...shape].reverse();
    const source = library.input(x, output);
    const copy = [
      function (this: Thread, a: number[]) {
        return a[this.thread.x]!;
      },
      function (this: Thread, a: Rows) {
        return a[this.thread.y]![this.thread.x]!;
      },
      function (this: Thread, a: Planes) {
        return a[this.thread.z]![this.thread.y]![this.thread.x]!;
      },
    ][shape.length - 1];
    return await kernel(copy, output)(source);
  }

  return {
    version: versionOf('gpu.js'),
    on: 'WebGPU',
    async open(work, numbers) {
      const program = programOf(work);
      if (!program) return undefined;
      const inputs: Handle[] = [];
      for (const [i, x] of numbers.entries()) inputs.push(await upload(x, program.shapes[i]!));
      let results: Handle[] = [];
      const flat = (x: NestedRows): number[] => (x instanceof Float32Array ? [...x] : x.flatMap(flat));
      return {
        settle: settled(device),
        answer: async () => [flat(await results[0]!.toArray())],
        async call() {
          for (const r of results) r.delete();
          results = await program.run(inputs);
        },
      };
    },
  };
}
