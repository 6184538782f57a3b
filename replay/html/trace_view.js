// The view: which space, which stretch of time, which moment, and its canvases.
"use strict"

const view = { space: 0, axis: "line", from: 0, to: 1, moment: 0, other: null, tab: "maps", panes: [], charts: [], heap: null }
const dom = {}

/** Return a new element with properties and children; texts are never markup. */
function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag)
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value)
    else if (name in made && name !== "list") made[name] = value
    else made.setAttribute(name, value)
  }
  made.append(...children)
  return made
}

// --- the axis of time ------------------------------------------------------------------------------------------------

/** Return where a clock is on the axis: the clock itself, or seconds since the first step. */
function axisOf(clock) {
  if (view.axis === "line") return clock === Infinity ? run.head.last + 1 : clock
  if (clock === Infinity) return endOfAxis()
  return run.seconds[Math.max(0, stepAt(clock))] ?? 0
}

function clockAt(place) {
  if (view.axis === "line") return Math.min(Math.max(Math.floor(place), 1), run.head.last)
  const at = Math.max(0, countUpTo(run.seconds, place) - 1)
  return run.steps.clock[at] ?? 1
}

function endOfAxis() {
  if (view.axis === "line") return run.head.last + 1
  const last = run.seconds[run.seconds.length - 1]
  return last + Math.max(last * 0.002, 1e-6)
}

const startOfAxis = () => (view.axis === "line" ? 1 : 0)
const placeLabel = (place) => (view.axis === "line" ? grouped(Math.round(place)) : duration(Math.max(0, place)))

/** Return some round places between the edges of the view. */
function ticks(most) {
  const span = (view.to - view.from) / most, power = 10 ** Math.floor(Math.log10(span))
  let step = [1, 2, 5, 10].find((factor) => factor * power >= span) * power
  if (view.axis === "line") step = Math.max(1, step)
  const found = []
  for (let place = Math.ceil(view.from / step) * step; place < view.to; place += step) found.push(place)
  return found
}

// --- what is drawn ---------------------------------------------------------------------------------------------------

/** Take a space up: its panes, its heap, its charts. */
function chooseSpace(space) {
  view.space = space
  view.panes = panesOf(space)
  view.heap = heapOf(space)
  view.charts = chartsOf(space)
  view.marks = rowsOf(run.mark, space)
  time()
  layOut()
}

/** Return the pane of malloc's blocks in the brk area, null where the log shows none. */
function heapOf(space) {
  const { block, head } = run
  const isMapped = head.blockLooks.map((look) => look[1] === "mmap")
  let rows = rowsOf(block, space).filter((row) => !isMapped[block.look[row]])
  if (!rows.length) return null
  const brk = view.panes.find((pane) => pane.isBrk)
  const area = brk ? areaOf(brk) : null
  if (!area) rows = largestCluster(rows)
  const ends = rows.reduce((most, row) => Math.max(most, block.addr[row] + block.size[row]), 0)
  const low = area ? bytesIn(area.low) : rows.reduce((least, row) => Math.min(least, block.addr[row]), Infinity)
  const high = Math.max(ends, area ? bytesIn(area.high) : 0)
  const pane = { isHeap: true, low, high, rows, from: 0, to: 1, name: "heap: blocks in the brk area", area, borders: [] }
  const span = high - low || 1
  pane.lows = Float64Array.from(rows, (row) => (block.addr[row] - low) / span)
  pane.highs = Float64Array.from(rows, (row) => (block.addr[row] + Math.max(block.size[row], 1) - low) / span)
  pane.isBlocker = new Uint8Array(rows.length)
  if (area) {
    area.lows = Float64Array.from(area.rows, (row) => (bytesIn(run.mapped.start[row]) - low) / span)
    area.highs = Float64Array.from(area.rows, (row) => (bytesIn(run.mapped.end[row]) - low) / span)
  }
  return pane
}

