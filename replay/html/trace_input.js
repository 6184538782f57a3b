// What mouse, fingers and links do to the view: zoom, pan, hover, the chosen moment, the address of the page.
"use strict"

/** A space that lives for less than this share of the run is shown from its birth to its end at first. */
const SHORT_LIFE = 0.5

// --- zoom and pan ----------------------------------------------------------------------------------------------------

function setRange(from, to) {
  const start = startOfAxis(), end = endOfAxis()
  const least = view.axis === "line" ? 4 : Math.max((end - start) / 1e7, 1e-9)
  const span = Math.min(Math.max(to - from, least), end - start)
  view.from = Math.min(Math.max(from, start), end - span)
  view.to = view.from + span
  redraw()
}

/** Zoom by a factor about a place of the axis, of the middle where none is given. */
function zoom(factor, about = (view.from + view.to) / 2) {
  setRange(about - (about - view.from) * factor, about + (view.to - about) * factor)
}

const pan = (share) => setRange(view.from + share * (view.to - view.from), view.to + share * (view.to - view.from))
const showAll = () => {
  for (const pane of allPanes()) Object.assign(pane, { from: 0, to: 1 })
  setRange(startOfAxis(), endOfAxis())
}

/** Show the life of the space, the whole run if that is most of it. */
function showLife() {
  const { born, died } = run.head.spaces[view.space]
  const start = axisOf(Math.max(born, 1)), end = axisOf(died || Infinity)
  const isShort = end - start < SHORT_LIFE * (endOfAxis() - startOfAxis())
  if (isShort) setRange(start - 0.02 * (end - start), end + 0.02 * (end - start))
  else setRange(startOfAxis(), endOfAxis())
}

/** Zoom a pane's addresses by a factor about a share of its height. */
function zoomAddresses(pane, factor, about) {
  const span = Math.min(Math.max((pane.to - pane.from) * factor, 1e-7), 1)
  showAddresses(pane, about - (about - pane.from) * (span / (pane.to - pane.from)), span)
}

const focusedPane = () => allPanes().find((pane) => pane.canvas === document.activeElement)

function zoomFocused(factor) {
  const pane = focusedPane()
  if (pane) zoomAddresses(pane, factor, (pane.from + pane.to) / 2)
}

/** Move the addresses of the pane that has the focus up by a share of what it shows; false if there is nothing to move. */
function moveAddresses(share) {
  const pane = focusedPane()
  if (!pane || pane.to - pane.from >= 1) return false
  const span = pane.to - pane.from
  showAddresses(pane, pane.from + share * span, span)
}

function showAddresses(pane, from, span) {
  const low = Math.min(Math.max(from, 0), 1 - span)
  for (const each of pane.area ? [pane, pane.area] : [pane]) Object.assign(each, { from: low, to: low + span })
  redraw()
}

/** Bring a clock into view. */
function reveal(clock) {
  const place = axisOf(clock)
  if (place < view.from || place > view.to) setRange(place - (view.to - view.from) / 2, place + (view.to - view.from) / 2)
}

/** Let wheel and pointer move the view over a canvas; `pane` is null for curves and marks. */
function listen(canvas, pane, describe) {
  const placeAt = (event) => view.from + (event.offsetX / canvas.clientWidth) * (view.to - view.from)
  const shareAt = (event) => pane.to - (event.offsetY / canvas.clientHeight) * (pane.to - pane.from)
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault()
    const factor = Math.exp(Math.max(-60, Math.min(60, event.deltaY)) / 180)
    if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) pan((event.deltaX || event.deltaY) / 900)
    else if ((event.altKey || event.ctrlKey) && pane) zoomAddresses(pane, factor, shareAt(event))
    else zoom(factor, placeAt(event))
  }, { passive: false })
  let held = null
  canvas.addEventListener("pointerdown", (event) => {
    held = { x: event.clientX, y: event.clientY, from: view.from, to: view.to, low: pane?.from, isMoved: false }
    canvas.setPointerCapture(event.pointerId)
  })
  canvas.addEventListener("pointermove", (event) => {
    if (!held || !event.buttons) return hover(event, describe(placeAt(event), pane ? shareAt(event) : 0, event))
    const moved = event.clientX - held.x
    if (Math.abs(moved) + Math.abs(event.clientY - held.y) > 4) held.isMoved = true
    if (!held.isMoved) return
    const span = held.to - held.from, place = held.from - (moved / canvas.clientWidth) * span
    setRange(place, place + span)
    if (pane && pane.to - pane.from < 1) dragAddresses(pane, held, event, canvas)
  })
  canvas.addEventListener("pointerup", (event) => {
    if (held && !held.isMoved) setMoment(clockAt(placeAt(event)), { isOther: event.shiftKey })
    held = null
  })
  canvas.addEventListener("pointerleave", () => hover(null))
  canvas.addEventListener("pointercancel", () => (held = null))
}

