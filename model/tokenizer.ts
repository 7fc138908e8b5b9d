/** Prompts to token ids by a checkpoint's own `tokenizer.json`, cleaned and cut as Wan2.1 does it (wan/modules/tokenizers.py). */
import * as library from '@huggingface/tokenizers';
import { parseJson } from './files/json.ts';
import { isObject } from './files/stored.ts';
import { dirname, exists, isFolder, join, readTextFile } from '../engine/host/files.ts';
import { withinTime } from '../engine/host/runtime.ts';

/** Tokens that a text encoder of Wan2.1 takes, the closing one among them. */
const TEXT_LEN = 512;

const ENTITIES: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'", nbsp: '\u00a0' };

function unescapeHTML(text: string): string {
  return text.replace(/&(?:#(\d+)|#x([\da-f]+)|(\w+));/gi, (whole, decimal?: string, hex?: string, name?: string) => {
    if (name) return Object.hasOwn(ENTITIES, name) ? ENTITIES[name]! : whole;
    const code = decimal ? Number(decimal) : parseInt(hex!, 16);
    return code <= 0x10ffff ? String.fromCodePoint(code) : whole;
  });
}

/**
 * Wan's "whitespace" cleaning: what ftfy straightens, HTML unescaped twice, runs of white space as one blank.
 * Of ftfy it leaves out the repair of text that was decoded wrongly, and of HTML's named characters it knows XML's and nbsp.
 */
export function cleanPrompt(text: string): string {
  const straight = unescapeHTML(unescapeHTML(text))
    // oxlint-disable-next-line no-control-regex
    .replace(/\u001b\[[\d;]*[a-z]/gi, '') // terminal colours
    .replace(/[\u0132\u0133\u0149\u01c4-\u01cc\u01f1-\u01f3\ufb00-\ufb06\u3000\uff01-\uffef]/g, (c) =>
      c.normalize('NFKC'),
    ) // ligatures, full and half width
    .replace(/[\u02bc\u2018-\u201b]/g, "'")
    .replace(/[\u201c-\u201f]/g, '"')
    // oxlint-disable-next-line no-control-regex
    .replace(/[\0-\u0008\u000b\u000e-\u001f\u007f\u206a-\u206f\ufeff\ufff9-\ufffc]/g, '')
    .normalize('NFC');
  return straight.replace(/\s+/g, ' ').trim();
}

/** The regular expressions in a tokenizer.json are its author's, and one may never come to an end: Wan's takes a millisecond. */
const [READING_MS, ENCODING_MS] = [120_000, 5000];

/** What is used of the library; its own declarations do not resolve by Node's rules. */
interface Library {
  encode(text: string): { ids: number[]; tokens: string[] };
  token_to_id(token: string): number | undefined;
}

/** What Hugging Face keeps in `tokenizer.json`, as far as it is read here. */
interface TokenizerJSON {
  model?: { type?: string; byte_fallback?: boolean; unk_id?: number | null };
}

/** Runs what the library does with a tokenizer.json that may say anything. @throws one line */
function fitting<R>(work: () => R): R {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof TypeError || error instanceof RangeError)) throw error;
    throw new Error(`the tokenizer.json is damaged: its parts do not fit one another (${error.message})`, {
      cause: error,
    });
  }
}

export class Tokenizer {
  private readonly library: Library;
  private readonly bytes: boolean;
  private readonly unknown: number | undefined;

  /** @param json `tokenizer.json`, parsed. @param config `tokenizer_config.json`, parsed */
  constructor(json: object, config: object = {}) {
    const { model } = json as TokenizerJSON;
    if (!model?.type) throw new Error('it is no tokenizer.json of Hugging Face: "model.type" is missing');
    this.library = fitting(() =>
      withinTime(READING_MS, () => new library.Tokenizer(json, config) as Library, 'reading it'),
    );
    this.bytes = model.byte_fallback ?? false;
    this.unknown = model.unk_id ?? undefined;
  }

  /**
   * Token ids of a prompt with the closing token, at most `maxLength`: what is over is
   * cut off before it. The empty prompt is that token alone.
   */
  encode(prompt: string, maxLength = TEXT_LEN): number[] {
    const all = this.whole(prompt);
    return all.length > maxLength ? [...all.slice(0, maxLength - 1), all.at(-1)!] : all;
  }

  /** Tokens of a prompt, uncut, the closing one among them. */
  count(prompt: string): number {
    return this.whole(prompt).length;
  }

  private whole(prompt: string): number[] {
    const text = cleanPrompt(prompt);
    const { ids, tokens } = fitting(() =>
      withinTime(ENCODING_MS, () => this.library.encode(text), `splitting "${text.slice(0, 40)}"`),
    );
    // The library leaves pieces outside the vocabulary as unknown; SentencePiece spells them in bytes.
    return this.bytes ? ids.flatMap((id, i) => (id === this.unknown ? this.spell(tokens[i]!) : [id])) : ids;
  }

  private spell(piece: string): number[] {
    const ids = Array.from(new TextEncoder().encode(piece), (byte) =>
      this.library.token_to_id(`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`),
    );
    return ids.every((id) => id !== undefined) ? (ids as number[]) : [this.unknown!];
  }
}

async function readJSON(path: string): Promise<object> {
  const text = await readTextFile(path).catch((e: Error & { code?: string }) => {
    throw new Error(
      e.code === 'ENOENT'
        ? "there is no such file; download the tokenizer beside the weights (google/umt5-xxl in Wan2.1's folders, tokenizer in Diffusers')"
        : e.message,
      { cause: e },
    );
  });
  const json = parseJson(text);
  if (!isObject(json)) throw new Error('it is no tokenizer.json of Hugging Face: it is not an object');
  return json;
}

/** @param path a folder with tokenizer.json and, if it likes, tokenizer_config.json; or the tokenizer.json */
export async function loadTokenizer(path: string): Promise<Tokenizer> {
  const folder = await isFolder(path);
  const file = folder ? join(path, 'tokenizer.json') : path;
  const beside = join(folder ? path : dirname(path), 'tokenizer_config.json');
  try {
    const config = (await exists(beside)) ? await readJSON(beside) : {};
    return new Tokenizer(await readJSON(file), config);
  } catch (error) {
    throw new Error(`[tokenizer] ${file}: ${(error as Error).message}`, { cause: error });
  }
}
