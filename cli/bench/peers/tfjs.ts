/** TensorFlow.js with its WebGPU backend. Convolutions are channels-last there: its tensors are turned before the clock starts. */
import { ATTENTION, BLOCK, CONV, PARAMETER_NAMES, type ParameterName, type Work } from '../works.ts';
import { lendWebGPU, load, permuted, versionOf, type Peer, type PeerRun } from './peer.ts';

/** The parts of tfjs that are used. */
interface Tensor {
  data(): Promise<Float32Array>;
  dispose(): void;
  reshape(s: number[]): Tensor;
  transpose(axes: number[]): Tensor;
}
interface Variable extends Tensor {
  readonly name: string;
}
type Unary = (x: Tensor) => Tensor;
type Binary = (a: Tensor, b: Tensor | number) => Tensor;
interface Tf {
  setBackend(name: string): Promise<boolean>;
  ready(): Promise<void>;
  backend(): {
    commandEncoder: GPUCommandEncoder | null;
    endComputePassEncoder(): void;
    submitQueue(): void;
    queue: GPUQueue;
  };
  tensor(x: Float32Array, shape: readonly number[]): Tensor;
  variable(x: Tensor): Variable;
  tidy<T>(fn: () => T): T;
  matMul(a: Tensor, b: Tensor, transposeA?: boolean, transposeB?: boolean): Tensor;
  softmax: Unary;
  tanh: Unary;
  square: Unary;
  sqrt: Unary;
  add: Binary;
  sub: Binary;
  mul: Binary;
  div: Binary;
  mean(x: Tensor, axis?: number, keep?: boolean): Tensor;
  conv3d(x: Tensor, w: Tensor, strides: number, pad: 'same'): Tensor;
  engine(): { runKernel(name: string, inputs: Record<string, Tensor>, attrs: object): Tensor };
  train: {
    adam(
      lr: number,
      beta1: number,
      beta2: number,
      eps: number,
    ): { minimize(loss: () => Tensor, returnCost: boolean): Tensor };
  };
}

const LAST = [0, 2, 3, 4, 1],
  FIRST = [0, 4, 1, 2, 3]; // channels last, channels first
const TAPS = [2, 3, 4, 1, 0],
  WEIGHTS = [4, 3, 0, 1, 2]; // [O,C,...] to [...,C,O], and back

