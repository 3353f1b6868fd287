// The player of a network that takes images or numbers, and gives images or sound. Stands behind player.js.

const LOUDEST = 0.9, WAVE = { width: 480, height: 96 };

class NetworkPlayer extends Player {
  constructor(root) {
    super(root);
    this.input = null, this.picture = null, this.named = "";
  }
  get first() {
    return this.loaded[0];
  }
  async begin() {
    for (const index of this.texts.keys()) await this.generator(index);
    this.examples = this.loaded.flatMap((one) => one.examples);
    this.controls();
    if (this.examples.length > 0) this.example(0);
    else if (this.part("seed") !== undefined) this.random();
    else this.say("It waits for an input.");
  }
  controls() {
    const drop = this.part("drop"), file = this.part("file"), side = this.part("side"), seed = this.part("seed");
    file.addEventListener("change", () => file.files.length > 0 && this.take(file.files[0]));
    drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
    drop.addEventListener("dragleave", () => drop.classList.remove("over"));
    drop.addEventListener("drop", (event) => {
      event.preventDefault();
      drop.classList.remove("over");
      if (event.dataTransfer.files.length > 0) this.take(event.dataTransfer.files[0]);
    });
    if (this.first.takes === "image") document.addEventListener("paste", (event) => {
      if (event.clipboardData.files.length > 0) this.take(event.clipboardData.files[0]);
    });
    side?.addEventListener("change", () => { if (this.picture !== null) this.fromPicture(); });
    seed?.addEventListener("input", () => this.random());
    this.part("examples").hidden = this.examples.length < 1;
    this.examples.forEach((_, index) => {
      const button = document.createElement("button");
      button.type = "button", button.textContent = `example ${index + 1}`;
      button.addEventListener("click", () => this.example(index));
      this.part("examples").append(button);
    });
  }
  press(index) {
    this.part("examples").querySelectorAll("button").forEach((one, i) => one.setAttribute("aria-pressed", String(i === index)));
  }
  example(index) {
    this.press(index);
    this.picture = null, this.input = this.examples[index];
    return this.show();
  }
  random() {
    const value = Number(this.part("seed").value), shape = this.first.header.shape, count = product(shape);
    if (!Number.isSafeInteger(value)) return;
    this.press(-1);
    this.input = { shape, data: normals(value >>> 0, count, count).slice() };
    this.show();
  }
  // One more drawing: the page stands still meanwhile, and says so.
  warm() {
    return this.show();
  }
  // What does not fit is said, and what was there stays.
  async take(file) {
    try {
      if (this.first.takes !== "image") this.input = inputOf(await file.arrayBuffer(), this.first);
      else {
        this.picture = await createImageBitmap(file).catch(() => { throw new GeneratorError(`${file.name} is no image that this browser reads.`); });
        this.cut();
      }
      this.press(-1);
      await this.show();
    } catch (error) {
      this.say(error instanceof GeneratorError ? error.message : `${file.name} could not be read: ${error.message}`, true);
      this.root.dataset.busy = "false";
    }
  }
  fromPicture() {
    this.cut();
    this.show();
  }
  // The picture in the size that is asked for: sides that may change together, others filled and cut.
  cut() {
    const [, rows, columns] = this.first.header.shape, { axes } = this.first.header, { width, height } = this.picture;
    const least = (size) => (size.axis === undefined ? size : axes[size.axis].unit * axes[size.axis].least);
    const open = rows.axis !== undefined && columns.axis !== undefined, square = open && rows.axis === columns.axis;
    const most = this.part("side") === undefined ? Infinity : Number(this.part("side").value);
    const scale = open
      ? Math.max(Math.min(1, most / Math.max(width, height)), least(rows) / height, least(columns) / width)
      : Math.max(least(rows) / height, least(columns) / width);
    let [wide, high] = [Math.max(least(columns), Math.round(width * scale)), Math.max(least(rows), Math.round(height * scale))];
    if (square) wide = high = Math.min(wide, high);
    if (rows.axis === undefined) high = rows;
    if (columns.axis === undefined) wide = columns;
    const canvas = document.createElement("canvas");
    canvas.width = wide, canvas.height = high;
    const context = canvas.getContext("2d");
    context.fillStyle = "white", context.fillRect(0, 0, wide, high);
    context.imageSmoothingQuality = "high";
    context.drawImage(this.picture, (wide - width * scale) / 2, (high - height * scale) / 2, width * scale, height * scale);
    this.input = this.first.fromImage(context.getImageData(0, 0, wide, high));
  }
  async draw() {
    const { input } = this;
    if (input === null) return;
    this.say("It computes.");
    if (this.first.takes === "image") this.paint("input", 0, this.first.toImage(input));
    const made = [];
    for (const network of this.loaded) {
      await new Promise((done) => setTimeout(done, 20)); // the page is drawn, and then stands still
      made.push(await network.run(input));
    }
    if (this.first.takes === "image" && this.first.gives === "image") this.part("input").style.setProperty("--wide", `${Math.max(SMALLEST, made[0].shape[2])}px`);
    const loudest = Math.max(1, ...made.map(({ data }) => data.reduce((most, x) => Math.max(most, Math.abs(x)), 0)));
    made.forEach((one, of) => {
      if (this.first.gives === "image") this.paint("output", of, this.first.toImage(one));
      else {
        this.paint("output", of, wave(one.data, loudest, getComputedStyle(this.root).color));
        this.part("sound", of).src = sound(one.data, loudest > 1 ? LOUDEST / loudest : 1, this.first.rate);
      }
      this.part("said", of).textContent = `${spoken(one.milliseconds)} here, on one thread; ${Math.ceil(this.loaded[of].bytes / 1000)} kB with the code that runs it.`;
    });
    const given = input.shape.length === 3 ? `${input.shape[2]} × ${input.shape[1]} pixels` : `${input.shape.join(" × ")} numbers`;
    const [channels, high, wide] = made[0].shape;
    this.say(this.first.gives === "image" ? `${given} became ${wide} × ${high}.` : `${given} became ${(high / this.first.rate).toFixed(2)} seconds of sound.`);
  }
  paint(name, of, { data, width, height }) {
    const place = this.part(name, of);
    if (place.childElementCount === 0) place.append(document.createElement("canvas"));
    const canvas = place.firstElementChild;
    canvas.width = width, canvas.height = height;
    canvas.getContext("2d").putImageData(new ImageData(data, width, height), 0, 0);
    place.style.setProperty("--wide", `${Math.max(SMALLEST, width)}px`);
    place.classList.toggle("small", width < SMALLEST);
  }
}

