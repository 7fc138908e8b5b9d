/** Every format that is read, with a small file of it, how it is read, and how a bad one is refused. */
import { mkdirSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Packr } from 'msgpackr';
import sharp from 'sharp';
import { host } from '../../engine/frontend/tree.ts';
import { seal, verify } from '../../engine/host/trusted.ts';
import { readVideo } from '../../cli/media/read.ts';
import { readPrompts } from '../../cli/sample/jobs.ts';
import { Jobs } from '../../cli/watch/jobs.ts';
import { openCheckpoint } from '../../model/files/checkpoint.ts';
import { loadLora } from '../../model/files/lora.ts';
import { openWeights } from '../../model/files/open.ts';
import { saveTensors } from '../../model/files/safetensors.ts';
import type { FileTensor } from '../../model/files/origin.ts';
import type { Weights } from '../../model/files/weights.ts';
import { materialise } from '../../model/params.ts';
import { loadTokenizer } from '../../model/tokenizer.ts';
import { ditSpecs } from '../../model/wan/dit.ts';
import { digits } from '../../train/data/digits.ts';
import { sealed, sha256 } from '../../train/data/seal.ts';
import { openShards, precompute } from '../../train/data/shards.ts';
import { openVideoShards } from '../../train/data/videos.ts';
import { openSaved, saveCheckpoint } from '../../train/loop/checkpoint.ts';
import { releaseLock, takeLock } from '../../train/loop/lock.ts';
import { loadDiT, saveModel } from '../../train/loop/models.ts';
import { RunFolder } from '../../train/loop/run.ts';
import { ditConfigOf } from '../../train/methods/conditions.ts';
import { loadPreset } from '../../train/presets/index.ts';
import { writeFolder } from '../model/folders.ts';
import { archive, pickleState, pth, type PthTensor } from '../model/pthfile.ts';
import { tinyTokenizer } from '../model/tiny.ts';

export interface Format {
  /** Makes a good file in an empty folder. @returns its path */
  make(dir: string): Promise<string>;
  /** What is in it, as plain data or numbers. */
  read(path: string, dir: string): Promise<unknown>;
  /** How every refusal reads. */
  refusal: RegExp;
  /** Checksums see all damage: what is read is what was written, or refused. */
  sealed?: boolean;
  /** Another's library reads it, whose errors are of any kind. */
  foreign?: boolean;
  /** Puts damaged bytes into the file, where they are a part of it. */
  wrap?: (bytes: Buffer) => Buffer;
}

async function contents(weights: Weights): Promise<unknown> {
  try {
    const all: unknown[] = [weights.metadata];
    for (const [name, { dtype, shape }] of weights.entries) all.push([name, dtype, shape, await weights.read(name)]);
    return all;
  } finally {
    await weights.close();
  }
}
const readWeights = async (path: string): Promise<unknown> => contents(await openWeights(path));
const WEIGHTS = /^\[(weights|safetensors|pth)\] /;

const shared = Float32Array.from({ length: 12 }, (_, i) => i);
const state: Record<string, PthTensor> = {
  w: { dtype: 'F32', shape: [3, 4], storage: shared },
  'w.T': { dtype: 'F32', shape: [4, 3], strides: [1, 4], storage: shared },
  h: { dtype: 'BF16', shape: [3], storage: Uint16Array.of(1, 2, 3) },
};
const put = async (path: string, bytes: Buffer | string): Promise<string> => {
  writeFileSync(path, bytes);
  return path;
};
const weightsFormat = (file: string, bytes: () => Buffer, more: Partial<Format> = {}): Format => ({
  make: (dir) => put(join(dir, file), bytes()),
  read: readWeights,
  refusal: WEIGHTS,
  ...more,
});

const preset = loadPreset('digits-test', ['dit.num_layers=1', 'phase2.taps=[0]', 'dit.dim=16', 'dit.ffn_dim=16']);
const config = ditConfigOf(preset);
const shapes = Object.fromEntries(Object.entries(ditSpecs(config)).map(([name, { shape }]) => [name, shape]));

/** One file of a folder with a whole Wan2.1. */
const folderFile = (layout: 'original' | 'diffusers', file: string): Format => ({
  async make(dir) {
    await writeFolder(join(dir, 'wan'), layout, 't2v');
    return join(dir, 'wan', file);
  },
  async read(_, dir) {
    const { dit, vae, text, flowShift } = await openCheckpoint(join(dir, 'wan'));
    return [dit.config, vae.config, text.config, flowShift];
  },
  refusal: /^\[(checkpoint|weights|safetensors|pth)\] /,
});

