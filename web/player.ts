/** A clip on a canvas: plays in a loop, stops, and shows the frame that a slider asks for. */
import type { ClipShape } from '../train/data/frames.ts';

const FPS = 8;

/** Draws frame t of a clip of one channel, [1, frames, height, width] in [-1, 1]. */
export function drawFrame(canvas: HTMLCanvasElement, video: Float32Array, shape: ClipShape, t: number): void {
  const [, , height, width] = shape;
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    const level = Math.round((video[t * width * height + i]! + 1) * 127.5); // clamped by the array
    image.data.set([level, level, level, 255], 4 * i);
  }
  [canvas.width, canvas.height] = [width, height];
  canvas.getContext('2d')!.putImageData(image, 0, 0);
}

export class Player {
  private readonly canvas: HTMLCanvasElement;
  private readonly slider: HTMLInputElement;
  private readonly button: HTMLButtonElement;
  private clip: { video: Float32Array; shape: ClipShape } | undefined;
  private timer: ReturnType<typeof setInterval> | undefined;

  constructor(canvas: HTMLCanvasElement, slider: HTMLInputElement, button: HTMLButtonElement) {
    [this.canvas, this.slider, this.button] = [canvas, slider, button];
    button.addEventListener('click', () => (this.timer === undefined ? this.play() : this.stop()));
    slider.addEventListener('input', () => {
      this.stop();
      this.draw();
    });
  }

  /** Whoever asked their system for less motion starts it by hand. */
  show(video: Float32Array, shape: ClipShape): void {
    this.clip = { video, shape };
    this.slider.max = String(shape[1] - 1);
    this.slider.value = '0';
    this.slider.disabled = this.button.disabled = false;
    this.draw();
    if (matchMedia('(prefers-reduced-motion: reduce)').matches) this.stop();
    else this.play();
  }

  private play(): void {
    clearInterval(this.timer);
    this.button.textContent = 'Pause';
    this.timer = setInterval(() => {
      this.slider.value = String((Number(this.slider.value) + 1) % (Number(this.slider.max) + 1));
      this.draw();
    }, 1000 / FPS);
  }

  private stop(): void {
    clearInterval(this.timer);
    this.timer = undefined;
    this.button.textContent = 'Play';
  }

  private draw(): void {
    if (this.clip) drawFrame(this.canvas, this.clip.video, this.clip.shape, Number(this.slider.value));
  }
}