/** Return the rectangles of the brk area alone. */
function areaOf(pane) {
  const { mapped } = run
  const rows = pane.rows.filter((_, at) => pane.colour[at] === 0)
  if (!rows.length) return null
  const low = rows.reduce((least, row) => Math.min(least, mapped.start[row]), Infinity)
  const high = rows.reduce((most, row) => Math.max(most, mapped.end[row]), 0)
  return { rows, low, high, from: 0, to: 1 }
}

/** Return of blocks those of the largest group that no gap above 64 MiB parts. */
function largestCluster(rows) {
  const { block } = run
  const order = rows.slice().sort((one, other) => block.addr[one] - block.addr[other])
  let best = [0, 0], begin = 0
  for (let at = 1; at <= order.length; at++)
    if (at === order.length || block.addr[order[at]] - block.addr[order[at - 1]] > 1 << 26) {
      if (at - begin > best[1] - best[0]) best = [begin, at]
      begin = at
    }
  return order.subarray(...best).sort()
}

/** Put all rectangles on the axis of time. */
function time() {
  for (const pane of view.panes) timed(pane, run.mapped, axisOf)
  if (!view.heap) return
  timed(view.heap, run.block, axisOf)
  if (view.heap.area) timed(view.heap.area, run.mapped, axisOf)
}

const allPanes = () => [...view.panes.toReversed(), ...(view.heap ? [view.heap] : [])]

/** Draw everything once more, at the next frame. */
function redraw() {
  if (view.isDue) return
  view.isDue = true
  requestAnimationFrame(() => {
    view.isDue = false
    draw()
  })
}

function draw() {
  for (const { canvas } of [...allPanes(), ...view.charts, { canvas: dom.lane }]) fit(canvas)
  dom.axis.wide = dom.axis.clientWidth
  for (const pane of allPanes()) drawPane(pane)
  drawLane()
  for (const chart of view.charts) drawCurves(chart)
  drawAxis()
  showCursor()
  keepFragment()
}

const xOf = (clock, width) => ((axisOf(clock) - view.from) / (view.to - view.from)) * width

/** Make a canvas as large as its place on the screen has device pixels. */
function fit(canvas) {
  const width = Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio))
  const height = Math.max(1, Math.round(canvas.clientHeight * devicePixelRatio))
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height })
}

const contextOf = (canvas) => canvas.getContext("2d", { willReadFrequently: true })

function drawPane(pane) {
  const context = contextOf(pane.canvas), { width, height } = pane.canvas
  if (pane.image?.width !== width || pane.image?.height !== height) {
    pane.image = new ImageData(width, height)
    pane.pixels = new Uint32Array(pane.image.data.buffer)
  }
  const paint = pane.isHeap ? paintBlocks : paintMappings
  const { labels, blockers } = paint(pane, pane.pixels, width, height, view.from, view.to)
  context.putImageData(pane.image, 0, 0)
  drawLabels(context, labels)
  drawBlockers(context, blockers)
  if (pane.isBrk) drawFailures(context, pane, width, height)
  if (pane.isHeap) drawPin(context, pane, width, height)
  labelAddresses(pane)
}

const font = (pixels, weight = "") => `${weight} ${pixels * devicePixelRatio}px system-ui, sans-serif`

/** Write the names of mappings into those that have room. */
function drawLabels(context, labels) {
  context.font = font(10)
  context.textBaseline = "middle"
  for (const [row, x0, x1, y0, y1] of labels) {
    const name = baseName(lookOf(row, "path")) || (lookOf(row, "kind") === "brk" ? "[heap]" : lookOf(row, "owner"))
    if (!name) continue
    const text = shortened(name, Math.floor((x1 - x0) / (6.2 * devicePixelRatio)) - 1)
    if (text.length < 4 && text !== name) continue
    const [red, green, blue] = colourOf(lookOf(row, "colour"))
    const wide = context.measureText(text).width + 6 * devicePixelRatio
    context.fillStyle = `rgb(${colourOf(lookOf(row, "colour"))})`
    context.fillRect(x0 + 2, (y0 + y1) / 2 - 5.5 * devicePixelRatio, wide, 11 * devicePixelRatio)
    context.fillStyle = 0.3 * red + 0.59 * green + 0.11 * blue > 125 ? "#101418" : "#ffffff"
    context.fillText(text, x0 + 2 + 3 * devicePixelRatio, (y0 + y1) / 2)
  }
}

