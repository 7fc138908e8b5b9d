/** `--lora` as several commands understand it. */
import { existsSync } from 'node:fs';
import type { Shapes } from '../../model/files/load.ts';
import { loadLora, type Lora } from '../../model/files/lora.ts';
import type { Checkpoint } from '../../model/files/checkpoint.ts';
import type { Expert } from '../../model/pipeline/diffuse.ts';
import type { ExpertLora } from '../../model/pipeline/wan.ts';
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

const EXPERT = /^(high|low|both):(.+)$/;

/**
 * LoRAs of a checkpoint: of one network as `readLora` has them; of two experts behind `high:`, `low:` or `both:`, for nothing in a file
 * tells which it was made for.
 */
export async function readLoras(
  asked: readonly string[],
  { dit: { shapes }, low }: Pick<Checkpoint, 'dit' | 'low'>,
): Promise<ExpertLora[]> {
  const loras: ExpertLora[] = [];
  for (const each of asked) {
    const [, expert, file] = (existsSync(each) ? null : EXPERT.exec(each)) ?? [];
    if (low && !expert)
      throw new UsageError(
        `--lora ${each}: which of the two experts is it for? high:${each}, low:${each} or both:${each}`,
      );
    if (!low && expert) throw new UsageError(`--lora ${each}: this model is one network, leave ${expert}: out`);
    const lora = await readLora(file ?? each, shapes);
    loras.push({ ...lora, ...(expert && expert !== 'both' && { expert: expert as Expert }) });
  }
  return loras;
}

/** What an argument of `--lora` names, and what stands around the file's name. */
export function loraParts(asked: string): { expert?: 'high' | 'low' | 'both'; file: string; strength?: string } {
  const [, expert, rest = asked] = (existsSync(asked) ? null : EXPERT.exec(asked)) ?? [];
  const [, file = rest, strength] = (existsSync(rest) ? null : STRENGTH.exec(rest)) ?? [];
  return {
    ...(expert !== undefined && { expert: expert as Expert | 'both' }),
    file,
    ...(strength !== undefined && { strength }),
  };
}
