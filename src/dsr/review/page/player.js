"use strict";
/* A clip between a question's moments: its video, or frames or nothing at all by a clock of our own, with boxes on top
   and, for trajectories alone, a view from above. Times are seconds of the video. */

const HOLD = 0.8; // Seconds for which a loop stays on the moment of the boxes, which is one frame long.
const RATES = [1, 0.5, 0.25];

class Player {
  constructor(element) {
    this.stage = element("stage");
    this.video = element("video");
    this.overlay = element("overlay");
    this.map = element("map");
    this.slider = element("time");
    this.onchange = () => {};
    this.onbroken = () => {};
    this.rate = 1;
    this.looping = true;
    this.whole = false;
    this.following = false;
    this.about = null;
    this.playing = false;
    this.video.addEventListener("error", () => this.broken());
    this.video.addEventListener("loadeddata", () => {
      if (!this.video.videoWidth) this.broken(); // A sound track alone: the codec of the picture is not known.
      else this.begin();
    });
    const tick = (now) => { this.tick(now); requestAnimationFrame(tick); };
    requestAnimationFrame(tick);
  }

  /* Show a clip; `address` of its video, or null. */
  load(about, address) {
    this.about = about;
    this.images = null;
    this.times = about.frames.length ? about.frames : about.tracks.times;
    this.byVideo = Boolean(address);
    this.playing = false;
    this.holding = 0;
    this.stage.style.aspectRatio = `${about.width} / ${about.height}`;
    this.stage.style.maxWidth = `calc(62vh * ${about.width / about.height})`;
    this.video.hidden = !this.byVideo;
    this.video.removeAttribute("src");
    if (this.byVideo) this.video.src = address;
    this.video.load();
    this.time = about.start;
    this.limits();
    if (!this.byVideo) this.begin();
  }

  /* More of the same clip may be seen. */
  extend(about) {
    const further = about.last > this.about.last;
    if (!this.images) this.times = about.frames.length ? about.frames : about.tracks.times;
    this.about = about;
    this.limits();
    return further;
  }

  /* Frames in place of the video. */
  show(times, images) {
    this.byVideo = false;
    this.video.hidden = true;
    this.times = times;
    this.images = images;
    this.limits();
    this.begin();
  }

  broken() {
    if (!this.byVideo || !this.video.getAttribute("src")) return;
    this.byVideo = false;
    this.video.hidden = true;
    this.begin();
    this.onbroken();
  }

  limits() {
    this.slider.min = this.about.first;
    this.slider.max = this.about.last;
  }

  begin() {
    this.seek(this.about.start);
    this.play();
  }

  span() {
    const { first, last, start, end } = this.about;
    return this.whole ? [first, last] : [start, end];
  }

  play() {
    const [start, end] = this.span();
    if (this.time < start - 1e-3 || this.time >= end - 1e-3) this.seek(start);
    this.playing = true;
    this.holding = this.atStated() ? HOLD : 0;
    this.onchange();
  }

  pause() {
    this.playing = false;
    this.video.pause();
    this.onchange();
  }

  toggle() {
    if (this.playing) this.pause();
    else this.play();
  }

  /* To the middle of the frame that is shown at a time: at its very beginning a browser may show the one before. */
  seek(time) {
    const at = this.frame(time);
    this.time = this.times.length ? this.times[at] : time;
    if (!this.byVideo) return;
    const next = this.times[at + 1] ?? this.time;
    this.video.currentTime = this.time + Math.min(next - this.time, 0.1) / 2;
  }

  step(by) {
    this.pause();
    const at = Math.max(0, Math.min(this.times.length - 1, this.frame(this.time) + by));
    if (this.times.length) this.seek(this.times[at]);
  }

  toStated() {
    this.pause();
    this.seek(this.about.stated);
  }

  slower() {
    this.rate = RATES[(RATES.indexOf(this.rate) + 1) % RATES.length];
    this.onchange();
  }

  /* Number of the frame that is shown at a time. */
  frame(time) {
    let low = 0, high = this.times.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.times[middle] <= time + 2e-3) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  atStated() {
    return this.times.length > 0 && this.frame(this.time) === this.frame(this.about.stated);
  }

  tick(now) {
    const passed = Math.min((now - (this.before ?? now)) / 1000, 0.25);
    this.before = now;
    if (!this.about) return;
    if (this.playing) this.advance(passed);
    this.slider.value = this.time;
    this.draw();
  }

  advance(passed) {
    if (this.holding > 0) {
      this.holding -= passed;
      this.video.pause();
      return;
    }
    const was = this.atStated();
    if (this.byVideo) {
      if (this.video.readyState < 2 || this.video.seeking) return;
      this.video.playbackRate = this.rate;
      if (this.video.paused && !this.video.ended) this.video.play().catch(() => {});
      this.time = this.video.currentTime;
    } else {
      this.time += passed * this.rate;
    }
    const [start, end] = this.span();
    const frame = this.times.length > 1 ? (this.times.at(-1) - this.times[0]) / (this.times.length - 1) : 0.1;
    if (this.time > end + Math.min(frame, 0.2) * 0.9 || this.video.ended) {
      if (this.looping) {
        this.seek(start);
        this.holding = this.atStated() ? HOLD : 0.3;
      } else {
        this.seek(end);
        this.pause();
      }
    } else if (!was && this.atStated()) {
      this.holding = HOLD;
    }
  }

