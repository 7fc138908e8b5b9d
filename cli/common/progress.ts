/**
 * Progress of long work on stderr: a bar on a terminal, a plain line every few seconds elsewhere. Both with speed, memory and time left.
 */
import process from 'node:process';
import cliProgress from 'cli-progress';
import { tell, type Alarm } from '../../train/loop/alarms.ts';
import type { Progress } from '../../train/loop/loop.ts';
import { STAGES } from '../../train/methods/index.ts';

export interface Meter {
  /** @param done units done so far, `note` what to say beside it, such as the loss, `total` a new total */
  at: (done: number, note?: string, total?: number) => void;
  /** Prints lines that stay, above the bar. */
  say: (text: string) => void;
  /** Leaves the bar as it stands; anything printed later starts on its own line. */
  end: () => void;
}

interface MeterOptions {
  /** What is counted, such as `steps`. */
  unit: string;
  total: number;
  /** Units done before this process. */
  from?: number;
  /** Bytes on the device, shown when given. */
  memory?: () => number;
}

const LINE_MS = 5000;
const WINDOW = 20; // updates that the speed is measured over

/** 75 → `1m15s`. */
export function duration(seconds: number): string {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s}s`;
  if (s < 3600) return `${Math.floor(s / 60)}m${String(s % 60).padStart(2, '0')}s`;
  return `${Math.floor(s / 3600)}h${String(Math.floor((s % 3600) / 60)).padStart(2, '0')}m`;
}

export const bytes = (n: number): string =>
  n < 2 ** 20
    ? `${(n / 2 ** 10).toFixed(0)} KiB`
    : n < 2 ** 30
      ? `${(n / 2 ** 20).toFixed(0)} MiB`
      : `${(n / 2 ** 30).toFixed(1)} GiB`;

const perSecond = (speed: number, unit: string): string =>
  speed >= 1 || speed === 0
    ? `${speed.toFixed(speed < 10 ? 1 : 0)} ${unit}/s`
    : `${(1 / speed).toFixed(1)} s/${unit.replace(/s$/, '')}`;

/** Starts a meter. `title` is a word or two. */
export function meter(title: string, { unit, total, from = 0, memory }: MeterOptions): Meter {
  const marks: [time: number, done: number][] = [];
  const text = (done: number, note: string, all: number): string => {
    const now = performance.now();
    if (done < (marks.at(-1)?.[1] ?? done)) marks.length = 0; // a step back: a run was rolled back
    marks.push([now, done]);
    if (marks.length > WINDOW) marks.shift();
    const [time, before] = marks[0]!;
    const speed = now > time ? (1000 * (done - before)) / (now - time) : 0;
    return [
      speed ? perSecond(speed, unit) : '',
      memory ? bytes(memory()) : '',
      speed && done < all ? `${duration((all - done) / speed)} left` : '',
      note,
    ]
      .filter(Boolean)
      .join(', ');
  };
  return process.stderr.isTTY ? bar(title, unit, total, from, text) : lines(title, unit, total, from, text);
}

type Describe = (done: number, note: string, total: number) => string;

function bar(title: string, unit: string, total: number, from: number, text: Describe): Meter {
  const shown = new cliProgress.SingleBar(
    {
      format: `${title.padEnd(12)} {bar} {value}/{total} ${unit}  {text}`,
      barsize: 24,
      fps: 5,
      hideCursor: true,
      linewrap: true,
      gracefulExit: false, // Ctrl-C is ours: it saves first
    },
    cliProgress.Presets.shades_classic,
  );
  shown.start(total, from, { text: '' });
  return {
    at(done, note = '', all = total) {
      shown.setTotal(all);
      shown.update(done, { text: text(done, note, all) });
    },
    say: (said) => process.stderr.write(`\r\x1b[2K${said}\n`),
    end() {
      shown.stop();
    },
  };
}

function lines(title: string, unit: string, total: number, from: number, text: Describe): Meter {
  let printed = performance.now();
  let last = from;
  return {
    at(done, note = '', all = total) {
      const described = text(done, note, all);
      const due = performance.now() - printed >= LINE_MS || done >= all;
      if (!due || done === last) return;
      printed = performance.now();
      last = done;
      console.error(`${title}: ${done}/${all} ${unit}${described && `, ${described}`}`);
    },
    say: (said) => console.error(said),
    end() {},
  };
}

/** The number of a step that says most, by job, of two experts for both. */
const TOLD: Record<string, readonly string[]> = {
  vae: ['loss'],
  teacher: ['loss'],
  ...Object.fromEntries(STAGES.map(({ name, tells }) => [name, tells])),
};

interface StageMeter {
  at: (stage: string, unit: string, done: number, total: number, note?: string) => void;
  say: (line: string) => void;
  end: () => void;
}

/** Shows work that goes through named stages, a meter for each. Call `end` when the work is over or has failed. */
export function stageMeter(memory: () => number): StageMeter {
  let open: { stage: string; meter: Meter } | undefined;
  return {
    at(stage, unit, done, total, note) {
      if (open?.stage !== stage) {
        open?.meter.end();
        open = { stage, meter: meter(stage, { unit, total, from: done - 1, memory }) };
      }
      open.meter.at(done, note, total);
    },
    say: (line) => (open?.meter.say ?? console.error)(line),
    end: () => open?.meter.end(),
  };
}

/** Shows the training loop's progress, a stage for each job. */
export function jobMeter(memory: () => number): {
  onProgress: (p: Progress) => void;
  onAlarm: (a: Alarm) => void;
  end: () => void;
} {
  const shown = stageMeter(memory);
  return {
    onProgress: ({ job, step, steps, metrics }) =>
      shown.at(
        job,
        'steps',
        step,
        steps,
        (TOLD[job.replace(/-low$/, '')] ?? [])
          .filter((m) => m in metrics)
          .map((m) => `${m} ${metrics[m]!.toPrecision(3)}`)
          .join(', '),
      ),
    onAlarm: (alarm) => shown.say(tell(alarm)),
    end: () => shown.end(),
  };
}
