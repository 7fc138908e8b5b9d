/** Small configs and inputs for the model tests. */
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { ditConfig, type DiTConfig } from '../../model/config.ts';
import { draw, materialise, normal, type HostParams, type Specs } from '../../model/params.ts';
import { ditSpecs } from '../../model/wan/dit.ts';

export const tinyDiT = (changes: Partial<DiTConfig> = {}): DiTConfig =>
  ditConfig({
    model_type: 'i2v',
    patch_size: [1, 2, 2],
    text_len: 5,
    in_dim: 12,
    out_dim: 4,
    dim: 24,
    ffn_dim: 40,
    freq_dim: 16,
    text_dim: 10,
    num_heads: 2,
    num_layers: 3,
    clip_dim: 14,
    ...changes,
  });

/** Standard normals, decided by the name. */
export const noise = (name: string, shape: readonly number[]): HostTensor =>
  host(
    draw(
      'normal',
      1,
      name,
      shape.reduce((a, b) => a * b, 1),
    ),
    shape,
  );

/** Every weight random, also those that start at zero or one. */
export const scrambled = (specs: Specs, std = 0.2): HostParams =>
  materialise(Object.fromEntries(Object.entries(specs).map(([name, s]) => [name, { ...s, init: normal(std) }])), 3);

export const scrambledDiT = (config: DiTConfig): HostParams => scrambled(ditSpecs(config));

export const largest = (a: HostTensor, b: HostTensor): number =>
  [...a.data].reduce((m, x, i) => Math.max(m, Math.abs(x - b.data[i]!)), 0);

/** A Unigram `tokenizer.json` of a few dozen pieces, with bytes to fall back on; made as umT5's is. */
export function tinyTokenizer(): {
  model: { vocab: [string, number][]; [key: string]: unknown };
  [key: string]: unknown;
} {
  const bytes = Array.from({ length: 256 }, (_, i) => `<0x${i.toString(16).toUpperCase().padStart(2, '0')}>`);
  const words = ['a', 'cat', 'dog', 'Two', 'runs', 'in', 'the', 'snow', 'red'].map((w): [string, number] => [
    `▁${w}`,
    -4,
  ]);
  const letters = '▁abcdefghijklmnopqrstuvwxyz.,!'.split('').map((c): [string, number] => [c, -7]);
  const special = ['<pad>', '</s>', '<unk>'];
  return {
    version: '1.0',
    added_tokens: special.map((content, id) => ({
      id,
      content,
      special: true,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
    })),
    normalizer: { type: 'Precompiled', precompiled_charsmap: '' },
    pre_tokenizer: { type: 'Metaspace', replacement: '▁', prepend_scheme: 'always' },
    post_processor: {
      type: 'TemplateProcessing',
      pair: [],
      single: [{ Sequence: { id: 'A', type_id: 0 } }, { SpecialToken: { id: '</s>', type_id: 0 } }],
      special_tokens: { '</s>': { id: '</s>', ids: [1], tokens: ['</s>'] } },
    },
    decoder: { type: 'Metaspace', replacement: '▁', prepend_scheme: 'always' },
    model: {
      type: 'Unigram',
      unk_id: 2,
      byte_fallback: true,
      vocab: [...[...special, ...bytes].map((t): [string, number] => [t, 0]), ...words, ...letters],
    },
  };
}
