/** Keeps the page up to date: asks for a snapshot every few seconds, less often when nothing runs, not at all while nobody looks. */
import { chartsOf, drawCard, short } from './charts.js';

const [BUSY_MS, QUIET_MS, PLAY_MS] = [2000, 10000, 700];
const NAMES = { vae: 'VAE', teacher: 'Teacher', priming: 'Stability priming', equilibrium: 'Adversarial equilibrium' };
const ROWS = {
  vae: ['real', 'recon­structed'],
  teacher: ['real', 'teacher'],
  priming: ['real', '1 evaluation', '4 evaluations'],
  equilibrium: ['real', '1 evaluation', '4 evaluations'],
};

const $ = (/** @type {string} */ id) => /** @type {any} */ (document.getElementById(id));
const last = (/** @type {string} */ name) => name.split('/').at(-1);
const nameOf = (/** @type {string} */ job) =>
  [...job.split('/').slice(0, -1), Object.hasOwn(NAMES, last(job)) ? NAMES[last(job)] : last(job)].join(' / ');

let chosen = new URLSearchParams(`job=${location.hash.slice(1).replaceAll('+', '%2B')}`).get('job') ?? '';
let shown;
let etag = '';
/** The cards on the page, by what they draw. @type {Map<string, ReturnType<typeof drawCard>>} */
let cards = new Map();
/** Steps with a picture; `follow`: stay at the newest. */
const pictures = { steps: [], follow: true, timer: 0 };

