// The picture: panes of addresses over time, drawn pixel by pixel by a raster of our own.
"use strict"

const MOST_PANES = 8
const APART = 64 // a gap that is so many times what is mapped beside it parts two panes
const CHUNK = 512 // so many rectangles are passed over at once where none of them is in view
const LEAST_BLOCKER = 5 // pixels that a mapping in the way of the break has at least

/** Colours (Okabe and Ito's) and patterns of the classes, in the order of `head.classes`; pattern bits are rows of 8. */
const PAINT = [
  { colour: [230, 159, 0], pattern: [] }, // brk
  { colour: [86, 180, 233], pattern: [0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80] }, // anon
  { colour: [0, 114, 178], pattern: [0x11, 0, 0, 0, 0x44, 0, 0, 0] }, // file
  { colour: [204, 121, 167], pattern: [0x81, 0x42, 0x24, 0x18, 0x18, 0x24, 0x42, 0x81] }, // shm
  { colour: [240, 228, 66], pattern: [0xff, 0, 0, 0, 0xff, 0, 0, 0] }, // stack
  { colour: [0, 158, 115], pattern: [0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11] }, // image
  { colour: [150, 150, 150], pattern: [] }, // special
  { colour: [185, 165, 140], pattern: [0x88, 0, 0x22, 0, 0x88, 0, 0x22, 0] }, // unknown
  { colour: [214, 218, 222], pattern: [0x80, 0x40, 0x20, 0x10, 0x08, 0x04, 0x02, 0x01], dark: [70, 76, 84] }, // no access
]
const ALARM = "#d55e00"

const theme = { isDark: false, ground: [255, 255, 255], ink: "#1b2733", faint: "#7b8794", grid: "#e3e8ed" }

function setTheme() {
  theme.isDark = !matchMedia("print").matches && matchMedia("(prefers-color-scheme: dark)").matches
  theme.ground = theme.isDark ? [18, 22, 27] : [255, 255, 255]
  theme.ink = theme.isDark ? "#e6ebf0" : "#1b2733"
  theme.faint = theme.isDark ? "#9aa7b4" : "#5d6b79"
  theme.grid = theme.isDark ? "#2a323b" : "#e3e8ed"
  patterns.clear()
}

const word = ([red, green, blue]) => ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0
const mixed = (one, other, share) => one.map((value, at) => Math.round(value * (1 - share) + other[at] * share))
const colourOf = (code) => (theme.isDark && PAINT[code].dark) || PAINT[code].colour

const patterns = new Map()

/** Return, for a class, eight rows of pixels as wide as a canvas, and its dark edge. */
function patternOf(code, width) {
  const held = patterns.get(code)
  if (held && held.rows[0].length >= width) return held
  const colour = colourOf(code), lines = mixed(colour, theme.isDark ? [255, 255, 255] : [0, 0, 0], 0.28)
  const bits = PAINT[code].pattern
  const rows = Array.from({ length: 8 }, (_, y) =>
    Uint32Array.from({ length: width }, (_, x) => word((bits[y] ?? 0) & (1 << (x & 7)) ? lines : colour)))
  const edge = word(mixed(colour, theme.isDark ? [0, 0, 0] : [30, 30, 30], 0.55))
  const made = { rows, edge, plain: word(colour) }
  patterns.set(code, made)
  return made
}

// --- panes -----------------------------------------------------------------------------------------------------------

/** Return the panes of a space from low to high addresses: what lies close together, the brk area always with its own. */
function panesOf(space) {
  const { mapped } = run
  const rows = rowsOf(mapped, space)
  const ranges = rangesOf(rows), cuts = new Set(cutsAroundBrk(ranges, space))
  const gaps = ranges.slice(1).map((range, at) => ({ at: at + 1, size: range.low - ranges[at].high }))
  for (const gap of gaps.sort((one, other) => other.size - one.size)) {
    if (cuts.size + 1 >= MOST_PANES) break
    const edges = [0, ...[...cuts].sort((a, b) => a - b), ranges.length]
    const high = edges.find((edge) => edge > gap.at) ?? gap.at
    const low = edges.filter((edge) => edge < gap.at).pop() ?? 0
    const held = ranges.slice(low, high).reduce((sum, range) => sum + range.high - range.low, 0)
    if (!cuts.has(gap.at) && gap.size > APART * held) cuts.add(gap.at)
  }
  const edges = [0, ...[...cuts].sort((a, b) => a - b), ranges.length]
  return edges.slice(1).flatMap((edge, at) => (edge > edges[at] ? [paneOf(rows, ranges.slice(edges[at], edge))] : []))
}