export async function peer(): Promise<Peer> {
  await lendWebGPU();
  const tf = load('@tensorflow/tfjs') as Tf;
  load('@tensorflow/tfjs-backend-webgpu');
  if (!(await tf.setBackend('webgpu'))) throw new Error('its WebGPU backend does not start');
  await tf.ready();
  const settle = async (): Promise<void> => {
    const b = tf.backend();
    if (b.commandEncoder) {
      // what it holds back would not be waited for
      b.endComputePassEncoder();
      b.submitQueue();
    }
    await b.queue.onSubmittedWorkDone();
  };
  const gelu = (x: Tensor): Tensor =>
    tf.mul(
      tf.mul(x, 0.5),
      tf.add(tf.tanh(tf.mul(tf.add(x, tf.mul(tf.mul(tf.mul(x, x), x), 0.044715)), Math.sqrt(2 / Math.PI))), 1),
    );
  const norm = (x: Tensor, g: Tensor, b: Tensor): Tensor => {
    const d = tf.sub(x, tf.mean(x, -1, true));
    return tf.add(tf.mul(tf.div(d, tf.sqrt(tf.add(tf.mean(tf.square(d), -1, true), 1e-5))), g), b);
  };
  const attend = (q: Tensor, k: Tensor, v: Tensor, scale: number): Tensor =>
    tf.matMul(tf.softmax(tf.mul(tf.matMul(q, k, false, true), scale)), v);
  const heads = (x: Tensor): Tensor => x.transpose([0, 2, 1, 3]);

  function training(work: Work, numbers: readonly Float32Array[]): PeerRun {
    const [x, target, ...rest] = numbers.map((n, i) => tf.tensor(n, work.inputs[i]!)) as [Tensor, Tensor, ...Tensor[]];
    const w = Object.fromEntries(PARAMETER_NAMES.map((name, i) => [name, tf.variable(rest[i]!)])) as Record<
      ParameterName,
      Variable
    >;
    const { batch, tokens, dim, ffn, heads: count, out, adam } = BLOCK;
    const optimizer = tf.train.adam(adam.lr, adam.beta1, adam.beta2, adam.eps);
    const linear = (h: Tensor, m: Tensor, to: number): Tensor =>
      tf.matMul(h.reshape([batch * tokens, -1]), m).reshape([batch, tokens, to]);
    const split = (h: Tensor): Tensor => heads(h.reshape([batch, tokens, count, dim / count]));
    const loss = (): Tensor => {
      const n1 = norm(x, w.g1, w.b1);
      const seen = heads(
        attend(
          split(linear(n1, w.q, dim)),
          split(linear(n1, w.k, dim)),
          split(linear(n1, w.v, dim)),
          (dim / count) ** -0.5,
        ),
      ).reshape([batch, tokens, dim]);
      const h = tf.add(x, linear(seen, w.o, dim));
      const y = tf.add(
        h,
        tf.add(linear(gelu(tf.add(linear(norm(h, w.g2, w.b2), w.up, ffn), w.ub)), w.down, dim), w.db),
      );
      return tf.mean(tf.square(tf.sub(linear(y, w.head, out), target)));
    };
    let cost: Tensor | undefined;
    return {
      settle,
      answer: async () => [await cost!.data()],
      async call() {
        cost?.dispose();
        cost = optimizer.minimize(loss, true);
      },
    };
  }

  function operation(
    work: Work,
    x: readonly Float32Array[],
  ): { fn: () => Tensor[]; back: (answers: Float32Array[]) => ArrayLike<number>[] } | undefined {
    const plain = (i: number): Tensor => tf.tensor(x[i]!, work.inputs[i]!);
    const turned = (i: number, axes: readonly number[]): Tensor =>
      tf.tensor(
        permuted(x[i]!, work.inputs[i]!, axes),
        axes.map((a) => work.inputs[i]![a]!),
      );
    const same = (answers: Float32Array[]) => answers;
    const made = [1, ...CONV.size, CONV.co],
      read = [1, ...CONV.size, CONV.ci],
      taps = [3, 3, 3, CONV.ci, CONV.co];
    switch (work.name) {
      case 'matmul 512':
      case 'matmul 1024': {
        const [a, b] = [plain(0), plain(1)];
        return { fn: () => [tf.matMul(a, b)], back: same };
      }
      case 'attention': {
        const [q, k, v] = [0, 1, 2].map((i) => turned(i, [0, 2, 1, 3])) as [Tensor, Tensor, Tensor];
        return {
          fn: () => [attend(q, k, v, ATTENTION.size ** -0.5)],
          back: ([o]) => [permuted(o!, [1, ATTENTION.heads, ATTENTION.tokens, ATTENTION.size], [0, 2, 1, 3])],
        };
      }
      case 'conv3d': {
        const [a, w] = [turned(0, LAST), turned(1, TAPS)];
        return { fn: () => [tf.conv3d(a, w, 1, 'same')], back: ([y]) => [permuted(y!, made, FIRST)] };
      }
      case 'conv3d gradient': {
        const [a, filter, dy] = [turned(0, LAST), turned(1, TAPS), turned(2, LAST)];
        const attrs = { strides: [1, 1, 1], pad: 'same' };
        return {
          fn: () => [
            tf.engine().runKernel('Conv3DBackpropInputV2', { dy, filter }, { ...attrs, inputShape: read }),
            tf.engine().runKernel('Conv3DBackpropFilterV2', { x: a, dy }, { ...attrs, filterShape: taps }),
          ],
          back: ([dx, dw]) => [permuted(dx!, read, FIRST), permuted(dw!, taps, WEIGHTS)],
        };
      }
      case 'layer norm': {
        const [a, g, b] = [plain(0), plain(1), plain(2)];
        return { fn: () => [norm(a, g, b)], back: same };
      }
      case 'GELU': {
        const a = plain(0);
        return { fn: () => [gelu(a)], back: same };
      }
      default:
        return undefined;
    }
  }

  return {
    version: versionOf('@tensorflow/tfjs'),
    on: 'WebGPU',
    async open(work, numbers) {
      if (work.name === 'training step') return training(work, numbers);
      const found = operation(work, numbers);
      let results: Tensor[] = [];
      return (
        found && {
          settle,
          answer: async () => found.back(await Promise.all(results.map((r) => r.data()))),
          async call() {
            for (const r of results) r.dispose();
            results = tf.tidy(found.fn);
          },
        }
      );
    },
  };
}
