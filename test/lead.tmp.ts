import { open } from '../engine/device.ts';
import { loadPreset } from '../train/presets/index.ts';
import { trainVae } from '../train/pipeline.ts';
const device = await open();
const preset = loadPreset('digits', process.argv.slice(3));
let last = 0;
await trainVae({ device, preset, out: process.argv[2]!, onProgress: (p: any) => { if (performance.now() - last > 3000) { last = performance.now(); console.log(JSON.stringify(p)); } } });
device.close();