/** Return what is ever mapped, touching mappings as one range, by address. */
function rangesOf(rows) {
  const { mapped } = run, ranges = []
  for (const row of rows.slice().sort((one, other) => mapped.start[one] - mapped.start[other])) {
    const held = ranges[ranges.length - 1], isBrk = lookOf(row, "kind") === "brk"
    if (held && mapped.start[row] <= held.high) {
      held.high = Math.max(held.high, mapped.end[row])
      held.isBrk ||= isBrk
    } else ranges.push({ low: mapped.start[row], high: mapped.end[row], isBrk })
  }
  return ranges
}

/** Return where the pane of the brk area ends among the ranges: what stood in the break's way is still in it. */
function cutsAroundBrk(ranges, space) {
  const first = ranges.findIndex((range) => range.isBrk)
  if (first < 0) return []
  let last = ranges.findLastIndex((range) => range.isBrk)
  const { mark } = run
  for (let at = 0; at < mark.kind.length; at++)
    if (mark.kind[at] === 0 && mark.space[at] === space && mark.blocker_size[at])
      while (last + 1 < ranges.length && ranges[last + 1].low <= mark.blocker[at]) last++
  const next = ranges[last + 1], held = ranges[last].high - ranges[first].low
  if (next && next.low - ranges[last].high <= APART * held && next.high - next.low <= APART * held) last++
  return last + 1 < ranges.length ? [last + 1] : []
}

function paneOf(rows, ranges) {
  const { mapped } = run
  const low = ranges[0].low, high = ranges[ranges.length - 1].high
  const own = rows.filter((row) => mapped.start[row] >= low && mapped.start[row] < high)
  const colour = Uint8Array.from(own, (row) => lookOf(row, "colour"))
  const isBrk = ranges.some((range) => range.isBrk)
  const pane = { low, high, rows: own, colour, isBrk, isEven: isBrk, from: 0, to: 1, name: nameOfPane(own, colour, isBrk, lowestBreak(rows)) }
  pane.isBlocker = blockersAmong(own)
  completeBorders(pane)
  pane.first = Uint32Array.from([...own.keys()].filter((at) => colour[at] === 0).concat(
    [...own.keys()].filter((at) => pane.isBlocker[at])))
  return pane
}

/** Name a pane by what lies in it; the program lies below its break, and maps no file there but itself. */
function nameOfPane(rows, colour, isBrk, breakLow) {
  const has = (code) => colour.includes(code)
  const below = rows.filter((row) => run.mapped.start[row] < breakLow && lookOf(row, "path").startsWith("/"))
  const isProgram = new Set(below.map((row) => lookOf(row, "path"))).size === 1
  if (isBrk) return has(5) || isProgram ? "program and brk area" : "brk area"
  if (rows.some((row) => lookOf(row, "path") === "[stack]")) return "stack"
  if (has(2)) return isProgram ? "program" : "mmap area"
  return has(5) ? "program" : "mappings apart"
}

/** Return where the brk area of a space's mappings begins, 0 where it has none. */
function lowestBreak(rows) {
  const low = rows.reduce((least, row) => (lookOf(row, "kind") === "brk" ? Math.min(least, run.mapped.start[row]) : least), Infinity)
  return low === Infinity ? 0 : low
}

function blockersAmong(rows) {
  const { mark, mapped } = run
  const starts = new Set()
  for (let at = 0; at < mark.kind.length; at++) if (mark.blocker_size[at]) starts.add(mark.blocker[at])
  return Uint8Array.from(rows, (row) => (starts.has(mapped.start[row]) && lookOf(row, "kind") !== "brk" ? 1 : 0))
}

