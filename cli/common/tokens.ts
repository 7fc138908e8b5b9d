/** Texts that are longer than what a model reads of them. */
import { few } from '../../model/files/stored.ts';
import type { VideoModel } from '../../model/pipeline/generate.ts';

/** One line that says which texts are cut, and how much of each; nothing where none is. */
export async function cutTexts(
  model: VideoModel,
  texts: readonly { name: string; text: string }[],
): Promise<string | undefined> {
  const counts = (await model.countTokens?.(texts.map((t) => t.text))) ?? [];
  const cut = texts.flatMap(({ name }, i) =>
    counts[i]! > model.dit.text_len ? [`${name} by ${counts[i]! - model.dit.text_len} of ${counts[i]}`] : [],
  );
  return cut.length
    ? `cut off at ${model.dit.text_len} tokens, the most that the model reads: ${few('texts', cut)}`
    : undefined;
}
