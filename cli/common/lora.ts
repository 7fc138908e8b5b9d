/** `--lora` as several commands understand it. */
import { existsSync } from 'node:fs';
import type { Shapes } from '../../model/files/load.ts';
import { loadLora, type Lora } from '../../model/files/lora.ts';
import { UsageError } from './errors.ts';

const STRENGTH = /^(.+)[:=]([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)$/i;

/** `file.safetensors`, or `file.safetensors:0.8` with a strength as numbers are written; a file of the whole name comes first. */
export async function readLora(asked: string, shapes: Shapes): Promise<Lora> {
  const [, path = asked, strength = '1'] = existsSync(asked) ? [] : (STRENGTH.exec(asked) ?? []);
  if (!Number.isFinite(Number(strength))) throw new UsageError(`--lora ${asked}: its strength must be a finite number`);
  const [, file, rest] = /^(.*\.(?:safetensors|pt|pth|bin))[:=](.*)$/.exec(path) ?? [];
  if (file !== undefined && !existsSync(path) && existsSync(file))
    throw new UsageError(`--lora ${asked}: "${rest}" is no strength; it reads as ${file}:0.8`);
  return { file: await loadLora(path, shapes), scale: Number(strength) };
}
