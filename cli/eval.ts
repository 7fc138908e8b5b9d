/** `vpae eval`: what models are worth on held-out conditions, or what any folder of videos is. */
import type { CommandModule } from 'yargs';
import { evaluateFolder } from './eval/folder.ts';
import { evaluateModels } from './eval/models.ts';
import { writeSuite } from './eval/suite.ts';
import { count, json, model, type Args } from './common/options.ts';

const options = {
  ...model,
  ...json,
  count: { type: 'number', default: 256, describe: 'models: held-out conditions; a report needs 256' },
  steps: { type: 'number', describe: 'models: sampling steps, instead of those they are meant for' },
  vbench: { type: 'boolean', default: false, describe: "models: VBench's formulas on proxies of its networks, too" },
  save: { type: 'string', describe: "models: a folder for the clips, in the layout that VBench's suite reads" },
  suite: {
    type: 'string',
    describe: "VBench's vbench2_i2v_full_info.json: writes its prompts, with --images, as a file for sample --prompts",
  },
  out: { type: 'string', default: 'out/vbench/prompts.jsonl', describe: 'suite: that file' },
  images: {
    type: 'string',
    describe:
      'folder, suite: pictures that the videos were or are to be made from; NAME.png for NAME.mp4 or NAME-0.mp4',
  },
  reference: { type: 'string', describe: 'folder: real videos to compare with' },
  dino: { type: 'string', describe: "folder: weights of DINO ViT-B/16 (.pth or .safetensors), VBench's for subjects" },
  clip: {
    type: 'string',
    describe: "folder: weights of CLIP ViT-B/32 as transformers keeps it, VBench's for backgrounds",
  },
  'clip-large': { type: 'string', describe: 'folder: weights of CLIP ViT-L/14, for aesthetics with --laion' },
  laion: { type: 'string', describe: "folder: LAION's linear head on it, sa_0_4_vit_l_14_linear.pth" },
} as const;
type EvalArgs = Args<typeof options> & { folder?: string | undefined };

async function evaluate(args: EvalArgs): Promise<void> {
  count('count', args.count, 2, 10_000);
  if (args.steps !== undefined) count('steps', args.steps, 1, 1000);
  if ((args['clip-large'] === undefined) !== (args.laion === undefined))
    throw new Error('[eval] --clip-large and --laion are used together: give both or neither');
  if (args.suite !== undefined) return writeSuite(args.suite, args.images, args.out);
  const { folder, dino, clip, laion, images, reference, json: asJson } = args;
  if (folder !== undefined)
    return evaluateFolder({
      folder,
      images,
      reference,
      json: asJson,
      dino,
      clip,
      clipLarge: args['clip-large'],
      laion,
    });
  const stray = Object.entries({ images, reference, dino, clip, laion }).find(([, given]) => given !== undefined)?.[0];
  if (stray) throw new Error(`[eval] --${stray} goes with a folder of videos: vpae eval FOLDER --${stray} …`);
  return evaluateModels(args);
}

const command: CommandModule<object, EvalArgs> = {
  command: 'eval [folder]',
  describe: "measure models on held-out conditions, or any folder of videos by VBench's formulas",
  builder: (y) =>
    y
      .positional('folder', {
        type: 'string',
        describe: 'videos (webp, gif, folders of pictures; others through ffmpeg); without it, models are judged',
      })
      .options(options)
      .example('$0 eval', 'the bundled models')
      .example('$0 eval --model runs/mine --student --count 64', 'one model of a run, quickly')
      .example(
        '$0 eval --suite vbench2_i2v_full_info.json --images crop/16-9',
        'the official suite, for a Wan2.1 model',
      )
      .example(
        '$0 eval out/videos --images out/images --dino dino_vitbase16_pretrain.pth',
        "videos of any model, with VBench's own network for subjects",
      ),
  handler: evaluate,
};
export default command;
