/** Whether weights fit a model, and all of them into host memory. */
import { printShapes } from '../../engine/host/errors.ts';
import type { HostParams } from '../params.ts';
import { inOwnNames, OWN, type Naming } from './names.ts';
import { openWeights } from './open.ts';
import { few, WeightsError } from './stored.ts';
import type { Weights } from './weights.ts';

/** Name → shape, as `ditShapes` and its like give it. */
export type Shapes = Readonly<Record<string, readonly number[]>>;

/** Beside 8-bit weights; those of scaled fp8 are gone by now. */
const SCALES = /(^|\.)(scaled_fp8|scale_weight|scale_input|weight_scale(_\d)?|input_scale|SCB|weight_format)$/;

/** @throws one error that lists the first of each kind of difference in names and shapes, and counts them */
export function checkFit(weights: Weights, expected: Shapes): void {
  const names = Object.keys(expected);
  const has = (n: string) => weights.entries.get(n)?.shape;
  const kinds: [string, string[]][] = [
    ['missing', names.filter((n) => !has(n)).map((n) => `${n} ${printShapes(expected[n]!)}`)],
    [
      'unexpected',
      [...weights.entries].filter(([n]) => !Object.hasOwn(expected, n)).map(([n, e]) => `${n} ${printShapes(e.shape)}`),
    ],
    [
      'of wrong shape',
      names
        .filter((n) => has(n) && String(has(n)) !== String(expected[n]))
        .map((n) => `${n} ${printShapes(has(n)!)}, expected ${printShapes(expected[n]!)}`),
    ],
  ];
  const wrong = kinds.filter(([, all]) => all.length);
  if ([...weights.entries.keys()].some((n) => !Object.hasOwn(expected, n) && SCALES.test(n)))
    throw new WeightsError(
      'weights',
      weights.path,
      'holds 8-bit weights of a kind that is not read (read are GGUF and fp8, plain and scaled): take another file of the same model',
    );
  if (wrong.length)
    throw new WeightsError(
      'weights',
      weights.path,
      `does not fit the model of ${names.length} tensors:\n  ${wrong.map(([what, all]) => few(what, all)).join('\n  ')}`,
    );
}

/**
 * Reads the tensors `expected` names, as f32, from a file in any of the `namings`. Any
 * difference in names or shapes is an error that lists all of them.
 */
export async function loadParams(
  path: string,
  expected: Shapes,
  namings: readonly Naming[] = [OWN],
): Promise<HostParams> {
  const weights = inOwnNames(await openWeights(path), expected, namings);
  try {
    checkFit(weights, expected);
    const params: HostParams = {};
    for (const name of Object.keys(expected)) params[name] = await weights.finiteTensor(name);
    return params;
  } finally {
    await weights.close();
  }
}
