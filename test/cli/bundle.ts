/** A bundle of untrained networks, so that commands can be tried in seconds. */
import { join } from 'node:path';
import { initDiT } from '../../model/wan/dit.ts';
import { initVAE } from '../../model/wan/vae.ts';
import { ditConfigOf, vaeConfigOf } from '../../train/methods/conditions.ts';
import { loadVAE, saveModel } from '../../train/loop/models.ts';
import { loadPreset } from '../../train/presets/index.ts';

/** Writes vae, teacher and student of the preset `digits-test` into `dir`. */
export async function writeBundle(dir: string): Promise<void> {
  const preset = loadPreset('digits-test');
  const about = { preset, steps: 0 };
  const vaePath = join(dir, 'vae.safetensors');
  const [vae, dit] = [vaeConfigOf(preset), ditConfigOf(preset)];
  await saveModel(vaePath, { kind: 'vae', config: vae, params: initVAE(vae, 1), about });
  const { hash } = await loadVAE(vaePath);
  for (const kind of ['teacher', 'student'] as const) {
    await saveModel(join(dir, `${kind}.safetensors`), {
      kind,
      config: dit,
      params: initDiT(dit, 2),
      about: { ...about, vae: hash },
    });
  }
}
