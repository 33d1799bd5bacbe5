package httpjson

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/facetd/facetd/facet"
)

// ErrTooLarge is a body longer than its limit.
var ErrTooLarge = errors.New("the body is too large")

// ErrBusy is a body for which there is no memory now.
var ErrBusy = errors.New("too many large requests at once")

// Budget bounds the bytes of bodies held at once. The zero Budget is
// DefaultBudget. Whoever holds some may hold as much as is left for everybody else, so
// that one tenant with many large bodies takes half of it at most, and there is always
// room for the small bodies of the others.
type Budget struct {
	Limit int64

	mu   sync.Mutex
	used int64            // guarded by mu
	by   map[string]int64 // guarded by mu: of used, by holder
}

func (b *Budget) take(who string, n int64) bool {
	limit := b.Limit
	if limit == 0 {
		limit = DefaultBudget
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.by[who]+n > limit-b.used {
		return false
	}
	if b.by == nil {
		b.by = make(map[string]int64)
	}
	b.by[who] += n
	b.used += n
	return true
}

func (b *Budget) give(who string, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
	if b.by[who] -= n; b.by[who] == 0 {
		delete(b.by, who)
	}
}

// Used is the number of bytes taken now.
func (b *Budget) Used() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// Body is a request body in memory, and what it took from the budget.
type Body struct {
	Bytes  []byte
	spare  []byte // of Copy
	buf    *[]byte
	taken  int64
	budget *Budget
	who    string
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, firstRead); return &b }}

// ReadBody reads the body of r, at most limit bytes, growing with what really
// arrives, for who is to hold it: a tenant. Close must be called when nothing refers to
// the bytes any more.
func ReadBody(w http.ResponseWriter, r *http.Request, limit int64, budget *Budget, who string) (*Body, error) {
	if r.ContentLength > limit {
		return nil, ErrTooLarge
	}
	body := &Body{buf: buffers.Get().(*[]byte), budget: budget, who: who}
	err := body.read(w, r, limit)
	if err != nil {
		body.Close()
		return nil, err
	}
	return body, nil
}

func (b *Body) read(w http.ResponseWriter, r *http.Request, limit int64) error {
	rc := http.NewResponseController(w)
	src := http.MaxBytesReader(w, r.Body, limit)
	buf := (*b.buf)[:0]
	if !b.grow(int64(cap(buf))) {
		return ErrBusy
	}
	// A recorder in a test has no deadline; a deadline left behind would end the
	// watch for a peer that goes away.
	defer rc.SetReadDeadline(time.Time{})
	var pace pace
	for {
		if len(buf) == cap(buf) {
			if !b.grow(int64(cap(buf))) {
				return ErrBusy
			}
			buf = append(make([]byte, 0, 2*cap(buf)), buf...)
			*b.buf = buf
		}
		_ = rc.SetReadDeadline(pace.begin())
		n, err := src.Read(buf[len(buf):cap(buf)])
		pace.end(n)
		buf = buf[:len(buf)+n]
		if err == io.EOF {
			b.Bytes = buf
			return nil
		}
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return ErrTooLarge
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return facet.Errorf(facet.CodeTimeout, "the body stopped or came too slowly, after %d bytes; nothing was done", len(buf))
		case err != nil:
			return facet.Errorf(facet.CodeBadRequest, "the body broke off or is malformed, after %d bytes: %v", len(buf), err)
		}
	}
}

func (b *Body) grow(n int64) bool {
	if !b.budget.take(b.who, n) {
		return false
	}
	b.taken += n
	return true
}

// Copy gives the bytes for a decoder that writes over what it reads, while Bytes
// stay as they came. Each call takes back what an earlier one gave.
func (b *Body) Copy() ([]byte, error) {
	if b.spare == nil {
		if !b.grow(int64(len(b.Bytes))) {
			return nil, ErrBusy
		}
		b.spare = make([]byte, len(b.Bytes))
	}
	copy(b.spare, b.Bytes)
	return b.spare, nil
}

// Close gives the memory back. It may be called twice.
func (b *Body) Close() {
	if b.buf == nil {
		return
	}
	b.budget.give(b.who, b.taken)
	if cap(*b.buf) <= keepBuffer {
		buffers.Put(b.buf)
	}
	b.buf, b.Bytes, b.spare, b.taken = nil, nil, nil, 0
}

// pace is how long a peer has kept this side waiting, and for how much: whoever sends or
// takes a byte now and then would otherwise hold what he holds for ever.
type pace struct {
	began  time.Time
	waited time.Duration
	bytes  int64
}

// begin is the deadline of what is waited for now.
func (p *pace) begin() time.Time {
	p.began = time.Now()
	left := stallTimeout + time.Duration(p.bytes)*(time.Second/minPace) - p.waited
	return p.began.Add(min(left, stallTimeout))
}

// end notes that n bytes came or went.
func (p *pace) end(n int) {
	p.waited += time.Since(p.began)
	p.bytes += int64(n)
}

// Stall is a request body or an answer of any length whose peer must keep it
// moving: every read and write gets its own deadline.
type Stall struct {
	R  io.Reader
	W  io.Writer
	rc *http.ResponseController

	in, out pace
}

// NewStall watches over the body of r and the answer w.
func NewStall(w http.ResponseWriter, r *http.Request) *Stall {
	return &Stall{R: r.Body, W: w, rc: http.NewResponseController(w)}
}

func (s *Stall) Read(p []byte) (int, error) {
	_ = s.rc.SetReadDeadline(s.in.begin())
	n, err := s.R.Read(p)
	s.in.end(n)
	return n, err
}

func (s *Stall) Write(p []byte) (int, error) {
	_ = s.rc.SetWriteDeadline(s.out.begin())
	n, err := s.W.Write(p)
	s.out.end(n)
	return n, err
}
