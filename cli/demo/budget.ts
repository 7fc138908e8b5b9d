/** How the demo divides its time between training and judging. */

/** Seconds, as measured on this machine. */
export interface Speeds {
  /** Clips that are sampled together, and for so many: one guided step (two evaluations); encoding, decoding, judging. */
  group: number;
  guidedStep: number;
  around: number;
}

const SLACK = 0.9; // of what is left is given away, as speeds wander
const PRIMING = 0.4; // of the training time: the second phase gains for longer

/** Seconds that sampling and judging so many conditions takes, with the teacher and two students. */
export const judging = (s: Speeds, clips: number, teacherSteps: number): number =>
  Math.ceil(clips / s.group) * ((teacherSteps + 1) * s.guidedStep + 3 * s.around);

/** The most conditions, in whole groups, that fit into `left` seconds: at least one group, at most `wanted`. */
export function clipsThatFit(s: Speeds, left: number, wanted: number, teacherSteps: number): number {
  const groups = Math.floor((SLACK * left) / judging(s, s.group, teacherSteps));
  return Math.min(wanted, s.group * Math.max(1, groups));
}

/** Seconds for each phase out of `left`: half of it at most is kept for judging. */
export function trainingTime(
  s: Speeds,
  left: number,
  wanted: number,
  teacherSteps: number,
): { priming: number; equilibrium: number } {
  const training = Math.max(
    0,
    SLACK * left - judging(s, clipsThatFit(s, left / 2, wanted, teacherSteps), teacherSteps),
  );
  return { priming: PRIMING * training, equilibrium: (1 - PRIMING) * training };
}
