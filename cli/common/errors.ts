/** How a command ends badly: one line on stderr and an exit code that scripts can use. */
import { hostname } from 'node:os';
import process from 'node:process';

/** Wrong words on the command line. */
export class UsageError extends Error {}

/** Ctrl-C, after what was under way has been brought to a good end. The message says what is kept and how to go on. */
export class Interrupted extends Error {}

export const EXIT = { failed: 1, usage: 2, noAdapter: 3, interrupted: 130, unread: 141 } as const;

export const EXIT_DOC = `Exit codes: 0 done, ${EXIT.failed} failed, ${EXIT.usage} wrong usage, ${EXIT.noAdapter} no adapter, ${EXIT.interrupted} interrupted (by its signal where work was left in the midst), ${EXIT.unread} nobody reads the output any more.`;

const LONGEST = 2000; // characters of what is printed: a damaged file may be quoted by the megabyte
const SHOWN = 3; // lines of a long message, before its last

/** Text that somebody else wrote, for a terminal: what would move its cursor, colour it or turn it around is left out. */
export const printable = (text: string): string => text.replace(/[^\P{C}\n]/gu, '');

/** A message of several lines as one: the first few and the last. Bytes of a file that it quotes do not reach the terminal as controls. */
export function oneLine(message: string): string {
  const lines = printable(message)
    .split('\n')
    .map((l) => l.trim())
    .filter(Boolean);
  const hidden = lines.length - SHOWN - 1;
  const shown = hidden > 0 ? [...lines.slice(0, SHOWN), `${hidden} more (DEBUG=1 shows them)`, lines.at(-1)!] : lines;
  const line = shown.map((l, i) => (i < shown.length - 1 && !/[.:;,]$/.test(l) ? `${l};` : l)).join(' ');
  return line.length > LONGEST ? `${line.slice(0, LONGEST)}… (DEBUG=1 shows it all)` : line;
}

/** This process's number among those that a launcher has started; 0 alone. */
const rank = Number(process.env['OMPI_COMM_WORLD_RANK'] ?? process.env['PMIX_RANK'] ?? 0);
const TURN_MS = 6000; // in which rank 0 says what all of them would, and the launcher ends them

/** For all but rank 0: a while in which the launcher ends them if it has said the same. */
export const soon = (): Promise<void> =>
  rank > 0 ? new Promise((resolve) => setTimeout(resolve, TURN_MS)) : Promise.resolve();

/** Prints an error and gives its exit code. With DEBUG set the whole message and the stack follow. Imports nothing that could fail. */
export function report(error: unknown): number {
  const { name, message, stack } = error instanceof Error ? error : new Error(String(error));
  const debug = Number(process.env['DEBUG']) > 0 && !(error instanceof UsageError);
  const who = rank > 0 ? `vpae: rank ${rank} on ${hostname()}: ` : 'vpae: ';
  process.stderr.write(`${debug ? stack : who + oneLine(message)}\n`); // a quiet rank has no console
  return error instanceof UsageError
    ? EXIT.usage
    : name === 'NoAdapterError'
      ? EXIT.noAdapter
      : error instanceof Interrupted
        ? EXIT.interrupted
        : EXIT.failed;
}

const PATIENCE_MS = 1000; // with what was left under way, as a device's kernels

/** Prints an error and ends with its exit code. */
export async function fail(error: unknown): Promise<void> {
  await soon();
  process.exitCode = report(error);
  setTimeout(() => process.exit(), PATIENCE_MS).unref();
}

/** Edits (insert, delete, replace, swap of neighbours) that turn a into b. */
function distance(a: string, b: string): number {
  const rows = Array.from({ length: a.length + 1 }, (_, i) =>
    Array.from({ length: b.length + 1 }, (_, j) => (i ? (j ? 0 : i) : j)),
  );
  for (let i = 1; i <= a.length; i++) {
    for (let j = 1; j <= b.length; j++) {
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      rows[i]![j] = Math.min(
        rows[i - 1]![j]! + 1,
        rows[i]![j - 1]! + 1,
        rows[i - 1]![j - 1]! + Number(a[i - 1] !== b[j - 1]),
        swapped ? rows[i - 2]![j - 2]! + 1 : Infinity,
      );
    }
  }
  return rows[a.length]![b.length]!;
}

/** `; did you mean "train"?`, or nothing where no known word is near. */
export function didYouMean(word: string, known: readonly string[], prefix = ''): string {
  const near = known.map((k) => ({ k, d: distance(word, k) })).sort((a, b) => a.d - b.d)[0];
  return near && near.d <= Math.max(1, Math.floor(word.length / 3)) ? `; did you mean "${prefix}${near.k}"?` : '';
}
