// The player of a page: controls around a generator that lies in the page as text. Stands behind generator.js.

// Base 85 as in RFC 1924, with a comma where that has "<".
function fromBase85(text) {
  const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;,=>?@^_`{|}~";
  const value = new Uint8Array(128), count = Math.floor((text.length * 4) / 5);
  for (let i = 0; i < 85; i++) value[alphabet.charCodeAt(i)] = i;
  const letters = new TextEncoder().encode(text.padEnd(5 * Math.ceil(text.length / 5), "~"));
  const out = new Uint8Array(4 * (letters.length / 5));
  for (let at = 0, to = 0; at < letters.length; ) {
    let word = 0;
    for (let i = 0; i < 5; i++) word = word * 85 + value[letters[at++] & 127];
    out[to++] = (word / 0x1000000) | 0, out[to++] = word >>> 16, out[to++] = word >>> 8, out[to++] = word;
  }
  return out.subarray(0, count);
}

const QUICK = 3000, WARM = 400; // milliseconds of a first drawing that is done again, and for how long small ones are
const TIMES = 9; // drawings whose middle is the time of an image
const SHOWN = 8, FIRST = 4, SMALLEST = 96; // images of a seed, and the first of them; pixels that small images are enlarged to

// Clocks of browsers have steps of 0.1 ms or more: an image of less is no image of 0.0 ms.
function spoken(milliseconds) {
  if (milliseconds === 0) return "less time than this browser's clock tells";
  return `${milliseconds.toFixed(milliseconds < 1 ? 2 : milliseconds < 10 ? 1 : 0)} ms`;
}

class Player {
  constructor(root) {
    this.root = root;
    this.texts = [...root.querySelectorAll('[data-part="generator"]')];
    this.loaded = [];
    this.chosen = [];
    this.times = []; // milliseconds of an image in the last drawings, of every generator
    this.state = { seed: 0, to: 1, label: 0, way: 0.5, threshold: Infinity };
    this.busy = false, this.again = false;
  }
  part(name, of = 0) {
    return this.root.querySelectorAll(`[data-part="${name}"]`)[of];
  }
  // Generators are unpacked when they are first looked at.
  async generator(index) {
    this.loaded[index] ??= await load(fromBase85(this.texts[index].textContent.trim()));
    return this.loaded[index];
  }
  name(index) {
    return this.texts[index].dataset.name;
  }
  async start() {
    try {
      const began = performance.now();
      this.opened = () => {
        this.root.dataset.first ??= (performance.now() - began).toFixed(0);
        this.part("controls").hidden = false;
      };
      await this.begin();
      await this.shown();
      if (this.root.dataset.failed) return;
      this.opened();
      if (performance.now() - began < QUICK) await this.warm();
    } catch (error) {
      this.fail(error);
    }
  }
  // The time of an image, now that the browser knows the code: browsers learn small ones in many drawings.
  async warm() {
    const until = performance.now() + WARM;
    this.warming = true;
    do await this.show(); while (!this.root.dataset.failed && performance.now() < until);
    this.warming = false;
    if (!this.root.dataset.failed) this.say(this.said);
  }
  async begin() {
    this.chosen = [...this.root.querySelectorAll('[data-part="images"]').keys()];
    await this.generator(0);
    this.controls();
    this.show();
  }
  say(text, alert = false) {
    this.part("status").textContent = text;
    if (alert) this.part("status").setAttribute("role", "alert");
    else this.part("status").removeAttribute("role");
  }
  fail(error) {
    this.say(error instanceof GeneratorError ? error.message : `The generator could not be run: ${error.message}`, true);
    this.root.dataset.failed = "true";
  }
  controls() {
    const { state } = this, classes = this.loaded[0].classes;
    const on = (name, event, change) => this.part(name).addEventListener(event, () => { change(this.part(name)); this.show(); });
    const seed = (input, key) => { if (input.value !== "" && Number.isSafeInteger(Number(input.value))) state[key] = Number(input.value); };
    on("seed", "input", (input) => seed(input, "seed"));
    on("to", "input", (input) => seed(input, "to"));
    on("next", "click", () => { this.part("seed").value = state.seed = state.seed + 1; });
    on("way", "input", (input) => { state.way = Number(input.value) / 100; });
    on("threshold", "input", (input) => { state.threshold = Number(input.value) >= 3 ? Infinity : Number(input.value); });
    this.root.querySelectorAll('[data-part="choice"]').forEach((choice, column) => {
      choice.value = String(this.chosen[column]); // browsers remember what was chosen before the page was read again
      choice.addEventListener("change", async () => {
        const began = performance.now();
        this.chosen[column] = Number(choice.value);
        await this.show();
        if (!this.root.dataset.failed && performance.now() - began < QUICK) await this.warm();
      });
    });
    this.part("classes").hidden = classes.length === 0;
    classes.forEach((name, label) => {
      const button = document.createElement("button");
      button.type = "button", button.textContent = name;
      button.setAttribute("aria-pressed", String(label === 0));
      button.addEventListener("click", () => {
        state.label = label;
        for (const one of this.part("classes").querySelectorAll("button")) one.setAttribute("aria-pressed", String(one === button));
        this.show();
      });
      this.part("classes").append(button);
    });
  }
  // One drawing at a time; what was asked for meanwhile is drawn once afterwards.
  async show() {
    if (this.busy) { this.again = true; return this.drawing; }
    this.busy = true, this.root.dataset.busy = "true";
    return (this.drawing = this.drawn());
  }
  shown() {
    return this.drawing;
  }
  async drawn() {
    try {
      do {
        this.again = false;
        await this.draw();
      } while (this.again);
    } catch (error) {
      this.fail(error);
    }
    this.busy = false, this.root.dataset.busy = "false";
  }
  async draw() {
    const { seed, to, threshold, way } = this.state, said = [];
    this.part("threshold-value").textContent = threshold === Infinity ? "off" : threshold.toFixed(2);
    this.part("way-value").textContent = `${Math.round(100 * way)} %`;
    for (const slider of ["threshold", "way"]) this.part(slider).setAttribute("aria-valuetext", this.part(`${slider}-value`).textContent);
    for (const [of, index] of this.chosen.entries()) {
      const generator = await this.generator(index), name = this.name(index);
      const label = this.state.label, classes = generator.classes.length > 0 ? [label, label, label] : undefined;
      let milliseconds = 0;
      // the first time the first few alone: there is something to see sooner
      for (let first = 0, n = this.root.dataset.first === undefined ? FIRST : SHOWN; first < SHOWN; first += n) {
        const images = await generator.generate({ seed, n, first, classes: classes && label, threshold });
        this.paint("images", of, images, first, SHOWN);
        milliseconds += images.milliseconds;
        if (first + n < SHOWN) this.opened();
      }
      for (const part of ["images", "between"]) if (name) this.part(part, of).setAttribute("aria-label", `${name}: ${this.part(part, of).dataset.said}`);
      if (this.part("which", of) !== undefined) this.part("which", of).textContent = name;
      const ends = [seed, to].map((one) => generator.latents({ seed: one, threshold }));
      const z = [ends[0], between(ends[0], ends[1], way), ends[1]].flatMap((one) => Array.from(one));
      this.paint("between", of, await generator.generate({ z, classes }));
      const times = (this.times[index] = [...(this.times[index] ?? []), milliseconds / SHOWN].slice(-TIMES));
      const each = [...times].sort((one, other) => one - other)[times.length >> 1];
      said.push(`${name ? `${name}: ` : ""}${spoken(each)} per image here, on one thread; ${Math.ceil(generator.bytes / 1000)} kB with the code that runs it.`);
    }
    this.said = said.join(" ");
    if (!this.warming) this.say(this.said);
  }
  paint(name, of, images, first = 0, all = images.n) {
    const place = this.part(name, of), { width, height } = images;
    while (place.childElementCount < all) place.append(document.createElement("canvas"));
    place.style.setProperty("--wide", `${Math.max(SMALLEST, width)}px`);
    place.classList.toggle("small", width < SMALLEST);
    for (let i = 0; i < all; i++) {
      const canvas = place.children[i];
      if (canvas.width !== width || canvas.height !== height) canvas.width = width, canvas.height = height;
      if (i >= first && i < first + images.n) canvas.getContext("2d").putImageData(images.at(i - first), 0, 0);
    }
  }
}
