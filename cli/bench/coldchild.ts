/** The child of cold.ts: one tiny training step in a fresh process. */
import { open } from '../../engine/runtime/device.ts';
import { teacherJob } from '../../train/methods/jobs.ts';
import { loadPreset } from '../../train/presets/index.ts';
import { serve } from '../common/child.ts';
import { noiseShards } from '../common/noise.ts';
import { time } from './clock.ts';

serve(async () => {
  const device = await open();
  const p = loadPreset('digits-test');
  const job = teacherJob(device, p, noiseShards(p));
  let state = await job.initial();
  return await time({
    call: async () => {
      ({ state } = await job.advance(state, 0));
    },
    settle: () => device.idle(),
  });
});