function drawBlockers(context, blockers) {
  context.strokeStyle = ALARM
  context.lineWidth = 1.5 * devicePixelRatio
  for (const [, , x0, x1, y0, y1] of blockers.slice(0, 200)) context.strokeRect(x0 + 0.5, y0 + 0.5, x1 - x0 - 1, y1 - y0 - 1)
}

/** Mark each refused break where the break stood, with a line to what was in its way: one for each pixel across. */
function drawFailures(context, pane, width, height) {
  const { mark, mapped } = run, size = 4.5 * devicePixelRatio
  const y = (pages) => (1 - (shareOf(pane, pages) - pane.from) / (pane.to - pane.from)) * height
  let latest = -Infinity, lines = 0
  for (const row of view.marks) {
    if (mark.kind[row] !== 0) continue
    const x = xOf(mark.clock[row] + (view.axis === "line" ? 0.5 : 0), width)
    if (x < -size || x > width + size || x - latest < devicePixelRatio) continue
    const isNear = x - latest < 14 * devicePixelRatio
    latest = x
    const top = y(mark.addr[row] / run.head.unit)
    context.fillStyle = context.strokeStyle = ALARM
    if (mark.blocker_size[row] && !isNear && lines++ < 60) {
      const middle = y(mark.blocker[row] + mark.blocker_size[row] / 2)
      context.lineWidth = 1.2 * devicePixelRatio
      context.setLineDash([3 * devicePixelRatio, 2 * devicePixelRatio])
      context.beginPath()
      context.moveTo(x, top)
      context.lineTo(x, middle)
      context.lineTo(Math.max(0, xOf(mark.blocker_clock[row], width)), middle)
      context.stroke()
      context.setLineDash([])
    }
    context.beginPath()
    context.moveTo(x - size, top + 2 * size)
    context.lineTo(x + size, top + 2 * size)
    context.lineTo(x, top + size * 0.2)
    context.fill()
    context.strokeStyle = theme.isDark ? "#000" : "#fff"
    context.lineWidth = devicePixelRatio
    context.stroke()
  }
}

/** Outline the block that holds the break up at the chosen moment: the highest live one of the brk area. */
function drawPin(context, pane, width, height) {
  const pin = pinAt(view.moment)
  if (!pin) return
  const { block } = run, up = height / (pane.to - pane.from)
  const x0 = Math.max(0, xOf(block.born[pin.row], width)), x1 = Math.min(width, xOf(block.died[pin.row], width))
  const y = (pane.to - pane.highs[pin.at]) * up, tall = Math.max(4 * devicePixelRatio, (pane.highs[pin.at] - pane.lows[pin.at]) * up)
  context.strokeStyle = ALARM
  context.lineWidth = 2 * devicePixelRatio
  context.strokeRect(x0, y, Math.max(3, x1 - x0), tall)
  context.font = font(10, "600")
  const text = `pin at ${placeOf(view.moment)}: ${size(pin.free)} free below it`
  const x = Math.min(Math.max(x0 + 4, 4), width - context.measureText(text).width - 4)
  const base = y > 16 * devicePixelRatio ? y - 5 * devicePixelRatio : y + tall + 11 * devicePixelRatio
  context.fillStyle = `rgb(${theme.ground})`
  context.fillRect(x - 3, base - 9 * devicePixelRatio, context.measureText(text).width + 6, 13 * devicePixelRatio)
  context.fillStyle = theme.isDark ? "#ff9a5c" : "#a84300"
  context.textBaseline = "alphabetic"
  context.fillText(text, x, base)
}

