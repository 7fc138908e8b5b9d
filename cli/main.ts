/** The command line. Every command is one file whose default export is its yargs module. */
import process from 'node:process';
import yargs from 'yargs';
import { hideBin } from 'yargs/helpers';
import { didYouMean, EXIT_DOC, report, UsageError } from './errors.ts';

const FILES = ['demo', 'data', 'train', 'distill', 'sample', 'eval', 'plan', 'bench', 'export', 'doctor'];

/** Yargs' complaint about unknown words, with the nearest known one. */
function complaint(message: string, commands: readonly string[], options: readonly string[]): string {
  const words = /^Unknown (?:argument|command)s?: (.*)$/.exec(message)?.[1]?.split(', ');
  if (!words) return message.replace(/\s*\n\s*/g, ' ');
  const [word] = words as [string];
  const given = process.argv.includes(`--${word}`) || process.argv.some((a) => a.startsWith(`--${word}=`));
  return given ? `there is no option --${word}${didYouMean(word, options)}` : `there is no command "${word}"${didYouMean(word, commands)}`;
}

async function main(): Promise<void> {
  // Loaded here, so that a wrong developer flag is one clear line too.
  const { FLAG_DOCS } = await import('../engine/flags.ts');
  const commands = await Promise.all(FILES.map((name) => import(`./${name}.ts`)));
  const flagHelp = Object.entries(FLAG_DOCS).map(([name, doc]) => `  ${name.padEnd(13)} ${doc}`).join('\n');
  const cli = yargs(hideBin(process.argv))
    .scriptName('vpae')
    .usage('$0 <command>: one-step video on any GPU')
    .epilogue(`Developer flags (environment variables):\n${flagHelp}\n\n${EXIT_DOC}`)
    .wrap(null)
    .strict()
    .demandCommand(1, 'say which command: vpae --help lists them')
    .fail((message, error) => { throw error ?? new UsageError(message); });
  for (const command of commands) cli.command(command.default);
  await cli.parseAsync();
}

try {
  await main();
} catch (error) {
  process.exitCode = report(error);
}
