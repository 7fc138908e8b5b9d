/** Whole parts of a named shape's models: a DiT block forward and with its gradient, the VAE both ways; and a preset's training steps. */
import { vjp } from '../../engine/frontend/autodiff.ts';
import type { Device } from '../../engine/runtime/device.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { shapesOf, Scope, type Params } from '../../model/params.ts';
import { block, blockSpecs, type BlockInput } from '../../model/wan/block.ts';
import { initDiT } from '../../model/wan/dit.ts';
import { decode, encode, vaeShapes } from '../../model/wan/vae.ts';
import { freeTree } from '../../train/loop/checkpoint.ts';
import { ditConfigOf } from '../../train/methods/conditions.ts';
import { teacherJob, vaeJob, type OpenJob } from '../../train/methods/jobs.ts';
import { equilibrium, priming } from '../../train/methods/vpae.ts';
import type { Preset } from '../../train/presets/index.ts';
import { noiseShards } from '../common/noise.ts';
import { programCase, wanted, type Case, type Wanted } from './case.ts';
import { latentOf, tokensOf, type Shape } from './shapes.ts';

const parameters = (shapes: Record<string, readonly number[]>): Record<string, Wanted> =>
  Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [name, wanted(shape)]));

export function modelCases(device: Device, s: Shape): Case[] {
  const { dit, vae, batch, clip } = s;
  const tokens = tokensOf(s);
  const x = wanted([batch, tokens, dit.dim]);
  const table = wanted([1, tokens, dit.dim / dit.num_heads]);
  const input = {
    e0: wanted([batch, 6, dit.dim]),
    text: wanted([batch, dit.text_len, dit.dim]),
    tables: { cos: table, sin: table },
  };
  const forward = (params: Params, h: Tensor, given: BlockInput) => block(Scope.of(params), dit, h, given, () => {});
  const net = parameters(shapesOf(blockSpecs(dit)));
  const vaeNet = parameters(vaeShapes(vae));
  const of = `${batch} of ${tokens} tokens, dim ${dit.dim}`;
  const video = [1, vae.channels, ...clip],
    latent = [1, vae.z_dim, ...latentOf(s)];
  return [
    programCase(device, 'DiT block', of, [net, x, input], forward),
    programCase(
      device,
      'DiT block, with gradient',
      of,
      [net, x, input, x],
      (params: Params, h: Tensor, given: BlockInput, dy: Tensor) => {
        const wrt = { params, h };
        return vjp(forward(params, h, given), dy, wrt);
      },
    ),
    programCase(
      device,
      'VAE encode',
      `[${video.join()}]`,
      [vaeNet, wanted(video)],
      (params: Params, v: Tensor) => encode(params, vae, v).mean,
    ),
    programCase(device, 'VAE decode', `[${latent.join()}]`, [vaeNet, wanted(latent)], (params: Params, z: Tensor) =>
      decode(params, vae, z),
    ),
  ];
}

/** Times step `n` of a job again and again; the state goes on from call to call. */
function step(device: Device, name: string, shape: string, n: number, make: () => OpenJob | Promise<OpenJob>): Case {
  return {
    name,
    shape,
    async open() {
      const job = await make();
      let state = await job.initial();
      return {
        async call() {
          ({ state } = await job.advance(state, n));
        },
        settle: () => device.idle(),
        async close() {
          freeTree(state);
          await job.close();
        },
      };
    },
  };
}

export function stepCases(device: Device, p: Preset): Case[] {
  const shards = noiseShards(p);
  const net = initDiT(ditConfigOf(p), p.seed);
  const { fake } = p.priming;
  const opening = { device, course: p, shards, teacher: net };
  return [
    step(device, 'VAE step', `batch ${p.trainVae.batch}`, 0, () => vaeJob(device, p)),
    step(device, 'teacher step', `batch ${p.teacher.batch}`, 0, () => teacherJob(device, p, shards)),
    step(device, 'priming step', `batch ${p.priming.batch}, ${fake.updates} of the fake model`, fake.warmup, () =>
      priming.open(opening),
    ),
    step(
      device,
      'equilibrium step',
      `batch ${p.equilibrium.batch}, with the discriminator's`,
      p.equilibrium.head.warmup,
      () => equilibrium.open(opening),
    ),
  ];
}
