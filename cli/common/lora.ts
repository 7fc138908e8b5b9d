/** `--lora` as several commands understand it. */
import type { Shapes } from '../../model/files/load.ts';
import { loadLora, type Lora } from '../../model/files/lora.ts';

/** `file.safetensors` or `file.safetensors:0.8`. */
export async function readLora(asked: string, shapes: Shapes): Promise<Lora> {
  const [, path, scale] = /^(.*?)(?::(-?\d*\.?\d+))?$/.exec(asked)!;
  return { file: await loadLora(path!, shapes), scale: scale === undefined ? 1 : Number(scale) };
}