  // --- Drawing ---

  draw() {
    const context = sized(this.overlay);
    const { width, height } = this.overlay;
    context.clearRect(0, 0, width, height);
    if (this.images) {
      const image = this.images[this.frame(this.time)];
      if (image && image.complete && image.naturalWidth) context.drawImage(image, 0, 0, width, height);
    }
    for (const [number, target] of this.about.targets.entries()) {
      const box = this.box(number, target);
      if (box) drawBox(context, box, target, number % 2, width / this.about.width, height / this.about.height);
    }
    if (this.about.above) this.drawAbove();
  }

  /* A target's box at this time: the question's at the moment that it states, the cues' where boxes are followed (and
     where there is nothing else to see). */
  box(number, target) {
    if (this.atStated() && target.box.length) return target.box;
    const { times, boxes } = this.about.tracks;
    if (!(this.following || (this.about.above && !this.byVideo)) || !times.length || !boxes[number]) return null;
    let nearest = 0;
    for (let i = 1; i < times.length; i++) if (Math.abs(times[i] - this.time) < Math.abs(times[nearest] - this.time)) nearest = i;
    return boxes[number][nearest];
  }

  drawAbove() {
    const context = sized(this.map);
    const { width, height } = this.map;
    const { times, entities } = this.about.above;
    let now = 0;
    while (now + 1 < times.length && times[now + 1] <= this.time + 2e-3) now++;
    const known = entities.flatMap((entity) => entity.places.filter(Boolean));
    const lows = [0, 1].map((axis) => Math.min(...known.map((place) => place[axis])));
    const highs = [0, 1].map((axis) => Math.max(...known.map((place) => place[axis])));
    const scale = (0.86 * Math.min(width, height)) / Math.max(highs[0] - lows[0], highs[1] - lows[1], 0.3);
    const at = (place) => [
      width / 2 + scale * (place[0] - (lows[0] + highs[0]) / 2),
      height / 2 - scale * (place[1] - (lows[1] + highs[1]) / 2),
    ];
    context.clearRect(0, 0, width, height);
    context.font = `${Math.round(width / 26)}px sans-serif`;
    for (const entity of entities) {
      context.strokeStyle = context.fillStyle = entity.colour;
      context.globalAlpha = entity.named ? 1 : 0.45;
      context.lineWidth = width / 250;
      context.beginPath();
      entity.places.slice(0, now + 1).forEach((place, i) => {
        if (!place) return;
        if (i && entity.places[i - 1]) context.lineTo(...at(place));
        else context.moveTo(...at(place));
      });
      context.stroke();
      const place = entity.places[now];
      if (!place) continue;
      const [x, y] = at(place), way = entity.ways[now];
      context.beginPath();
      context.arc(x, y, width / 70, 0, 2 * Math.PI);
      context.fill();
      if (way) {
        context.lineWidth = width / 160;
        context.beginPath();
        context.moveTo(x, y);
        context.lineTo(x + (way[0] * width) / 16, y - (way[1] * width) / 16);
        context.stroke();
      }
      context.fillText(entity.label.slice(0, 24), Math.min(x + width / 50, width * 0.8), Math.max(y - width / 60, width / 26));
    }
    context.globalAlpha = 1;
  }
}

/* The context of a canvas that has as many pixels as the screen shows of it. */
function sized(canvas) {
  const width = Math.round(canvas.clientWidth * devicePixelRatio), height = Math.round(canvas.clientHeight * devicePixelRatio);
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  return canvas.getContext("2d");
}

/* A box with its name, above it or `below`, so that two boxes in one place do not hide each other's. */
function drawBox(context, box, target, below, scaleX, scaleY) {
  const [left, top, right, bottom] = [box[0] * scaleX, box[1] * scaleY, box[2] * scaleX, box[3] * scaleY];
  const unit = devicePixelRatio;
  for (const [colour, line] of [["#000", 4], [target.colour, 2.2]]) {
    context.strokeStyle = colour;
    context.lineWidth = line * unit;
    context.strokeRect(left, top, right - left, bottom - top);
  }
  context.font = `${12 * unit}px sans-serif`;
  const text = target.label.slice(0, 40), wide = context.measureText(text).width + 6 * unit, high = 16 * unit;
  const x = Math.max(0, Math.min(left, context.canvas.width - wide));
  const y = Math.max(0, Math.min(below ? bottom : top - high, context.canvas.height - high));
  context.fillStyle = target.colour;
  context.fillRect(x, y, wide, high);
  context.fillStyle = "#fff";
  context.fillText(text, x + 3 * unit, y + 12 * unit);
}