/** Give a pane its borders and the place of each in the even scale, in which each distinct range is equally tall. */
function completeBorders(pane) {
  const { mapped } = run, { rows } = pane
  const ends = new Float64Array(2 * rows.length)
  rows.forEach((row, at) => {
    ends[2 * at] = mapped.start[row]
    ends[2 * at + 1] = mapped.end[row]
  })
  pane.borders = ends.sort().filter((value, at) => !at || value !== ends[at - 1])
  const steps = new Int32Array(pane.borders.length), ofBlockers = new Int32Array(pane.borders.length)
  rows.forEach((row, at) => {
    const [low, high] = [mapped.start[row], mapped.end[row]].map((value) => countUpTo(pane.borders, value, true))
    steps[low]++
    steps[high]--
    if (pane.isBlocker[at]) ofBlockers[low] = 1
  })
  const least = Math.max(1, pane.borders.length / 30)
  pane.even = new Float64Array(pane.borders.length)
  for (let at = 0, open = 0; at + 1 < pane.borders.length; at++) {
    open += steps[at]
    pane.even[at + 1] = pane.even[at] + (ofBlockers[at] ? least : open ? 1 : 0.6)
  }
  const all = pane.even[pane.even.length - 1] || 1
  pane.even = pane.even.map((place) => place / all)
  place(pane)
}

/** Return where an address lies in a pane, 0 at its bottom and 1 at its top. */
function shareOf(pane, pages) {
  if (!pane.isEven) return (pages - pane.low) / (pane.high - pane.low)
  const at = Math.min(Math.max(countUpTo(pane.borders, pages) - 1, 0), pane.borders.length - 2)
  const inside = (pages - pane.borders[at]) / (pane.borders[at + 1] - pane.borders[at])
  return pane.even[at] + Math.min(Math.max(inside, 0), 1) * (pane.even[at + 1] - pane.even[at])
}

/** Return the address at a place of a pane. */
function pagesAt(pane, share) {
  if (!pane.isEven) return pane.low + share * (pane.high - pane.low)
  const at = Math.min(Math.max(countUpTo(pane.even, share) - 1, 0), pane.borders.length - 2)
  const inside = (share - pane.even[at]) / (pane.even[at + 1] - pane.even[at])
  return pane.borders[at] + inside * (pane.borders[at + 1] - pane.borders[at])
}

/** Compute the places of all rectangles of a pane in its scale. */
function place(pane) {
  const { mapped } = run
  pane.lows = Float64Array.from(pane.rows, (row) => shareOf(pane, mapped.start[row]))
  pane.highs = Float64Array.from(pane.rows, (row) => shareOf(pane, mapped.end[row]))
}

/** Give rectangles their births and deaths on the axis of time, and an index of what can be passed over. */
function timed(pane, table, axisOf) {
  pane.births = Float64Array.from(pane.rows, (row) => axisOf(table.born[row]))
  pane.deaths = Float64Array.from(pane.rows, (row) => axisOf(table.died[row]))
  pane.latest = new Float64Array(Math.ceil(pane.rows.length / CHUNK))
  for (let at = 0; at < pane.deaths.length; at++) {
    const chunk = Math.floor(at / CHUNK)
    pane.latest[chunk] = Math.max(pane.latest[chunk], pane.deaths[at])
  }
}

// --- the raster ------------------------------------------------------------------------------------------------------

/** Call `draw(at, x0, x1, y0, y1)` for each rectangle of a pane in view, those born first before the others. */
function eachInView(pane, width, height, from, to, draw) {
  const { births, deaths, lows, highs, latest } = pane
  const across = width / (to - from), up = height / (pane.to - pane.from)
  for (let chunk = 0; chunk < latest.length; chunk++) {
    if (latest[chunk] <= from) continue
    const end = Math.min(births.length, (chunk + 1) * CHUNK)
    if (births[chunk * CHUNK] >= to) break
    for (let at = chunk * CHUNK; at < end; at++) {
      const death = deaths[at], birth = births[at]
      if (death <= from || birth >= to || highs[at] <= pane.from || lows[at] >= pane.to) continue
      const x0 = birth <= from ? 0 : Math.min(((birth - from) * across) | 0, width - 1)
      const x1 = death >= to ? width : Math.max(((death - from) * across) | 0, x0 + 1)
      const y0 = Math.min(Math.max(((pane.to - highs[at]) * up) | 0, 0), height - 1)
      const y1 = Math.max(Math.min(((pane.to - lows[at]) * up) | 0, height), y0 + 1)
      draw(at, x0, x1, y0, y1)
    }
  }
}