function dragAddresses(pane, held, event, canvas) {
  const span = pane.to - pane.from
  showAddresses(pane, held.low + ((event.clientY - held.y) / canvas.clientHeight) * span, span)
}

/** Show lines beside the pointer, nothing for null. */
function hover(event, lines) {
  dom.tip.hidden = !event || !lines?.length
  dom.hairline.hidden = !event
  if (!event) return
  dom.hairline.style.left = leftOf(event.offsetX / event.target.clientWidth)
  if (dom.tip.hidden) return
  dom.tip.replaceChildren(...lines.map((text, at) => element(at ? "div" : "b", { textContent: text })))
  const { offsetWidth, offsetHeight } = dom.tip
  dom.tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - offsetWidth - 8))}px`
  dom.tip.style.top = `${event.clientY + 18 + offsetHeight > innerHeight ? event.clientY - offsetHeight - 10 : event.clientY + 18}px`
}

// --- the moment, and the address of the view -------------------------------------------------------------------------

/** Choose a moment; with `isOther` it is what the chosen one is compared with. */
function setMoment(clock, { isOther = false, isShown = true } = {}) {
  const line = Math.min(Math.max(Math.round(clock), 1), run.head.last)
  if (isOther) view.other = line
  else [view.moment, view.other] = [line, null]
  if (isShown) reveal(line)
  redraw()
  showMoment()
}

/** Return where a share of the axis is in the stage, for a style. */
const leftOf = (share) => `calc(var(--gutter) + (100% - var(--gutter)) * ${share})`

function showCursor() {
  for (const [cursor, clock] of [[dom.cursor, view.moment], [dom.otherCursor, view.other]]) {
    const place = clock === null ? -1 : axisOf(clock) + (view.axis === "line" ? 0.5 : 0)
    const share = (place - view.from) / (view.to - view.from)
    cursor.hidden = clock === null || share < 0 || share > 1
    if (!cursor.hidden) cursor.style.left = leftOf(share)
  }
}

const shortNumber = (value) => String(+value.toPrecision(9))

/** Keep the view in the page's address, so that a link opens it again. */
function keepFragment() {
  const parts = [`space=${view.space}`, `line=${view.moment}`, `t=${shortNumber(view.from)}..${shortNumber(view.to)}`]
  if (view.axis !== "line") parts.push(`axis=${view.axis}`)
  if (view.other !== null) parts.push(`with=${view.other}`)
  if (view.tab !== "maps") parts.push(`tab=${view.tab}`)
  allPanes().forEach((pane, at) => {
    const isUsual = !pane.setScale || pane.isEven === pane.isBrk
    if (!isUsual || pane.to - pane.from < 1)
      parts.push(`pane${at}=${pane.isEven ? "even" : "true"}:${shortNumber(pane.from)}..${shortNumber(pane.to)}`)
  })
  const fragment = "#" + parts.join("&")
  clearTimeout(view.keeping)
  view.keeping = setTimeout(() => {
    if (location.hash !== fragment) history.replaceState(null, "", fragment)
  }, 150)
}

/** Take the view from the page's address. */
function readFragment() {
  const asked = new URLSearchParams(location.hash.slice(1))
  const whole = (name) => (/^\d+$/.test(asked.get(name) ?? "") ? Number(asked.get(name)) : null)
  const space = whole("space")
  view.axis = asked.get("axis") === "time" && run.seconds ? "time" : "line"
  chooseSpace(space !== null && space < run.head.spaces.length ? space : run.head.space)
  allPanes().forEach((pane, at) => {
    const [, scale, from, to] = /^(even|true):([\d.e-]+)\.\.([\d.e-]+)$/.exec(asked.get(`pane${at}`) ?? "") ?? []
    if (scale && pane.setScale) pane.setScale(scale === "even")
    if (Number(to) > Number(from)) showAddresses(pane, Number(from), Math.min(to - from, 1))
  })
  view.tab = Object.hasOwn(TABS, asked.get("tab") ?? "") ? asked.get("tab") : "maps"
  const line = whole("line"), other = whole("with")
  const range = /^([\d.e-]+)\.\.([\d.e-]+)$/.exec(asked.get("t") ?? "")
  if (range && Number(range[2]) > Number(range[1])) setRange(Number(range[1]), Number(range[2]))
  else showLife()
  setMoment(line ?? firstMoment(), { isShown: line !== null })
  if (other !== null) setMoment(other, { isOther: true, isShown: false })
}

/** Return the moment that is shown at first: the last refused break, else where most was mapped. */
function firstMoment() {
  const failures = [...view.marks].filter((row) => run.mark.kind[row] === 0)
  if (failures.length) return run.mark.clock[failures[failures.length - 1]]
  const chart = view.charts.find((each) => each.isStack)
  if (!chart) return run.head.last
  let best = 1, most = -1
  for (const clock of momentsOf(chart, 0, Infinity)) {
    const sum = chart.curves.reduce((total, curve) => total + (valueAt(curve, clock) ?? 0), 0)
    if (sum > most) [best, most] = [clock, sum]
  }
  return best
}
