// The desktop's pointer, shown by the page itself: at once where one's own mouse is, and as a picture where others move it.

const POSITION = 1, IMAGE = 2;
/** So long after one's own last move, the mouse over the picture is the pointer. */
const OWN_MS = 1500;

export class DesktopPointer {
  #image; #hot = [0, 0]; #place; #movedAt = -Infinity; #isOver = false; #timer; #url;
  /** It is in the picture already. */
  isDrawn = true;

  /** `place(x, y)`: where on the stage, in pixels, something of the desktop is, and how much it is scaled. */
  constructor({ stage, image, place }) {
    Object.assign(this, { stage, place });
    this.#image = image;
    stage.addEventListener('pointerleave', () => { this.#isOver = false; this.show(); });
  }

  /** One of neko's binary messages. */
  take(message) {
    const view = new DataView(message);
    if (view.getUint8(0) === POSITION) this.#place = [view.getUint16(3), view.getUint16(5)];
    else if (view.getUint8(0) === IMAGE) {
      URL.revokeObjectURL(this.#url);
      this.#url = URL.createObjectURL(new Blob([new Uint8Array(message, 11)], { type: 'image/png' }));
      this.#image.src = this.#url;
      this.#hot = [view.getUint16(7), view.getUint16(9)];
    }
    this.show();
  }

  /** The viewer's own mouse moved over the picture. */
  moved() {
    this.#movedAt = performance.now();
    this.#isOver = true;
    this.show();
  }

  show() {
    clearTimeout(this.#timer);
    const controls = this.stage.classList.contains('controls');
    const left = OWN_MS - (performance.now() - this.#movedAt);
    const isOwn = controls && this.#isOver && left > 0;
    if (isOwn) this.#timer = setTimeout(() => this.show(), left + 1);
    const hasImage = !this.isDrawn && Boolean(this.#url);
    this.stage.style.cursor = !controls ? '' : hasImage ? `url(${this.#url}) ${this.#hot.join(' ')}, default` : this.isDrawn ? 'none' : '';
    this.#image.hidden = !hasImage || isOwn || !this.#place;
    if (this.#image.hidden) return;
    const { x, y, factor } = this.place(...this.#place);
    this.#image.style.transform = `translate(${x - this.#hot[0] * factor}px, ${y - this.#hot[1] * factor}px) scale(${factor})`;
  }
}
