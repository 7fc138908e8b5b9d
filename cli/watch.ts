/** `vpae watch`: a run's curves, alarms and pictures on a page of this machine, while it trains or afterwards. */
import process from 'node:process';
import type { CommandModule } from 'yargs';
import { count } from './common/options.ts';
import { serve } from './watch/server.ts';

interface WatchArgs {
  run: string;
  port: number;
}

async function watch({ run, port }: WatchArgs): Promise<void> {
  const { url, close } = await serve(run, count('port', port, 0, 65535));
  console.log(`${run}: ${url} (only this machine can open it; Ctrl-C ends the page, not the run)`);
  await new Promise((done) => {
    process.once('SIGINT', done);
    process.once('SIGTERM', done);
  });
  await close();
}

const command: CommandModule<object, WatchArgs> = {
  command: 'watch <run>',
  describe: "a local page with a run's curves, alarms and samples",
  builder: (y) =>
    y
      .positional('run', { type: 'string', demandOption: true, describe: 'folder of the run, or of one of its phases' })
      .options({ port: { type: 'number', default: 8470, describe: 'of 127.0.0.1; 0 takes a free one' } })
      .example('$0 watch runs/digits', 'beside a training in another terminal, or when it is over'),
  handler: watch,
};
export default command;
