/** Reference cases of the VAE: encode and decode whole and in chunks, every decoder layer, gradients. */
import { concat } from '../../engine/frontend/functional.ts';
import { vjp } from '../../engine/frontend/autodiff.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import type { HostTensor } from '../../engine/frontend/tree.ts';
import { vaeConfig, vaeStride } from '../../model/config.ts';
import { decode, denormalise, encode, latentStats, normalise, type LatentStats } from '../../model/wan/vae.ts';
import { Cache } from '../../model/wan/vaelayers.ts';
import type { Executor } from './executor.ts';
import { judge, type Case, type Fixture, type Verdict } from './format.ts';

interface Inputs<T> {
  weights: Record<string, T>;
  stats: LatentStats<T>;
  data: T;
  latent: T | undefined;
  gout: T | undefined;
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

export async function vaeCase(fixture: Fixture, c: Case, executor: Executor): Promise<Verdict> {
  const config = vaeConfig(fixture.entry.config);
  const given = fixture.under(`${c.name}/in/`);
  const expected = fixture.expected(c.name);
  const has = (name: string) => expected.includes(name);

  const encoding = ({ weights, stats, data, latent, gout }: Inputs<Tensor>): Record<string, Tensor> => {
    const out: Record<string, Tensor> = {};
    const { mean } = encode(weights, config, data, {
      probe: (name, value) => {
        out[`out/${name}`] = value;
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
        // The reference ran one latent frame at a time: frame 0 gave one frame, each later one as many as the layer has doubled.
        const chunks = data.shape[2]! - 1;
        const frames = chunks ? (value.shape[2]! - 1) / chunks : 1;
        for (let k = 0; k <= chunks; k++)
          out[`layer/chunk${k}/${name}`] = k
            ? value.slice(2, 1 + (k - 1) * frames, 1 + k * frames)
            : value.slice(2, 0, 1);
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
