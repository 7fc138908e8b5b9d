/** jax-js with its WebGPU backend. Its functions own their arguments: what is used again is passed as `.ref`. */
import { ATTENTION, BLOCK, PARAMETER_NAMES, startOf, type ParameterName, type Work } from '../works.ts';
import { lendWebGPU, load, settled, versionOf, type Peer, type PeerRun } from './peer.ts';

/** The parts of jax-js that are used. */
interface Arr {
  readonly ref: this;
  dispose(): void;
  data(): Promise<Float32Array>;
  add(x: Arr | number): Arr;
  sub(x: Arr | number): Arr;
  mul(x: Arr | number): Arr;
  div(x: Arr | number): Arr;
  reshape(shape: readonly number[]): Arr;
  transpose(axes: readonly number[]): Arr;
}
type Unary = (x: Arr) => Arr;
interface Jax {
  init(device: string): Promise<string[]>;
  defaultDevice(device: string): void;
  jit<A extends readonly unknown[], R>(fn: (...x: A) => R): (...x: A) => R;
  vjp(fn: (...x: Arr[]) => Arr, primals: Arr[]): [Arr, ((dy: Arr) => Arr[]) & { dispose(): void }];
  valueAndGrad<A extends readonly unknown[]>(fn: (...x: A) => Arr): (...x: A) => [Arr, A[0]];
  blockUntilReady(x: unknown): Promise<unknown>;
  numpy: {
    array(x: Float32Array, options: { shape: readonly number[] }): Arr;
    matmul(a: Arr, b: Arr): Arr;
    mean(x: Arr, axis?: number, options?: { keepdims: boolean }): Arr;
    sqrt: Unary;
    square: Unary;
    tanh: Unary;
    exp: Unary;
  };
  nn: { softmax(x: Arr, axis: number): Arr };
  lax: { conv(x: Arr, w: Arr, strides: readonly number[], padding: string): Arr };
}

