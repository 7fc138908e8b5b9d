/** Our own engine as one of those that are compared. */
import { open, type Device } from '../../../engine/runtime/device.ts';
import type { NDArray } from '../../../engine/runtime/ndarray.ts';
import type { Tensor } from '../../../engine/frontend/tensor.ts';
import { startOf, type Work } from '../works.ts';
import type { Peer, PeerRun } from './peer.ts';

function training(device: Device, work: Work, numbers: readonly Float32Array[], inputs: readonly NDArray[]): PeerRun {
  const [x, target, ...parameters] = inputs as [NDArray, NDArray, ...NDArray[]];
  const start = startOf(numbers);
  let { count } = start;
  const state = [
    ...parameters,
    ...start.moments.map((z, i) => device.tensor(z, parameters[i % parameters.length]!.shape)),
  ];
  const program = device.compile(
    (held: { state: Tensor[] }, ...given: [Tensor, Tensor, Tensor]) => {
      const [loss, ...next] = work.fn(...given, ...held.state);
      return { loss: loss!, state: next };
    },
    { name: work.name, donate: [0] },
  );
  let loss: NDArray;
  return {
    settle: () => device.idle(),
    answer: async () => [await loss.read()],
    async call() {
      ({ loss } = await program({ state }, x, target, count++));
    },
  };
}

export async function peer(): Promise<Peer> {
  const device = await open();
  return {
    version: '',
    on: 'WebGPU',
    async open(work, numbers) {
      const inputs = numbers.map((x, i) => device.tensor(x, work.inputs[i]!));
      if (work.name === 'training step') return training(device, work, numbers, inputs);
      const program = device.compile((x: Tensor[]) => work.fn(...x), { name: work.name });
      let results: readonly NDArray[] = [];
      return {
        settle: () => device.idle(),
        answer: () => Promise.all(results.map((r) => r.read())),
        async call() {
          results = await program(inputs);
        },
      };
    },
  };
}
