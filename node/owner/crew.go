package owner

import "sync"

// crew lends goroutines to desks that have work. A goroutine that has run SQLite
// once has a stack deep enough for it; a fresh one would copy its stack several
// times on the way down, which cost an eighth of all time under load. So
// goroutines are kept, the one used last first, as long as there are few.
//
// Its methods may be called from any goroutine.
type crew struct {
	mu     sync.Mutex
	idle   []*worker
	closed bool
	wg     *sync.WaitGroup
}

// maxIdleWorkers bounds the goroutines kept without work: 64 stacks of 64 KiB.
const maxIdleWorkers = 64

type worker struct {
	crew *crew
	desk chan *desk
}

// serve has a goroutine serve the desk.
func (c *crew) serve(d *desk) {
	c.mu.Lock()
	if n := len(c.idle); n > 0 {
		w := c.idle[n-1]
		c.idle = c.idle[:n-1]
		c.mu.Unlock()
		w.desk <- d
		return
	}
	c.mu.Unlock()
	w := &worker{crew: c, desk: make(chan *desk, 1)}
	w.desk <- d
	c.wg.Go(func() {
		var deep [stackHeld]byte
		w.run(&deep)
	})
}

// stackHeld keeps a waiting goroutine's stack in use, because the garbage
// collector halves stacks that are used to less than a quarter.
const stackHeld = 20 << 10

//go:noinline
func (w *worker) run(deep *[stackHeld]byte) {
	for d := range w.desk {
		deep[0]++ // the array is in use up to here
		d.serve()
		if !w.crew.rest(w) {
			return
		}
	}
}

// rest takes a worker back. It reports false when there are enough.
func (c *crew) rest(w *worker) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || len(c.idle) >= maxIdleWorkers {
		return false
	}
	c.idle = append(c.idle, w)
	return true
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
	c.mu.Unlock()
	c.trim()
}