export async function peer(): Promise<Peer> {
  const device = await lendWebGPU();
  const jax = load('@jax-js/jax') as Jax;
  const np = jax.numpy;
  if (!(await jax.init('webgpu')).includes('webgpu')) throw new Error('its WebGPU backend does not start');
  jax.defaultDevice('webgpu');

  const gelu = (x: Arr): Arr => {
    const cubic = x.ref.mul(x.ref).mul(x.ref).mul(0.044715).add(x.ref);
    return np
      .tanh(cubic.mul(Math.sqrt(2 / Math.PI)))
      .add(1)
      .mul(x)
      .mul(0.5);
  };
  const norm = (x: Arr, g: Arr, b: Arr): Arr => {
    const d = x.ref.sub(np.mean(x, -1, { keepdims: true }));
    const deviation = np.sqrt(np.mean(np.square(d.ref), -1, { keepdims: true }).add(1e-5));
    return d.div(deviation).mul(g).add(b);
  };
  /** [batch, tokens, heads, size] each. */
  const attend = (q: Arr, k: Arr, v: Arr, size: number): Arr => {
    const [first, keys, values] = [q.transpose([0, 2, 1, 3]), k.transpose([0, 2, 3, 1]), v.transpose([0, 2, 1, 3])];
    return np.matmul(jax.nn.softmax(np.matmul(first, keys).mul(size ** -0.5), -1), values).transpose([0, 2, 1, 3]);
  };
  const conv = (x: Arr, w: Arr): Arr => jax.lax.conv(x, w, [1, 1, 1], 'SAME');

  function loss(w: Record<ParameterName, Arr>, x: Arr, target: Arr): Arr {
    const { batch, tokens, dim, heads } = BLOCK;
    const split = (h: Arr): Arr => h.reshape([batch, tokens, heads, dim / heads]);
    const n1 = norm(x.ref, w.g1, w.b1);
    const seen = attend(
      split(np.matmul(n1.ref, w.q)),
      split(np.matmul(n1.ref, w.k)),
      split(np.matmul(n1, w.v)),
      dim / heads,
    ).reshape([batch, tokens, dim]);
    const h = x.add(np.matmul(seen, w.o));
    const inner = gelu(np.matmul(norm(h.ref, w.g2, w.b2), w.up).add(w.ub));
    return np.mean(np.square(np.matmul(h.add(np.matmul(inner, w.down)).add(w.db), w.head).sub(target)));
  }

  type Weights = Record<ParameterName, Arr>;
  const mapWeights = (fn: (name: ParameterName) => Arr): Weights =>
    Object.fromEntries(PARAMETER_NAMES.map((n) => [n, fn(n)])) as Weights;

  function training(work: Work, numbers: readonly Float32Array[]): PeerRun {
    const arrays = (given: readonly Float32Array[]): Weights =>
      mapWeights((n) => {
        const i = PARAMETER_NAMES.indexOf(n);
        return np.array(given[i]!, { shape: work.inputs[2 + i]! });
      });
    const start = startOf(numbers);
    let { count } = start;
    const [x, target] = [0, 1].map((i) => np.array(numbers[i]!, { shape: work.inputs[i]! })) as [Arr, Arr];
    let state = { w: arrays(numbers.slice(2)), m: arrays(start.moments), v: arrays(start.moments) };
    const { lr, beta1, beta2, eps } = BLOCK.adam;
    const step = jax.jit((w: Weights, m: Weights, v: Weights, data: Arr, wanted: Arr, n: Arr) => {
      const [cost, g] = jax.valueAndGrad(loss)(
        mapWeights((k) => w[k].ref),
        data,
        wanted,
      );
      const left = (beta: number) =>
        np
          .exp(n.ref.mul(Math.log(beta)))
          .mul(-1)
          .add(1);
      const [c1, c2] = [left(beta1), left(beta2)];
      n.dispose();
      const first = mapWeights((k) => m[k].mul(beta1).add(g[k].ref.mul(1 - beta1)));
      const second = mapWeights((k) => v[k].mul(beta2).add(np.square(g[k]).mul(1 - beta2)));
      const next = mapWeights((k) =>
        w[k].sub(
          first[k].ref
            .div(c1.ref)
            .mul(lr)
            .div(np.sqrt(second[k].ref.div(c2.ref)).add(eps)),
        ),
      );
      c1.dispose();
      c2.dispose();
      return [cost, next, first, second] as const;
    });
    let cost: Arr | undefined;
    return {
      settle: settled(device),
      answer: async () => [await cost!.ref.data()],
      async call() {
        cost?.dispose();
        const [made, w, m, v] = step(
          state.w,
          state.m,
          state.v,
          x.ref,
          target.ref,
          np.array(Float32Array.of(count++), { shape: [] }),
        );
        cost = made;
        state = { w, m, v };
        await jax.blockUntilReady([made]);
      },
    };
  }

  const gradient = (x: Arr, w: Arr, dy: Arr): Arr[] => {
    const [y, back] = jax.vjp(conv, [x, w]);
    y.dispose();
    const grads = back(dy);
    back.dispose();
    return grads;
  };
  const fnOf = (work: Work): ((...x: Arr[]) => Arr[]) | undefined => {
    switch (work.name) {
      case 'matmul 512':
      case 'matmul 1024':
        return (a, b) => [np.matmul(a!, b!)];
      case 'attention':
        return (q, k, v) => [attend(q!, k!, v!, ATTENTION.size)];
      case 'conv3d':
        return (x, w) => [conv(x!, w!)];
      case 'conv3d gradient':
        return (x, w, dy) => gradient(x!, w!, dy!);
      case 'layer norm':
        return (x, g, b) => [norm(x!, g!, b!)];
      case 'GELU':
        return (x) => [gelu(x!)];
      default:
        return undefined;
    }
  };

  return {
    version: versionOf('@jax-js/jax'),
    on: 'WebGPU',
    async open(work, numbers) {
      if (work.name === 'training step') return training(work, numbers);
      const fn = fnOf(work);
      if (!fn) return undefined;
      const inputs = numbers.map((x, i) => np.array(x, { shape: work.inputs[i]! }));
      const program = jax.jit(fn);
      let results: Arr[] = [];
      return {
        settle: settled(device),
        answer: () => Promise.all(results.map((r) => r.ref.data())),
        async call() {
          for (const r of results) r.dispose();
          results = program(...inputs.map((x) => x.ref));
          await jax.blockUntilReady(results);
        },
      };
    },
  };
}
