/**
 * Captions of the digits data set as text tokens: a fixed vocabulary and a frozen random embedding, in umT5's place.
 *
 * Like umT5's output, a caption is [length, text_dim] and stands zero-padded in [text_len, text_dim]; the empty caption is
 * the unconditional one and has length 0.
 */
import { host, type HostTensor } from '../engine/tree.ts';
import { draw } from './params.ts';

/** Token 0 is padding. */
export const VOCABULARY = [
  '<pad>', 'a', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'moving',
  'up', 'down', 'left', 'right', 'up-left', 'up-right', 'down-left', 'down-right',
] as const;

const IDS = new Map<string, number>(VOCABULARY.slice(1).map((word, i) => [word, i + 1]));

/** `a 3 moving up-left` → token ids; the empty caption has none. */
export function tokenize(caption: string): number[] {
  return caption.split(/\s+/).filter(Boolean).map((word) => {
    const id = IDS.get(word);
    if (id === undefined) throw new Error(`[text] unknown word "${word}" in "${caption}"; the words are: ${[...IDS.keys()].join(', ')}`);
    return id;
  });
}

/** The frozen embedding [words, text_dim], standard normal, the same in every run; the padding row is zero. */
export function embeddingTable(textDim: number): HostTensor {
  const data = draw('normal', 0, 'text.embedding', VOCABULARY.length * textDim);
  return host(data.fill(0, 0, textDim), [VOCABULARY.length, textDim]);
}

/** Captions → context [B, textLen, textDim], zero past each caption's length. */
export function embedCaptions(captions: readonly string[], table: HostTensor, textLen: number): { context: HostTensor; lengths: number[] } {
  const dim = table.shape[1]!;
  const context = new Float32Array(captions.length * textLen * dim);
  const lengths = captions.map((caption, b) => {
    const ids = tokenize(caption);
    if (ids.length > textLen) throw new Error(`[text] "${caption}" has ${ids.length} tokens, text_len is ${textLen}`);
    ids.forEach((id, i) => context.set(table.data.subarray(id * dim, (id + 1) * dim), (b * textLen + i) * dim));
    return ids.length;
  });
  return { context: host(context, [captions.length, textLen, dim]), lengths };
}
