/**
 * What the names in a LoRA file mean: parts of modules under the names of Diffusers, ComfyUI and kohya; and what a file is that has others.
 */
import { diffusersDiT } from './names.ts';
import type { Shapes } from './load.ts';

/** `a`, `b`: low rank. `biasB`: of B, which the scale multiplies too. `weight`, `bias`, `modulation`: whole differences. */
export type Part = 'a' | 'b' | 'biasB' | 'alpha' | 'weight' | 'bias' | 'modulation';

/** Ends of a name, and what stands there. PEFT writes an adapter's name between. */
const PARTS: readonly (readonly [end: RegExp, part: Part])[] = [
  [/\.(?:lora_A|lora_down|lora\.down)(?:\.(?<adapter>[^.]+))?\.weight$/, 'a'],
  [/\.(?:lora_B|lora_up|lora\.up)(?:\.(?<adapter>[^.]+))?\.weight$/, 'b'],
  [/\.(?:lora_B|lora_up|lora\.up)(?:\.(?<adapter>[^.]+))?\.bias$/, 'biasB'],
  [/\.alpha$/, 'alpha'],
  [/\.diff$/, 'weight'],
  [/\.diff_b$/, 'bias'],
  [/\.diff_m$/, 'modulation'], // LightX2V's, under the name of what is modulated
];

/** What stands before a module's name: wrappers of PEFT and DiffSynth around the model, and what programs call it themselves. */
const PREFIX = /^(?:base_model\.model\.|pipe\.|dit\.|model\.|diffusion_model\.|transformer(?:_2)?\.|unet\.)*/;
/** VideoX-Fun writes two underscores. */
const FLAT_PREFIX = /^lora_(?:unet|transformer|dit)_+/;

/** As a module of Diffusers. */
export const inDiffusers = (module: string): string =>
  diffusersDiT.theirs(`${module}.weight`)[0]!.slice(0, -'.weight'.length);
export const flat = (module: string): string => module.replaceAll('.', '_');

/** A name of a file: the module as it says it, ours if it is known, which part it is, and of which of PEFT's adapters. */
export interface Named {
  readonly module: string;
  readonly own: string;
  readonly part: Part;
  readonly adapter: string | undefined;
}

/** Every name that a module, or a tensor that is none's weight or bias, may have behind a prefix → its own. */
function aliases(shapes: Shapes): Map<string, string> {
  const modules = Object.keys(shapes)
    .filter((name) => !name.endsWith('.bias'))
    .map((name) => name.replace(/\.weight$/, ''));
  const modulated = modules.filter((m) => m.endsWith('.modulation')).map((m) => m.replace(/\.modulation$/, ''));
  return new Map(
    [...modules, ...modulated].flatMap((own) =>
      [own, own in shapes ? diffusersDiT.theirs(own)[0]! : inDiffusers(own)].map((name): [string, string] => [
        name,
        own,
      ]),
    ),
  );
}

/** Reads names of a model's LoRAs. @param shapes of the model, as `ditShapes` gives them */
export function nameReader(shapes: Shapes): (name: string) => Named | undefined {
  const dotted = aliases(shapes);
  // Which underscores were dots is known by the model's own names alone.
  const flattened = new Map([...dotted].map(([name, own]) => [flat(name), own]));
  const ownOf = (module: string): string | undefined =>
    FLAT_PREFIX.test(module) ? flattened.get(module.replace(FLAT_PREFIX, '')) : dotted.get(module.replace(PREFIX, ''));
  return (name) => {
    for (const [end, part] of PARTS) {
      const found = end.exec(name);
      if (!found) continue;
      const module = name.slice(0, found.index);
      const own = ownOf(module);
      const adapter = found.groups?.['adapter'];
      const isWhole = own !== undefined && (`${own}.weight` in shapes || own in shapes);
      if (own !== undefined && isWhole !== (part === 'modulation')) return { module, own, part, adapter };
    }
    return undefined;
  };
}

const ELSEWHERE = 'only plain LoRAs are read: merge it with the program that made it, or train it without';

/** What a file is that has such names, and what to do. */
const OTHERS: readonly (readonly [RegExp, string])[] = [
  [/lora_magnitude_vector|dora_scale/, `it is a DoRA; ${ELSEWHERE}`],
  [/\.lokr_/, `it is a LoKr; ${ELSEWHERE}`],
  [/\.hada_/, `it is a LoHa; ${ELSEWHERE}`],
  [/\.oft_|\.boft_/, `it is an OFT; ${ELSEWHERE}`],
  [/\.(w|b)_norm$|\.lora_mid|\.(on_input|ia3_l)\b/, `it is of LyCORIS; ${ELSEWHERE}`],
  [/(^|\.)vace_(blocks|patch)/, 'it is of VACE, which is not read'],
  [/double_blocks|single_blocks|double_stream/, "it is another model's, as Flux or HunyuanVideo are built"],
  [
    /(down|up|mid|input|output|middle)_blocks?[._]\d|unet_(down|up|mid|input|output)_/,
    "it is another model's, as Stable Diffusion is built",
  ],
  [/joint_blocks|transformer_blocks/, "it is another model's, as SD3, LTX or Qwen-Image are built"],
  [/^(lora_te\d?_|text_encoder|te\d?\.|cond_stage)/, 'it changes the text encoder, which no LoRA is read for'],
];
const OF_IMAGES = /k_img|v_img|img_emb|add_[kv]_proj|norm_added_k|image_embedder/;
const BLOCK = /(?:^|[._])blocks?[._](\d+)[._]/;

const blocksOf = (names: Iterable<string>): number =>
  [...names].reduce((n, name) => Math.max(n, Number(BLOCK.exec(name)?.[1] ?? -1) + 1), 0);

/** What a file is whose names are unknown, as far as they tell. */
export function kindOf(unknown: readonly string[], shapes: Shapes): string | undefined {
  const other = OTHERS.find(([names]) => unknown.some((name) => names.test(name)));
  if (other) return other[1];
  const [theirs, ours] = [blocksOf(unknown), blocksOf(Object.keys(shapes))];
  if (theirs > ours) return `it is of a model of ${theirs} or more blocks, this one has ${ours}`;
  const ownImages = Object.keys(shapes).some((name) => OF_IMAGES.test(name));
  if (!ownImages && unknown.some((name) => OF_IMAGES.test(name)))
    return 'it is for image-to-video (I2V), this model makes video from text (T2V)';
  return undefined;
}