/** 75 → 1m15s. */
function duration(/** @type {number} */ seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s}s`;
  return s < 3600
    ? `${Math.floor(s / 60)}m${String(s % 60).padStart(2, '0')}s`
    : `${Math.floor(s / 3600)}h${String(Math.floor((s % 3600) / 60)).padStart(2, '0')}m`;
}

function tabs(/** @type {any[]} */ jobs) {
  $('jobs').replaceChildren(
    ...jobs.map(({ name, alarms }) => {
      const tab = document.createElement('button');
      tab.type = 'button';
      tab.role = 'tab';
      tab.ariaSelected = String(name === shown);
      tab.textContent = nameOf(name);
      if (alarms)
        tab.append(Object.assign(document.createElement('span'), { className: 'badge', textContent: alarms }));
      tab.addEventListener('click', () => {
        chosen = name;
        location.hash = name;
        etag = '';
        void ask();
      });
      return tab;
    }),
  );
}

function facts(/** @type {any} */ { step, steps, running, seconds }) {
  const done = steps !== undefined && step >= steps;
  $('state').textContent = running ? 'running' : done ? 'done' : 'stopped';
  $('state').className = `pill ${running ? 'running' : ''}`;
  $('bar').style.width = `${steps ? Math.min(100, (100 * step) / steps) : 0}%`;
  const speed = seconds && (seconds < 1 ? `${short(1 / seconds)} steps/s` : `${short(seconds)} s/step`);
  $('facts').textContent = [
    `step ${step}${steps ? ` of ${steps}` : ''}`,
    speed,
    running && steps && seconds && `${duration((steps - step) * seconds)} left`,
  ]
    .filter(Boolean)
    .join(' · ');
}

function alarms(/** @type {any[]} */ list) {
  $('count').textContent = list.length || '';
  const none = Object.assign(document.createElement('li'), {
    className: 'none',
    textContent:
      'None. Normaliser, discriminator, contrast, motion, first frame, fake model and every gradient are as they should be.',
  });
  $('alarms').replaceChildren(
    ...(list.length
      ? list.toReversed().map(({ alarm, step, of, value, cause, remedy }) => {
          const item = document.createElement('li');
          const line = (
            /** @type {string} */ tag,
            /** @type {string} */ className,
            /** @type {string} */ textContent,
          ) => Object.assign(document.createElement(tag), { className, textContent });
          item.append(
            line('b', '', alarm),
            line('span', 'quiet', `step ${step}, ${of} ${short(value)}`),
            ...(cause ? [line('span', 'remedy', `${cause[0].toUpperCase()}${cause.slice(1)}.`)] : []),
            ...(remedy ? [line('span', 'remedy quiet', `Remedy: ${remedy}.`)] : []),
          );
          return item;
        })
      : [none]),
  );
}

function samples(/** @type {number[]} */ steps) {
  pictures.steps = steps;
  $('samples').hidden = !steps.length;
  const rows = Object.hasOwn(ROWS, last(shown)) ? ROWS[last(shown)] : [];
  $('rows').replaceChildren(...rows.map((textContent) => Object.assign(document.createElement('li'), { textContent })));
  $('slide').max = String(Math.max(0, steps.length - 1));
  if (pictures.follow) $('slide').value = $('slide').max;
  picture();
}

function picture() {
  const step = pictures.steps[Number($('slide').value)];
  if (step === undefined) return;
  const source = `picture?job=${encodeURIComponent(shown)}&step=${step}`;
  if (!$('picture').src.endsWith(source)) $('picture').src = source;
  $('samplestep').textContent = `after step ${step}`;
}

$('slide').addEventListener('input', () => {
  pictures.follow = $('slide').value === $('slide').max;
  picture();
});
$('play').addEventListener('click', () => {
  if (pictures.timer) {
    clearInterval(pictures.timer);
    pictures.timer = 0;
  } else {
    pictures.follow = false;
    pictures.timer = setInterval(() => {
      $('slide').value = String((Number($('slide').value) + 1) % pictures.steps.length);
      picture();
    }, PLAY_MS);
  }
  $('play').classList.toggle('playing', pictures.timer !== 0);
});

/** Cards that are there get the new data; where others are due, all are laid out anew. */
function curves(/** @type {any} */ { curves: steps, judged }) {
  const due = [
    { group: 'Judged on clips that are not trained on', data: judged, isJudged: true },
    { group: 'Every step', data: steps, isJudged: false },
  ]
    .map((g) => ({ ...g, charts: chartsOf(g.isJudged, g.data) }))
    .filter((g) => g.charts.length);
  const names = due.flatMap((g) => g.charts.map((c) => [shown, g.group, ...c.of].join(' ')));
  if (names.join() !== [...cards.keys()].join()) {
    for (const card of cards.values()) card.remove();
    cards = new Map();
    $('curves').replaceChildren(
      ...due.flatMap(({ group, data, charts }) => [
        Object.assign(document.createElement('h2'), { className: 'group', textContent: group }),
        ...charts.map((chart) => {
          const card = drawCard(chart, data);
          cards.set([shown, group, ...chart.of].join(' '), card);
          return card.card;
        }),
      ]),
    );
    return;
  }
  for (const { group, data, charts } of due)
    for (const chart of charts) cards.get([shown, group, ...chart.of].join(' '))?.update(data);
}

function show(/** @type {any} */ { run, jobs, shown: name, detail }) {
  if (name !== shown) {
    shown = name;
    pictures.follow = true;
  }
  $('run').textContent = run;
  document.title = `${run}: ${name ? nameOf(name) : 'nothing yet'}`;
  tabs(jobs);
  if (!detail) {
    $('facts').textContent = 'nothing is logged here yet';
    return;
  }
  facts(jobs.find((/** @type {any} */ j) => j.name === name));
  alarms(detail.alarms);
  samples(detail.samples);
  curves(detail);
}

let running = true;
async function ask() {
  try {
    const response = await fetch(`snapshot?job=${encodeURIComponent(chosen)}`, {
      headers: etag ? { 'if-none-match': etag } : {},
      cache: 'no-store',
    });
    if (response.status === 200) {
      etag = response.headers.get('etag') ?? '';
      const snapshot = await response.json();
      running = snapshot.jobs.some((/** @type {any} */ j) => j.running);
      show(snapshot);
    }
  } catch {
    $('state').textContent = 'vpae watch has ended';
    $('state').className = 'pill gone';
    etag = '';
  }
}

async function loop() {
  if (!document.hidden) await ask();
  setTimeout(loop, running ? BUSY_MS : QUIET_MS);
}
document.addEventListener('visibilitychange', () => {
  if (!document.hidden) void ask();
});
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => location.reload());
void loop();
