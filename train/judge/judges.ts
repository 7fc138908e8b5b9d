/** The judges of a preset's clips, by its data set. */
import type { Clip } from '../data/sets.ts';
import { loadClassifier } from '../metrics/classifier.ts';
import type { Preset } from '../presets/index.ts';
import type { ClipJudge } from './clipjudge.ts';
import { Judge } from './eval.ts';
import { FlareJudge } from './flarejudge.ts';

/** What students of a preset are compared by. `E` stays inside: tables take `measures`. */
type AnyJudge = Pick<ClipJudge<Clip, never>, 'choose' | 'measure' | 'scored'>;

/** @param classifier its path. @throws one line where the clips are judged without one, or it is missing */
export async function judgesOf(p: Preset, classifier: string): Promise<{ validation: AnyJudge; heldOut: AnyJudge }> {
  const { set } = p.data;
  if (set === 'flare')
    return { validation: await FlareJudge.validation(p, classifier), heldOut: await FlareJudge.heldOut(p, classifier) };
  if (set === 'emoji') throw new Error('[ablate] rows are compared on held-out clips, and emoji has none');
  const weights = await loadClassifier(classifier);
  return { validation: Judge.validation(p, weights), heldOut: Judge.heldOut(p, weights) };
}
