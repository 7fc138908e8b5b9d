/** The page: a caption and a first frame are chosen, one evaluation of the bundled student runs here, and the clip plays. */
import { mib } from '../engine/host/errors.ts';
import { WEBGPU_BROWSERS } from '../engine/host/choose.ts';
import { open, type Device } from '../engine/runtime/device.ts';
import { openWeights } from '../model/files/open.ts';
import type { Weights } from '../model/files/weights.ts';
import { DIRECTIONS } from '../train/data/digits.ts';
import { drawFrame, Player } from './player.ts';
import { openStudent } from './student.ts';

const MODELS = 'models';

function find<E extends HTMLElement>(id: string, kind: new () => E): E {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`the page has no ${kind.name} #${id}`);
  return found;
}

const form = find('form', HTMLFormElement);
const make = find('make', HTMLButtonElement);
const status = find('status', HTMLElement);
const player = new Player(
  find('clip', HTMLCanvasElement),
  find('frame', HTMLInputElement),
  find('play', HTMLButtonElement),
);

/** Told to who looks and to who listens. */
function say(text: string, isError = false): void {
  status.textContent = text;
  status.classList.toggle('error', isError);
}

const fact = (name: string, value: string): void => {
  find(name, HTMLElement).textContent = value;
};

/** The value of a named field; '' where none is chosen. */
function chosen(name: string): string {
  const value = new FormData(form).get(name);
  return typeof value === 'string' ? value : '';
}

const caption = (): string => `a ${chosen('digit')} moving ${chosen('direction')}`;

/** A group of radio buttons, `first` chosen; `label` fills what each shows. */
function choices(
  id: string,
  values: readonly string[],
  first: string,
  label: (value: string, into: HTMLElement) => void,
): void {
  find(id, HTMLElement).replaceChildren(
    ...values.map((value) => {
      const [box, input, shown] = [
        document.createElement('label'),
        document.createElement('input'),
        document.createElement('span'),
      ];
      Object.assign(input, { type: 'radio', name: id, value, checked: value === first });
      label(value, shown);
      box.append(input, shown);
      return box;
    }),
  );
}

/** Eight handwritings of a caption, [8, 1, 32, 32]. */
const framesOf = async (file: Weights): Promise<{ data: Float32Array; shape: readonly number[] }> => {
  const { data, shape } = await file.tensor(caption());
  return { data: data as Float32Array, shape };
};

/** Frame `i` of eight, as a picture's data. */
const frameAt = ({ data, shape }: { data: Float32Array; shape: readonly number[] }, i: number): Float32Array => {
  const size = data.length / shape[0]!;
  return data.slice(i * size, (i + 1) * size);
};

async function showFrames(file: Weights): Promise<void> {
  const frames = await framesOf(file);
  const [count, channels, height, width] = frames.shape as [number, number, number, number];
  choices(
    'handwriting',
    Array.from({ length: count }, (_, i) => String(i)),
    chosen('handwriting') || '1',
    (value, into) => {
      const canvas = document.createElement('canvas');
      canvas.setAttribute('role', 'img');
      canvas.setAttribute('aria-label', `handwriting ${Number(value) + 1}`);
      drawFrame(canvas, frameAt(frames, Number(value)), [channels, 1, height, width], 0);
      into.append(canvas);
    },
  );
}

interface Opened {
  device: Device;
  makeClip: Awaited<ReturnType<typeof openStudent>>;
}
let opened: Promise<Opened> | undefined;

async function openAll(): Promise<Opened> {
  say('Opening the GPU …');
  const device = await open();
  const { name, vendor, kind } = device.info;
  fact('adapter', [vendor, name, kind === 'software' && '(software)'].filter(Boolean).join(' '));
  const makeClip = await openStudent(device, MODELS, (bytes) => say(`Fetching the student: ${mib(bytes)} …`));
  return { device, makeClip };
}

async function makeClip(file: Weights): Promise<void> {
  make.disabled = true;
  try {
    const { device, makeClip: run } = await (opened ??= openAll());
    say('One evaluation … (the first compiles its kernels)');
    const from = performance.now();
    const frame = frameAt(await framesOf(file), Number(chosen('handwriting')));
    const clip = await run({ caption: caption(), frame, seed: Number(chosen('seed')) });
    fact(
      'seconds',
      `${clip.seconds.toPrecision(2)} s, ${((performance.now() - from) / 1000).toFixed(1)} s with all else`,
    );
    fact('memory', mib(device.peak));
    player.show(clip.video, clip.shape);
    say(`“${caption()}”, seed ${chosen('seed')}`);
  } catch (error) {
    opened = undefined; // the next attempt starts anew
    say((error as Error).message, true);
  } finally {
    make.disabled = false;
  }
}

async function start(): Promise<void> {
  choices('digit', Array.from('0123456789'), '3', (value, into) => into.append(value));
  choices('direction', DIRECTIONS, 'up-left', (value, into) => into.append(value));
  if (!('gpu' in navigator)) {
    const refusal = find('refusal', HTMLElement);
    refusal.hidden = false;
    refusal.textContent = `This browser has no WebGPU here: use ${WEBGPU_BROWSERS}.`;
    return say('');
  }
  const file = await openWeights(`${MODELS}/frames.safetensors`);
  await showFrames(file);
  form.addEventListener('change', (event) => {
    const { name } = event.target as HTMLInputElement;
    if (name === 'digit' || name === 'direction') void showFrames(file);
  });
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    void makeClip(file);
  });
  make.disabled = false;
  say('Ready.');
}

start().catch((error: Error) => say(error.message, true));
