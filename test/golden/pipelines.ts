/**
 * Reference cases of whole Wan2.2 runs: TI2V from text and from an image down to the
 * video, A14B with its two experts, their schedules, sizes.
 */
import { constant, stack } from '../../engine/frontend/functional.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { ditConfig, type DiTConfig } from '../../model/config.ts';
import { nearest } from '../../model/families/family.ts';
import { imagesOf } from '../../model/files/configs.ts';
import { withMask } from '../../model/pipeline/given.ts';
import { guidance, hold, solved, spans, type Sampling } from '../../model/pipeline/diffuse.ts';
import { schedule, solverStep, startState, type SolverKind, type SolverState } from '../../model/schedulers/index.ts';
import { dit } from '../../model/wan/dit.ts';
import { ditTables, timeEmbedding, tokenGrid, type DiTTables } from '../../model/wan/tables.ts';
import { decode, denormalise, encode, latentStats, normalise, type LatentStats } from '../../model/wan/vae.ts';
import type { Executor } from './executor.ts';
import { Fixture, judge, readManifest, type Case, type Verdict } from './format.ts';
import { vaeGolden } from './vae.ts';

const ints = (values: readonly number[], shape = [values.length]): HostTensor =>
  host(Int32Array.from(values), shape, 'i32');
const batched = (t: HostTensor): HostTensor => ({ ...t, shape: [1, ...t.shape] });
const solverOf = (c: Case): SolverKind => (c['solver'] === 'dpm++' ? 'dpmpp' : (c['solver'] as SolverKind));

/** Networks by the expert they are, and what every step of a run is told. */
interface Inputs<T> {
  networks: Record<'high' | 'low', Record<string, T>>;
  start: SolverState<T>;
  context: T;
  negative: T;
  beside: T | undefined;
  first: T | undefined;
  times: readonly T[];
  weights: readonly T[];
  tables: DiTTables<T>;
}

/** All steps, one after the other. */
function trajectory(config: DiTConfig, sampling: Sampling, given: Inputs<Tensor>): Record<string, Tensor> {
  const out: Record<string, Tensor[]> = {
    v_cond: [],
    v_uncond: [],
    velocities: [],
    samples: [],
    samples_unblended: [],
  };
  const { tables, first, beside: y } = given;
  let state = given.start;
  for (const { from, to, expert, guidance: g } of spans(sampling))
    for (let k = from; k < to; k++) {
      const under = (context: Tensor): Tensor =>
        dit(given.networks[expert], config, {
          x: state.x,
          tEmb: given.times[k]!,
          context,
          tables,
          ...(y && { y }),
          ...(first && { first }),
        }).v as Tensor;
      const [cond, uncond] = [under(given.context), under(given.negative)];
      const v = guidance([cond, uncond], constant(g));
      out['samples_unblended']!.push(solverStep(state, v, given.weights[k]!).x);
      state = solved(state, v, given.weights[k]!, first ? { first } : {});
      out['v_cond']!.push(cond);
      out['v_uncond']!.push(uncond);
      out['velocities']!.push(v);
      out['samples']!.push(state.x);
    }
  return Object.fromEntries(
    Object.entries(out).map(([name, steps]) => [
      `out/${name}`,
      stack(
        steps.map((s) => s.squeeze(0)),
        0,
      ),
    ]),
  );
}

/** A text as [1, text_len, dim], zero past its end. */
function padded(text: HostTensor, length: number): HostTensor {
  const [, dim] = text.shape as [number, number];
  const data = new Float32Array(length * dim);
  data.set(text.data);
  return host(data, [1, length, dim]);
}

function inputsOf(
  fixture: Fixture,
  c: Case,
  config: DiTConfig,
  { networks, beside, first }: Pick<Inputs<HostTensor>, 'networks'> & { beside?: HostTensor; first?: HostTensor },
): { inputs: Inputs<HostTensor>; tables: Record<string, HostTensor> } {
  const given = fixture.under(`${c.name}/in/`);
  const { sigmas, timesteps, weights } = schedule(solverOf(c), c['steps'] as number, c['shift'] as number);
  const { shape } = given['noise']!;
  return {
    inputs: {
      networks,
      start: startState(batched(given['noise']!)),
      context: padded(given['context']!, config.text_len),
      negative: padded(given['context_null']!, config.text_len),
      beside,
      first,
      times: timesteps.map((t) => timeEmbedding([t], config.freq_dim)),
      weights,
      tables: ditTables(config, [tokenGrid(config, shape)]),
    },
    tables: { 'out/sigmas': host(sigmas, [sigmas.length]), 'out/timesteps': ints(timesteps) },
  };
}

/** The boundary is of integer timesteps. */
const samplingOf = (c: Case, [low, high]: readonly [number, number], boundary?: number): Sampling => ({
  kind: solverOf(c),
  steps: c['steps'] as number,
  shift: c['shift'] as number,
  guidance: high,
  ...(boundary !== undefined && { low: { below: 1000 * boundary, guidance: low } }),
});