/** Return the highest live block at a clock and the bytes below it that no live block covers, null if none is live. */
function pinAt(clock) {
  const pane = view.heap, { block } = run
  if (view.pin?.clock === clock && view.pin.pane === pane) return view.pin.found
  let top = -1, live = 0
  for (let at = 0; at < pane.rows.length && block.born[pane.rows[at]] <= clock; at++) {
    const row = pane.rows[at]
    if (block.died[row] <= clock) continue
    live += block.size[row]
    if (top < 0 || block.addr[row] > block.addr[pane.rows[top]]) top = at
  }
  const row = pane.rows[top]
  const found = top < 0 ? null : { at: top, row, free: Math.max(0, block.addr[row] + block.size[row] - pane.low - live) }
  view.pin = { clock, pane, found }
  return found
}

const LANE = ["brk refused", "fallback", "refused", "exit"]
const LANE_OF = [0, 1, 1, 2, 3]

/** Draw the lane of marks: each kind a row, at least a pixel for each mark, whatever the zoom. */
function drawLane() {
  const context = contextOf(dom.lane), { width, height } = dom.lane, { mark } = run
  context.clearRect(0, 0, width, height)
  const tall = height / LANE.length
  const colours = [ALARM, theme.isDark ? "#56b4e9" : "#0072b2", ALARM, theme.ink]
  context.fillStyle = theme.grid
  for (let row = 1; row < LANE.length; row++) context.fillRect(0, Math.round(row * tall), width, 1)
  const latest = [-9, -9, -9, -9]
  const wide = Math.max(2, Math.min(6, Math.floor(width / (view.to - view.from) / 2))) * devicePixelRatio
  for (const row of view.marks) {
    const lane = LANE_OF[mark.kind[row]]
    const x = Math.round(xOf(mark.clock[row], width))
    if (x < -wide || x > width || x === latest[lane]) continue
    latest[lane] = x
    context.fillStyle = colours[lane]
    context.fillRect(x, lane * tall + tall * 0.18, wide, tall * 0.64)
    if (mark.kind[row] === 2) context.clearRect(x + 1, lane * tall + tall * 0.4, wide - 2, tall * 0.2)
  }
}

function drawCurves(chart) {
  const context = contextOf(chart.canvas), { width, height } = chart.canvas
  drawChart(chart, context, width, height, (clock) => xOf(clock, width), clockAt(view.from), clockAt(view.to))
  chart.high.textContent = inWords(chart.top, chart.unit)
  chart.low.textContent = chart.isLog && !chart.hasZero ? inWords(Math.round(chart.bottom), chart.unit) : "0"
}

function drawAxis() {
  const marks = ticks(Math.max(2, Math.floor(dom.axis.wide / 70))).map((place) => {
    const label = element("span", { className: "tick", textContent: placeLabel(place) })
    const share = (place - view.from) / (view.to - view.from)
    label.style.left = `${share * 100}%`
    label.classList.toggle("last", (1 - share) * dom.axis.wide < 70)
    return label
  })
  dom.axis.replaceChildren(...marks)
}

/** Write addresses beside a pane: its edges and, with room, borders of mappings. */
function labelAddresses(pane) {
  const tall = pane.canvas.height / devicePixelRatio, told = [tall, pane.from, pane.to, pane.isEven].join()
  if (pane.labels.told === told) return
  pane.labels.told = told
  const text = (share) => (pane.isHeap
    ? "0x" + Math.round(pane.low + share * (pane.high - pane.low)).toString(16)
    : address(Math.round(pagesAt(pane, share))))
  const topOf = (share) => Math.min(Math.max((1 - (share - pane.from) / (pane.to - pane.from)) * tall - 6, 0), tall - 12)
  const places = [pane.to, pane.from]
  const borders = pane.isEven ? Array.from(pane.even) : Array.from(pane.borders, (pages) => shareOf(pane, pages))
  const candidates = borders.length > 400 ? [0.25, 0.5, 0.75].map((part) => pane.from + part * (pane.to - pane.from)) : borders
  const isFree = (share) => places.every((other) => Math.abs(topOf(other) - topOf(share)) >= 12)
  for (const share of candidates) if (share > pane.from && share < pane.to && isFree(share)) places.push(share)
  pane.labels.replaceChildren(...places.map((share) => {
    const label = element("span", { className: "address", textContent: text(share) })
    label.style.top = `${topOf(share)}px`
    return label
  }))
}
