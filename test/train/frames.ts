/** Makes the file of first frames that comes with the bundle: `node --import tsx test/train/frames.ts bundle/digits/frames.safetensors`. */
import { pathToFileURL } from 'node:url';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { saveTensors } from '../../model/files/safetensors.ts';
import { conditions } from '../../train/data/digits.ts';
import { FRAMES_EACH, originOf } from '../../train/data/firstframes.ts';
import { frameOf } from '../../train/data/frames.ts';
import { digitsOf } from '../../train/data/sets.ts';
import { videoShape } from '../../train/methods/conditions.ts';
import { loadPreset, type Preset } from '../../train/presets/index.ts';

const CAPTIONS = 80;

/** Caption → [8, channels, height, width]. */
export function framesOf(p: Preset): Record<string, HostTensor> {
  const [channels, , height, width] = videoShape(p);
  const found = new Map<string, number[]>();
  for (const { caption, video } of conditions(p.seed, CAPTIONS * FRAMES_EACH, digitsOf(p)))
    found.set(caption, [...(found.get(caption) ?? []), ...frameOf(video, videoShape(p), 0)]);
  return Object.fromEntries(
    [...found].map(([caption, data]) => [
      caption,
      host(Float32Array.from(data), [FRAMES_EACH, channels, height, width]),
    ]),
  );
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const preset = loadPreset('digits');
  await saveTensors(process.argv[2]!, framesOf(preset), { metadata: { origin: originOf(preset)! } });
}
