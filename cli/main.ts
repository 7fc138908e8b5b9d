/** The command line. Every command is one file whose default export is its yargs module. */
import process from 'node:process';
import yargs, { type CommandModule } from 'yargs';
import { hideBin } from 'yargs/helpers';
import { alone } from './common/alone.ts';
import { didYouMean, EXIT, EXIT_DOC, fail, UsageError } from './common/errors.ts';
import { VERSION } from './common/root.ts';
import { reasonOf } from '../train/loop/files.ts';

const FILES = [
  'demo',
  'data',
  'train',
  'distill',
  'watch',
  'sample',
  'eval',
  'ablate',
  'worker',
  'plan',
  'bench',
  'tune',
  'export',
  'doctor',
];

/** Those that several ranks do together, or some of it. */
const SHARED = ['train', 'distill', 'ablate', 'bench'];

/** Options that may be given again. */
const REPEATABLE = ['set', 'lora', 'weights'];

/** Yargs' complaint in one line, with the nearest word it knows. */
function complaint(message: string, options: readonly string[]): string {
  const unknown = /^Unknown (?:argument|command)s?: ([^,]*)/.exec(message)?.[1];
  if (unknown !== undefined) {
    const isOption = process.argv.some(
      (a) => a.replace(/=.*/s, '').replace(/^-+/, '') === unknown && a.startsWith('-'),
    );
    return isOption
      ? `there is no option --${unknown} here${didYouMean(unknown, options, '--')}`
      : `unknown word "${unknown}"${didYouMean(unknown, FILES) || (FILES.includes(process.argv[2]!) ? '' : ': vpae --help lists the commands')}`;
  }
  const [, name, given, choices] = /Argument: (.*), Given: "(.*)", Choices: (.*)/.exec(message) ?? [];
  if (name !== undefined)
    return `${name} must be one of ${choices!.replaceAll('"', '')}, got "${given}"${didYouMean(given!, choices!.replaceAll('"', '').split(', '))}`;
  if (message.startsWith('Not enough non-option arguments'))
    return 'a word is missing after the command: add --help to see which';
  const [, missing] = /^Missing required arguments?: (.*)/.exec(message) ?? [];
  if (missing !== undefined)
    return `--${missing.split(', ').join(' and --')} must be given: add --help to see what it means`;
  const [, bare] = /^Not enough arguments following: (.*)/.exec(message) ?? [];
  if (bare !== undefined) return `--${bare} needs a value`;
  return message.replace(/\s*\n\s*/g, ' ');
}

/** What yargs lets pass: an option without its value, a text for a number, one option twice. */
function checkValues(args: Record<string, unknown>): true {
  for (const [name, value] of Object.entries(args)) {
    if (name.startsWith('$') || name === '_' || REPEATABLE.includes(name)) continue;
    if (value === undefined && process.argv.includes(`--${name}`)) throw new UsageError(`--${name} needs a value`);
    if (Number.isNaN(value)) throw new UsageError(`--${name} must be a number`);
    if (Array.isArray(value)) throw new UsageError(`--${name} was given more than once`);
  }
  return true;
}

async function main(): Promise<void> {
  // Loaded here, so that a wrong developer flag is one clear line too.
  const { FLAG_DOCS } = await import('../engine/host/flags.ts');
  const named = FILES.filter((name) => name === process.argv[2]); // starts faster than with all of them
  if (named.length && !SHARED.includes(named[0]!)) alone(named[0]!);
  const commands = await Promise.all(
    (named.length ? named : FILES).map((name) => import(`./${name}.ts`) as Promise<{ default: CommandModule }>),
  );
  const flagHelp = Object.entries(FLAG_DOCS)
    .map(([name, doc]) => `  ${name.padEnd(13)} ${doc}`)
    .join('\n');
  const cli = yargs(hideBin(process.argv))
    .scriptName('vpae')
    .version(VERSION)
    .usage('$0 <command>: one-step video on any GPU')
    .epilogue(`Developer flags (environment variables):\n${flagHelp}\n\n${EXIT_DOC}`)
    .exitProcess(false) // by itself it would leave before the output is written
    .wrap(null)
    .strict()
    .demandCommand(1, 'say which command: vpae --help lists them')
    .check(checkValues)
    .fail((message, error, usage) => {
      if (error && error.name !== 'YError') throw error;
      const options = (usage as unknown as { getDescriptions(): Record<string, unknown> }).getDescriptions();
      throw new UsageError(complaint(error?.message ?? message, Object.keys(options)));
    });
  for (const command of commands) cli.command(command.default);
  await cli.parseAsync();
}

/** A reader that has left (`| head`) ends the program, as it ends any other; a full disk behind `>` is one line. */
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(EXIT.unread);
  console.error(`vpae: the output could not be written: ${reasonOf(error)}`);
  process.exit(EXIT.failed);
});
process.stderr.on('error', () => {
  /* a terminal that was closed: the work goes on */
});

try {
  await main();
} catch (error) {
  await fail(error);
}
