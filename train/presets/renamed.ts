/** Names that settings and jobs once had: command lines, model files and run folders that say them are still understood. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';

const RENAMED: Readonly<Record<string, string>> = { phase1: 'priming', phase2: 'equilibrium' };
const BEFORE = Object.fromEntries(Object.entries(RENAMED).map(([before, now]) => [now, before]));

/** Today's name of a setting or a job. */
export const nameNow = (name: string): string => RENAMED[name] ?? name;

const renamed = (settings: object, names: Readonly<Record<string, string>>): Record<string, unknown> =>
  Object.fromEntries(
    Object.entries(settings).map(([name, value]: [string, unknown]) => [
      names[name] ?? name,
      name === 'job' ? (names[String(value)] ?? value) : value,
    ]),
  );

/** A preset's settings, or a run's, with its job, under today's names; what is no object stays as it is. */
export const underNamesNow = (settings: unknown): unknown =>
  typeof settings === 'object' && settings !== null ? renamed(settings, RENAMED) : settings;

/** The same under the names of before: what a run that began with those is known by. */
export const underNamesBefore = (settings: object): Record<string, unknown> => renamed(settings, BEFORE);

/** The folder of a job in a run: of its name, or of the one it had before where the run has that. */
export function folderOf(run: string, job: string): string {
  const [own, before] = [join(run, job), join(run, BEFORE[job] ?? job)];
  return existsSync(before) && !existsSync(own) ? before : own;
}