const [VIDEO, LATENT] = [
  [1, 9, 32, 32],
  [1, 3, 4, 4],
] as const;
const recipe = (dir: string) => ({
  dir,
  count: 4,
  shardSize: 2,
  batchSize: 2,
  clip: digits('train', 1).clip,
  video: VIDEO,
  latent: LATENT,
  settings: { test: true },
  encode: async (videos: Float32Array) => videos.slice(0, 2 * 48),
});
const shardsFile = (file: string): Format => ({
  async make(dir) {
    await precompute(recipe(join(dir, 'data')));
    return join(dir, 'data', file);
  },
  read: async (_, dir) => openShards(join(dir, 'data')).records([0, 1, 2, 3]),
  refusal: /^\[shards\] /,
  sealed: true,
});

/** Records of two real videos, as `data make` leaves them. */
function writeVideos(dir: string): void {
  mkdirSync(dir);
  const half = (...shape: number[]) => ({
    data: Uint16Array.from({ length: shape.reduce((a, b) => a * b) }, (_, i) => i),
    shape,
  });
  const made = { latent: half(2, 1, 2, 2), text: half(3, 4) };
  const bytes = ['a', 'b'].map(() => new Packr({ moreTypes: true }).pack(made));
  const records = bytes.map((b, i) => ({
    key: `k${i}`,
    file: `${i}.mp4`,
    caption: 'a cat',
    latent: [2, 1, 2, 2],
    bytes: b.length,
    sha256: sha256(b),
  }));
  const index = { version: 2, made: 'm', settings: {}, textLen: 5, shards: [{ number: 0, clips: ['k0', 'k1'] }] };
  writeFileSync(join(dir, 'index.json'), sealed(index));
  writeFileSync(join(dir, 'shard-00000.json'), sealed({ made: 'm', records, refused: [] }));
  writeFileSync(join(dir, 'shard-00000.msgpack'), Buffer.concat(bytes));
}
const videosFile = (file: string): Format => ({
  async make(dir) {
    writeVideos(join(dir, 'videos'));
    return join(dir, 'videos', file);
  },
  read: async (_, dir) => openVideoShards(join(dir, 'videos')).records([0, 1]),
  refusal: /^\[videos\] /,
  sealed: true,
});

const picture = (kind: 'png' | 'jpeg' | 'webp' | 'gif', animated: boolean): Format => ({
  async make(dir) {
    const raw = { width: 12, height: animated ? 36 : 12, channels: 3 as const, ...(animated && { pageHeight: 12 }) };
    const pixels = Uint8Array.from({ length: 3 * raw.width * raw.height }, (_, i) => (i * 7) % 251);
    mkdirSync(join(dir, 'film'));
    return put(join(dir, 'film', `0.${kind}`), await sharp(pixels, { raw }).toFormat(kind).toBuffer());
  },
  read: (path, dir) => readVideo(animated ? path : join(dir, 'film')),
  refusal: /^\[read\] /,
});

