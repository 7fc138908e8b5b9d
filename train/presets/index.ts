/** Finds a preset by name, applies overrides such as `priming.steps=200`, and checks the result. */
import { PRESETS as DIGITS } from './digits.ts';
import { EMOJI } from './emoji.ts';
import { FLARE } from './flare.ts';
import type { z } from 'zod';
import { nameNow, underNamesNow } from './renamed.ts';
import { presetSchema, settingsSchema, type Preset, type Settings } from './schema.ts';

export type { Course, Preset, Settings } from './schema.ts';
const PRESETS: Record<string, Preset> = { ...DIGITS, ...EMOJI, ...FLARE };
export const presetNames = (): string[] => Object.keys(PRESETS);

/**
 * @param sets overrides `path=value`; the value is JSON, or a bare word.
 * @throws one line: an unknown preset or setting, or a value out of range.
 */
export function loadPreset(name: string, sets: readonly string[] = []): Preset {
  const found = Object.hasOwn(PRESETS, name) ? PRESETS[name] : undefined;
  if (!found) throw new Error(`[preset] there is no preset "${name}"; there are: ${presetNames().join(', ')}`);
  return checkPreset(override(found, sets));
}

/** Checks a preset that came from a file. @throws one line naming the first setting that is wrong. */
export function checkPreset(preset: unknown): Preset {
  const parsed = parse(presetSchema, underNamesNow(preset));
  consistent(parsed);
  return parsed;
}

/** Checks the settings of how a network of any size is trained. @throws one line naming the first setting that is wrong. */
export const checkSettings = (settings: unknown): Settings => parse(settingsSchema, settings);

function parse<T>(schema: z.ZodType<T>, value: unknown): T {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  throw new Error(`[preset] ${issue.path.join('.') || 'preset'}: ${issue.message}`);
}

/** A copy with some settings replaced; nothing is checked but their names. */
export function override<T extends object>(settings: T, sets: readonly string[]): T {
  const copy = structuredClone(settings);
  for (const set of sets) assign(copy as Record<string, unknown>, set);
  return copy;
}

function assign(preset: Record<string, unknown>, set: string): void {
  const [, path, text] = /^([\w.]+)=(.*)$/s.exec(set) ?? [];
  if (path === undefined || text === undefined) throw new Error(`[preset] an override reads path=value, got "${set}"`);
  let at: unknown = preset;
  const [first, ...inner] = path.split('.');
  const names = [nameNow(first!), ...inner];
  for (const [depth, name] of names.entries()) {
    if (typeof at !== 'object' || at === null || !Object.hasOwn(at, name)) {
      const known = typeof at === 'object' && at !== null ? `among ${Object.keys(at).join(', ')}` : 'there';
      throw new Error(`[preset] there is no setting "${path}": "${name}" is not ${known}`);
    }
    const inside = at as Record<string, unknown>;
    if (depth === names.length - 1) inside[name] = valueOf(text);
    else at = inside[name];
  }
}

function valueOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** What one setting demands of another. */
function consistent(p: Preset): void {
  const fail = (what: string): never => {
    throw new Error(`[preset] ${what}`);
  };
  if (p.dit.dim % p.dit.num_heads !== 0)
    fail(`dit.dim ${p.dit.dim} is not a multiple of dit.num_heads ${p.dit.num_heads}`);
  if ((p.data.frames - 1) % 4 !== 0) fail(`data.frames must be 1 + a multiple of 4, got ${p.data.frames}`);
  const {
    student,
    priming: { fake },
  } = p;
  if (fake.ida < 1 && (student.mode !== fake.mode || student.rank !== fake.rank))
    fail(
      `priming.fake.ida needs student and fake model of one form, got ${student.mode} and ${fake.mode}, ranks ${student.rank} and ${fake.rank}`,
    );
  refuseGiants(p, fail);
  const deepest = Math.max(...p.equilibrium.taps);
  if (deepest >= p.dit.num_layers)
    fail(
      `equilibrium.taps names block ${deepest} of a network of ${p.dit.num_layers} blocks (0 to ${p.dit.num_layers - 1})`,
    );
}

/**
 * Numbers that are each within their bounds may be none of a machine's together: what a network and one micro-batch would take, roughly.
 */
const [MOST_PARAMETERS, MOST_ACTIVATIONS, MOST_PIXELS] = [1e12, 2 ** 40, 2 ** 31];

function refuseGiants(p: Preset, fail: (what: string) => never): void {
  const { dim, ffn_dim, num_layers, patch_size } = p.dit;
  const parameters = num_layers * dim * (8 * dim + 2 * ffn_dim);
  if (parameters > MOST_PARAMETERS)
    fail(
      `dit.dim ${dim}, dit.ffn_dim ${ffn_dim} and dit.num_layers ${num_layers} make ${parameters.toExponential(1)} parameters, at most ${MOST_PARAMETERS} are meant`,
    );
  const micro = Math.max(
    p.trainVae.batch,
    ...[p.teacher, p.priming, p.equilibrium, ...Object.values(p.baselines)].map((s) =>
      'batch' in s ? s.batch / (s.accumulate ?? 1) : 1,
    ),
  );
  const pixels = micro * p.vae.channels * p.data.frames * p.data.size ** 2;
  const tokens =
    (p.data.frames * p.data.size ** 2) / (4 ** p.vae.dim_mult.length * patch_size.reduce((a, b) => a * b, 1));
  const activations =
    micro * Math.max((tokens + p.text.text_len) * Math.max(dim, ffn_dim), p.text.text_len * p.text.text_dim);
  const wrong =
    pixels > MOST_PIXELS ? [pixels, 'pixels', MOST_PIXELS] : [activations, 'numbers in one layer', MOST_ACTIVATIONS];
  if (Number(wrong[0]) > Number(wrong[2]))
    fail(
      `${micro} clips of ${p.data.frames} frames, ${p.data.size}x${p.data.size}, at a time are ${Number(wrong[0]).toExponential(1)} ${wrong[1]}, at most ${wrong[2]} are meant: a smaller batch, or accumulate`,
    );
}
