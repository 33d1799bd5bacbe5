package owner

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/facetd/facetd/facet/engine"
)

// crew lends goroutines to desks that have work. A goroutine that has run SQLite
// once has a stack deep enough for it; a fresh one would copy its stack several
// times on the way down, which cost an eighth of all time under load. So
// goroutines are kept, the one used last first, as long as there are few.
//
// And few work at a time. Waking a goroutine for every desk costs a wakeup of a
// processor, often of a thread, for some microseconds of work; so desks wait in
// line while hands of the crew, a little more than there are processors, go from
// one to the next. A worker that waits does not count as one at work: it says so
// where it knows (step aside), and where it cannot know, in a long statement or a
// read from a slow disk, the watch finds out: when nobody came back to the line for
// a watchEvery, all who are at work are counted out and others take their places.
//
// Desks in line are taken by tenants in turn, see turns: a tenant with a thousand busy
// facets has one turn like one with a single request. A desk whose requests go on for
// longer than a turn goes to the end of its tenant's line as long as anybody waits.
//
// Invariant: desks wait only if working >= hands, the crew is about to be given a worker,
// or their tenants have as many workers as one may have; then the watch is armed.
//
// Its methods may be called from any goroutine.
type crew struct {
	mu     sync.Mutex
	idle   []*worker
	line   turns
	out    []*worker // serve a desk and are counted in working
	hands  int       // bound of working; 0 is the default
	watch  *time.Timer
	armed  bool
	taken  uint64 // desks taken from the line so far
	seen   uint64 // taken when the watch looked last
	closed bool
	wg     *sync.WaitGroup

	waited atomic.Bool // whether desks wait in line; see desk.serve
}

const (
	// maxIdleWorkers bounds the goroutines kept without work: 64 stacks of 64 KiB.
	maxIdleWorkers = 64

	// watchEvery is how long a desk may wait in line while nobody takes one: far
	// longer than a quick request takes, also where processors are short (a shorter
	// one sent more to work than there were processors, and cost a tenth of the reads),
	// shorter than anybody notices.
	watchEvery = 4 * time.Millisecond
)

// defaultHands is one more than there are processors: when one waits for a page
// from disk, the others do not.
func defaultHands() int { return runtime.NumCPU() + 1 }

type worker struct {
	crew  *crew
	desk  chan *desk
	place int       // in crew.out, -1 if it is not counted
	share *share    // whose desk it serves, nil while it waits for something else
	since time.Time // when it began to
}

// serve has a goroutine serve the desk, now or when one is free. The line holds no
// desk twice, so it is bounded by the number of desks.
func (c *crew) serve(d *desk) {
	c.mu.Lock()
	if c.hands == 0 {
		c.hands = defaultHands()
		c.line.most = mostOfOne(c.hands)
	}
	if len(c.out) >= c.hands || c.line.waiting > 0 || d.share.busy >= c.line.most {
		c.wait(d)
		c.mu.Unlock()
		return
	}
	w := c.hire()
	w.begin(d)
	c.mu.Unlock()
	w.desk <- d
}

// wait puts a desk in line; mu is held.
func (c *crew) wait(d *desk) {
	c.line.add(d)
	c.waited.Store(true)
	if !c.armed {
		c.arm()
	}
}

// begin and end say whose desk the worker serves; mu is held.
func (w *worker) begin(d *desk) {
	w.share, w.since = d.share, time.Now()
	w.share.busy++
}

func (w *worker) end() {
	if w.share != nil {
		w.share.busy--
		w.share.charge(time.Since(w.since))
		w.share = nil
	}
}

// hire takes an idle worker or a new one to work; mu is held.
func (c *crew) hire() *worker {
	var w *worker
	if n := len(c.idle); n > 0 {
		w = c.idle[n-1]
		c.idle[n-1] = nil
		c.idle = c.idle[:n-1]
	} else {
		w = &worker{crew: c, desk: make(chan *desk, 1)}
		c.wg.Go(func() {
			growStack(new(byte))
			w.hold()
		})
	}
	c.count(w)
	return w
}

// count and discount keep out; mu is held.
func (c *crew) count(w *worker) {
	w.place = len(c.out)
	c.out = append(c.out, w)
}