/** Paint a pane's rectangles into pixels; the brk area comes over the others, and what is in its way over all. */
function paintMappings(pane, pixels, width, height, from, to) {
  const least = LEAST_BLOCKER * devicePixelRatio, wide = 64 * devicePixelRatio, tall = 11 * devicePixelRatio
  const { colour, isBlocker } = pane, looks = PAINT.map((_, code) => patternOf(code, width))
  pixels.fill(word(theme.ground))
  const labels = [], late = []
  eachInView(pane, width, height, from, to, (at, x0, x1, y0, y1) => {
    if (isBlocker[at] && y1 - y0 < least) {
      y0 = Math.max(0, Math.round(y1 - least))
      y1 = Math.max(y1, Math.min(height, y0 + least))
    }
    if (isBlocker[at] || colour[at] === 0) late.push([isBlocker[at], at, x0, x1, y0, y1])
    else fill(pixels, width, looks[colour[at]], x0, x1, y0, y1)
    if (x1 - x0 > wide && y1 - y0 >= tall && labels.length < 80) labels.push([pane.rows[at], x0, x1, y0, y1])
  })
  for (const blocker of [0, 1])
    for (const [isIt, at, x0, x1, y0, y1] of late)
      if (isIt === blocker) fill(pixels, width, looks[colour[at]], x0, x1, y0, y1)
  return { labels, blockers: late.filter(([isIt]) => isIt) }
}

/** Fill one rectangle of pixels: with its pattern where it is tall enough, with an edge above and at its birth. */
function fill(pixels, width, { rows, edge, plain }, x0, x1, y0, y1) {
  if (x1 - x0 === 1 && y1 - y0 === 1) {
    pixels[y0 * width + x0] = plain
    return
  }
  const isWide = x1 - x0 >= 6, isTall = y1 - y0 >= 6
  for (let y = y0; y < y1; y++) {
    const at = y * width
    if (!isTall) pixels.fill(plain, at + x0, at + x1)
    else if (isWide) pixels.set(rows[y & 7].subarray(x0, x1), at + x0)
    else for (let x = x0; x < x1; x++) pixels[at + x] = rows[y & 7][x]
    if (isWide && isTall) pixels[at + x0] = edge
  }
  if (y1 - y0 >= 4) pixels.fill(edge, y0 * width + x0, y0 * width + x1)
}

/** Paint the blocks of the heap: each pixel as full as the blocks in it make it, so that small holes still show. */
function paintBlocks(pane, pixels, width, height, from, to) {
  pixels.fill(word(theme.ground))
  const free = mixed(theme.ground, colourOf(0), 0.28)
  if (pane.area) eachInView(pane.area, width, height, from, to, (_, x0, x1, y0, y1) => {
    for (let y = y0; y < y1; y++) pixels.fill(word(free), y * width + x0, y * width + x1)
  })
  const cover = (pane.cover ??= new Float32Array(0)).length >= width * height ? pane.cover : new Float32Array(width * height)
  pane.cover = cover.fill(0)
  const up = height / (pane.to - pane.from), across = width / (to - from)
  eachInView(pane, width, height, from, to, (at, x0, x1, y0, y1) => {
    const share = Math.min(1, (Math.min(pane.deaths[at], to) - Math.max(pane.births[at], from)) * across)
    const tall = Math.min(1, (pane.highs[at] - pane.lows[at]) * up)
    const full = y1 - y0 > 1 ? 1 : tall
    for (let y = y0; y < y1; y++)
      for (let x = x0, place = y * width + x0; x < x1; x++, place++) cover[place] += x1 - x0 > 1 ? full : full * share
  })
  const shades = Uint32Array.from({ length: 65 }, (_, at) => word(mixed(free, mixed(colourOf(0), [120, 60, 0], 0.35), at / 64)))
  for (let place = 0; place < width * height; place++)
    if (cover[place] > 0) pixels[place] = shades[Math.min(64, Math.max(3, Math.round(cover[place] * 64)))]
  return { labels: [], blockers: [] }
}

/** Return the place in a pane of the rectangle at a time and a share of its height, -1 for none. */
function hit(pane, time, share, slack = 0) {
  const { deaths, lows, highs, latest } = pane
  let near = -1, distance = slack
  for (let at = countUpTo(pane.births, time) - 1; at >= 0; at--) {
    const chunk = Math.floor(at / CHUNK)
    if (latest[chunk] <= time) {
      at = chunk * CHUNK
      continue
    }
    if (deaths[at] <= time) continue
    const away = lows[at] > share ? lows[at] - share : share > highs[at] ? share - highs[at] : 0
    if (away === 0) return at
    if (away < distance) [near, distance] = [at, away]
  }
  return near
}
