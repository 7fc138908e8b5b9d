/** `vpae worker`: takes items from a queue as long as it lives, and does them on this machine. */
import type { CommandModule } from 'yargs';
import { Interrupted, UsageError } from './common/errors.ts';
import type { Args } from './common/options.ts';
import { session } from './common/session.ts';
import { Labour } from './farm/labour.ts';
import { Queue } from './farm/queue.ts';
import { startServer } from './farm/server.ts';

const options = {
  queue: { type: 'string', describe: 'the NATS server that the commands name by --queue, as nats://host:4222' },
  local: {
    type: 'boolean',
    default: false,
    describe: 'start a nats-server here, which ends with this worker, for trying it',
  },
} as const;

async function work(args: Args<typeof options>): Promise<void> {
  if (args.queue === undefined && !args.local)
    throw new UsageError('say where the items are: --queue nats://host:4222, or --local for a server of its own');
  const server = args.local ? await startServer(args.queue) : undefined;
  const address = server?.address ?? args.queue!;
  try {
    const queue = await Queue.open(address);
    try {
      await session('left', async ({ device, signal }) => {
        console.error(`waiting for items at ${queue.server}; Ctrl-C leaves, and what is under way goes to another`);
        const labour = new Labour(queue, device, signal);
        await labour.live().catch((error: unknown) => {
          if (!signal.aborted) throw error;
        });
        throw new Interrupted(`left after ${labour.count} item${labour.count === 1 ? '' : 's'}`);
      });
    } finally {
      await queue.close();
    }
  } finally {
    server?.stop();
  }
}

const command: CommandModule<object, Args<typeof options>> = {
  command: 'worker',
  describe: 'take items that other commands have put into a queue, and do them here',
  builder: (y) =>
    y
      .options(options)
      .example('$0 worker --queue nats://host:4222', 'on every machine that shall help')
      .example('$0 worker --local', 'a farm of one machine: then data make --queue nats://127.0.0.1:4222'),
  handler: work,
};
export default command;