func (c *crew) discount(w *worker) {
	if w.place < 0 {
		return
	}
	n := len(c.out) - 1
	c.out[w.place] = c.out[n]
	c.out[w.place].place = w.place
	c.out[n] = nil
	c.out = c.out[:n]
	w.place = -1
}

// take takes the desk whose turn it is, nil if there is none; mu is held.
func (c *crew) take() *desk {
	d := c.line.take()
	if d != nil {
		c.taken++
		c.waited.Store(c.line.waiting > 0)
	}
	return d
}

// fill hires for desks in line as long as hands are free, and returns what is to be
// handed out once mu is released.
func (c *crew) fill() (ws []*worker, ds []*desk) {
	for len(c.out) < c.hands {
		d := c.take()
		if d == nil {
			break
		}
		w := c.hire()
		w.begin(d)
		ws, ds = append(ws, w), append(ds, d)
	}
	return ws, ds
}

func hand(ws []*worker, ds []*desk) {
	for i, w := range ws {
		w.desk <- ds[i]
	}
}

// arm starts the watch; mu is held.
func (c *crew) arm() {
	c.armed, c.seen = true, c.taken
	if c.watch == nil {
		c.watch = time.AfterFunc(watchEvery, c.look)
		return
	}
	c.watch.Reset(watchEvery)
}

// look is the watch: see crew.
func (c *crew) look() {
	c.mu.Lock()
	if c.line.waiting == 0 {
		c.armed = false
		c.mu.Unlock()
		return
	}
	if c.taken == c.seen {
		for len(c.out) > 0 {
			c.discount(c.out[len(c.out)-1])
		}
	}
	ws, ds := c.fill()
	c.arm()
	c.mu.Unlock()
	hand(ws, ds)
}

// aside tells that the worker is going to wait for something else than a
// processor; its place goes to another. It is counted again when it is back.
func (w *worker) aside() {
	c := w.crew
	c.mu.Lock()
	w.end()
	c.discount(w)
	ws, ds := c.fill()
	c.mu.Unlock()
	hand(ws, ds)
}

// stackHeld keeps a waiting goroutine's stack in use, because the garbage
// collector halves stacks that are used to less than a quarter. stackGrown has the
// stack grow to what SQLite needs in one step, while there is nothing on it to copy.
const (
	stackHeld  = 20 << 10
	stackGrown = 40 << 10
)

//go:noinline
func growStack(b *byte) {
	var deep [stackGrown]byte
	*b = deep[int(*b)]
}

//go:noinline
func (w *worker) hold() {
	var deep [stackHeld]byte
	w.run(&deep)
}

//go:noinline
func (w *worker) run(deep *[stackHeld]byte) {
	for d := range w.desk {
		for d != nil {
			deep[0]++ // the array is in use up to here
			d.worker = w
			var unfinished *desk
			if d.serve() {
				unfinished = d
			}
			next, ahead, stays := w.crew.next(w, unfinished)
			if !stays {
				return
			}
			// While d is served the lines of those after it arrive.
			if h := hot(ahead[0]); h != nil {
				h.Prefetch()
			}
			if h := hot(ahead[1]); h != nil {
				h.PrefetchList()
			}
			d = next
		}
	}
}

func hot(d *desk) *engine.Hot {
	if d == nil {
		return nil
	}
	return d.hot.Load()
}

// next gives a worker who has served a desk the next one, and tells who comes after
// it, or takes the worker back. It reports false when there are enough idle ones. A desk
// whose turn was over before its work was done goes in line again.
func (c *crew) next(w *worker, unfinished *desk) (d *desk, ahead [2]*desk, stays bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w.end()
	c.discount(w)
	if unfinished != nil {
		c.wait(unfinished)
	}
	if len(c.out) < c.hands {
		if d = c.take(); d != nil {
			c.count(w)
			w.begin(d)
			ahead = c.line.ahead()
			return d, ahead, true
		}
	}
	if c.closed || len(c.idle) >= maxIdleWorkers {
		return nil, ahead, false
	}
	c.idle = append(c.idle, w)
	return nil, ahead, true
}

// trim lets the idle goroutines go.
func (c *crew) trim() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.idle {
		close(w.desk)
	}
	c.idle = nil
}

// close lets all goroutines go, busy ones when they are done.
func (c *crew) close() {
	c.mu.Lock()
	c.closed = true
	if c.watch != nil {
		c.watch.Stop()
	}
	c.mu.Unlock()
	c.trim()
}