// The first input of a .safetensors file that fits, cut to what the network takes.
function inputOf(buffer, network) {
  const bytes = new DataView(buffer), length = buffer.byteLength < 8 ? Infinity : Number(bytes.getBigUint64(0, true));
  let header;
  try {
    header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  } catch {
    throw new GeneratorError("This is no .safetensors file.");
  }
  let why = "it holds no float32 numbers";
  for (const { dtype, shape, data_offsets: [from, to] } of Object.values(header).filter((one) => one.dtype === "F32")) {
    const own = shape.length > network.header.shape.length && shape[0] === 1 ? shape.slice(1) : shape;
    const values = new Float32Array(buffer.slice(8 + length + from, 8 + length + to));
    try {
      const fitted = network.fit(own), last = own[own.length - 1], kept = fitted[fitted.length - 1];
      if (fitted.slice(0, -1).some((size, i) => size !== own[i])) throw new GeneratorError(`its numbers are ${own.join(" x ")}`);
      return { shape: fitted, data: values.filter((_, i) => i % last < kept) };
    } catch (error) {
      why = error.message;
    }
  }
  throw new GeneratorError(`Nothing in this file fits: ${why}`);
}

// A wave as an image, and as the address of a WAV of 16 bits.
function wave(data, loudest, color) {
  const { width, height } = WAVE, canvas = document.createElement("canvas");
  canvas.width = width, canvas.height = height;
  const context = canvas.getContext("2d");
  context.fillStyle = color;
  for (let x = 0; x < width; x++) {
    let low = 0, high = 0;
    for (let i = Math.floor((x * data.length) / width); i < Math.floor(((x + 1) * data.length) / width); i++) low = Math.min(low, data[i]), high = Math.max(high, data[i]);
    const [top, bottom] = [high, low].map((y) => (0.5 - y / loudest / 2) * height);
    context.fillRect(x, top, 1, Math.max(1, bottom - top));
  }
  return context.getImageData(0, 0, width, height);
}
function sound(data, scale, rate) {
  const content = new DataView(new ArrayBuffer(44 + 2 * data.length));
  const text = (at, letters) => [...letters].forEach((letter, i) => content.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF"), text(8, "WAVEfmt "), text(36, "data");
  content.setUint32(4, 36 + 2 * data.length, true), content.setUint32(16, 16, true), content.setUint16(20, 1, true), content.setUint16(22, 1, true);
  content.setUint32(24, rate, true), content.setUint32(28, 2 * rate, true), content.setUint16(32, 2, true), content.setUint16(34, 16, true);
  content.setUint32(40, 2 * data.length, true);
  data.forEach((x, i) => content.setInt16(44 + 2 * i, Math.max(-32768, Math.min(32767, Math.round(x * scale * 32767))), true));
  const bytes = new Uint8Array(content.buffer), parts = [];
  for (let i = 0; i < bytes.length; i += 0x8000) parts.push(String.fromCharCode(...bytes.subarray(i, i + 0x8000)));
  return `data:audio/wav;base64,${btoa(parts.join(""))}`;
}
