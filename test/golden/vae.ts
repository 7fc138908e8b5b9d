/** Reference cases of the VAE: encode and decode whole and in chunks, every decoder layer, gradients. */
import { concat } from '../../engine/frontend/functional.ts';
import { vjp } from '../../engine/frontend/autodiff.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import type { HostTensor } from '../../engine/frontend/tree.ts';
import { vaeConfig, vaeStride, type VAEConfig } from '../../model/config.ts';
import { fold, repeat, shrink, unfold } from '../../model/wan/shortcuts.ts';
import { decode, denormalise, encode, latentStats, normalise, type LatentStats } from '../../model/wan/vae.ts';
import { Cache } from '../../model/wan/vaelayers.ts';
import type { Executor } from './executor.ts';
import { judge, type Attrs, type Case, type Fixture, type Verdict } from './format.ts';

interface Inputs<T> {
  weights: Record<string, T>;
  stats: LatentStats<T>;
  data: T;
  latent: T | undefined;
  gout: T | undefined;
}

/** The frames of a whole clip's value as the reference has them, the first and then those of each chunk. */
function byChunk(name: string, value: Tensor, chunks: number): Record<string, Tensor> {
  const frames = chunks ? (value.shape[2]! - 1) / chunks : 1;
  return Object.fromEntries(
    Array.from({ length: chunks + 1 }, (_, k) => [
      `layer/chunk${k}/${name}`,
      k ? value.slice(2, 1 + (k - 1) * frames, 1 + k * frames) : value.slice(2, 0, 1),
    ]),
  );
}

/** As Wan runs it: the first frame, then `length` frames at a time. Surplus frames are dropped. */
function inChunks(x: Tensor, length: number, run: (chunk: Tensor, cache: Cache) => Tensor): Tensor {
  const parts: Tensor[] = [];
  let cache = new Cache();
  for (let at = 0, count = 1; at + count <= x.shape[2]!; at += count, count = length) {
    if (at) cache = new Cache(cache.after);
    parts.push(run(x.slice(2, at, at + count), cache));
  }
  return concat(parts, 2);
}

const batched = (t: HostTensor): HostTensor => ({ ...t, shape: [1, ...t.shape] });

/** Under our names, as the reference's own has them. */
export const vaeGolden = ({ in_channels, patch_size, ...config }: Attrs): VAEConfig =>
  vaeConfig({ ...config, ...(in_channels && { channels: in_channels, patch_size, is_residual: patch_size > 1 }) });

export async function vaeCase(fixture: Fixture, c: Case, executor: Executor): Promise<Verdict> {
  const config = vaeGolden(fixture.entry.config!);
  const given = fixture.under(`${c.name}/in/`);
  const expected = fixture.expected(c.name);
  const has = (name: string) => expected.includes(name);

  const encoding = ({ weights, stats, data, latent, gout }: Inputs<Tensor>): Record<string, Tensor> => {
    const out: Record<string, Tensor> = {};
    const { mean } = encode(weights, config, data, {
      probe: (name, value) => {
        out[`out/${name}`] = value;
        Object.assign(out, byChunk(name, value, Math.floor((data.shape[2]! - 1) / vaeStride(config)[0])));
      },
    });
    out['out/mu'] = mean;
    out['out/latent'] = normalise(
      inChunks(data, vaeStride(config)[0], (chunk, cache) => encode(weights, config, chunk, { cache }).mean),
      stats,
    );
    if (latent && has('out/recon')) out['out/recon'] = decode(weights, config, denormalise(latent, stats));
    if (gout) out['grad/video'] = vjp(out['out/latent'], gout, data);
    return out;
  };
  const decoding = ({ weights, stats, data, gout }: Inputs<Tensor>): Record<string, Tensor> => {
    const out: Record<string, Tensor> = {};
    const video = decode(weights, config, denormalise(data, stats), {
      probe: (name, value) => {
        Object.assign(out, byChunk(name, value, data.shape[2]! - 1));
      },
    });
    out['out/video'] = inChunks(denormalise(data, stats), 1, (chunk, cache) =>
      decode(weights, config, chunk, { cache }),
    );
    if (gout) out['grad/z'] = vjp(video, gout, data);
    return out;
  };
  const [model, data] = given['video'] ? [encoding, given['video']] : [decoding, given['z']!];
  const only = (out: Record<string, Tensor>) => Object.fromEntries(Object.entries(out).filter(([name]) => has(name)));
  const got = await executor.run((inputs: Inputs<Tensor>) => only(model(inputs)), {
    weights: fixture.weights(),
    stats: latentStats(config),
    data: batched(data),
    latent: has('out/latent') ? fixture.get(`${c.name}/out/latent`) : undefined,
    gout: given['gout_latent'] ?? given['gout_video'],
  } satisfies Inputs<HostTensor>);
  return judge(fixture, c.name, got);
}

/** What the VAE of Wan2.2 does without weights, by the reference's names. */
const PARTS: Record<string, (x: Tensor, attrs: Attrs) => Tensor> = {
  patchify: (x, { patch_size }) => fold(x, patch_size),
  unpatchify: (x, { patch_size }) => unfold(x, patch_size),
  avg_down_3d: (x, { out_channels, factor_t, factor_s }) =>
    shrink(x, { outputs: out_channels, time: factor_t, space: factor_s }),
  dup_up_3d: (x, { out_channels, factor_t, factor_s, first_chunk }) =>
    repeat(x, { outputs: out_channels, time: factor_t, space: factor_s }, first_chunk),
};

/** A case of the network, or of a part of it alone. */
export async function vae22Case(fixture: Fixture, c: Case, executor: Executor): Promise<Verdict> {
  if (!c.op) return vaeCase(fixture, c, executor);
  const part = PARTS[c.op]!;
  const got = await executor.run(
    ({ x, gout }: Record<'x' | 'gout', Tensor>) => {
      const y = part(x, c.attrs!);
      return { 'out/y': y, 'grad/x': vjp(y, gout, x) };
    },
    { x: fixture.get(`${c.name}/in/x`), gout: fixture.get(`${c.name}/in/gout`) },
  );
  return judge(fixture, c.name, got);
}