export const FORMATS: Readonly<Record<string, Format>> = {
  safetensors: {
    async make(dir) {
      const path = join(dir, 'a.safetensors');
      const tensors = { a: host([1, 2, 3, 4], [2, 2]), 'b.c': host([], [0, 2]), id: host(Int32Array.of(7), []) };
      await saveTensors(path, tensors, { metadata: { format: 'pt' } });
      return path;
    },
    read: readWeights,
    refusal: WEIGHTS,
  },
  pth: weightsFormat('a.pth', () => pth(state)),
  zip64: weightsFormat('a.pth', () => pth(state, true)),
  pickle: weightsFormat('a.pth', () => pickleState(state).pickle, {
    wrap: (bytes) => archive(bytes, pickleState(state).storages),
  }),
  lora: {
    async make(dir) {
      const path = join(dir, 'l.safetensors');
      const q = 'diffusion_model.blocks.0.self_attn.q';
      await saveTensors(path, {
        [`${q}.lora_down.weight`]: host(new Float32Array(32), [2, 16]),
        [`${q}.lora_up.weight`]: host(new Float32Array(32), [16, 2]),
        [`${q}.alpha`]: host([2], []),
      });
      return path;
    },
    read: (path) => loadLora(path, shapes),
    refusal: /^\[(lora|weights|safetensors)\] /,
  },
  model: {
    async make(dir) {
      const path = join(dir, 'teacher.safetensors');
      const params = materialise(ditSpecs(config), 1);
      await saveModel(path, { kind: 'teacher', config, params, about: { preset, steps: 1 } }, 'F16');
      return path;
    },
    read: async (path) => (await loadDiT(path)).config,
    refusal: /^\[(model|weights|safetensors|preset|dit config)\] /,
  },
  checkpoint: {
    make: (dir) =>
      saveCheckpoint(
        dir,
        { net: { params: { x: host([1, 2], [2]) }, v: { x: host([3, 4], [2]) } } },
        { job: 'a', step: 3, config: 'c' },
      ),
    async read(path) {
      const { meta, state: found, close } = await openSaved(path);
      try {
        const all: unknown[] = [meta];
        for (const parts of Object.values(found))
          for (const tensors of Object.values(parts))
            for (const t of Object.values(tensors as Record<string, FileTensor>)) all.push(await t.read());
        return all;
      } finally {
        await close();
      }
    },
    refusal: /^\[(checkpoint|weights)\] /,
  },
  'config.json': folderFile('original', 'config.json'),
  'model_index.json': folderFile('diffusers', 'model_index.json'),
  'transformer config': folderFile('diffusers', 'transformer/config.json'),
  'vae config': folderFile('diffusers', 'vae/config.json'),
  'text config': folderFile('diffusers', 'text_encoder/config.json'),
  'weights index': {
    async make(dir) {
      for (const name of ['a', 'b']) await saveTensors(join(dir, `${name}.safetensors`), { [name]: host([1], [1]) });
      const map = { metadata: {}, weight_map: { a: 'a.safetensors', b: 'b.safetensors' } };
      return put(join(dir, 'm.safetensors.index.json'), JSON.stringify(map));
    },
    read: readWeights,
    refusal: WEIGHTS,
  },
  tokenizer: {
    make: (dir) => put(join(dir, 'tokenizer.json'), JSON.stringify(tinyTokenizer())),
    read: async (path) => (await loadTokenizer(path)).encode('Two cats in the snow'),
    refusal: /^\[tokenizer\] |^splitting "|^the tokenizer\.json is damaged/,
    foreign: true,
  },
  'shards of digits': shardsFile('shard-00001.msgpack'),
  'index of digits': shardsFile('index.json'),
  'records of videos': videosFile('shard-00000.msgpack'),
  'shard of videos': videosFile('shard-00000.json'),
  'index of videos': videosFile('index.json'),
  png: picture('png', false),
  jpeg: picture('jpeg', false),
  webp: picture('webp', true),
  gif: picture('gif', true),
  'metrics.jsonl': {
    async make(dir) {
      mkdirSync(join(dir, 'job'));
      writeFileSync(join(dir, 'job', 'config.json'), '{}');
      const lines = Array.from({ length: 20 }, (_, step) => JSON.stringify({ step, loss: 1 / (step + 1), seconds: 1 }));
      const alarm = JSON.stringify({ step: 20, alarm: 'stuck', value: 1, of: 'loss', cause: 'c', remedy: 'r' });
      return put(join(dir, 'job', 'metrics.jsonl'), [...lines, alarm, ''].join('\n'));
    },
    read: (_, dir) => new Jobs(dir).look(''),
    refusal: /^never$/,
  },
  'run.lock': {
    make: (dir) => put(join(dir, 'run.lock'), JSON.stringify({ pid: 2 ** 22 + 1, host: 'elsewhere', key: 'a' })),
    async read(path) {
      utimesSync(path, 0, 0);
      const owner = takeLock(path);
      releaseLock(path);
      return owner;
    },
    refusal: /^\[lock\] /,
  },
  'config of a run': {
    make: (dir) => put(join(dir, 'config.json'), JSON.stringify({ a: 1, b: { c: [1, 2] } }, null, 1)),
    async read(_, dir) {
      (await RunFolder.open(dir, { a: 1, b: { c: [1, 2] } }, {})).close();
    },
    refusal: /^\[resume\] /,
  },
  'prompts.jsonl': {
    make: (dir) =>
      put(
        join(dir, 'p.jsonl'),
        '{"prompt": "a cat", "seed": 3, "out": "a.webp"}\n{"prompt": "b", "image": "c.png"}\nwords\n',
      ),
    read: async (path) => readPrompts(path, { seed: 1, count: 1, out: 'c.webp' }),
    refusal: /p\.jsonl/,
  },
  'driver manifest': {
    async make(dir) {
      mkdirSync(join(dir, 'driver'));
      writeFileSync(join(dir, 'driver', 'a.so'), 'code');
      seal(join(dir, 'driver'), { mesa: '1' });
      return join(dir, 'driver', 'manifest.json');
    },
    read: async (_, dir) => verify(join(dir, 'driver')),
    refusal: /: remove .*, it is made anew$/,
  },
};
