/**
 * Captions of the small data sets as text tokens, in umT5's place: words under a frozen random embedding.
 *
 * Like umT5's output, a caption is [length, text_dim] and stands zero-padded in [text_len, text_dim]; the empty caption is
 * the unconditional one and has length 0.
 */
import { host, type HostTensor } from '../engine/frontend/tree.ts';
import { draw } from './params.ts';

/** Token 0 is padding. */
export const VOCABULARY = [
  '<pad>',
  'a',
  '0',
  '1',
  '2',
  '3',
  '4',
  '5',
  '6',
  '7',
  '8',
  '9',
  'moving',
  'up',
  'down',
  'left',
  'right',
  'up-left',
  'up-right',
  'down-left',
  'down-right',
] as const;

const IDS = new Map<string, number>(VOCABULARY.slice(1).map((word, i) => [word, i + 1]));

/** `a 3 moving up-left` → token ids; the empty caption has none. */
export function tokenize(caption: string): number[] {
  return caption
    .split(/\s+/)
    .filter(Boolean)
    .map((word) => IDS.get(word) ?? unknown(word, caption, IDS.keys()));
}

function unknown(word: string, caption: string, words: Iterable<string>): never {
  throw new Error(`[text] unknown word "${word}" in "${caption}"; the words are: ${[...words].join(', ')}`);
}

function checkLength(caption: string, tokens: number, textLen: number): void {
  if (tokens > textLen) throw new Error(`[text] "${caption}" has ${tokens} tokens, text_len is ${textLen}`);
}

/** The frozen embedding [words, text_dim], standard normal, the same in every run; the padding row is zero. */
export function embeddingTable(textDim: number): HostTensor {
  const data = draw('normal', 0, 'text.embedding', VOCABULARY.length * textDim);
  return host(data.fill(0, 0, textDim), [VOCABULARY.length, textDim]);
}

/** Captions as a network takes them: context [B, textLen, textDim], zero past each caption's length. */
export type Embed = (captions: readonly string[]) => { context: HostTensor; lengths: number[] };

/** What captions are made of: the words of the digits data set, those of a vocabulary, or any. */
export type Language = 'digits' | 'any' | ReadonlySet<string>;

const split = (caption: string): string[] => caption.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];

/** The words that a language knows; undefined where it knows any. */
export const wordsOf = (language: Language): readonly string[] | undefined =>
  language === 'any' ? undefined : language === 'digits' ? VOCABULARY.slice(1) : [...language];

/** A caption's words. @throws one line naming the first that a language does not know */
export function wordsIn(caption: string, language: Exclude<Language, 'digits'>): string[] {
  const words = split(caption);
  if (language !== 'any') for (const word of words) if (!language.has(word)) unknown(word, caption, language);
  return words;
}

/**
 * - `digits`: refuses a word that is not in the vocabulary, and a caption that is too long;
 * - a vocabulary or `any`: letters and digits in lower case; each word has a frozen random vector of its own, drawn from its spelling, so
 *   that words can be added. A vocabulary refuses as `digits` does; of any words, those that do not fit are cut off.
 */
export function embedderOf(language: Language, textDim: number, textLen: number): Embed {
  if (language === 'digits') {
    const table = embeddingTable(textDim);
    return (captions) => embedCaptions(captions, table, textLen);
  }
  const vectors = new Map<string, Float32Array>();
  const vectorOf = (word: string): Float32Array => {
    const found = vectors.get(word) ?? draw('normal', 0, `text.word.${word}`, textDim);
    vectors.set(word, found);
    return found;
  };
  return (captions) => {
    const context = new Float32Array(captions.length * textLen * textDim);
    const lengths = captions.map((caption, b) => {
      const words = wordsIn(caption, language);
      if (language !== 'any') checkLength(caption, words.length, textLen);
      const kept = words.slice(0, textLen);
      kept.forEach((word, i) => context.set(vectorOf(word), (b * textLen + i) * textDim));
      return kept.length;
    });
    return { context: host(context, [captions.length, textLen, textDim]), lengths };
  };
}

/** Captions → context [B, textLen, textDim], zero past each caption's length. */
export function embedCaptions(
  captions: readonly string[],
  table: HostTensor,
  textLen: number,
): { context: HostTensor; lengths: number[] } {
  const dim = table.shape[1]!;
  const context = new Float32Array(captions.length * textLen * dim);
  const lengths = captions.map((caption, b) => {
    const ids = tokenize(caption);
    checkLength(caption, ids.length, textLen);
    ids.forEach((id, i) => context.set(table.data.subarray(id * dim, (id + 1) * dim), (b * textLen + i) * dim));
    return ids.length;
  });
  return { context: host(context, [captions.length, textLen, dim]), lengths };
}