/** Which steps are the high-noise expert's: 1, else 0. */
const highSteps = (sampling: Sampling): HostTensor =>
  ints(spans(sampling).flatMap(({ from, to, expert }) => Array<number>(to - from).fill(Number(expert === 'high'))));

export async function a14bCase(fixture: Fixture, c: Case, executor: Executor): Promise<Verdict> {
  const guides = (c['guide_scale_low_high'] ?? [1, 1]) as [number, number];
  const sampling = samplingOf(c, guides, c['boundary'] as number);
  const high = highSteps(sampling);
  if (c.op === 'expert_switch') {
    const { timesteps } = schedule(sampling.kind as SolverKind, sampling.steps, sampling.shift);
    return judge(fixture, c.name, { 'out/timesteps': ints(timesteps), 'out/high': high });
  }
  const weights = fixture.weights();
  const of = (expert: string) =>
    Object.fromEntries(
      Object.entries(weights)
        .filter(([name]) => name.startsWith(`${expert}_noise_model.`))
        .map(([name, t]) => [name.slice(expert.length + '_noise_model.'.length), t]),
    );
  const networks = { high: of('high'), low: of('low') };
  const config = imagesOf(ditConfig(fixture.entry.config), Object.keys(networks.high));
  const image = fixture.tensors.get(`${c.name}/in/image_latent`);
  const beside = image && withMask(batched(image), 4, 1);
  const { inputs, tables } = inputsOf(fixture, c, config, { networks, ...(beside && { beside }) });
  const got = await executor.run((given: Inputs<Tensor>) => trajectory(config, sampling, given), inputs);
  return judge(fixture, c.name, {
    ...got,
    ...tables,
    'out/high': high,
    ...(beside && { 'out/y': { ...beside, shape: beside.shape.slice(1) } }),
  });
}

export async function ti2vCase(fixture: Fixture, c: Case, executor: Executor): Promise<Verdict> {
  if (c.op === 'best_output_size') return judge(fixture, c.name, { 'out/best': sizes(fixture) });
  const config = ditConfig(fixture.entry.config);
  const network = fixture.weights();
  const vae = await Fixture.read(fixture.folder, (await readManifest(fixture.folder)).files['vae22']!);
  const vaeConfig = vaeGolden(vae.entry.config!);
  const sampling = samplingOf(c, [1, c['guide_scale'] as number]);
  const image = fixture.tensors.get(`${c.name}/in/image`);
  const stats = latentStats(vaeConfig);
  const parts = { vae: vae.weights(), stats };
  type Parts = { vae: Record<string, Tensor>; stats: LatentStats<Tensor> };
  const coded = image && {
    ...(await executor.run(
      ({ vae: p, stats: s, x }: Parts & { x: Tensor }) => ({
        z: normalise(encode(p, vaeConfig, x.mul(2).sub(1)).mean, s),
      }),
      { ...parts, x: { ...image, shape: [1, image.shape[0]!, 1, ...image.shape.slice(1)] } },
    )),
  };
  const first = coded?.['z'];
  const { inputs, tables } = inputsOf(fixture, c, config, {
    networks: { high: network, low: network },
    ...(first && { first }),
  });
  const got = await executor.run(
    ({ vae: p, stats: s, ...given }: Parts & Inputs<Tensor>) => {
      const start = { ...given.start, x: hold(given.start.x, given.first) };
      const run = trajectory(config, sampling, { ...given, start });
      const steps = run['out/samples']!;
      const last = steps.slice(0, steps.shape[0]! - 1);
      const all = { ...run, 'out/start': start.x.squeeze(0), 'out/video': decode(p, vaeConfig, denormalise(last, s)) };
      return Object.fromEntries(Object.entries(all).filter(([name]) => fixture.expected(c.name).includes(name)));
    },
    { ...parts, ...inputs },
  );
  const { shape } = fixture.get(`${c.name}/in/noise`);
  const [frames, rows, columns] = tokenGrid(config, shape);
  const timesteps = [...tables['out/timesteps']!.data];
  const ofTokens = timesteps.flatMap((t) =>
    Array.from({ length: frames * rows * columns }, (_, i) => (first && i < rows * columns ? 0 : t)),
  );
  return judge(fixture, c.name, {
    ...got,
    ...tables,
    'out/token_timesteps': host(Float32Array.from(ofTokens), [timesteps.length, frames * rows * columns]),
    ...(first && { 'out/z': { ...first, shape: first.shape.slice(1) } }),
  });
}

/** Rows of image width and height, area, and our output's width and height. */
function sizes(fixture: Fixture): HostTensor {
  const { data, shape } = fixture.get('sizes/out/best');
  const step = { width: 32, height: 32 };
  const at = (i: number): number => data[i]!;
  return ints(
    Array.from({ length: shape[0]! }, (_, i) => [at(5 * i), at(5 * i + 1), at(5 * i + 2)] as const).flatMap(
      ([width, height, area]) => {
        const size = nearest({ width, height }, { width: area, height: 1 }, step);
        return [width, height, area, size.width, size.height];
      },
    ),
    [...shape],
  );
}
