/** How far apart the samples of one condition are from each other: near 0 where seeds no longer matter, which is mode collapse. */

/** Root mean square of the difference, in [-1, 1] units. */
function distance(a: Float32Array, b: Float32Array): number {
  if (a.length !== b.length) throw new Error(`[spread] sizes differ: ${a.length} and ${b.length}`);
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i]! - b[i]!) ** 2;
  return Math.sqrt(sum / a.length);
}

/** Mean over conditions of the mean distance between two clips of one. @param groups clips of each condition, from different seeds */
export function spread(groups: readonly (readonly Float32Array[])[]): number {
  const means = groups.map((clips) => {
    if (clips.length < 2) throw new Error(`[spread] a condition has ${clips.length} clip, needs 2 or more`);
    const pairs = clips.flatMap((a, i) => clips.slice(0, i).map((b) => distance(a, b)));
    return pairs.reduce((x, y) => x + y, 0) / pairs.length;
  });
  return means.reduce((x, y) => x + y, 0) / means.length;
}
